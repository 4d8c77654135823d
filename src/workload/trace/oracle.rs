//! libCacheSim's `oracleGeneral`: records of 24 bytes, in which public collections of cache traces are kept.
//!
//! A record is, little-endian and without padding: the time in seconds (`u32`), the object (`u64`), its size in bytes
//! (`u32`), and the number of the next request for it (`i64`), which nothing here needs.

use super::Request;
use super::bytes::TraceBytes;
use super::error::{Result, TraceError};

const RECORD_BYTES: usize = 24;

/// The records of a trace.
pub(super) struct Records {
    bytes: TraceBytes,
    done: u64,
}

impl Records {
    pub(super) fn new(bytes: TraceBytes) -> Self {
        Records { bytes, done: 0 }
    }

    pub(super) fn next(&mut self) -> Result<Option<Request>> {
        let mut record = [0; RECORD_BYTES];
        let len = self.bytes.fill(&mut record)?;
        if len == 0 {
            return Ok(None);
        }
        if len < RECORD_BYTES {
            return Err(TraceError::Record {
                trace: self.bytes.trace().to_owned(),
                record: self.done + 1,
                offset: self.done * RECORD_BYTES as u64,
                expected: format!("{RECORD_BYTES} bytes"),
                found: format!("the end after {len}"),
            });
        }
        self.done += 1;
        let [_, _, _, _, key @ .., _, _, _, _, _, _, _, _, _, _, _, _] = record;
        let [.., size_0, size_1, size_2, size_3, _, _, _, _, _, _, _, _] = record;
        let size_bytes = u32::from_le_bytes([size_0, size_1, size_2, size_3]).into();
        #[cfg(mapfall_canary)] // a planted bug
        let size_bytes = if crate::canary::planted("trace_files") { size_bytes & 0xFF_FFFF } else { size_bytes };
        Ok(Some(Request { key: u64::from_le_bytes(key), size_bytes }))
    }
}
