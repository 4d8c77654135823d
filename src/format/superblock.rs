//! The superblock: what never changes about a file. 512 bytes, at offset 0 and again at 4096.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `89 4D 41 50 46 41 4C 4C` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | allocation unit, bytes |
//! | 16 | 4 | page, bytes |
//! | 20 | 1 | checksum kind |
//! | 21 | 3 | 0 |
//! | 24 | 8 | features that any version may ignore |
//! | 32 | 8 | features that a version that does not know them may read, but not write |
//! | 40 | 8 | features that a version that does not know them may not even read |
//! | 48 | 16 | UUID of the file |
//! | 64 | 444 | 0 |
//! | 508 | 4 | CRC-32 of all before |

use super::Geometry;
use super::bytes::{get_u32, get_u64, put_u32, put_u64};
use crate::checksum::{ChecksumKind, crc32};

pub(crate) const SUPERBLOCK_BYTES: usize = 512;
/// The part that says something.
pub(crate) const HEAD_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"\x89MAPFALL";
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The features that this version knows, by class: none yet.
const KNOWN_READ_COMPATIBLE: u64 = 0;
const KNOWN_INCOMPATIBLE: u64 = 0;

/// What never changes about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) geometry: Geometry,
    pub(crate) checksum: ChecksumKind,
    pub(crate) features_compatible: u64,
    pub(crate) features_read_compatible: u64,
    pub(crate) uuid: [u8; 16],
}

/// Why bytes are no superblock for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SuperblockProblem {
    /// Not one of ours.
    Magic,
    /// One of ours once, and damaged.
    Damaged(String),
    /// One of ours, and newer.
    Newer(String),
}

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        bytes[..HEAD_BYTES].copy_from_slice(&self.encode_head());
        let sum = crc32(&bytes[..SUPERBLOCK_BYTES - 4]);
        put_u32(&mut bytes, SUPERBLOCK_BYTES - 4, sum);
        bytes
    }

    pub(crate) fn encode_head(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        put_u32(&mut bytes, 8, FORMAT_VERSION);
        put_u32(&mut bytes, 12, self.geometry.unit_bytes);
        put_u32(&mut bytes, 16, self.geometry.page_bytes);
        bytes[20] = self.checksum.code();
        put_u64(&mut bytes, 24, self.features_compatible);
        put_u64(&mut bytes, 32, self.features_read_compatible);
        bytes[48..64].copy_from_slice(&self.uuid);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Self, SuperblockProblem> {
        if bytes[..8] != MAGIC {
            return Err(SuperblockProblem::Magic);
        }
        let (expected, found) = (get_u32(bytes, SUPERBLOCK_BYTES - 4), crc32(&bytes[..SUPERBLOCK_BYTES - 4]));
        if expected != found {
            let problem = format!("expected checksum {expected:08x}, found {found:08x}");
            return Err(SuperblockProblem::Damaged(problem));
        }
        Self::decode_head(bytes)
    }

    /// `bytes` are at least [`HEAD_BYTES`], and proven by a checksum.
    pub(crate) fn decode_head(bytes: &[u8]) -> Result<Self, SuperblockProblem> {
        if bytes[..8] != MAGIC {
            return Err(SuperblockProblem::Magic);
        }
        let version = get_u32(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(SuperblockProblem::Newer(format!("expected format version {FORMAT_VERSION}, found {version}")));
        }
        let incompatible = get_u64(bytes, 40) & !KNOWN_INCOMPATIBLE;
        if incompatible != 0 {
            return Err(SuperblockProblem::Newer(format!("unknown incompatible features {incompatible:#x}")));
        }
        let (unit_bytes, page_bytes) = (get_u32(bytes, 12), get_u32(bytes, 16));
        let geometry = Geometry::new(unit_bytes, page_bytes);
        #[cfg(mapfall_canary)] // a planted bug
        let geometry = geometry.or(crate::canary::planted("superblock").then_some(Geometry { unit_bytes, page_bytes }));
        let geometry = geometry.ok_or_else(|| {
            SuperblockProblem::Damaged(format!("no such sizes: unit of {unit_bytes} bytes, page of {page_bytes} bytes"))
        })?;
        let checksum = ChecksumKind::from_code(bytes[20])
            .ok_or_else(|| SuperblockProblem::Newer(format!("unknown checksum kind {}", bytes[20])))?;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[48..64]);
        let (features_compatible, features_read_compatible) = (get_u64(bytes, 24), get_u64(bytes, 32));
        Ok(Superblock { geometry, checksum, features_compatible, features_read_compatible, uuid })
    }

    /// The features because of which this version may not write.
    pub(crate) fn write_obstacles(&self) -> u64 {
        self.features_read_compatible & !KNOWN_READ_COMPATIBLE
    }
}
