//! A store's file in memory, which notices work out of proportion.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use mapfall::{BlockIo, Error, IoStats, Operation, Result, SyncKind};

/// No file that a target makes is longer.
const LEN_BYTES_MAX: u64 = 8 << 20;
/// No store that a target makes is read so often.
const READS_MAX: u64 = 200_000;

/// Plain bytes as a file. Clones are the same file.
#[derive(Clone, Debug, Default)]
pub struct MemoryFile {
    bytes: Arc<Mutex<Vec<u8>>>,
    reads: Arc<AtomicU64>,
}

impl MemoryFile {
    pub fn new(bytes: Vec<u8>) -> Self {
        MemoryFile { bytes: Arc::new(Mutex::new(bytes)), reads: Arc::default() }
    }

    pub fn boxed(&self) -> Box<dyn BlockIo> {
        Box::new(self.clone())
    }

    /// Reads are counted afresh.
    pub fn rewind(&self) {
        self.reads.store(0, Relaxed);
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("no panic before").clone()
    }

    fn with<T>(&self, run: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        run(&mut self.bytes.lock().expect("no panic before"))
    }
}

fn refused(operation: Operation, len_bytes: u64) -> Error {
    let source = std::io::ErrorKind::FileTooLarge.into();
    Error::Io { operation, path: Path::new("(memory)").into(), offset: 0, len_bytes, source }
}

impl BlockIo for MemoryFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        assert!(self.reads.fetch_add(1, Relaxed) < READS_MAX, "a small file is read over and over");
        self.with(|bytes| {
            let end = offset.saturating_add(buf.len() as u64);
            if buf.is_empty() {
                return Ok(());
            }
            if end > bytes.len() as u64 {
                let (wanted_bytes, file_len_bytes) = (buf.len() as u64, bytes.len() as u64);
                return Err(Error::PastEnd { offset, wanted_bytes, file_len_bytes });
            }
            buf.copy_from_slice(&bytes[offset as usize..end as usize]);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, new: &[u8]) -> Result<()> {
        let end = offset.saturating_add(new.len() as u64);
        if end > LEN_BYTES_MAX {
            return Err(refused(Operation::Write, new.len() as u64));
        }
        self.with(|bytes| {
            bytes.resize(bytes.len().max(end as usize), 0);
            bytes[offset as usize..end as usize].copy_from_slice(new);
        });
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.with(|bytes| bytes.len() as u64))
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        if len_bytes > LEN_BYTES_MAX {
            return Err(refused(Operation::SetLen, len_bytes));
        }
        self.with(|bytes| bytes.resize(len_bytes as usize, 0));
        Ok(())
    }

    fn sync(&self, _kind: SyncKind) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> IoStats {
        IoStats::default()
    }
}
