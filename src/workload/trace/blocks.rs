//! Block traces: ranges of sectors, as disks see them, each taken apart into the blocks that a cache would hold.

use std::ops::Range;

use twox_hash::XxHash3_64;

use super::error::Result;
use super::lines::{Lines, number};
use super::{Blocks, Request};

const SECTOR_BYTES: u64 = 512;
/// No request is longer: it would be a hole in the file taken for a number.
const REQUEST_BYTES_MAX: u64 = 1 << 30;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `start count ignored number`, in sectors.
    Arc,
    /// `ASU,LBA,size,opcode,timestamp`, the address in sectors and the size in bytes.
    Spc,
}

/// A range of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    device: u64,
    start: u64,
    bytes: u64,
}

/// The requests of a block trace.
pub(super) struct BlockRequests {
    lines: Lines,
    layout: Layout,
    blocks: Blocks,
    device: u64,
    /// Blocks of the last line that were not yet asked for.
    left: Range<u64>,
}

impl BlockRequests {
    pub(super) fn new(lines: Lines, layout: Layout, blocks: Blocks) -> Self {
        BlockRequests { lines, layout, blocks, device: 0, left: 0..0 }
    }

    pub(super) fn next(&mut self) -> Result<Option<Request>> {
        loop {
            if let (Blocks::Each { bytes }, Some(block)) = (self.blocks, self.left.next()) {
                return Ok(Some(Request { key: key(self.device, block), size_bytes: bytes.get() }));
            }
            if !self.lines.advance()? {
                return Ok(None);
            }
            let extent = match self.layout {
                Layout::Arc => self.arc()?,
                Layout::Spc => self.spc()?,
            };
            match self.blocks {
                Blocks::Each { bytes } if extent.bytes > 0 => {
                    self.device = extent.device;
                    self.left = extent.start / bytes..(extent.start + extent.bytes).div_ceil(bytes.get());
                }
                // One that asks for nothing is counted as such by whoever sees its size.
                Blocks::Whole | Blocks::Each { .. } => {
                    return Ok(Some(Request { key: key(extent.device, extent.start), size_bytes: extent.bytes }));
                }
            }
        }
    }

    fn arc(&self) -> Result<Extent> {
        let expected = "START COUNT IGNORED NUMBER (four numbers, the first two in sectors of 512 bytes)";
        let line = self.lines.line();
        let [start, count, ..] = arc_fields(line).ok_or_else(|| self.lines.unexpected(expected))?;
        let bytes = count.checked_mul(SECTOR_BYTES);
        self.extent(0, start, bytes)
    }

    fn spc(&self) -> Result<Extent> {
        let fields = spc_fields(self.lines.line());
        let expected = "ASU,LBA,SIZE,OPCODE,TIMESTAMP";
        let [asu, lba, size, opcode, timestamp] = fields.ok_or_else(|| self.lines.unexpected(expected))?;
        let integer = |what: &str, field| number(field).ok_or_else(|| self.lines.unexpected_field(what, field));
        let asu = integer("the ASU as a number in the first field", asu)?;
        let lba = integer("the address in sectors of 512 bytes in the second field", lba)?;
        let bytes = integer("the size in bytes in the third field", size)?;
        if !is_opcode(opcode) {
            return Err(self.lines.unexpected_field("the opcode R or W in the fourth field", opcode));
        }
        if !is_timestamp(timestamp) {
            return Err(self.lines.unexpected_field("the time in seconds in the fifth field", timestamp));
        }
        self.extent(asu, lba, Some(bytes))
    }

    fn extent(&self, device: u64, sector: u64, bytes: Option<u64>) -> Result<Extent> {
        let expected = "a request of at most 1 GiB";
        let bytes = bytes.filter(|bytes| *bytes <= REQUEST_BYTES_MAX).ok_or_else(|| self.lines.unexpected(expected))?;
        let start = sector.checked_mul(SECTOR_BYTES).filter(|start| start.checked_add(bytes).is_some());
        let expected = "an address in sectors below 2^55";
        let start = start.ok_or_else(|| self.lines.unexpected(expected))?;
        Ok(Extent { device, start, bytes })
    }
}

/// The numbers of a line of ARC's traces, where it is one.
pub(super) fn arc_fields(line: &[u8]) -> Option<[u64; 4]> {
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).map(number);
    let numbers = [fields.next()??, fields.next()??, fields.next()??, fields.next()??];
    fields.next().is_none().then_some(numbers)
}

/// The first five fields of a line of an SPC trace, where it has so many.
fn spc_fields(line: &[u8]) -> Option<[&[u8]; 5]> {
    let mut fields = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    Some([fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?])
}

/// Whether a line looks like one of an SPC trace.
pub(super) fn is_spc(line: &[u8]) -> bool {
    spc_fields(line).is_some_and(|[asu, lba, size, opcode, timestamp]| {
        [asu, lba, size].into_iter().all(|field| number(field).is_some())
            && is_opcode(opcode)
            && is_timestamp(timestamp)
    })
}

fn is_opcode(field: &[u8]) -> bool {
    matches!(field, b"R" | b"r" | b"W" | b"w")
}

fn is_timestamp(field: &[u8]) -> bool {
    let seconds = std::str::from_utf8(field).ok().and_then(|text| text.parse::<f64>().ok());
    seconds.is_some_and(|seconds| seconds.is_finite() && seconds >= 0.0)
}

/// The same number on another device is another block.
fn key(device: u64, number: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&device.to_le_bytes());
    bytes[8..].copy_from_slice(&number.to_le_bytes());
    XxHash3_64::oneshot(&bytes)
}
