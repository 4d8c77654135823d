//! The paths that are compared.
//!
//! Two are the crate's own: [`Io::Pread`] and [`Io::Mmap`]. The others are there to judge them by: [`Io::Bare`] is the
//! map without its protection, [`Io::BarePread`] the system call without our layer, [`Io::Limit`] what the hardware
//! gives for the same copies from memory that needs no file. Each has its own reader type, and a pass is compiled for
//! each type, so that no dispatch is in the measured loop.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

use memmap2::MmapMut;
use serde::{Serialize, Serializer};

use super::bare::{BareMap, HUGE_PAGE_BYTES};
use super::error::{Error, Result};
use crate::{BlockIo, MmapFile, PreadFile};

/// A path that takes part in a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Io {
    /// [`PreadFile`].
    Pread,
    /// [`MmapFile`], mapped afresh for each pass: first touches are in the time.
    Mmap,
    /// [`MmapFile`], mapped and touched once for all passes of a cell.
    MmapReused,
    /// [`BareMap`], mapped afresh for each pass.
    Bare,
    /// [`BareMap`], mapped and touched once for all passes of a cell.
    BareReused,
    /// `pread(2)` in a loop without any layer of ours.
    BarePread,
    /// The same copies from anonymous 2 MiB pages that hold the file's bytes.
    Limit,
}

impl Io {
    /// All, in the order of tables.
    pub const ALL: [Io; 7] = [Io::Pread, Io::Mmap, Io::MmapReused, Io::Bare, Io::BareReused, Io::BarePread, Io::Limit];

    /// The name in options, tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Io::Pread => "pread",
            Io::Mmap => "mmap",
            Io::MmapReused => "mmap-reused",
            Io::Bare => "bare",
            Io::BareReused => "bare-reused",
            Io::BarePread => "bare-pread",
            Io::Limit => "limit",
        }
    }

    /// What it is, in a line.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Io::Pread => "pread(2) through mapfall",
            Io::Mmap => "mapfall's safe map, mapped afresh for each pass",
            Io::MmapReused => "mapfall's safe map, mapped and touched before the first pass",
            Io::Bare => "memcpy from an unprotected map, mapped afresh for each pass",
            Io::BareReused => "memcpy from an unprotected map, mapped and touched before the first pass",
            Io::BarePread => "pread(2) in a plain loop",
            Io::Limit => "memcpy from anonymous 2 MiB pages: what the hardware gives",
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Io {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Only what a user chooses from; the others come by themselves.
impl FromStr for Io {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Io::Pread, Io::Mmap].into_iter().find(|io| io.name() == text);
        known.ok_or_else(|| format!("expected pread or mmap, found {text:?}"))
    }
}

/// What a pass without the copy reads of each block; see [`super::pass::Kind::Skeleton`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Its first byte: one system call, as for the whole block.
    OneByte,
    /// The first byte of each of its pages: the faults and TLB misses of the whole block.
    OneBytePerPage,
}

/// Something that reads blocks.
pub trait Reader: Sync {
    /// What stands for a block where nothing is to be copied.
    const PROBE: Probe;

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// Where it cannot be filled.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Reads that did not take the path that the contender is named after.
    fn fallback_reads(&self) -> u64 {
        0
    }
}

impl Reader for PreadFile {
    const PROBE: Probe = Probe::OneByte;

    #[inline]
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Ok(self.read_at(offset, buf)?)
    }
}

impl Reader for MmapFile {
    const PROBE: Probe = Probe::OneBytePerPage;

    #[inline]
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Ok(self.read_at(offset, buf)?)
    }

    fn fallback_reads(&self) -> u64 {
        self.stats().pread.reads
    }
}

impl Reader for BareMap {
    const PROBE: Probe = Probe::OneBytePerPage;

    #[inline]
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mapped_bytes = self.len_bytes();
        self.copy_to(offset, buf).ok_or(Error::OutOfRange { io: "bare", offset, len_bytes: buf.len(), mapped_bytes })
    }
}

/// `pread(2)` in a plain loop.
#[derive(Debug)]
pub struct BarePread<'a> {
    file: File,
    path: &'a Path,
}

impl<'a> BarePread<'a> {
    /// Opens the file for reading.
    ///
    /// # Errors
    ///
    /// Where the system refuses.
    pub fn open(path: &'a Path) -> Result<Self> {
        Ok(BarePread { file: File::open(path).map_err(Error::system("open", path))?, path })
    }
}

impl Reader for BarePread<'_> {
    const PROBE: Probe = Probe::OneByte;

    #[inline]
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self.file.read_exact_at(buf, offset) {
            Ok(()) => Ok(()),
            Err(source) => Err(Error::system("read", self.path)(source)),
        }
    }
}

/// The first bytes of a file in anonymous memory, 2 MiB pages asked for.
#[derive(Debug)]
pub struct LimitPages {
    /// Whole huge pages. The file's bytes begin at `start`, a multiple of 2 MiB in the address space.
    map: MmapMut,
    start: usize,
    len_bytes: usize,
}

impl LimitPages {
    /// Copies the first `len_bytes` of a file into fresh memory.
    ///
    /// # Errors
    ///
    /// Where there is no such memory or the file cannot be read.
    pub fn copy_of(file: &PreadFile, path: &Path, len_bytes: usize) -> Result<Self> {
        let memory = Error::system("get anonymous memory for a copy of", path);
        let mut map = match MmapMut::map_anon(len_bytes.next_multiple_of(HUGE_PAGE_BYTES) + HUGE_PAGE_BYTES) {
            Ok(map) => map,
            Err(source) => return Err(memory(source)),
        };
        // Where the kernel knows no such advice the pages are small; `grid` looks, and says so.
        let _ = map.advise(memmap2::Advice::HugePage);
        let start = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
        for (index, chunk) in map[start..start + len_bytes].chunks_mut(HUGE_PAGE_BYTES).enumerate() {
            file.read_at((index * HUGE_PAGE_BYTES) as u64, chunk)?;
        }
        Ok(LimitPages { map, start, len_bytes })
    }

    /// How much of the file it holds.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl Reader for LimitPages {
    const PROBE: Probe = Probe::OneBytePerPage;

    #[inline]
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let held = &self.map[self.start..self.start + self.len_bytes];
        let block = usize::try_from(offset).ok().and_then(|offset| held.get(offset..)?.get(..buf.len()));
        let Some(block) = block else {
            return Err(Error::OutOfRange { io: "limit", offset, len_bytes: buf.len(), mapped_bytes: self.len_bytes });
        };
        buf.copy_from_slice(block);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IoOptions;

    #[test]
    fn every_reader_returns_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..20_000u32).map(|i| (i * 7) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let pread = IoOptions::new().open_pread(&path).unwrap();
        let mmap = IoOptions::new().open_mmap(&path).unwrap();
        let bare = BareMap::new(&File::open(&path).unwrap(), crate::HugePages::Auto, crate::Advice::Normal).unwrap();
        let bare_pread = BarePread::open(&path).unwrap();
        let limit = LimitPages::copy_of(&pread, &path, bytes.len()).unwrap();

        fn check(reader: &impl Reader, bytes: &[u8]) {
            let mut buf = [0; 4096];
            reader.read(8192, &mut buf).unwrap();
            assert_eq!(buf, bytes[8192..12288]);
            assert!(reader.read(16_000, &mut buf).is_err());
            assert!(reader.read(u64::MAX, &mut buf).is_err());
        }
        check(&pread, &bytes);
        check(&mmap, &bytes);
        check(&bare, &bytes);
        check(&bare_pread, &bytes);
        check(&limit, &bytes);
    }
}
