//! What a block is called in the cache.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::sys::frames::Key;

/// What a cached block is called. The bytes of a key never change: a block that is written anew has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey {
    /// The file, as the cache's user numbers its files.
    pub file: u64,
    /// Where the block begins.
    pub offset: u64,
    /// Which of the blocks that were ever there.
    pub generation: u64,
}

impl CacheKey {
    #[inline]
    pub(super) fn words(&self) -> Key {
        [self.file, self.offset, self.generation]
    }

    pub(super) fn from_words([file, offset, generation]: Key) -> Self {
        CacheKey { file, offset, generation }
    }

    #[inline]
    pub(super) fn hash64(&self) -> u64 {
        // The same in each run, so that a run can be repeated. Offsets are chosen by the store, not by a stranger.
        FixedState::with_seed(0).hash_one((self.file, self.offset, self.generation))
    }
}
