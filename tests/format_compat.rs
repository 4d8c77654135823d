//! Stores that were written by earlier versions of this crate are read, and written, by this one.
//!
//! The files in `tests/fixtures` are kept for ever: a version of the format that was released is read by every later
//! one. Before a release, a format that changes has them made anew:
//!
//! ```text
//! cargo test --test format_compat -- --ignored make_the_fixtures
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/common.rs"]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mapfall::{
    BlockAddr, CheckpointInfo, CheckpointOptions, ChecksumKind, Error, Fit, IoMode, IoOptions, PageId, Snapshot, Store,
    StoreOptions, VerifyOptions,
};

use common::scratch;

/// A file, and what it was made with.
#[derive(Clone, Copy, Debug)]
struct Fixture {
    name: &'static str,
    checksum: ChecksumKind,
    /// The page and the unit.
    page_bytes: u32,
    written_pages: u64,
    pages: u64,
    bytes_max: u64,
}

const FIXTURES: [Fixture; 2] = [
    Fixture {
        name: "store-v1.mapfall",
        checksum: ChecksumKind::Crc32,
        page_bytes: 512,
        written_pages: 20,
        pages: 300,
        bytes_max: 112 << 10,
    },
    Fixture {
        name: "store-v1-xxh3.mapfall",
        checksum: ChecksumKind::Xxh3,
        page_bytes: 4096,
        written_pages: 6,
        pages: 9,
        bytes_max: 150 << 10,
    },
];

const UUID: [u8; 16] = *b"mapfall fixture.";
const KEPT: [&str; 2] = ["first", "ein zweiter, später"];
const BLOCK_LENS: [usize; 6] = [1, 511, 512, 513, 3000, 777];

/// What is in a checkpoint: pages and their versions (0 was never written), and the blocks by their place in
/// [`BLOCK_LENS`].
#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    pages: BTreeMap<u64, u64>,
    blocks: Vec<usize>,
}

impl Fixture {
    fn path(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(self.name)
    }

    /// What the checkpoints of generations 2, 3 and 5 have.
    fn contents(self) -> [Content; 3] {
        let first_pages = (0..self.pages).map(|page| (page, if page < self.written_pages { page + 1 } else { 0 }));
        let first = Content { pages: first_pages.collect(), blocks: vec![0, 1, 2, 3, 4] };
        let mut second = first.clone();
        second.pages.extend([(0, 1000), (2, 1002), (self.pages - 2, 1003)]);
        second.pages.remove(&1);
        second.pages.remove(&(self.written_pages - 1));
        second.blocks = vec![0, 2, 3, 4, 5];
        let mut last = second.clone();
        last.pages.extend([(2, 2002), (3, 2003), (1, 2001)]);
        last.pages.remove(&(self.pages - 1));
        [first, second, last]
    }

    fn content_of_page(self, version: u64) -> Vec<u8> {
        content(version, self.page_bytes as usize)
    }
}

fn content(version: u64, len: usize) -> Vec<u8> {
    let byte =
        |at: u64| (version.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left((at % 61) as u32) ^ (at * version)) as u8;
    (0..len as u64).map(byte).collect()
}

fn content_of_block(block: usize) -> Vec<u8> {
    content(block as u64 + 77, BLOCK_LENS[block])
}

/// The cookie: the addresses, one behind the other.
fn cookie(addresses: &[BlockAddr]) -> Vec<u8> {
    let mut cookie = Vec::new();
    addresses.iter().for_each(|address| address.pack_into(&mut cookie));
    cookie
}

fn addresses(mut cookie: &[u8]) -> Vec<BlockAddr> {
    let mut addresses = Vec::new();
    while !cookie.is_empty() {
        let (address, rest) = BlockAddr::unpack(cookie).unwrap();
        addresses.push(address);
        cookie = rest;
    }
    addresses
}

#[test]
#[ignore = "makes the files that are kept"]
fn make_the_fixtures() {
    for fixture in FIXTURES {
        fs::create_dir_all(fixture.path().parent().unwrap()).unwrap();
        _ = fs::remove_file(fixture.path());
        make(fixture);
        assert!(fs::metadata(fixture.path()).unwrap().len() <= fixture.bytes_max, "{fixture:?}");
    }
}

fn make(fixture: Fixture) {
    // Everything as low as can be, so that the file is short.
    let options = Store::options().uuid(UUID).checksum(fixture.checksum).fit(Fit::First);
    let options = options.unit_bytes(fixture.page_bytes).page_bytes(fixture.page_bytes);
    let store = options.create(fixture.path()).unwrap();
    let (pages, blocks) = (store.pages(), store.blocks());
    let [first, second, last] = fixture.contents();
    let write = |content: &Content, than: &Content| {
        for (page, version) in &content.pages {
            if than.pages.get(page) != Some(version) && *version > 0 {
                pages.write(PageId(*page), &fixture.content_of_page(*version)).unwrap();
            }
        }
    };
    let free = |content: &Content, than: &Content| {
        for page in than.pages.keys().filter(|page| !content.pages.contains_key(page)) {
            pages.free(PageId(*page)).unwrap();
        }
    };
    for page in 0..fixture.pages {
        assert_eq!(pages.allocate().unwrap(), PageId(page));
    }
    write(&first, &Content::default());
    let mut written: Vec<_> = (0..5).map(|block| blocks.write(&content_of_block(block)).unwrap()).collect();
    store.checkpoint(CheckpointOptions::new().pack(true).cookie(&cookie(&written)).keep_as(KEPT[0])).unwrap();

    write(&second, &first);
    free(&second, &first);
    blocks.free(&written.remove(1)).unwrap();
    written.push(blocks.write(&content_of_block(5)).unwrap());
    store.checkpoint(CheckpointOptions::new().pack(true).cookie(&cookie(&written)).keep_as(KEPT[1])).unwrap();

    free(&last, &second);
    store.checkpoint(CheckpointOptions::new().pack(true)).unwrap();
    // Numbers come back in an order of the store's own: all are taken, and what is too much is freed.
    let missing = || last.pages.keys().any(|page| pages.read(PageId(*page), &mut vec![0; pages.page_bytes()]).is_err());
    while missing() {
        pages.allocate().unwrap();
    }
    for page in pages.iter().map(Result::unwrap).filter(|page| !last.pages.contains_key(&page.0)) {
        pages.free(page).unwrap();
    }
    write(&last, &second);
    assert_eq!(store.checkpoint(CheckpointOptions::new().pack(true)).unwrap().generation, 5);
    // This is in no checkpoint.
    pages.write(PageId(0), &fixture.content_of_page(9999)).unwrap();
    blocks.write(b"gone").unwrap();
}

fn options(mode: IoMode) -> StoreOptions {
    Store::options().io(IoOptions::new().mode(mode))
}

/// Holds a checkpoint against what it must be. Says where its blocks are.
fn check(snapshot: &Snapshot, fixture: Fixture, expected: &Content) -> Vec<BlockAddr> {
    assert_eq!(snapshot.page_bytes(), fixture.page_bytes as usize);
    assert_eq!(snapshot.count(), expected.pages.len() as u64);
    let found: Vec<_> = snapshot.iter().map(|page| page.unwrap().0).collect();
    assert!(found.iter().eq(expected.pages.keys()), "{found:?}");
    let mut buf = vec![0xEE; snapshot.page_bytes()];
    for page in 0..fixture.pages + 2 {
        match expected.pages.get(&page) {
            Some(version) => {
                snapshot.read(PageId(page), &mut buf).unwrap();
                assert!(buf == fixture.content_of_page(*version), "page {page}");
            }
            None => {
                let result = snapshot.read(PageId(page), &mut buf);
                assert!(matches!(result, Err(Error::NoSuchPage { .. })), "page {page}: {result:?}");
            }
        }
    }
    let addresses = addresses(snapshot.cookie());
    assert_eq!(addresses.len(), expected.blocks.len());
    for (address, block) in addresses.iter().zip(&expected.blocks) {
        let mut buf = vec![0xEE; address.len_bytes() as usize];
        snapshot.read_block(address, &mut buf).unwrap();
        assert!(buf == content_of_block(*block), "block {block} at {address}");
    }
    addresses
}

/// Everything in the file, which nobody writes.
fn check_file(path: &Path, fixture: Fixture, mode: IoMode) {
    let [first, second, last] = fixture.contents();
    let snapshot = options(mode).open_snapshot(path).unwrap();
    assert_eq!((snapshot.generation(), snapshot.name()), (5, None));
    let blocks = check(&snapshot, fixture, &last);
    for (name, generation, expected) in [(KEPT[0], 2, first), (KEPT[1], 3, second)] {
        let snapshot = options(mode).open_snapshot_of(path, name).unwrap();
        assert_eq!((snapshot.generation(), snapshot.name()), (generation, Some(name)));
        check(&snapshot, fixture, &expected);
    }
    let report = options(mode).verify(path, &VerifyOptions::new().blocks(blocks), &mut |_| ()).unwrap();
    assert!(report.is_clean() && report.notices.is_empty(), "{report:#?}");
    assert_eq!((report.kept_checkpoints, report.unit_bytes), (2, fixture.page_bytes));
}

fn each(check: impl Fn(Fixture, IoMode, &Path)) {
    for fixture in FIXTURES {
        for mode in [IoMode::Pread, IoMode::Mmap] {
            let dir = scratch();
            let copy = dir.path().join("copy");
            fs::copy(fixture.path(), &copy).unwrap();
            check(fixture, mode, &copy);
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_is_read() {
    each(|fixture, mode, path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
        check_file(path, fixture, mode);
        assert!(fs::read(path).unwrap() == fs::read(fixture.path()).unwrap(), "reading has changed the file");
    });
}

#[test]
fn the_superblock_is_that_of_version_1() {
    for fixture in FIXTURES {
        let bytes = fs::read(fixture.path()).unwrap();
        let size = fixture.page_bytes.to_le_bytes();
        let kind = if fixture.checksum == ChecksumKind::Crc32 { 1 } else { 3 };
        let expected = [&b"\x89MAPFALL\x01\0\0\0"[..], &size, &size, &[kind], &[0; 27], &UUID, &[0; 444]].concat();
        assert!(bytes[..508] == expected && bytes[..512] == bytes[4096..4608], "{:x?}", &bytes[..64]);
    }
}

#[test]
fn a_copy_is_opened_and_written_and_opened_again() {
    each(|fixture, mode, path| {
        let [first, second, mut last] = fixture.contents();
        let store = options(mode).open(path).unwrap();
        let info = |name: &str, generation, content: &Content| {
            let cookie = store.snapshot_of(name).unwrap().cookie().to_vec();
            CheckpointInfo { name: name.to_owned(), generation, pages: content.pages.len() as u64, cookie }
        };
        assert_eq!(store.checkpoints(), [info(KEPT[0], 2, &first), info(KEPT[1], 3, &second)]);
        assert_eq!((store.generation(), store.pages().count()), (5, last.pages.len() as u64));
        let mut blocks = check(&store.snapshot(), fixture, &last);
        assert_eq!(store.cookie(), cookie(&blocks));
        store.validate().unwrap();

        for (page, version) in &mut last.pages {
            *version = page + 5000;
            store.pages().write(PageId(*page), &fixture.content_of_page(*version)).unwrap();
        }
        store.pages().free(PageId(0)).unwrap();
        last.pages.remove(&0);
        store.blocks().free(&blocks.remove(0)).unwrap();
        last.blocks.remove(0);
        last.blocks.push(1);
        blocks.push(store.blocks().write(&content_of_block(1)).unwrap());
        store.drop_checkpoint(KEPT[0]).unwrap();
        store.checkpoint(CheckpointOptions::new().cookie(&cookie(&blocks))).unwrap();
        store.validate().unwrap();
        drop(store);

        let store = options(mode).open(path).unwrap();
        assert_eq!(store.generation(), 6);
        check(&store.snapshot(), fixture, &last);
        check(&store.snapshot_of(KEPT[1]).unwrap(), fixture, &second);
        assert!(matches!(store.snapshot_of(KEPT[0]), Err(Error::NoSuchCheckpoint { .. })));
        let report = store.verify(&VerifyOptions::new().blocks(blocks), &mut |_| ()).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    });
}
