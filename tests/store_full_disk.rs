//! A store where there is no space left: every refusal is typed, everything stays readable, a checkpoint can still be
//! made, and the store goes on as soon as there is room, its own or the file system's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;
#[allow(dead_code, reason = "every test binary takes what it needs")]
#[path = "support/limits.rs"]
mod limits;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use mapfall::{BlockAddr, CheckpointOptions, Error, IoMode, IoOptions, PageId, Result, Store, VerifyOptions};
use rustix::process::Resource;

use common::scratch;
use limits::{MIB, alone, alone_with_mounts, fill, ignore_file_size_signal, limit, run, small_tmpfs};

const DISK_BYTES: u64 = 16 * MIB;
/// A page of one unit, of several, and one whose nodes are larger than it is.
const SIZES: [(u32, u32); 3] = [(4096, 4096), (512, 512), (1024, 8192)];

/// A place that gets full.
struct Disk {
    directory: PathBuf,
    /// How the system says that there is no room.
    errno: i32,
    /// From now on there is no room, however short the store's file is.
    take: fn(&Disk),
    /// Gives back what `take` took.
    give: fn(&Disk),
}

impl Disk {
    fn mounted(directory: &Path) -> Self {
        Disk {
            directory: directory.to_owned(),
            errno: libc::ENOSPC,
            take: |disk| fill(&disk.directory.join("rest")),
            give: |disk| fs::remove_file(disk.directory.join("rest")).unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn store_bytes(&self) -> u64 {
        fs::metadata(self.path()).unwrap().len()
    }
}

/// A store, and what it should have.
struct Full<'a> {
    disk: &'a Disk,
    mode: IoMode,
    store: Store,
    pages: BTreeMap<PageId, u64>,
    blocks: BTreeMap<BlockAddr, u64>,
    /// What the last checkpoint has.
    acknowledged: (BTreeMap<PageId, u64>, BTreeMap<BlockAddr, u64>),
    number: u64,
}

fn content(number: u64, bytes: usize) -> Vec<u8> {
    let mut content = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).to_le_bytes().repeat(bytes.div_ceil(8));
    content.truncate(bytes);
    content
}

impl<'a> Full<'a> {
    fn create(disk: &'a Disk, mode: IoMode, (unit_bytes, page_bytes): (u32, u32)) -> Self {
        let options = Store::options().io(IoOptions::new().mode(mode)).unit_bytes(unit_bytes).page_bytes(page_bytes);
        let store = options.create(disk.path()).unwrap();
        let (pages, blocks, acknowledged) = Default::default();
        Full { disk, mode, store, pages, blocks, acknowledged, number: 0 }
    }

    fn reopen(self) -> Self {
        self.reopen_after(|| ())
    }

    fn reopen_after(self, meanwhile: impl FnOnce()) -> Self {
        let Full { disk, mode, store, acknowledged, number, .. } = self;
        drop(store);
        meanwhile();
        let store = Store::options().io(IoOptions::new().mode(mode)).open(disk.path()).unwrap();
        assert_eq!(store.cookie(), number.to_le_bytes());
        let (pages, blocks) = acknowledged.clone();
        let full = Full { disk, mode, store, pages, blocks, acknowledged, number };
        full.check();
        full
    }

    /// No room: and in which words.
    fn refused<T: std::fmt::Debug>(&self, result: Result<T>) {
        match result {
            Err(Error::Io { source, path, .. }) => {
                assert_eq!(source.raw_os_error(), Some(self.disk.errno), "{source}");
                assert_eq!(*path, *self.disk.path());
            }
            other => panic!("{other:?}"),
        }
    }

    /// Everything is there, and the accounts add up.
    fn check(&self) {
        let (pages, blocks) = (self.store.pages(), self.store.blocks());
        let mut buf = vec![0xEE; pages.page_bytes()];
        for (page, number) in &self.pages {
            pages.read(*page, &mut buf).unwrap();
            assert!(buf == content(*number, buf.len()), "page {page}");
        }
        for (address, number) in &self.blocks {
            let mut buf = vec![0xEE; address.len_bytes() as usize];
            blocks.read(address, &mut buf).unwrap();
            assert!(buf == content(*number, buf.len()), "block {address}");
        }
        assert_eq!(pages.count(), self.pages.len() as u64);
        self.store.validate().unwrap();
        let options = VerifyOptions::new().blocks(self.acknowledged.1.keys().copied());
        let report = self.store.verify(&options, &mut |_| ()).unwrap();
        assert!(report.is_clean() && report.pages == self.acknowledged.0.len() as u64, "{report:#?}");
    }

    fn write_page(&mut self) -> Result<()> {
        let (pages, number) = (self.store.pages(), self.number + self.pages.len() as u64);
        let page = pages.allocate().unwrap();
        match pages.write(page, &content(number, pages.page_bytes())) {
            Ok(()) => _ = self.pages.insert(page, number),
            Err(error) => {
                pages.free(page).unwrap();
                return Err(error);
            }
        }
        Ok(())
    }

    fn write_block(&mut self, bytes: usize) -> Result<()> {
        let number = self.number + self.blocks.len() as u64;
        let address = self.store.blocks().write(&content(number, bytes))?;
        assert_eq!(self.blocks.insert(address, number), None);
        Ok(())
    }

    /// As many pages as there is room for.
    fn fill_with_pages(&mut self) -> usize {
        let before = self.pages.len();
        let error = loop {
            if let Err(error) = self.write_page() {
                break error;
            }
        };
        self.refused::<()>(Err(error));
        self.pages.len() - before
    }

    /// As many blocks as there is room for, long ones first.
    fn fill_with_blocks(&mut self) -> usize {
        let before = self.blocks.len();
        for bytes in [100_000, 10_000, 1] {
            let error = loop {
                if let Err(error) = self.write_block(bytes) {
                    break error;
                }
            };
            self.refused::<()>(Err(error));
        }
        self.blocks.len() - before
    }

    fn checkpoint(&mut self) {
        assert!(self.checkpoint_is_made(), "{:#?}", self.store.stats());
    }

    /// Or refused, for want of room, and undone.
    fn checkpoint_is_made(&mut self) -> bool {
        let number = self.number + 1_000_000;
        match self.store.checkpoint(CheckpointOptions::new().cookie(&number.to_le_bytes())) {
            Ok(_) => {
                self.number = number;
                self.acknowledged = (self.pages.clone(), self.blocks.clone());
                true
            }
            Err(error) => {
                self.refused::<()>(Err(error));
                self.check();
                false
            }
        }
    }

    /// Where a unit is shorter than a node there may be units enough, and none of them in one piece. Then what was
    /// written since the last checkpoint can be taken back.
    fn checkpoint_with_nodes_in_one_piece(&mut self, (unit_bytes, _): (u32, u32)) {
        if !self.checkpoint_is_made() {
            assert!(unit_bytes < 4096);
            let old = &self.acknowledged.1;
            for address in self.blocks.extract_if(.., |address, _| !old.contains_key(address)) {
                self.store.blocks().free(&address.0).unwrap();
            }
            self.checkpoint();
        }
    }

    /// Makes an end of each page and block that this chooses by its place.
    fn free(&mut self, chosen: fn(usize) -> bool) {
        let pages: Vec<_> = self.pages.keys().copied().collect();
        for (_, page) in pages.iter().enumerate().filter(|(place, _)| chosen(*place)) {
            self.store.pages().free(*page).unwrap();
            self.pages.remove(page);
        }
        let blocks: Vec<_> = self.blocks.keys().copied().collect();
        for (_, address) in blocks.iter().enumerate().filter(|(place, _)| chosen(*place)) {
            self.store.blocks().free(address).unwrap();
            self.blocks.remove(address);
        }
    }
}

/// All that a store goes through there.
fn a_store_without_room(disk: &Disk) {
    for (round, sizes) in SIZES.into_iter().cycle().take(6).enumerate() {
        let mode = [IoMode::Pread, IoMode::Mmap][round % 2];
        goes_through_all(disk, mode, sizes);
        fs::remove_file(disk.path()).unwrap();
    }
}

fn goes_through_all(disk: &Disk, mode: IoMode, sizes: (u32, u32)) {
    let mut full = Full::create(disk, mode, sizes);
    // Not one checkpoint was made before.
    let all = full.fill_with_pages();
    assert!(all as u64 * u64::from(sizes.1) > DISK_BYTES / 2, "{all} pages");
    assert_eq!(full.store.stats().in_flight_bytes, 0);
    full.check();
    full.checkpoint();
    full.check();

    // Nothing more, whatever is tried.
    for _ in 0..3 {
        full.fill_with_pages();
        full.fill_with_blocks();
        full.checkpoint_with_nodes_in_one_piece(sizes);
    }
    full.check();
    let longest = disk.store_bytes();

    // Room in the file.
    full.free(|place| place % 3 == 0);
    full.check();
    full.checkpoint();
    full.check();
    let again = full.fill_with_pages();
    assert!(again > all / 5, "{again} of {all}");
    assert!(disk.store_bytes() <= longest + 64 * 1024, "{longest} to {}", disk.store_bytes());
    full.checkpoint();
    full = full.reopen();

    // All of it at once, and then one of two.
    full.free(|_| true);
    full.checkpoint();
    full.check();
    assert!(full.fill_with_pages() > all * 9 / 10);
    full.checkpoint();
    full.free(|place| place % 2 == 1);
    full.checkpoint();
    assert!(full.fill_with_blocks() > 10);
    full.checkpoint_with_nodes_in_one_piece(sizes);
    full.check();

    // A short file, and no room for a longer one.
    full.free(|_| true);
    full.checkpoint();
    (0..50).for_each(|_| full.write_page().unwrap());
    full.checkpoint();
    for _ in 0..3 {
        full.store.compaction().unwrap().step(u64::MAX).unwrap();
        full.store.checkpoint(CheckpointOptions::new().pack(true)).unwrap();
    }
    full = full.reopen_after(|| (disk.take)(disk));
    let short = disk.store_bytes();
    assert!(short < longest / 4, "{short}");
    full.fill_with_pages();
    full.fill_with_blocks();
    // There may be no room even for that.
    full.checkpoint_is_made();
    full.check();
    assert_eq!(disk.store_bytes(), short);

    // Room on the disk.
    (disk.give)(disk);
    assert!(full.fill_with_pages() > all / 2);
    full.checkpoint();
    full.reopen().store.validate().unwrap();
}

#[test]
fn a_full_tmpfs() {
    alone_with_mounts("a_full_tmpfs", || {
        let dir = scratch();
        if small_tmpfs(dir.path(), DISK_BYTES) {
            a_store_without_room(&Disk::mounted(dir.path()));
        }
    });
}

#[test]
fn a_full_ext4() {
    alone_with_mounts("a_full_ext4", || {
        let dir = scratch();
        let (image, root) = (dir.path().join("image"), dir.path().join("root"));
        File::create(&image).unwrap().set_len(DISK_BYTES + 8 * MIB).unwrap();
        fs::create_dir(&root).unwrap();
        if run("a_full_ext4", "mkfs.ext4", &["-q", "-F"], &image)
            && run("a_full_ext4", "mount", &["-o", "loop", image.to_str().unwrap()], &root)
        {
            a_store_without_room(&Disk::mounted(&root));
        }
    });
}

#[test]
fn a_limit_on_the_length_of_files() {
    alone("a_limit_on_the_length_of_files", || {
        ignore_file_size_signal();
        limit(Resource::Fsize, Some(DISK_BYTES));
        let dir = scratch();
        a_store_without_room(&Disk {
            directory: dir.path().to_owned(),
            errno: libc::EFBIG,
            take: |disk| limit(Resource::Fsize, Some(disk.store_bytes())),
            give: |_| limit(Resource::Fsize, Some(DISK_BYTES)),
        });
    });
}
