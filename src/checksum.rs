//! The checksums of a store's file: which kinds there are, and what makes the checksum of a block its own.
//!
//! What follows is a part of the file format and never changes. All arithmetic is on unsigned 64-bit words and drops
//! what overflows; `^` is exclusive or, `>>` a logical shift, `low32` the value of the 32 least significant bits.
//!
//! # The checksum of a block
//!
//! A block has an offset in its file, in bytes, and a generation, both numbers of 64 bits. Its file has a UUID, the 16
//! bytes `u[0]` to `u[15]` as they are stored. The checksum is
//!
//! ```text
//! checksum = plain(bytes of the block) ^ seed
//! seed     = low32(low32(mix(mix(file ^ offset) ^ (generation >> 32))) + low32(generation))
//! file     = mix(mix(low) ^ high)
//! low      = u[0] + u[1] * 2^8 + ... + u[7] * 2^56         (little-endian)
//! high     = u[8] + u[9] * 2^8 + ... + u[15] * 2^56
//! ```
//!
//! where `mix(z)` is one step of SplitMix64 from the state `z`:
//!
//! ```text
//! z = z + 0x9E3779B97F4A7C15
//! z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
//! z = (z ^ (z >> 27)) * 0x94D049BB133111EB
//! mix = z ^ (z >> 31)
//! ```
//!
//! and `plain` depends on the kind, which is one byte in the superblock:
//!
//! - 1, `crc32`: CRC-32/ISO-HDLC, as zlib, gzip and Ethernet have it. The polynomial is 0x04C11DB7, bits are reflected
//!   in and out, the register begins as 0xFFFFFFFF, and the result is `^ 0xFFFFFFFF`.
//! - 3, `xxh3`: `low32` of `XXH3_64bits` of xxHash 0.8, that is with the default secret and without a seed.
//!
//! 2 is kept for CRC-32C. Superblocks and slots have `plain` of kind 1 whatever the kind of the file.
//!
//! An example: the UUID has the bytes 0, 1, 2 to 15, the offset is 4096, the generation 7, and the block consists of
//! the nine letters `123456789`. Then `file` is 0x3BD7DA872621A485 and `seed` 0x7B47F3CB; `plain` is 0xCBF43926 for
//! `crc32` and 0x67A17DFF for `xxh3`, and the checksum 0xB0B3CAED or 0x1CE68E34.
//!
//! # Why so
//!
//! The seed does not go through `plain`. So any implementation of `plain` will do, it finds what it is known to find,
//! and the same bytes have the same checksum only where the seeds are the same.
//!
//! The lower half of the generation is added and not mixed in: two generations of one place never have the same seed
//! if they agree in the upper half. A block that should have been overwritten and was not is thus always found, where
//! its checksum lies beside it. Another place, another file or another upper half is missed once in 2^32.

use std::fmt;
use std::str::FromStr;

use twox_hash::XxHash3_64;

use crate::error::Error;

/// How the blocks of a store are checked: a property of its file, chosen when the file is made.
///
/// Either misses one change of a block in 2^32. They differ in what they cost, and that depends on the processor:
/// `cargo bench --bench checksum` tells.
///
/// ```
/// use mapfall::ChecksumKind;
///
/// let kind: ChecksumKind = "xxh3".parse()?;
/// assert_eq!(kind, ChecksumKind::Xxh3);
/// assert_eq!(ChecksumKind::default().to_string(), "crc32");
/// # Ok::<(), mapfall::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ChecksumKind {
    /// CRC-32/ISO-HDLC, the CRC-32 of zlib. It never misses a change inside 32 consecutive bits, and is up to twice
    /// as fast as the other where the processor multiplies without carries in wide registers (`VPCLMULQDQ`).
    #[default]
    Crc32 = 1,
    /// The low 32 bits of XXH3-64: several times as fast as the other where the processor has no carry-less
    /// multiplication, and a little faster where it has that in 128 bits only.
    Xxh3 = 3,
}

impl ChecksumKind {
    /// Every kind there is.
    pub const ALL: [ChecksumKind; 2] = [ChecksumKind::Crc32, ChecksumKind::Xxh3];

    /// The kind's name in options, tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ChecksumKind::Crc32 => "crc32",
            ChecksumKind::Xxh3 => "xxh3",
        }
    }

    /// The byte that stands for the kind in a superblock.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// The kind that a superblock's byte stands for, if there is one.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        ChecksumKind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The checksum of the bytes as such, wherever they are.
    #[inline]
    fn plain(self, bytes: &[u8]) -> u32 {
        match self {
            ChecksumKind::Crc32 => crc32(bytes),
            ChecksumKind::Xxh3 => low32(XxHash3_64::oneshot(bytes)),
        }
    }
}

impl fmt::Display for ChecksumKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By [`ChecksumKind::name`]. Any other text is an [`Error::InvalidOption`].
impl FromStr for ChecksumKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        ChecksumKind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| Error::InvalidOption {
            option: "checksum",
            expected: "crc32 or xxh3",
            found: text.escape_debug().to_string(),
        })
    }
}

/// What makes a block's checksum its own: the same bytes at another place, of another generation or in another file
/// have another checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeds {
    file: u64,
    kind: ChecksumKind,
}

impl Seeds {
    /// For the blocks of the file that has this UUID.
    pub(crate) fn new(kind: ChecksumKind, uuid: &[u8; 16]) -> Self {
        let uuid = u128::from_le_bytes(*uuid);
        let file = mix(mix(low64(uuid)) ^ low64(uuid >> 64));
        Seeds { file, kind }
    }

    /// The checksum of a block.
    #[inline]
    pub(crate) fn checksum(&self, offset_bytes: u64, generation: u64, bytes: &[u8]) -> u32 {
        self.kind.plain(bytes) ^ self.seed(offset_bytes, generation)
    }

    #[inline]
    fn seed(&self, offset_bytes: u64, generation: u64) -> u32 {
        let place = mix(self.file ^ offset_bytes);
        low32(mix(place ^ (generation >> 32))).wrapping_add(low32(generation))
    }
}

/// The CRC-32 of bytes that say themselves where they belong: superblocks and slots.
#[inline]
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// One step of SplitMix64. No two words become the same one.
#[inline]
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// The lower half; the upper one is meant to go.
#[inline]
fn low32(word: u64) -> u32 {
    word as u32
}

/// The lower half; the upper one is meant to go.
fn low64(word: u128) -> u64 {
    word as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const UUID: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|index| u8::try_from((index * 167 + 13) % 256).unwrap()).collect()
    }

    /// The definition once more, bit by bit and by nothing of the above.
    fn reference_crc32(bytes: &[u8]) -> u32 {
        let mut register = 0xFFFF_FFFF_u32;
        for byte in bytes {
            register ^= u32::from(*byte);
            for _ in 0..8 {
                register = if register % 2 == 1 { (register / 2) ^ 0xEDB8_8320 } else { register / 2 };
            }
        }
        register ^ 0xFFFF_FFFF
    }

    fn reference_seed(uuid: &[u8; 16], offset: u64, generation: u64) -> u32 {
        let modulus = 1_u128 << 64;
        let mix = |word: u64| {
            let a = (u128::from(word) + 0x9E37_79B9_7F4A_7C15) % modulus;
            let b = (a ^ (a >> 30)) * 0xBF58_476D_1CE4_E5B9 % modulus;
            let c = (b ^ (b >> 27)) * 0x94D0_49BB_1331_11EB % modulus;
            u64::try_from(c ^ (c >> 31)).unwrap()
        };
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word * 256 + u64::from(*byte));
        let file = mix(mix(word(&uuid[..8])) ^ word(&uuid[8..]));
        let mixed = mix(mix(file ^ offset) ^ (generation >> 32));
        u32::try_from((mixed % (1 << 32) + generation % (1 << 32)) % (1 << 32)).unwrap()
    }

    #[test]
    fn known_answers_of_the_parts() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
        assert_eq!(ChecksumKind::Crc32.plain(b"123456789"), 0xCBF4_3926);
        assert_eq!(ChecksumKind::Xxh3.plain(b""), 0x38D3_94C2);
        assert_eq!(ChecksumKind::Xxh3.plain(b"123456789"), 0x67A1_7DFF);
        // What SplitMix64 gives first and second when it begins at 0.
        assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(mix(0x9E37_79B9_7F4A_7C15), 0x6E78_9E6A_A1B9_65F4);
    }

    /// Computed by zlib and by the reference implementation of xxHash. What makes this fail makes every store that
    /// exists unreadable.
    #[test]
    fn the_format_is_what_it_was() {
        let block = pattern(4096);
        let vectors: [(_, u64, u64, &[u8], u32, u32); 5] = [
            (UUID, 4096, 7, b"123456789", 0xB0B3_CAED, 0x1CE6_8E34),
            ([0; 16], 0, 0, b"", 0xAAC8_0268, 0x921B_96AA),
            (UUID, 0, 0, &[0; 4096], 0xF4CD_D5E9, 0x7B17_5C42),
            (UUID, 3 << 40, (5 << 32) + 9, &block, 0x7DFB_1A1C, 0x2B48_C2D6),
            ([0xFF; 16], u64::MAX, u64::MAX, &block, 0x234B_7B9E, 0x75F8_A354),
        ];
        for (uuid, offset, generation, bytes, crc32, xxh3) in vectors {
            let checksum = |kind| Seeds::new(kind, &uuid).checksum(offset, generation, bytes);
            assert_eq!(checksum(ChecksumKind::Crc32), crc32, "{uuid:?} {offset} {generation}");
            assert_eq!(checksum(ChecksumKind::Xxh3), xxh3, "{uuid:?} {offset} {generation}");
        }
        assert_eq!(ChecksumKind::ALL.map(ChecksumKind::code), [1, 3]);
    }

    /// The fast ways of both have other code for other lengths.
    #[test]
    fn every_length_is_as_the_definition_says() {
        let bytes = pattern((64 << 10) + 1);
        let crc32 = Seeds::new(ChecksumKind::Crc32, &UUID);
        let xxh3 = Seeds::new(ChecksumKind::Xxh3, &UUID);
        let blocks = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
        for len in (0..=300).chain(blocks.into_iter().flat_map(|len| [len - 1, len, len + 1])) {
            let (offset, generation) = (len as u64 * 4096, u64::MAX / (len as u64 + 1));
            let bytes = &bytes[..len];
            let seed = reference_seed(&UUID, offset, generation);
            assert_eq!(crc32.checksum(offset, generation, bytes), reference_crc32(bytes) ^ seed, "{len} bytes");
            let other = u32::try_from(xxhash_rust::xxh3::xxh3_64(bytes) % (1 << 32)).unwrap();
            assert_eq!(xxh3.checksum(offset, generation, bytes), other ^ seed, "{len} bytes");
        }
    }

    #[test]
    fn another_place_generation_or_file_has_another_checksum() {
        for kind in ChecksumKind::ALL {
            let mut seen = HashSet::new();
            let mut checksums = 0;
            // The same bytes turned around, or exchanged between the two halves, are another UUID.
            for uuid in [[0; 16], UUID, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7], [0xFF; 16]] {
                let seeds = Seeds::new(kind, &uuid);
                for bit in 0..64 {
                    for (offset, generation) in [(1 << bit, 0), (0, 1 << bit), (1 << bit, 1 << bit)] {
                        seen.insert(seeds.checksum(offset, generation, &[0; 512]));
                        checksums += 1;
                    }
                }
            }
            assert_eq!(seen.len(), checksums, "{kind}");
        }
    }

    #[test]
    fn generations_of_the_same_place_never_share_a_checksum() {
        let seeds = Seeds::new(ChecksumKind::Crc32, &UUID);
        let high = 0xDEAD_0000_0000;
        let of = |low: u64| seeds.checksum(4096, high + low, b"the same bytes");
        for apart in [1, 2, 0x1_0000, 0x8000_0000, 0xFFFF_FFFF] {
            assert_ne!(of(0), of(apart), "{apart} apart");
        }
        let seen: HashSet<_> = (0..100_000).map(of).collect();
        assert_eq!(seen.len(), 100_000);
    }

    #[test]
    fn codes_and_names_come_back() {
        for kind in ChecksumKind::ALL {
            assert_eq!(ChecksumKind::from_code(kind.code()), Some(kind));
            assert_eq!(kind.to_string().parse::<ChecksumKind>().unwrap(), kind);
            assert_eq!(Seeds::new(kind, &UUID).kind, kind);
        }
        let known = |code: &u8| ChecksumKind::from_code(*code).is_some();
        assert_eq!((0..=u8::MAX).filter(known).count(), ChecksumKind::ALL.len());
        assert_eq!(ChecksumKind::default(), ChecksumKind::Crc32);

        let refused = "CRC32".parse::<ChecksumKind>().unwrap_err();
        assert!(matches!(refused, Error::InvalidOption { option: "checksum", .. }), "{refused}");
        let lines = "crc\n32".parse::<ChecksumKind>().unwrap_err().to_string();
        assert!(!lines.contains('\n'), "a message is a line: {lines:?}");
        let named = |kind: ChecksumKind| refused.to_string().contains(kind.name());
        assert!(ChecksumKind::ALL.into_iter().all(named), "{refused}");
    }
}
