//! Traces: the requests that a cache would have seen, from a file or made up.
//!
//! Nothing is held in memory but a buffer: a trace may be larger than that. What is asked for is known by a hash of 64
//! bits; that two of a billion keys have the same one has a chance of 3 %, and would change a ratio in the ninth place.

mod blocks;
mod bytes;
mod error;
mod generate;
mod keys;
mod lines;
mod oracle;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests;

use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::Serialize;

use blocks::{BlockRequests, Layout};
use bytes::TraceBytes;
pub use error::{Result, TraceError};
pub use generate::{GenerateError, Generator};
use keys::Keys;
use lines::Lines;
use oracle::Records;

/// The size of a request in a trace without sizes: each object counts as one.
const UNSIZED_BYTES: u64 = 1;
/// How much of a file is looked at to tell its format.
const HEAD_BYTES: usize = 4096;

/// An object that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which, by a hash of its key.
    pub key: u64,
    /// How large it is: 1 where the trace does not say. One of 0 asks for nothing.
    pub size_bytes: u64,
}

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// A key a line, and its size in bytes behind a comma, or none.
    Keys,
    /// `start count ignored number` a line, in sectors of 512 bytes: the traces of the ARC paper (`P1.lis`).
    Arc,
    /// `ASU,LBA,size,opcode,timestamp` a line: the Storage Performance Council's format, in which UMass has its traces
    /// (`Financial1.spc`). Reads and writes count alike.
    Spc,
    /// libCacheSim's `oracleGeneral`: binary records of 24 bytes.
    Oracle,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::Keys, Format::Arc, Format::Spc, Format::Oracle];

    /// The name in options, tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::Keys => "keys",
            Format::Arc => "arc",
            Format::Spc => "spc",
            Format::Oracle => "oracle",
        }
    }

    /// The blocks that requests of a block trace are taken apart into where nothing is said, in bytes: what is
    /// customary. The pages of the ARC paper are sectors; other block traces are simulated with pages of 4 KiB.
    #[must_use]
    pub fn default_block_bytes(self) -> Option<NonZeroU64> {
        match self {
            Format::Keys | Format::Oracle => None,
            Format::Arc => NonZeroU64::new(512),
            Format::Spc => NonZeroU64::new(4096),
        }
    }

    /// The format by the file's name, where that says it, else by the first bytes.
    fn detect(name: &str, head: &[u8]) -> Format {
        let head = &head[..head.len().min(HEAD_BYTES)];
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
        if name.contains("oraclegeneral")
            || head.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace())
        {
            return Format::Oracle;
        }
        let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let Some(line) = lines.find(|line| !matches!(line.first(), None | Some(b'#'))) else { return Format::Keys };
        match line {
            _ if name.ends_with(".spc") || blocks::is_spc(line) => Format::Spc,
            _ if name.ends_with(".lis") && !line.contains(&b',') || blocks::arc_fields(line).is_some() => Format::Arc,
            _ => Format::Keys,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Format::ALL.into_iter().find(|format| format.name() == text);
        known.ok_or_else(|| format!("expected one of {}, found {text:?}", Format::ALL.map(Format::name).join(", ")))
    }
}

/// What a request of a block trace asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// Every block of so many bytes that it touches, one after another.
    Each {
        /// A block, in bytes.
        bytes: NonZeroU64,
    },
    /// One object, known by its address, as large as the request.
    Whole,
}

/// A file to read requests from.
#[derive(Clone, Debug)]
pub struct TraceFile {
    /// Where it is.
    pub path: PathBuf,
    /// What messages call it.
    pub name: String,
}

impl TraceFile {
    /// A file that is called as it is named.
    #[must_use]
    pub fn new(path: &Path) -> TraceFile {
        TraceFile { path: path.to_owned(), name: path.display().to_string() }
    }
}

/// Where requests come from. They can be gone through as often as one likes.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files, one after another.
    Files {
        /// At least one.
        files: Vec<TraceFile>,
        /// Their format, or each its own.
        format: Option<Format>,
        /// What requests of block traces ask for, or what is customary.
        blocks: Option<Blocks>,
    },
    /// Nowhere: they are made up.
    Generated {
        /// What they are.
        generator: Generator,
        /// What chance begins from.
        seed: u64,
    },
}

impl Source {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Source::Files { files, .. } => files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>().join(", "),
            Source::Generated { generator, .. } => generator.to_string(),
        }
    }

    /// Begins from the first request.
    #[must_use]
    pub fn requests(&self) -> Requests {
        Requests {
            source: self.clone(),
            opened: 0,
            current: None,
            formats: Vec::new(),
            all_sized: true,
            read_bytes: Arc::default(),
        }
    }
}

/// The requests of a source, one after another.
pub struct Requests {
    source: Source,
    /// Files that were opened so far.
    opened: usize,
    current: Option<Decoder>,
    formats: Vec<Format>,
    all_sized: bool,
    read_bytes: Arc<AtomicU64>,
}

enum Decoder {
    Keys(Keys),
    Blocks(BlockRequests),
    Oracle(Records),
    Generated(generate::Requests),
}

impl Decoder {
    fn next(&mut self) -> Result<Option<Request>> {
        match self {
            Decoder::Keys(keys) => keys.next(),
            Decoder::Blocks(blocks) => blocks.next(),
            Decoder::Oracle(records) => records.next(),
            Decoder::Generated(generated) => Ok(generated.next()),
        }
    }

    fn has_sizes(&self) -> bool {
        match self {
            Decoder::Keys(keys) => keys.has_sizes(),
            Decoder::Blocks(_) | Decoder::Oracle(_) => true,
            Decoder::Generated(_) => false,
        }
    }
}

impl Requests {
    /// The next request, or none at the end.
    ///
    /// # Errors
    ///
    /// [`TraceError::Open`] and [`TraceError::Read`] of a file, [`TraceError::Line`] and [`TraceError::Record`] where
    /// its content is not what the format has.
    #[allow(clippy::should_implement_trait, reason = "an iterator of results is not what its users want")]
    pub fn next(&mut self) -> Result<Option<Request>> {
        loop {
            if let Some(decoder) = &mut self.current {
                if let Some(request) = decoder.next()? {
                    return Ok(Some(request));
                }
                self.all_sized &= decoder.has_sizes();
                self.current = None;
            }
            match self.open_next()? {
                Some(decoder) => self.current = Some(decoder),
                None => return Ok(None),
            }
        }
    }

    /// The formats of the files so far, each once.
    #[must_use]
    pub fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// Whether every file that was gone through has sizes.
    #[must_use]
    pub fn all_sized(&self) -> bool {
        self.all_sized
    }

    /// What was read of the files, compressed as they are, in bytes.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn open_next(&mut self) -> Result<Option<Decoder>> {
        self.opened += 1;
        match &self.source {
            Source::Generated { generator, seed } => {
                Ok((self.opened == 1).then(|| Decoder::Generated(generator.requests(*seed))))
            }
            Source::Files { files, format, blocks } => {
                let Some(file) = files.get(self.opened - 1) else { return Ok(None) };
                let mut bytes = TraceBytes::open(&file.path, &file.name, self.read_bytes.clone())?;
                let format = match format {
                    Some(format) => *format,
                    None => Format::detect(&file.name, bytes.peek()?),
                };
                if !self.formats.contains(&format) {
                    self.formats.push(format);
                }
                Ok(Some(decoder(bytes, format, *blocks)))
            }
        }
    }
}

fn decoder(bytes: TraceBytes, format: Format, blocks: Option<Blocks>) -> Decoder {
    let block_requests = |bytes, layout| {
        let customary = format.default_block_bytes().map_or(Blocks::Whole, |bytes| Blocks::Each { bytes });
        Decoder::Blocks(BlockRequests::new(Lines::new(bytes), layout, blocks.unwrap_or(customary)))
    };
    match format {
        Format::Keys => Decoder::Keys(Keys::new(Lines::new(bytes))),
        Format::Arc => block_requests(bytes, Layout::Arc),
        Format::Spc => block_requests(bytes, Layout::Spc),
        Format::Oracle => Decoder::Oracle(Records::new(bytes)),
    }
}
