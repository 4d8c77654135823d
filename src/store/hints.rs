//! Hints for pages.

use super::inner::Inner;
use super::pages::{PageId, Pages};
use crate::error::Result;
use crate::format::{Entry, PageState};
use crate::io::AccessHint;

impl Pages {
    /// Says what is known of the reads of these pages to come, as [`BlockIo::advise`](crate::BlockIo::advise) does. It
    /// changes what they cost, and never what they return.
    ///
    /// [`AccessHint::WillNeed`] and [`AccessHint::DontNeed`] are about where the pages lie now, and about the page
    /// cache: a [`BlockCache`](crate::BlockCache) is filled by [`Pages::prefetch`] and keeps what it has. The other
    /// hints hold for the whole file, whatever pages are named. Pages that do not exist, or hold nothing yet, are
    /// passed over. Name pages in ascending order: those that lie in a row are then one range.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io), also where a node of the page table cannot be read, and
    /// [`Error::Corrupt`](crate::Error::Corrupt) where one is damaged.
    pub fn advise(&self, pages: impl IntoIterator<Item = PageId>, hint: AccessHint) -> Result<()> {
        if !matches!(hint, AccessHint::WillNeed | AccessHint::DontNeed) {
            return self.inner.volume.io.advise(0..0, hint);
        }
        let mut row = 0..0;
        for page in pages {
            let Some(offset) = self.inner.offset_of(page)? else { continue };
            let end = offset + self.page_bytes() as u64;
            if row.end == offset {
                row.end = end;
            } else {
                self.inner.volume.io.advise(row, hint)?;
                row = offset..end;
            }
        }
        self.inner.volume.io.advise(row, hint)
    }
}

impl Inner {
    /// Where a page lies, if it is anywhere.
    fn offset_of(&self, page: PageId) -> Result<Option<u64>> {
        let entry = match self.table.entry(&self.volume, self, page.0) {
            Err(crate::error::Error::NoSuchPage { .. }) => Entry::ABSENT,
            entry => entry?,
        };
        Ok(match entry.state() {
            PageState::Stored { offset_units, .. } => Some(self.volume.geometry.offset(offset_units)),
            _ => None,
        })
    }
}
