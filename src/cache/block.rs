//! A block that is borrowed from the cache.

use std::fmt;
use std::ops::Deref;

use super::shard::Shard;
use crate::sys::frames::Pinned;

/// The bytes of a block, borrowed from the cache.
///
/// While it lives the block stays where it is and counts against the budget, also when it is invalidated meanwhile: so
/// hold it briefly. Where the cache had no room, the bytes are the block's own.
pub struct CachedBlock<'a> {
    held: Held<'a>,
}

enum Held<'a> {
    Pinned(&'a Shard, Option<Pinned<'a>>),
    Owned(Vec<u8>),
}

impl<'a> CachedBlock<'a> {
    pub(super) fn pinned(shard: &'a Shard, pinned: Pinned<'a>) -> Self {
        CachedBlock { held: Held::Pinned(shard, Some(pinned)) }
    }

    pub(crate) fn owned(bytes: Vec<u8>) -> Self {
        CachedBlock { held: Held::Owned(bytes) }
    }

    /// Whether the bytes are the cache's.
    #[must_use]
    pub fn is_in_cache(&self) -> bool {
        matches!(self.held, Held::Pinned(..))
    }
}

impl Deref for CachedBlock<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.held {
            Held::Pinned(_, pinned) => pinned.as_deref().unwrap_or_default(),
            Held::Owned(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for CachedBlock<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for CachedBlock<'_> {
    fn drop(&mut self) {
        if let Held::Pinned(shard, pinned) = &mut self.held
            && let Some(pinned) = pinned.take()
        {
            shard.unpin(pinned);
        }
    }
}

impl fmt::Debug for CachedBlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len_bytes, is_in_cache) = (self.len(), self.is_in_cache());
        f.debug_struct("CachedBlock").field("len_bytes", &len_bytes).field("is_in_cache", &is_in_cache).finish()
    }
}
