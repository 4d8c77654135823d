//! The paths that are compared.
//!
//! The crate's own ([`Io::Own`]) follow from [`IoMode`]: what a user can open takes part by its name. `pread` and the
//! map also take part with advice to the kernel, so that one can say what the best choice would have been. The others
//! are there to judge them by: [`Io::Bare`] is the map without its protection, [`Io::BarePread`] the system call
//! without our layer, [`Io::Limit`] what the hardware gives for the same copies from memory that needs no file. A pass
//! is compiled for each reader's type, so that no dispatch is in the measured loop, but for the modes that have no type
//! of their own here: those cost one indirect call a read or batch.

mod reader;

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

use memmap2::MmapMut;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bare::{BareMap, HUGE_PAGE_BYTES};
use super::error::{Error, Result};
#[cfg(doc)]
use crate::AutoFile;
#[cfg(doc)]
use crate::MmapFile;
use crate::{Advice, BlockIo, HugePages, IoMode, IoOptions, PreadFile};
pub use reader::{Probe, Reader};

/// A path that takes part in a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Io {
    /// A file as [`IoOptions::open`] opens it in this mode, afresh for each pass: first touches of a map are in the
    /// time.
    Own(IoMode),
    /// `pread(2)` in a loop, the kernel told that reads are at random.
    PreadRandom,
    /// `pread(2)` in a loop, the kernel told that reads are in order.
    PreadSeq,
    /// [`MmapFile`] with [`Advice::Random`], mapped afresh for each pass.
    MmapRandom,
    /// [`MmapFile`] with [`Advice::Sequential`], mapped afresh for each pass.
    MmapSeq,
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
    /// [`PreadFile`].
    pub const PREAD: Io = Io::Own(IoMode::Pread);
    /// [`MmapFile`].
    pub const MMAP: Io = Io::Own(IoMode::Mmap);
    /// [`AutoFile`].
    pub const AUTO: Io = Io::Own(IoMode::Auto);

    /// Those that a user chooses from, in the order of tables.
    #[must_use]
    pub fn choosable() -> Vec<Io> {
        let advised = [Io::PreadRandom, Io::PreadSeq, Io::MmapRandom, Io::MmapSeq];
        let rest = IoMode::ALL.into_iter().map(Io::Own).filter(|io| ![Io::PREAD, Io::MMAP].contains(io));
        [Io::PREAD, Io::MMAP].into_iter().chain(rest).chain(advised).collect()
    }

    /// All, in the order of tables.
    #[must_use]
    pub fn all() -> Vec<Io> {
        let judges = [Io::MmapReused, Io::Bare, Io::BareReused, Io::BarePread, Io::Limit];
        Io::choosable().into_iter().chain(judges).collect()
    }

    /// The name in options, tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Io::Own(mode) => mode.name(),
            Io::PreadRandom => "pread-random",
            Io::PreadSeq => "pread-seq",
            Io::MmapRandom => "mmap-random",
            Io::MmapSeq => "mmap-seq",
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
            Io::Own(mode) => match mode {
                IoMode::Pread => "pread(2) through mapfall",
                IoMode::Mmap => "mapfall's safe map, mapped afresh for each pass",
                IoMode::Auto => "the map or system calls, whichever mapfall takes for each read",
                IoMode::Uring => "pread(2), batches through a ring (io_uring)",
                IoMode::Direct => "past the page cache (O_DIRECT), batches through a ring",
            },
            Io::PreadRandom => "pread(2) in a plain loop, advised that reads are at random",
            Io::PreadSeq => "pread(2) in a plain loop, advised that reads are in order",
            Io::MmapRandom => "mapfall's safe map, advised that reads are at random",
            Io::MmapSeq => "mapfall's safe map, advised that reads are in order",
            Io::MmapReused => "mapfall's safe map, mapped and touched before the first pass",
            Io::Bare => "memcpy from an unprotected map, mapped afresh for each pass",
            Io::BareReused => "memcpy from an unprotected map, mapped and touched before the first pass",
            Io::BarePread => "pread(2) in a plain loop",
            Io::Limit => "memcpy from anonymous 2 MiB pages: what the hardware gives",
        }
    }

    /// Whether a program that uses it has chosen system calls, with or without advice.
    #[must_use]
    pub fn is_pread(self) -> bool {
        matches!(self, Io::PREAD | Io::PreadRandom | Io::PreadSeq)
    }

    /// Whether a program that uses it has chosen a map, with or without advice.
    #[must_use]
    pub fn is_mmap(self) -> bool {
        matches!(self, Io::MMAP | Io::MmapRandom | Io::MmapSeq)
    }

    /// Whether it is opened for a pass and closed after it, so that it can be had by [`open_and`].
    #[must_use]
    pub fn is_opened_afresh(self) -> bool {
        !matches!(self, Io::MmapReused | Io::BareReused | Io::Limit)
    }

    /// Whether what a pass without the copy has to do is known: [`Probe`].
    #[must_use]
    pub fn has_skeleton(self) -> bool {
        !matches!(self, Io::Own(mode) if ![IoMode::Pread, IoMode::Mmap].contains(&mode))
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

/// Any of them, by its name.
impl<'de> Deserialize<'de> for Io {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = Io::all().into_iter().find(|io| io.name() == name);
        known.ok_or_else(|| serde::de::Error::custom(format!("expected a contender, found {name:?}")))
    }
}

/// Only what a user chooses from; the others come by themselves.
impl FromStr for Io {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let choosable = Io::choosable();
        let known = choosable.iter().find(|io| io.name() == text).copied();
        known.ok_or_else(|| {
            let names: Vec<&str> = choosable.iter().map(|io| io.name()).collect();
            format!("expected one of {}, found {text:?}", names.join(", "))
        })
    }
}

/// How contenders are opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The file.
    pub path: &'a Path,
    /// Whether maps ask for 2 MiB pages.
    pub huge_pages: HugePages,
    /// What maps that have no advice of their own tell the kernel.
    pub advice: Advice,
    /// Reads of a batch that may be under way at a time, 1 to 1024.
    pub queue_depth: u32,
}

impl Opening<'_> {
    /// The crate's options for it.
    #[must_use]
    pub fn options(&self) -> IoOptions {
        IoOptions::new().huge_pages(self.huge_pages).advice(self.advice).queue_depth(self.queue_depth)
    }

    /// The unprotected map.
    ///
    /// # Errors
    ///
    /// Where the system refuses to open or to map the file.
    pub fn bare(&self) -> Result<BareMap> {
        let file = File::open(self.path).map_err(Error::system("open", self.path))?;
        BareMap::new(&file, self.huge_pages, self.advice).map_err(Error::system("map", self.path))
    }
}

/// Something to be done with a reader of whatever type.
pub trait ReaderTask {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run<R: Reader>(self, reader: &R) -> Self::Output;
}

/// Opens a contender, does something with it, and closes it. `None` for one that is not [opened
/// afresh](Io::is_opened_afresh).
///
/// # Errors
///
/// Where it cannot be opened.
pub fn open_and<T: ReaderTask>(io: Io, opening: &Opening<'_>, task: T) -> Result<Option<T::Output>> {
    let (path, options) = (opening.path, opening.options());
    Ok(Some(match io {
        Io::Own(mode) if io == Io::PREAD => task.run(&options.mode(mode).open_pread(path)?),
        Io::Own(mode) if io == Io::MMAP => task.run(&options.mode(mode).open_mmap(path)?),
        Io::Own(mode) if io == Io::AUTO => task.run(&options.mode(mode).open_auto(path)?),
        Io::Own(mode) => task.run(&options.mode(mode).open(path)?),
        Io::PreadRandom => task.run(&BarePread::open(path)?.advised(Advice::Random)?),
        Io::PreadSeq => task.run(&BarePread::open(path)?.advised(Advice::Sequential)?),
        Io::MmapRandom => task.run(&options.advice(Advice::Random).open_mmap(path)?),
        Io::MmapSeq => task.run(&options.advice(Advice::Sequential).open_mmap(path)?),
        Io::Bare => task.run(&opening.bare()?),
        Io::BarePread => task.run(&BarePread::open(path)?),
        Io::MmapReused | Io::BareReused | Io::Limit => return Ok(None),
    }))
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

    /// Tells the kernel of the order of reads (`posix_fadvise(2)`).
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the advice for this kind of file.
    pub fn advised(self, advice: Advice) -> Result<Self> {
        let advice = match advice {
            Advice::Normal => rustix::fs::Advice::Normal,
            Advice::Random => rustix::fs::Advice::Random,
            Advice::Sequential => rustix::fs::Advice::Sequential,
        };
        let advised = rustix::fs::fadvise(&self.file, 0, None, advice);
        advised.map_err(|error| Error::system("advise the kernel of", self.path)(error.into()))?;
        Ok(self)
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

    /// Reads what is there, alone and in a batch, and what is not.
    struct Check<'a>(&'a [u8]);

    impl ReaderTask for Check<'_> {
        type Output = ();

        fn run<R: Reader>(self, reader: &R) {
            let bytes = self.0;
            let mut buf = [0; 4096];
            reader.read(8192, &mut buf).unwrap();
            assert_eq!(buf, bytes[8192..12288]);
            assert!(reader.read(16_000, &mut buf).is_err());
            assert!(reader.read(u64::MAX, &mut buf).is_err());
            let mut blocks = [0; 3 * 1024];
            reader.read_batch(&[5000, 0, 9000], &mut blocks, 1024).unwrap();
            assert_eq!(blocks, [&bytes[5000..6024], &bytes[..1024], &bytes[9000..10_024]].concat()[..]);
            assert!(reader.read_batch(&[0, 19_999], &mut blocks[..2048], 1024).is_err());
        }
    }

    #[test]
    fn every_reader_returns_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..20_000u32).map(|i| (i * 7) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let opening = Opening { path: &path, huge_pages: HugePages::Auto, advice: Advice::Normal, queue_depth: 8 };
        for io in Io::all() {
            let checked = open_and(io, &opening, Check(&bytes)).unwrap();
            assert_eq!(checked.is_some(), io.is_opened_afresh(), "{io}");
        }
        let pread = IoOptions::new().open_pread(&path).unwrap();
        Check(&bytes).run(&LimitPages::copy_of(&pread, &path, bytes.len()).unwrap());
        Check(&bytes).run(&opening.options().open(&path).unwrap());
    }

    #[test]
    fn a_user_chooses_from_the_modes_and_their_advice() {
        for mode in IoMode::ALL {
            assert_eq!(mode.name().parse(), Ok(Io::Own(mode)));
        }
        assert_eq!("mmap-random".parse(), Ok(Io::MmapRandom));
        let refused = "limit".parse::<Io>().unwrap_err();
        assert!(refused.contains("pread, mmap") && refused.contains("\"limit\""), "{refused}");
        let names: std::collections::HashSet<_> = Io::all().into_iter().map(Io::name).collect();
        assert_eq!(names.len(), Io::all().len());
    }
}
