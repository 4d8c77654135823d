//! How large a cache to simulate: as people write it, and what that is for a trace.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::survey::Survey;
use crate::workload::size::{ByteSize, SizeError};

/// The size of a cache: `10%`, `64MiB`, `10000obj`.
///
/// ```
/// use mapfall::workload::cache_sim::CacheSize;
///
/// let size: CacheSize = "0.5%".parse()?;
/// assert_eq!(size, CacheSize::Percent(0.5));
/// # Ok::<(), mapfall::workload::cache_sim::CacheSizeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CacheSize {
    /// Of the trace's footprint: the sum of its distinct objects' sizes, or their number where sizes do not count.
    Percent(f64),
    /// In bytes.
    Bytes(ByteSize),
    /// So many objects.
    Objects(u64),
}

/// What is behind a number of objects.
const OBJECTS_SUFFIX: &str = "obj";

impl fmt::Display for CacheSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheSize::Percent(percent) => write!(f, "{percent}%"),
            CacheSize::Bytes(size) => write!(f, "{size}"),
            CacheSize::Objects(objects) => write!(f, "{objects}{OBJECTS_SUFFIX}"),
        }
    }
}

impl Serialize for CacheSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text or a size is no size of a cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheSizeError {
    /// It is not above 0 and at most 100 %.
    #[error("expected a percentage above 0% and up to 100%, found {found:?}")]
    Percent {
        /// The whole text.
        found: String,
    },
    /// It is no number of objects above 0.
    #[error("expected a number of objects above 0 such as 10000obj, found {found:?}")]
    Objects {
        /// The whole text.
        found: String,
    },
    /// It is no size in bytes either.
    #[error("expected a size such as 10%, 64MiB or 10000obj: {0}")]
    Bytes(#[from] SizeError),
    /// It is 0.
    #[error("expected a size above 0, found {found:?}")]
    Zero {
        /// The whole text.
        found: String,
    },
    /// The trace has no sizes, or they are to be ignored.
    #[error("expected a percentage or a number of objects (1000obj), since {why}; found {found}")]
    ObjectsCount {
        /// Why bytes mean nothing.
        why: &'static str,
        /// The size.
        found: String,
    },
    /// Objects have sizes that differ.
    #[error(
        "expected a percentage or bytes (64MiB), since objects have {min_bytes} to {max_bytes} bytes (or \
         --ignore-sizes); found {found}"
    )]
    BytesCount {
        /// The smallest.
        min_bytes: u64,
        /// The largest.
        max_bytes: u64,
        /// The size.
        found: String,
    },
}

impl FromStr for CacheSize {
    type Err = CacheSizeError;

    fn from_str(text: &str) -> Result<Self, CacheSizeError> {
        let found = || text.to_owned();
        let trimmed = text.trim();
        if let Some(percent) = trimmed.strip_suffix('%') {
            let percent = percent.trim_end().parse().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
            return percent.map(CacheSize::Percent).ok_or_else(|| CacheSizeError::Percent { found: found() });
        }
        if let Some(objects) = trimmed.strip_suffix(OBJECTS_SUFFIX) {
            let objects = objects.trim_end().parse().ok().filter(|objects| *objects > 0);
            return objects.map(CacheSize::Objects).ok_or_else(|| CacheSizeError::Objects { found: found() });
        }
        let size: ByteSize = trimmed.parse()?;
        if size.bytes() == 0 { Err(CacheSizeError::Zero { found: found() }) } else { Ok(CacheSize::Bytes(size)) }
    }
}

/// What a capacity is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Counted {
    /// An object takes its size.
    Bytes,
    /// Each object counts as one.
    Objects,
}

impl CacheSize {
    /// The capacity, in what is `counted`.
    pub(super) fn resolve(self, counted: Counted, survey: &Survey) -> Result<u64, CacheSizeError> {
        let found = self.to_string();
        match (self, counted) {
            (CacheSize::Percent(percent), Counted::Bytes) => Ok(part(percent, survey.footprint_bytes)),
            (CacheSize::Percent(percent), Counted::Objects) => Ok(part(percent, survey.objects)),
            (CacheSize::Bytes(size), Counted::Bytes) => Ok(size.bytes()),
            (CacheSize::Objects(objects), Counted::Objects) => Ok(objects),
            (CacheSize::Objects(objects), Counted::Bytes) if survey.min_bytes == survey.max_bytes => {
                Ok(objects.saturating_mul(survey.min_bytes))
            }
            (CacheSize::Objects(_), Counted::Bytes) => {
                let (min_bytes, max_bytes) = (survey.min_bytes, survey.max_bytes);
                Err(CacheSizeError::BytesCount { min_bytes, max_bytes, found })
            }
            (CacheSize::Bytes(_), Counted::Objects) => {
                let why = if survey.has_sizes { "sizes are ignored" } else { "the trace has no sizes" };
                Err(CacheSizeError::ObjectsCount { why, found })
            }
        }
    }
}

/// The nearest whole number, and at least 1.
fn part(percent: f64, of: u64) -> u64 {
    ((of as f64 * percent / 100.0).round() as u64).max(1)
}
