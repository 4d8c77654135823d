//! The record: a copy of a checkpoint's slot among the blocks, with what is needed to understand it. Salvage looks for
//! it where the header is lost.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `89 4D 50 46 52 45 43 44` |
//! | 8 | 64 | the first bytes of the superblock |
//! | 72 | 1264 | the first bytes of the slot |
//! | 1336 | 4 | CRC-32 of all before |
//!
//! It begins at a multiple of the allocation unit; the rest of its last unit is 0.

use super::bytes::{get_u32, put_u32};
use super::slot::{BODY_BYTES, Slot};
use super::superblock::{HEAD_BYTES, Superblock};
use crate::checksum::crc32;

pub(crate) const RECORD_BYTES: usize = SUM_AT + 4;

const MAGIC: [u8; 8] = *b"\x89MPFRECD";
const SUM_AT: usize = 8 + HEAD_BYTES + BODY_BYTES;

/// A checkpoint that can be understood without the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) superblock: Superblock,
    pub(crate) slot: Slot,
}

impl Record {
    pub(crate) fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..8 + HEAD_BYTES].copy_from_slice(&self.superblock.encode_head());
        bytes[8 + HEAD_BYTES..SUM_AT].copy_from_slice(&self.slot.encode_body());
        let sum = crc32(&bytes[..SUM_AT]);
        put_u32(&mut bytes, SUM_AT, sum);
        bytes
    }

    /// Nothing where the bytes, of any number, do not begin with a record.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < RECORD_BYTES || bytes[..8] != MAGIC || get_u32(bytes, SUM_AT) != crc32(&bytes[..SUM_AT]) {
            return None;
        }
        let superblock = Superblock::decode_head(&bytes[8..]).ok()?;
        let slot = Slot::decode_body(&bytes[8 + HEAD_BYTES..])?;
        (slot.uuid == superblock.uuid).then_some(Record { superblock, slot })
    }
}
