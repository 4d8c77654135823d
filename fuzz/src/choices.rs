//! Numbers and bytes that are worth trying, in forms that a fuzzer finds.

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use mapfall::{Advice, HugePages, IoOptions};

/// How a map is opened.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Setup {
    /// MiB of address range, or the default one.
    range_mib: Option<u8>,
    huge_pages: u8,
    advice: u8,
    handler: u8,
}

impl Setup {
    /// As most maps are.
    pub const PLAIN: Setup = Setup { range_mib: None, huge_pages: 0, advice: 0, handler: 0 };

    pub fn options(self) -> IoOptions {
        let huge_pages = [HugePages::Auto, HugePages::On, HugePages::Off][self.huge_pages as usize % 3];
        let advice = [Advice::Normal, Advice::Random, Advice::Sequential][self.advice as usize % 3];
        let options = IoOptions::new().write(true).huge_pages(huge_pages).advice(advice);
        let options = options.fault_handler(!self.declines_handler());
        match self.range_mib {
            Some(mib) => options.map_range_bytes((u64::from(mib % 32) << 20).max(1)),
            None => options,
        }
    }

    /// Rarely: there is little to find without a map.
    pub fn declines_handler(self) -> bool {
        self.handler == 255
    }
}

/// An offset or a length of the file.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Place {
    /// Near the beginning.
    Start(i8),
    /// Near the end of the file as it is.
    End(i8),
    /// Near a border of pages, of 2 MiB pages, or of the largest folios.
    Border { kind: u8, number: u16, nudge: i8 },
    /// Somewhere.
    Any(u32),
    /// Past everything.
    Far { bits: u8, nudge: i8 },
}

impl Place {
    /// Any number at all.
    pub fn resolve(self, len_bytes: u64) -> u64 {
        let near = |at: u64, nudge: i8| at.saturating_add_signed(i64::from(nudge));
        match self {
            Place::Start(nudge) => near(0, nudge),
            Place::End(nudge) => near(len_bytes, nudge),
            Place::Border { kind, number, nudge } => {
                let shift = [12, 16, 21, 23][kind as usize % 4];
                near((u64::from(number) % (crate::FILE_BYTES_MAX >> shift)) << shift, nudge)
            }
            Place::Any(at) => u64::from(at) % crate::FILE_BYTES_MAX,
            Place::Far { bits, nudge } => {
                1_u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX).wrapping_add_signed(i64::from(nudge))
            }
        }
    }

    /// One that is not past the usual size of a file.
    pub fn resolve_inside(self, len_bytes: u64) -> u64 {
        self.resolve(len_bytes) % (crate::FILE_BYTES_MAX + 1)
    }
}

/// How many bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Length {
    Few(u8),
    Pages { count: u8, nudge: i8 },
    Any(u16),
    ToEnd(i8),
    Large(u32),
}

impl Length {
    /// A length of at most `max`, for a range that begins at `offset`.
    pub fn resolve(self, offset: u64, len_bytes: u64, max: usize) -> usize {
        let len = match self {
            Length::Few(len) => u64::from(len),
            Length::Pages { count, nudge } => (u64::from(count % 32) << 12).saturating_add_signed(i64::from(nudge)),
            Length::Any(len) => u64::from(len),
            Length::ToEnd(nudge) => len_bytes.saturating_sub(offset).saturating_add_signed(i64::from(nudge)),
            Length::Large(len) => u64::from(len) % (4 << 20),
        };
        len.min(max as u64) as usize
    }
}

/// What is written. A zero at the end of a block is what a cut file shows too, so there are many.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Fill {
    Zeros,
    One(u8),
    /// Different at every offset, never zero.
    Mixed(u8),
    /// The same, but for some zeros at the end.
    MixedThenZeros {
        seed: u8,
        zeros: u8,
    },
}

impl Fill {
    pub fn bytes(self, offset: u64, len: usize) -> Vec<u8> {
        match self {
            Fill::Zeros => vec![0; len],
            Fill::One(byte) => vec![byte; len],
            Fill::Mixed(seed) => mixed(seed, offset, len),
            Fill::MixedThenZeros { seed, zeros } => {
                let mut bytes = mixed(seed, offset, len);
                bytes[len.saturating_sub(zeros as usize)..].fill(0);
                bytes
            }
        }
    }
}

/// Repeats at a distance that no block, page or folio has, so that bytes of another place are noticed.
fn mixed(seed: u8, offset: u64, len: usize) -> Vec<u8> {
    const PERIOD: u64 = 65_537;
    static BYTES: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..PERIOD).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8 | 1).collect());
    // Made of copies, not byte by byte: every branch of this file is counted by the fuzzer.
    let mut bytes = Vec::with_capacity(len);
    let mut start = ((offset + 251 * u64::from(seed)) % PERIOD) as usize;
    while bytes.len() < len {
        let part = &BYTES[start..];
        bytes.extend_from_slice(&part[..part.len().min(len - bytes.len())]);
        start = 0;
    }
    bytes
}
