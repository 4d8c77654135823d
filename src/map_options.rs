//! How a map is made: what the options builder collects and the map obeys.

use crate::sys::mapping::MapAdvice;

/// Whether 2 MiB pages are asked for (`MADV_HUGEPAGE`).
///
/// A file system with large folios (ext4 from Linux 6.16, XFS, btrfs, tmpfs) then reads a whole 2 MiB on a fault and
/// maps it with one entry: a first touch costs one fault for 2 MiB instead of one for 64 KiB, and later reads miss the
/// TLB less. Pages that are in the page cache already keep the size they came in with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HugePages {
    /// Ask, unless the access advice is [`Advice::Random`], which asks for the opposite.
    #[default]
    Auto,
    /// Ask.
    On,
    /// Do not ask.
    Off,
}

/// What the kernel is told of the order of reads (`madvise(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Advice {
    /// Nothing: read-ahead and read-around as the kernel sees fit.
    #[default]
    Normal,
    /// In no order: a fault reads the pages it needs and no others.
    Random,
    /// In order: read far ahead.
    Sequential,
}

/// The options of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapOptions {
    pub(crate) range_bytes: Option<u64>,
    pub(crate) huge_pages: HugePages,
    pub(crate) advice: Advice,
    pub(crate) fault_handler: bool,
}

/// What the user can say of the choice between paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AutoOptions {
    pub(crate) page_cache_bytes_max: Option<u64>,
    pub(crate) page_table_bytes_max: Option<u64>,
}

impl MapOptions {
    /// What the kernel is to be told of the map.
    pub(crate) fn kernel_advice(&self) -> impl Iterator<Item = MapAdvice> + use<> {
        let huge_pages = match (self.huge_pages, self.advice) {
            (HugePages::Off, _) => Some(MapAdvice::NoHugePages),
            (HugePages::Auto, Advice::Random) => None,
            (HugePages::Auto | HugePages::On, _) => Some(MapAdvice::HugePages),
        };
        let order = match self.advice {
            Advice::Normal => None,
            Advice::Random => Some(MapAdvice::Random),
            Advice::Sequential => Some(MapAdvice::Sequential),
        };
        huge_pages.into_iter().chain(order)
    }

    /// The same where the kernel has been told something else before.
    pub(crate) fn kernel_advice_anew(&self) -> impl Iterator<Item = MapAdvice> + use<> {
        // As long as 2 MiB pages are asked for, a fault reads one, whatever the order.
        let is_small = self.huge_pages == HugePages::Auto && self.advice == Advice::Random;
        let small = is_small.then_some(MapAdvice::NoHugePages);
        let normal = (self.advice == Advice::Normal).then_some(MapAdvice::Normal);
        self.kernel_advice().chain(small).chain(normal)
    }
}
