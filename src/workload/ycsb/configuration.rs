//! What is compared: the file, the path of its reads, the cache, the threads, and where the data is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::workload::size::ByteSize;

/// Where the data is when a phase begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageCache {
    /// Wherever it is.
    AsIs,
    /// In the page cache, all of it.
    Warm,
    /// On the device, all of it but what opening the store reads: the index.
    Cold,
    /// On the device, and only this part of it has room in memory.
    Limited(f64),
}

impl fmt::Display for PageCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageCache::AsIs => f.write_str("as-is"),
            PageCache::Warm => f.write_str("warm"),
            PageCache::Cold => f.write_str("cold"),
            PageCache::Limited(part) => write!(f, "limited:{part}"),
        }
    }
}

impl FromStr for PageCache {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |text: &str| match text.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
            None => text.parse(),
        };
        let limited = text.strip_prefix("limited:").and_then(|text| part(text).ok());
        match (text, limited) {
            ("as-is", _) => Ok(PageCache::AsIs),
            ("warm", _) => Ok(PageCache::Warm),
            ("cold", _) => Ok(PageCache::Cold),
            (_, Some(part)) if part > 0.0 && part <= 1.0 => Ok(PageCache::Limited(part)),
            _ => Err(format!(
                "expected as-is, warm, cold or limited:PART with a part of the data such as 25% or 0.25, found {text:?}"
            )),
        }
    }
}

/// One of the things that are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// The store, or the bare file.
    pub file: PathBuf,
    /// Whether it is a bare file.
    pub is_bare: bool,
    /// The path of the reads.
    pub io: String,
    /// The budget of the block cache.
    pub cache_bytes: Option<u64>,
    /// Threads that do operations.
    pub threads: usize,
    /// Reads of a batch, such as a scan's, that may be under way at a time.
    pub queue_depth: u32,
    /// Where the data is when it begins.
    pub page_cache: PageCache,
}

impl Configuration {
    /// What tells it from others: the path of the reads always, the rest where they differ in it.
    #[must_use]
    pub fn label(&self, others: &[Configuration]) -> String {
        let differs = |same: &dyn Fn(&Configuration) -> bool| !others.iter().all(same);
        let mut label = self.io.clone();
        if differs(&|other| (&other.file, other.is_bare) == (&self.file, self.is_bare)) {
            let name = self.file.file_name().unwrap_or(self.file.as_os_str()).to_string_lossy();
            label = format!("{name} {label}");
        }
        if differs(&|other| other.cache_bytes == self.cache_bytes) {
            label += &match self.cache_bytes {
                Some(bytes) => format!(", cache {}", ByteSize::new(bytes)),
                None => ", no cache".to_owned(),
            };
        }
        if differs(&|other| other.threads == self.threads) {
            label += &format!(", {} {}", self.threads, if self.threads == 1 { "thread" } else { "threads" });
        }
        if differs(&|other| other.queue_depth == self.queue_depth) {
            label += &format!(", depth {}", self.queue_depth);
        }
        if differs(&|other| other.page_cache == self.page_cache) {
            label += &format!(", {}", self.page_cache);
        }
        label
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_as_they_are_shown() {
        for text in ["as-is", "warm", "cold", "limited:0.25"] {
            assert_eq!(text.parse::<PageCache>().unwrap().to_string(), text);
        }
        assert_eq!("limited:25%".parse(), Ok(PageCache::Limited(0.25)));
        for text in ["hot", "limited", "limited:0", "limited:101%", "limited:x"] {
            assert!(text.parse::<PageCache>().unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn labels_say_what_differs() {
        let one = Configuration {
            file: "a/x.store".into(),
            is_bare: false,
            io: "pread".to_owned(),
            cache_bytes: None,
            threads: 1,
            queue_depth: 64,
            page_cache: PageCache::Warm,
        };
        let other = Configuration { io: "mmap".to_owned(), ..one.clone() };
        assert_eq!(other.label(&[one.clone(), other.clone()]), "mmap");
        let wide = Configuration { threads: 4, cache_bytes: Some(1 << 20), file: "b/y.store".into(), ..one.clone() };
        let shallow = Configuration { queue_depth: 1, ..one.clone() };
        assert_eq!(shallow.label(&[one.clone(), shallow.clone()]), "pread, depth 1");
        let all = [one.clone(), wide.clone()];
        assert_eq!(one.label(&all), "x.store pread, no cache, 1 thread");
        assert_eq!(wide.label(&all), "y.store pread, cache 1 MiB, 4 threads");
    }
}
