//! A memory of blocks that left, by the hashes of their keys.

/// Places that a hash may be in.
const WAYS: usize = 4;
/// The low bits of a place are a tag, those up to [`HASH_SHIFT`] a time, the others a part of the hash.
const TAG_BITS: u32 = 6;
const HASH_SHIFT: u32 = 32;
const TAG_MASK: u64 = (1 << TAG_BITS) - 1;
const TIME_MASK: u64 = (1 << (HASH_SHIFT - TAG_BITS)) - 1;

/// Makes every bit depend on every other one: the caller may have chosen the shard by some of a hash's bits, and those
/// are then the same for all keys of a policy.
pub(super) fn mix(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let hash = (hash ^ hash >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    hash ^ hash >> 32
}

/// What was remembered of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// How long ago it left, in what the caller counts time in.
    pub(super) age: u64,
    /// What the caller noted.
    pub(super) tag: u8,
}

impl Memory {
    fn of(place: u64, now: u64) -> Self {
        Memory { age: now.wrapping_sub(place >> TAG_BITS) & TIME_MASK, tag: (place & TAG_MASK) as u8 }
    }
}

/// A table of buckets of [`WAYS`] places, where the oldest gives way. It takes 8 bytes a place and never grows by use,
/// and nothing before it covers something.
#[derive(Debug)]
pub(super) struct Ghost {
    /// 0 where nothing is.
    places: Vec<u64>,
}

impl Ghost {
    pub(super) fn new() -> Self {
        Ghost { places: Vec::new() }
    }

    /// Makes room for `blocks`. What was remembered is forgotten when the table grows.
    pub(super) fn cover(&mut self, blocks: usize) {
        // A quarter more, so that few buckets are full of what is not old yet.
        let places = (blocks + blocks / 4).next_power_of_two().max(64);
        if places > self.places.len() {
            self.places = vec![0; places];
        }
    }

    fn bucket(&mut self, mixed: u64) -> &mut [u64] {
        let buckets = self.places.len() / WAYS;
        let first = (mixed as usize & (buckets - 1)) * WAYS;
        &mut self.places[first..first + WAYS]
    }

    /// Remembers a block by its mixed hash. What was forgotten for it.
    pub(super) fn put(&mut self, mixed: u64, tag: u8, now: u64) -> Option<Memory> {
        let hash = mixed >> HASH_SHIFT;
        let place = hash << HASH_SHIFT | (now & TIME_MASK) << TAG_BITS | u64::from(tag) & TAG_MASK;
        let bucket = self.bucket(mixed);
        let (mut to, mut oldest) = (0, 0);
        for (index, &held) in bucket.iter().enumerate() {
            if held == 0 || held >> HASH_SHIFT == hash {
                bucket[index] = place;
                return None;
            }
            let age = Memory::of(held, now).age;
            if age >= oldest {
                (to, oldest) = (index, age);
            }
        }
        Some(Memory::of(std::mem::replace(&mut bucket[to], place), now))
    }

    /// Takes a block out of memory.
    pub(super) fn take(&mut self, mixed: u64, now: u64) -> Option<Memory> {
        let hash = mixed >> HASH_SHIFT;
        let place = self.bucket(mixed).iter_mut().find(|place| **place != 0 && **place >> HASH_SHIFT == hash)?;
        Some(Memory::of(std::mem::take(place), now))
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.places.capacity() as u64 * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_with_age_and_tag_once() {
        let mut ghost = Ghost::new();
        ghost.cover(50);
        assert_eq!(ghost.put(mix(1), 33, TIME_MASK - 1), None);
        // The time wraps between.
        assert_eq!(ghost.take(mix(1), TIME_MASK + 4), Some(Memory { age: 5, tag: 33 }));
        assert_eq!(ghost.take(mix(1), TIME_MASK + 4), None);
    }

    #[test]
    fn the_oldest_of_a_bucket_gives_way() {
        let mut ghost = Ghost::new();
        ghost.cover(50);
        let one_bucket = |n: u64| (n + 1) << HASH_SHIFT;
        for n in 0..4 {
            assert_eq!(ghost.put(one_bucket(n), 0, 10 + n), None);
        }
        assert_eq!(ghost.put(one_bucket(9), 0, 20), Some(Memory { age: 10, tag: 0 }));
        assert_eq!(ghost.take(one_bucket(0), 20), None);
        assert!(ghost.take(one_bucket(1), 20).is_some());
    }
}
