//! How long a range to map a file into.
//!
//! Address space is nearly free and growth inside the range is free, so the range is far longer than the file; but it
//! is not endless: 47 bits of it on x86-64 for all files of a process and for everything else in it, or what
//! `RLIMIT_AS` leaves. So default ranges keep to half of it, and get shorter the less of that half is left: there can
//! be any number of files, and memory can still be had.

use rustix::process::{Resource, getrlimit};

use crate::sys::mapping::{RANGE_ALIGN_BYTES, mapped_bytes};

/// The shortest range by default.
const DEFAULT_BYTES_MIN: u64 = 16 << 30;
/// How many times the file's length a range is by default.
const DEFAULT_TIMES: u64 = 16;
/// What default ranges share: half of what a process has on x86-64.
const SHARED_BYTES: u64 = 1 << 46;
/// The part of what is left of it that one file takes for its length's sake, and that any file takes.
const PARTS: (u64, u64) = (16, 256);

/// Ranges to try for a file of `len_bytes`, longest first. Each holds the whole file.
pub(super) fn candidates(len_bytes: u64, option_bytes: Option<u64>) -> impl Iterator<Item = u64> {
    candidates_within(len_bytes, option_bytes, getrlimit(Resource::As).current, mapped_bytes())
}

fn candidates_within(
    len_bytes: u64,
    option_bytes: Option<u64>,
    address_limit_bytes: Option<u64>,
    mapped_bytes: u64,
) -> impl Iterator<Item = u64> {
    let shortest = len_bytes.max(1).next_multiple_of(RANGE_ALIGN_BYTES as u64);
    let twice = shortest.saturating_mul(2).checked_next_power_of_two().unwrap_or(shortest);
    let longest = match (option_bytes, address_limit_bytes) {
        (Some(option_bytes), _) if option_bytes >= len_bytes => option_bytes,
        // The file has outgrown what was asked for, or every byte is counted: some room, and not all there is.
        (Some(_), _) | (None, Some(_)) => twice,
        (None, None) => {
            let left_bytes = SHARED_BYTES.saturating_sub(mapped_bytes);
            let for_length = len_bytes.saturating_mul(DEFAULT_TIMES).min(left_bytes / PARTS.0);
            let wanted = for_length.max(DEFAULT_BYTES_MIN.min(left_bytes / PARTS.1));
            // No shorter than where space is known to be short.
            wanted.checked_next_power_of_two().unwrap_or(shortest).max(twice)
        }
    };
    let longest = longest.max(shortest);
    std::iter::successors(Some(longest), move |range_bytes| {
        (*range_bytes > shortest).then(|| (range_bytes / 2).max(shortest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn all(len_bytes: u64, option_bytes: Option<u64>, limit_bytes: Option<u64>) -> Vec<u64> {
        candidates_within(len_bytes, option_bytes, limit_bytes, 0).collect()
    }

    #[test]
    fn far_past_the_end_by_default_and_never_short_of_it() {
        assert_eq!(all(0, None, None)[0], 16 * GIB);
        assert_eq!(all(3 * GIB, None, None)[0], 64 * GIB);
        for len_bytes in [0, 1, 2 * MIB, 2 * MIB + 1, 5 * GIB, 1 << 50] {
            for option_bytes in [None, Some(1), Some(64 * MIB), Some(1 << 45)] {
                for limit_bytes in [None, Some(GIB)] {
                    let ranges = all(len_bytes, option_bytes, limit_bytes);
                    assert!(ranges.is_sorted_by(|longer, shorter| longer > shorter));
                    assert_eq!(*ranges.last().unwrap(), len_bytes.max(1).next_multiple_of(2 * MIB));
                }
            }
        }
    }

    #[test]
    fn an_option_is_taken_at_its_word_while_the_file_fits() {
        assert_eq!(all(5 * MIB, Some(6 * MIB), None), [6 * MIB]);
        assert_eq!(all(5 * MIB, Some(64 * MIB), Some(GIB))[0], 64 * MIB);
        assert_eq!(all(7 * MIB, Some(6 * MIB), None), [16 * MIB, 8 * MIB]);
    }

    #[test]
    fn a_limited_address_space_is_not_taken_whole() {
        assert_eq!(all(100 * MIB, None, Some(GIB)), [256 * MIB, 128 * MIB, 100 * MIB]);
    }

    #[test]
    fn any_number_of_files_takes_no_more_than_its_share() {
        let mut mapped_bytes = 0;
        for _ in 0..100_000 {
            mapped_bytes += candidates_within(4096, None, None, mapped_bytes).next().unwrap();
        }
        assert!(mapped_bytes < SHARED_BYTES + 100_000 * 4 * MIB, "{} GiB", mapped_bytes / GIB);
        let long = |mapped_bytes| candidates_within(1 << 40, None, None, mapped_bytes).next().unwrap();
        assert_eq!((long(0), long(SHARED_BYTES)), (4 << 40, 2 << 40), "room to grow, however little is left");
    }

    #[test]
    fn lengths_near_the_largest_do_not_overflow() {
        assert!(!all(i64::MAX as u64, None, None).is_empty());
        assert!(!all(i64::MAX as u64, Some(1), None).is_empty());
    }
}
