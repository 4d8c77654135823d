//! The bytes of a trace: a file, unpacked on the way where it is compressed, and how far it was read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::error::{Result, TraceError};

const BUFFER_BYTES: usize = 256 << 10;
pub(super) const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
pub(super) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A trace's bytes, after decompression.
pub(super) struct TraceBytes {
    trace: String,
    reader: Box<dyn BufRead + Send>,
    compressed: bool,
    done_bytes: u64,
}

impl TraceBytes {
    /// Opens a file. Whether it is compressed is told by its first bytes. `progress` counts what is read of the file
    /// itself.
    pub(super) fn open(path: &Path, trace: &str, progress: Arc<AtomicU64>) -> Result<TraceBytes> {
        let failed = |source| TraceError::Open { trace: trace.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let is_dir = file.metadata().map_err(failed)?.is_dir();
        if is_dir {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        TraceBytes::unpack(BufReader::with_capacity(BUFFER_BYTES, Counted { inner: file, progress }), trace)
    }

    fn unpack(mut packed: impl BufRead + Send + 'static, trace: &str) -> Result<TraceBytes> {
        let failed =
            |compressed| move |source| TraceError::Read { trace: trace.to_owned(), done_bytes: 0, compressed, source };
        let head = packed.fill_buf().map_err(failed(false))?;
        let (is_gzip, is_zstd) = (head.starts_with(&GZIP_MAGIC), head.starts_with(&ZSTD_MAGIC));
        let reader: Box<dyn BufRead + Send> = if is_gzip {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(packed)))
        } else if is_zstd {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, ZstdFrames::new(packed)))
        } else {
            Box::new(packed)
        };
        Ok(TraceBytes { trace: trace.to_owned(), reader, compressed: is_gzip || is_zstd, done_bytes: 0 })
    }

    pub(super) fn trace(&self) -> &str {
        &self.trace
    }

    /// What comes next, as much as is in the buffer: nothing only at the end.
    pub(super) fn peek(&mut self) -> Result<&[u8]> {
        let (trace, done_bytes, compressed) = (&self.trace, self.done_bytes, self.compressed);
        loop {
            match self.reader.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(TraceError::Read { trace: trace.clone(), done_bytes, compressed, source });
                }
            }
        }
        // The buffer is full now, so that nothing is read: asked again, since a loop cannot return what it borrows.
        self.reader.fill_buf().map_err(|source| TraceError::Read {
            trace: trace.clone(),
            done_bytes,
            compressed,
            source,
        })
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.done_bytes += len as u64;
        self.reader.consume(len);
    }

    /// Fills `record`, or as much of it as there is. Returns how much that is.
    pub(super) fn fill(&mut self, record: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < record.len() {
            let next = self.peek()?;
            let len = next.len().min(record.len() - filled);
            if len == 0 {
                break;
            }
            record[filled..filled + len].copy_from_slice(&next[..len]);
            self.consume(len);
            filled += len;
        }
        Ok(filled)
    }
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    progress: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.progress.fetch_add(len as u64, Relaxed);
        Ok(len)
    }
}

/// The frames of a zstd file one after another. The decoder knows only one, and does not look at its checksum.
struct ZstdFrames<R> {
    packed: R,
    frame: FrameDecoder,
    is_inside: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(packed: R) -> Self {
        ZstdFrames { packed, frame: FrameDecoder::new(), is_inside: false }
    }

    /// Begins a frame, or passes over one that holds something else than data.
    fn next_frame(&mut self) -> io::Result<()> {
        match self.frame.init(&mut self.packed) {
            Ok(()) => self.is_inside = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let skipped = io::copy(&mut self.packed.by_ref().take(length.into()), &mut io::sink())?;
                if skipped < u64::from(length) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(())
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.is_inside = false;
        match (self.frame.get_checksum_from_data(), self.frame.get_calculated_checksum()) {
            (Some(expected), Some(found)) if expected != found => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("expected checksum {expected:08x} of a zstd frame, found {found:08x}"),
            )),
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_inside {
                if self.packed.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.next_frame()?;
                continue;
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                let blocks = BlockDecodingStrategy::UptoBlocks(1);
                self.frame.decode_blocks(&mut self.packed, blocks).map_err(io::Error::other)?;
            }
            let len = self.frame.read(buf)?;
            if len > 0 {
                return Ok(len);
            }
            self.end_frame()?;
        }
    }
}
