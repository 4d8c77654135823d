//! An entry of the page table: two words.
//!
//! | word | bits | what |
//! |---|---|---|
//! | 0 | 0-23 | the write's sequence number, low bits |
//! | 0 | 24-63 | offset, units |
//! | 1 | 0-31 | checksum |
//! | 1 | 32-63 | the write's sequence number, high bits |
//!
//! With an offset of 0: `0, 0` is no page, `2, 0` a page that was never written and reads as zeros.

/// In memory only: the leaf of this entry has not been read yet.
pub(crate) const NOT_LOADED: u64 = 0;
/// In memory only: no page.
const ABSENT: u64 = 1;
const ZEROS: u64 = 2;

const LOW_BITS: u32 = 24;
const LOW_MASK: u64 = (1 << LOW_BITS) - 1;

/// An entry as words, as it is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64, pub(crate) u64);

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageState {
    Absent,
    /// Allocated, never written.
    Zeros,
    Stored {
        offset_units: u64,
        sequence: u64,
        checksum: u32,
    },
}

impl Entry {
    pub(crate) const ABSENT: Entry = Entry(ABSENT, 0);
    pub(crate) const ZEROS: Entry = Entry(ZEROS, 0);

    /// The offset is from 1 to below [`super::UNITS_MAX`], the sequence number below [`super::SEQUENCE_MAX`].
    pub(crate) fn stored(offset_units: u64, sequence: u64, checksum: u32) -> Self {
        let low = offset_units << LOW_BITS | sequence & LOW_MASK;
        Entry(low, (sequence >> LOW_BITS) << 32 | u64::from(checksum))
    }

    #[inline]
    pub(crate) fn state(self) -> PageState {
        match self.0 >> LOW_BITS {
            0 if self.0 == ZEROS => PageState::Zeros,
            0 => PageState::Absent,
            offset_units => PageState::Stored {
                offset_units,
                sequence: (self.1 >> 32) << LOW_BITS | self.0 & LOW_MASK,
                checksum: self.1 as u32,
            },
        }
    }

    pub(crate) fn is_live(self) -> bool {
        self.state() != PageState::Absent
    }

    /// Nothing where the words are no entry.
    pub(crate) fn from_disk(words: [u64; 2]) -> Option<Self> {
        match words {
            [0, 0] => Some(Entry::ABSENT),
            [ZEROS, 0] => Some(Entry::ZEROS),
            [low, high] => (low >> LOW_BITS != 0).then_some(Entry(low, high)),
        }
    }

    pub(crate) fn to_disk(self) -> [u64; 2] {
        match self.state() {
            PageState::Absent => [0, 0],
            _ => [self.0, self.1],
        }
    }
}
