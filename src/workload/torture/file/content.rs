//! What a file holds: bytes of which each word says its version and its place.
//!
//! A word is the mixture of both, so that bytes of another place or another time are never taken for those that should
//! be there. Its bytes are odd, and so not zero: a zero comes from a hole or a cut. Except for one: the last byte of
//! every second piece of 64 bytes, or so, is zero, and the end of a block there could be the rest of a cut page, for
//! all that its last byte tells.

/// The version of what nobody wrote: zeros.
pub(super) const HOLE: u64 = 0;
/// Versions are no greater.
pub(super) const VERSION_MAX: u64 = u32::MAX as u64;

const WORD_BYTES: u64 = 8;
/// Words in a piece whose last byte may be zero.
const PIECE_WORDS: u64 = 8;

/// The finaliser of `SplitMix64`.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn word(version: u64, index: u64) -> u64 {
    if version == HOLE {
        return 0;
    }
    let word = mixed(version << 32 ^ index) | 0x0101_0101_0101_0101;
    let ends_in_zero = index % PIECE_WORDS == PIECE_WORDS - 1 && word >> 57 & 1 == 0;
    if ends_in_zero { word & (u64::MAX >> 8) } else { word }
}

/// Fills `bytes` with what a version has from `start` on.
pub(super) fn fill(version: u64, start: u64, bytes: &mut [u8]) {
    let lead = ((WORD_BYTES - start % WORD_BYTES) % WORD_BYTES).min(bytes.len() as u64);
    let (head, rest) = bytes.split_at_mut(lead as usize);
    let first = word(version, start / WORD_BYTES).to_le_bytes();
    let within = (start % WORD_BYTES) as usize;
    let head_len = head.len();
    head.copy_from_slice(&first[within..within + head_len]);
    let mut index = (start + lead) / WORD_BYTES;
    let mut words = rest.chunks_exact_mut(WORD_BYTES as usize);
    for bytes in &mut words {
        bytes.copy_from_slice(&word(version, index).to_le_bytes());
        index += 1;
    }
    let tail = words.into_remainder();
    let tail_len = tail.len();
    tail.copy_from_slice(&word(version, index).to_le_bytes()[..tail_len]);
}

/// Whose bytes these are: the version and the place of the whole word, among so many versions and so long a file.
pub(super) fn origin(word_found: u64, versions: std::ops::RangeInclusive<u64>, file_bytes: u64) -> Option<(u64, u64)> {
    let words = file_bytes.div_ceil(WORD_BYTES);
    versions.rev().find_map(|version| {
        let index = (0..words).find(|index| word(version, *index) == word_found)?;
        Some((version, index * WORD_BYTES))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_part_of_the_whole() {
        let mut whole = [0; 400];
        fill(7, 0, &mut whole);
        for start in 0..70 {
            for len in 0..70 {
                let mut part = vec![0xEE; len];
                fill(7, start as u64, &mut part);
                assert!(part == whole[start..start + len], "{len} bytes at {start}");
            }
        }
        let zeros: Vec<_> = (0..whole.len()).filter(|place| whole[*place] == 0).collect();
        assert!(!zeros.is_empty() && zeros.iter().all(|place| place % 64 == 63), "{zeros:?}");
        fill(HOLE, 3, &mut whole);
        assert_eq!(whole, [0; 400]);
    }

    #[test]
    fn a_word_says_where_it_comes_from() {
        let mut bytes = [0; 8];
        fill(12, 800, &mut bytes);
        assert_eq!(origin(u64::from_le_bytes(bytes), 1..=20, 4096), Some((12, 800)));
        assert_eq!(origin(u64::from_le_bytes(bytes), 1..=11, 4096), None);
    }
}
