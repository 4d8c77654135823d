//! The store among threads: writers, readers, checkpoints and snapshots at once, in both I/O modes and in so little
//! space that what one write leaves the next one takes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/common.rs"]
mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;

use mapfall::{
    BlockAddr, Blocks, CheckpointOptions, Error, Fit, IoMode, IoOptions, PageId, PageRead, Pages, Snapshot, Store,
    StoreOptions, VerifyOptions,
};

use common::scratch;

const MODES: [IoMode; 2] = [IoMode::Pread, IoMode::Mmap];
const PAGE_BYTES: usize = 1024;
const WRITERS: u64 = 3;
/// Pages of each writer.
const OWN_PAGES: u64 = 40;
/// Pages that all write.
const SHARED_PAGES: u64 = 10;
const PAGES: u64 = WRITERS * OWN_PAGES + SHARED_PAGES;
const WRITES: u64 = 3_000;
const CHECKPOINTS: usize = 40;

/// Random numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB) % limit
    }
}

/// A version of a page: every word says which page, whose version and which place it is.
fn stamped(page: u64, version: u64) -> Vec<u8> {
    let word = |at: u64| (page << 48 | version << 16 | at).to_le_bytes();
    (0..PAGE_BYTES as u64 / 8).flat_map(word).collect()
}

/// Which version of the page this is, whole.
fn version_of(page: u64, bytes: &[u8]) -> u64 {
    let version = u64::from_le_bytes(bytes[..8].try_into().unwrap()) >> 16 & 0xFFFF_FFFF;
    assert!(bytes == stamped(page, version), "page {page} is a mixture: {bytes:x?}");
    version
}

fn options(mode: IoMode, fit: Fit) -> StoreOptions {
    Store::options().io(IoOptions::new().mode(mode)).fit(fit).unit_bytes(512).page_bytes(PAGE_BYTES as u32)
}

/// The last version that was given to each page. A writer holds the lock for reading while it writes; who holds it for
/// writing sees exact versions.
struct Versions {
    gate: RwLock<()>,
    of: Vec<AtomicU64>,
    /// One for each shared page: its version and its content change together.
    turns: Vec<Mutex<()>>,
}

impl Versions {
    fn new() -> Self {
        Versions {
            gate: RwLock::new(()),
            of: (0..PAGES).map(|_| AtomicU64::new(0)).collect(),
            turns: (0..SHARED_PAGES).map(|_| Mutex::new(())).collect(),
        }
    }

    fn now(&self) -> Vec<u64> {
        self.of.iter().map(|version| version.load(Ordering::SeqCst)).collect()
    }

    fn write(&self, pages: &Pages, page: u64) {
        let version = self.of[page as usize].load(Ordering::SeqCst) + 1;
        pages.write(PageId(page), &stamped(page, version)).unwrap();
        self.of[page as usize].store(version, Ordering::SeqCst);
    }
}

fn writer(number: u64, pages: &Pages, versions: &Versions) {
    let mut numbers = Numbers(number);
    let first = number * OWN_PAGES;
    for _ in 0..WRITES {
        let _writing = versions.gate.read().unwrap();
        match numbers.below(10) {
            0..5 => versions.write(pages, first + numbers.below(OWN_PAGES)),
            5..8 => {
                let shared = numbers.below(SHARED_PAGES);
                let _turn = versions.turns[shared as usize].lock().unwrap();
                versions.write(pages, WRITERS * OWN_PAGES + shared);
            }
            _ => {
                let from = first + numbers.below(OWN_PAGES - 4);
                let contents: Vec<_> = (from..from + 4)
                    .map(|page| (page, versions.of[page as usize].load(Ordering::SeqCst) + 1))
                    .map(|(page, version)| (page, version, stamped(page, version)))
                    .collect();
                let batch: Vec<_> = contents.iter().map(|(page, _, bytes)| (PageId(*page), &**bytes)).collect();
                pages.write_batch(&batch).unwrap();
                for (page, version, _) in &contents {
                    versions.of[*page as usize].store(*version, Ordering::SeqCst);
                }
            }
        }
    }
}

/// One read or a batch: whole versions, none older than one that was there before, none newer than one that was begun.
fn reader(seed: u64, pages: &Pages, versions: &Versions, stop: &AtomicBool) -> u64 {
    let mut numbers = Numbers(seed);
    let mut seen = vec![0; PAGES as usize];
    let mut reads = 0;
    let mut look = |page: u64, at_least: u64, bytes: &[u8]| {
        let version = version_of(page, bytes);
        let at_most = versions.of[page as usize].load(Ordering::SeqCst) + 1;
        assert!(version >= at_least.max(seen[page as usize]), "page {page} went back to {version}");
        assert!(version <= at_most, "page {page} has version {version} of {at_most}");
        seen[page as usize] = version;
    };
    let written = |page: u64| versions.of[page as usize].load(Ordering::SeqCst);
    while !stop.load(Ordering::Relaxed) {
        if numbers.below(4) > 0 {
            let page = numbers.below(PAGES);
            let at_least = written(page);
            let mut bytes = [0xEE; PAGE_BYTES];
            pages.read(PageId(page), &mut bytes).unwrap();
            look(page, at_least, &bytes);
            reads += 1;
        } else {
            let wanted: Vec<_> = (0..8).map(|_| numbers.below(PAGES)).collect();
            let at_least: Vec<_> = wanted.iter().map(|page| written(*page)).collect();
            let mut bufs = vec![[0xEE; PAGE_BYTES]; wanted.len()];
            let read = |(page, buf): (&u64, _)| PageRead { page: PageId(*page), buf };
            let mut batch: Vec<_> = wanted.iter().zip(bufs.iter_mut().map(|buf| &mut buf[..])).map(read).collect();
            pages.read_batch(&mut batch).unwrap();
            for ((page, at_least), bytes) in wanted.iter().zip(at_least).zip(&bufs) {
                // Of a page that is in it twice, either may be the later one.
                let twice = wanted.iter().filter(|other| *other == page).count() > 1;
                if twice { _ = version_of(*page, bytes) } else { look(*page, at_least, bytes) }
            }
            reads += wanted.len() as u64;
        }
    }
    reads
}

fn check_snapshot(snapshot: &Snapshot, versions: &[u64]) {
    let mut bytes = [0xEE; PAGE_BYTES];
    for (page, version) in (0..).zip(versions) {
        snapshot.read(PageId(page), &mut bytes).unwrap();
        assert_eq!(version_of(page, &bytes), *version, "page {page} of generation {}", snapshot.generation());
    }
    assert_eq!(snapshot.cookie(), versions.iter().sum::<u64>().to_le_bytes());
}

/// Checkpoints with exact versions, and snapshots of them that are read much later.
fn checkpointer(
    store: &Store,
    path: &std::path::Path,
    mode: IoMode,
    versions: &Versions,
    stop: &AtomicBool,
) -> Vec<u64> {
    let mut open: Vec<(Snapshot, Vec<u64>)> = Vec::new();
    let mut last = Vec::new();
    let mut made = 0;
    while made < CHECKPOINTS || !stop.load(Ordering::Relaxed) {
        let gate = versions.gate.write().unwrap();
        let exact = versions.now();
        let options = CheckpointOptions::new().cookie(&exact.iter().sum::<u64>().to_le_bytes()).pack(made % 8 == 7);
        let options = if made % 5 == 0 { options.keep_as(&made.to_string()) } else { options };
        let pending = store.begin_checkpoint(options).unwrap();
        drop(gate);
        if made % 7 == 3 {
            drop(pending);
        } else {
            pending.commit().unwrap();
            last = exact;
            // Nobody else makes checkpoints.
            let snapshot = match made % 2 {
                0 => store.snapshot(),
                _ => self::options(mode, Fit::Best).open_snapshot(path).unwrap(),
            };
            open.push((snapshot, last.clone()));
        }
        if made % 5 == 4 {
            let oldest = store.checkpoints().into_iter().next();
            if let Some(oldest) = oldest {
                check_snapshot_of(store, &oldest.name);
                store.drop_checkpoint(&oldest.name).unwrap();
            }
        }
        if open.len() > 4 {
            let (snapshot, exact) = open.remove(made % 4);
            check_snapshot(&snapshot, &exact);
        }
        made += 1;
    }
    open.iter().for_each(|(snapshot, exact)| check_snapshot(snapshot, exact));
    last
}

/// A kept checkpoint: the cookie is the sum of all versions.
fn check_snapshot_of(store: &Store, name: &str) {
    let snapshot = store.snapshot_of(name).unwrap();
    let mut bytes = [0xEE; PAGE_BYTES];
    let version = |page: u64| {
        snapshot.read(PageId(page), &mut bytes).unwrap();
        version_of(page, &bytes)
    };
    assert_eq!(snapshot.cookie(), (0..PAGES).map(version).sum::<u64>().to_le_bytes());
}

/// Moves pages about while they are written.
fn compactor(store: &Store, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut compaction = store.compaction().unwrap();
        while compaction.step(10).unwrap() {
            thread::yield_now();
        }
        assert_eq!(compaction.progress().pages_damaged, 0);
    }
}

#[test]
fn every_read_is_one_whole_version_and_every_snapshot_an_exact_one() {
    for (mode, fit) in MODES.into_iter().zip([Fit::Best, Fit::First]) {
        let dir = scratch();
        let path = &dir.path().join("store");
        let store = options(mode, fit).create(path).unwrap();
        let (versions, stop) = (&Versions::new(), &AtomicBool::new(false));
        let last = {
            let (store, pages) = (&store, &store.pages());
            for page in 0..PAGES {
                assert_eq!(pages.allocate().unwrap(), PageId(page));
                pages.write(PageId(page), &stamped(page, 0)).unwrap();
            }
            let last = thread::scope(|scope| {
                let writer = |at: u64| scope.spawn(move || writer(at, pages, versions));
                let writers: Vec<_> = (0..WRITERS).map(writer).collect();
                let _stop = StopWhenDropped(stop);
                let reader = |at: u64| scope.spawn(move || reader(1 << 32 | at, pages, versions, stop));
                let readers: Vec<_> = (0..2).map(reader).collect();
                let checkpointer = scope.spawn(move || checkpointer(store, path, mode, versions, stop));
                let compactor = scope.spawn(move || compactor(store, stop));
                writers.into_iter().for_each(|writer| writer.join().unwrap());
                stop.store(true, Ordering::Relaxed);
                compactor.join().unwrap();
                assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
                checkpointer.join().unwrap()
            });
            let mut bytes = [0xEE; PAGE_BYTES];
            for (page, version) in (0..).zip(versions.now()) {
                pages.read(PageId(page), &mut bytes).unwrap();
                assert_eq!(version_of(page, &bytes), version);
            }
            store.validate().unwrap();
            last
        };
        let file_bytes = std::fs::metadata(path).unwrap().len();
        assert!(file_bytes < 16 << 20, "{mode:?}: {file_bytes} bytes for {PAGES} pages");
        drop(store);
        let store = options(mode, fit).open(path).unwrap();
        check_snapshot(&store.snapshot(), &last);
        let report = store.verify(&VerifyOptions::new().blocks([]), &mut |_| ()).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }
}

/// Ends the threads that go on until they are told, also where a test fails.
struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a thread of the next test has at its end: pages with their versions, and blocks with theirs.
type Left = (Vec<(u64, u64)>, Vec<(BlockAddr, u64)>);

/// Takes and frees pages and blocks, and finds its own only.
fn tenant(number: u64, pages: &Pages, blocks: &Blocks) -> Left {
    let mut numbers = Numbers(number);
    let (mut own_pages, mut own_blocks): Left = (Vec::new(), Vec::new());
    let mut bytes = vec![0xEE; PAGE_BYTES];
    for turn in 0..2_000 {
        let version = number << 24 | turn;
        match numbers.below(6) {
            0 | 1 if own_pages.len() < 400 => {
                let page = pages.allocate().unwrap().0;
                pages.read(PageId(page), &mut bytes).unwrap();
                assert!(bytes.iter().all(|byte| *byte == 0), "page {page} is new and has bytes");
                pages.write(PageId(page), &stamped(page, version)).unwrap();
                own_pages.push((page, version));
            }
            2 if !own_pages.is_empty() => {
                let at = numbers.below(own_pages.len() as u64) as usize;
                let (page, version) = own_pages.swap_remove(at);
                pages.read(PageId(page), &mut bytes).unwrap();
                assert_eq!(version_of(page, &bytes), version);
                pages.free(PageId(page)).unwrap();
            }
            3 | 4 if own_blocks.len() < 100 => {
                let len = numbers.below(PAGE_BYTES as u64 * 2) as usize + 1;
                let block = stamped(number, version).repeat(2);
                own_blocks.push((blocks.write(&block[..len]).unwrap(), version));
            }
            _ if !own_blocks.is_empty() => {
                let at = numbers.below(own_blocks.len() as u64) as usize;
                let (address, version) = own_blocks.swap_remove(at);
                check_block(blocks, &address, number, version);
                blocks.free(&address).unwrap();
            }
            _ => {}
        }
    }
    (own_pages, own_blocks)
}

fn check_block(blocks: &Blocks, address: &BlockAddr, number: u64, version: u64) {
    let mut bytes = vec![0xEE; address.len_bytes() as usize];
    blocks.read(address, &mut bytes).unwrap();
    assert!(bytes == stamped(number, version).repeat(2)[..bytes.len()], "block {address}");
}

#[test]
fn what_one_thread_has_no_other_one_gets() {
    for mode in MODES {
        let dir = scratch();
        let path = &dir.path().join("store");
        let store = options(mode, Fit::Best).create(path).unwrap();
        let stop = &AtomicBool::new(false);
        let left: Vec<Left> = thread::scope(|scope| {
            let _stop = StopWhenDropped(stop);
            let tenant = |at| {
                let (pages, blocks) = (store.pages(), store.blocks());
                scope.spawn(move || tenant(at, &pages, &blocks))
            };
            let tenants: Vec<_> = (1..=3).map(tenant).collect();
            let store = &store;
            scope.spawn(move || {
                for made in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                    let pending = store.begin_checkpoint(CheckpointOptions::new()).unwrap();
                    if made % 3 == 2 { drop(pending) } else { _ = pending.commit().unwrap() }
                }
            });
            tenants.into_iter().map(|tenant| tenant.join().unwrap()).collect()
        });
        store.validate().unwrap();
        assert_eq!(store.pages().count(), left.iter().map(|(pages, _)| pages.len() as u64).sum::<u64>());
        store.checkpoint(CheckpointOptions::new()).unwrap();
        drop(store);
        let store = options(mode, Fit::First).open(path).unwrap();
        let mut bytes = [0xEE; PAGE_BYTES];
        for (number, (pages, blocks)) in (1..).zip(&left) {
            for (page, version) in pages {
                store.pages().read(PageId(*page), &mut bytes).unwrap();
                assert_eq!(version_of(*page, &bytes), *version);
            }
            for (address, version) in blocks {
                check_block(&store.blocks(), address, number, *version);
            }
        }
        let blocks = left.iter().flat_map(|(_, blocks)| blocks.iter().map(|(address, _)| *address));
        let report = store.verify(&VerifyOptions::new().blocks(blocks), &mut |_| ()).unwrap();
        assert!(report.is_clean(), "{report:#?}");
        for (page, _) in left.iter().flat_map(|(pages, _)| pages) {
            store.pages().free(PageId(*page)).unwrap();
            assert!(matches!(store.pages().free(PageId(*page)), Err(Error::NoSuchPage { .. })));
        }
        assert_eq!(store.pages().count(), 0);
    }
}
