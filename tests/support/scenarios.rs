//! What a store and a file do in their lives, short: scenarios in which something is made to fail. What a page has says
//! whose it is, and the cookie of a checkpoint says which state it is, so whoever opens the store later can tell what
//! should be there.
#![allow(dead_code, reason = "every test binary takes what it needs")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use mapfall::{
    AccessHint, BatchRead, BlockAddr, CacheOptions, CheckpointOptions, Error, IoMode, IoOptions, PageId, PageRead,
    Result, Store, StoreCache, StoreOptions, SyncKind, VerifyOptions,
};

use crate::forks::Shared;

/// The last state that was acknowledged as durable.
const ACKNOWLEDGED: usize = 0;
/// The state that is being made durable.
const BEGUN: usize = 1;
/// How many errors there were.
pub(crate) const ERRORS: usize = 2;
/// The system's number of the first of them, 0 if it has none.
pub(crate) const ERRNO: usize = 3;

/// In which state the store is when a scenario begins, and the last one that there is.
const BEFORE: u64 = 3;
const LAST: u64 = 6;

/// How large everything is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) page_bytes: u32,
    pub(crate) block_bytes: usize,
}

pub(crate) const SMALL: Sizes = Sizes { page_bytes: 4096, block_bytes: 9000 };

/// A place for a scenario, and by what it reads.
pub(crate) struct Setup<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) mode: IoMode,
    pub(crate) sizes: Sizes,
    pub(crate) shared: &'a Shared,
    /// Memory that is taken before anything fails.
    pub(crate) buf: Vec<u8>,
}

impl<'a> Setup<'a> {
    pub(crate) fn new(directory: &'a Path, mode: IoMode, sizes: Sizes, shared: &'a Shared) -> Self {
        let buf = vec![0; 4 * sizes.block_bytes.max(sizes.page_bytes as usize)];
        Setup { directory, mode, sizes, shared, buf }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn options(&self) -> StoreOptions {
        let io = IoOptions::new().mode(self.mode).map_range_bytes(64 << 20);
        Store::options().io(io).page_bytes(self.sizes.page_bytes).unit_bytes(4096).uuid([7; 16])
    }

    fn cached(&self) -> Result<StoreOptions> {
        let cache = CacheOptions::new(1 << 20).budget_max_bytes(2 << 20).shards(1).build()?;
        Ok(self.options().cache(StoreCache::new(Arc::new(cache)).warm_up(self.directory.join("warm"))))
    }

    fn acknowledge(&self, state: u64) {
        self.shared.word(ACKNOWLEDGED).store(state, SeqCst);
    }

    /// Notes an error.
    fn note(&self, error: &Error) {
        if self.shared.word(ERRORS).fetch_add(1, SeqCst) == 0 {
            self.shared.word(ERRNO).store(error.raw_os_error().unwrap_or(0) as u64, SeqCst);
        }
        self.shared.tell(&format!("{error}\n"));
    }
}

fn word(place: u64, version: u64, index: usize) -> u64 {
    let mixed = (place ^ version.rotate_left(20) ^ (index as u64).rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Fills `buf` with what belongs into a page or block.
fn fill(buf: &mut [u8], place: u64, version: u64) {
    for (index, chunk) in buf.chunks_mut(8).enumerate() {
        let value = match index {
            0 => place,
            1 => version,
            _ => word(place, version, index),
        };
        chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
    }
}

/// Whose bytes these are. Panics where they are nobody's.
fn whose(bytes: &[u8]) -> (u64, u64) {
    let at = |index: usize| u64::from_le_bytes(*bytes[8 * index..].first_chunk().unwrap());
    let (place, version) = (at(0), at(1));
    for (index, chunk) in bytes.chunks(8).enumerate().skip(2) {
        assert!(
            *chunk == word(place, version, index).to_le_bytes()[..chunk.len()],
            "word {index} of {place} {version}"
        );
    }
    (place, version)
}

const BLOCK: u64 = 1 << 32;

/// What pages a state has: for each place the state in which it was written.
fn state(number: u64) -> BTreeMap<u64, u64> {
    let mut places = BTreeMap::new();
    for step in 1..=number {
        match step {
            1 => places.extend((0..24).map(|place| (place, step))),
            2 => places.extend((0..24).step_by(2).map(|place| (place, step))),
            3 => places.retain(|place, _| place % 3 != 0),
            4 => places.extend((10..30).map(|place| (place, step))),
            5 => places.retain(|place, _| *place > 20),
            _ => places.extend((0..4).map(|place| (place, step))),
        }
    }
    places
}

fn cookie(number: u64, block: Option<&BlockAddr>) -> Vec<u8> {
    let mut cookie = number.to_le_bytes().to_vec();
    block.inspect(|block| block.pack_into(&mut cookie));
    cookie
}

fn read_cookie(cookie: &[u8]) -> (u64, Option<BlockAddr>) {
    let Some((number, rest)) = cookie.split_first_chunk::<8>() else { return (0, None) };
    (u64::from_le_bytes(*number), (!rest.is_empty()).then(|| BlockAddr::unpack(rest).unwrap().0))
}

/// Where each place is.
fn places(store: &Store, buf: &mut [u8]) -> Result<BTreeMap<u64, PageId>> {
    let mut found = BTreeMap::new();
    let pages = store.pages();
    for page in pages.iter() {
        let (page, buf) = (page?, &mut buf[..pages.page_bytes()]);
        pages.read(page, buf)?;
        found.insert(whose(buf).0, page);
    }
    Ok(found)
}

/// Goes from the state of the last checkpoint to the next one.
fn step(setup: &mut Setup<'_>, store: &Store, options: CheckpointOptions) -> Result<()> {
    let (last, old_block) = read_cookie(&store.cookie());
    let (before, after, number) = (state(last), state(last + 1), last + 1);
    let (pages, blocks) = (store.pages(), store.blocks());
    let found = places(store, &mut setup.buf)?;
    for place in before.keys().filter(|place| !after.contains_key(place)) {
        pages.free(found[place])?;
    }
    let bytes = pages.page_bytes();
    let (first, second) = setup.buf.split_at_mut(bytes);
    let mut changed = after.iter().filter(|(_, version)| **version == number).map(|(place, _)| *place);
    let page_of = |place: &u64| found.get(place).map_or_else(|| pages.allocate(), |page| Ok(*page));
    while let Some(place) = changed.next() {
        fill(first, place, number);
        let page = page_of(&place)?;
        // Two at once, where there are two.
        match changed.next() {
            None => pages.write(page, first)?,
            Some(place) => {
                fill(&mut second[..bytes], place, number);
                pages.write_batch(&[(page, first), (page_of(&place)?, &second[..bytes])])?;
            }
        }
    }
    let block = &mut setup.buf[..setup.sizes.block_bytes];
    fill(block, BLOCK, number);
    let address = blocks.write(block)?;
    if let Some(old) = old_block {
        blocks.free(&old)?;
    }
    setup.shared.word(BEGUN).store(number, SeqCst);
    store.checkpoint(options.cookie(&cookie(number, Some(&address))))?;
    setup.acknowledge(number);
    Ok(())
}

/// Reads everything, and says which state it is. Panics at what is wrong.
fn read_all(setup: &mut Setup<'_>, store: &Store) -> Result<()> {
    let (number, block) = read_cookie(&store.cookie());
    let found = places(store, &mut setup.buf)?;
    let expected = state(number);
    assert!(found.keys().eq(expected.keys()), "state {number}: {found:?}");
    let pages = store.pages();
    let bytes = pages.page_bytes();
    let ids: Vec<_> = found.iter().map(|(place, page)| (*place, *page)).collect();
    for ids in ids.chunks(2) {
        let parts = setup.buf.chunks_mut(bytes).zip(ids);
        let mut batch: Vec<_> = parts.map(|(buf, (_, page))| PageRead { page: *page, buf }).collect();
        pages.read_batch(&mut batch)?;
        for (read, (place, _)) in batch.iter().zip(ids) {
            assert_eq!(whose(read.buf), (*place, expected[place]));
        }
    }
    if let Some(address) = block {
        let buf = &mut setup.buf[..address.len_bytes() as usize];
        store.blocks().read(&address, buf)?;
        assert_eq!(whose(buf), (BLOCK, number));
    }
    Ok(())
}

/// After an error: what can still be read is right.
fn read_what_can_be(setup: &mut Setup<'_>, store: &Store) {
    let pages = store.pages();
    for page in pages.iter().flatten() {
        let buf = &mut setup.buf[..pages.page_bytes()];
        // A page that was made and not written is zeros.
        if pages.read(page, buf).is_ok() && buf.iter().any(|byte| *byte != 0) {
            whose(buf);
        }
    }
}

fn with_store(
    setup: &mut Setup<'_>,
    store: Result<Store>,
    body: impl FnOnce(&mut Setup<'_>, &Store) -> Result<()>,
) -> Result<()> {
    let store = store?;
    let result = body(setup, &store);
    if result.is_err() {
        read_what_can_be(setup, &store);
    }
    result
}

fn create(setup: &mut Setup<'_>) -> Result<()> {
    let store = setup.options().create(setup.path());
    with_store(setup, store, |setup, store| {
        for _ in 0..3 {
            step(setup, store, CheckpointOptions::new())?;
        }
        read_all(setup, store)
    })
}

fn read(setup: &mut Setup<'_>) -> Result<()> {
    let store = setup.options().open(setup.path());
    with_store(setup, store, |setup, store| {
        let pages: Vec<_> = store.pages().iter().collect::<Result<_>>()?;
        store.pages().advise(pages, AccessHint::WillNeed)?;
        read_all(setup, store)?;
        let snapshot = setup.options().open_snapshot(setup.path())?;
        for page in snapshot.iter() {
            let buf = &mut setup.buf[..snapshot.page_bytes()];
            snapshot.read(page?, buf)?;
            whose(buf);
        }
        snapshot.info()?;
        snapshot.held_bytes()?;
        drop(snapshot);
        let report = store.verify(&VerifyOptions::new(), &mut |_| ())?;
        // What could not be read is a problem of the report's.
        if let Some(problem) = report.problems.first() {
            setup.note(&Error::NotAStore { path: Path::new("report").into(), problem: problem.to_string() });
        }
        Ok(())
    })
}

fn change(setup: &mut Setup<'_>) -> Result<()> {
    let store = setup.options().open(setup.path());
    with_store(setup, store, |setup, store| {
        step(setup, store, CheckpointOptions::new().keep_as("kept"))?;
        let snapshot = store.snapshot();
        step(setup, store, CheckpointOptions::new())?;
        store.drop_checkpoint("kept")?;
        step(setup, store, CheckpointOptions::new())?;
        assert_eq!(read_cookie(snapshot.cookie()).0, BEFORE + 1);
        drop(snapshot);
        read_all(setup, store)
    })
}

fn compact(setup: &mut Setup<'_>) -> Result<()> {
    let store = setup.options().open(setup.path());
    with_store(setup, store, |setup, store| {
        let (number, block) = read_cookie(&store.cookie());
        let moved = block.map(|block| store.blocks().move_down(&block)).transpose()?.flatten();
        let cookie = cookie(number, moved.or(block).as_ref());
        let mut compaction = store.compaction()?;
        loop {
            let more = compaction.step(4)?;
            store.checkpoint(CheckpointOptions::new().pack(true).cookie(&cookie))?;
            if !more {
                break;
            }
        }
        read_all(setup, store)
    })
}

fn salvage(setup: &mut Setup<'_>) -> Result<()> {
    let target = setup.directory.join("salvaged");
    let report = setup.options().salvage(setup.path(), &target, &mut |_| ());
    match report {
        Err(error) => {
            assert!(!target.exists() || may_stay(&error), "the target is there after {error}");
            Err(error)
        }
        Ok(report) => {
            if !report.is_complete() {
                let problem = format!("{:?}", report.pages_lost);
                setup.note(&Error::NotAStore { path: target.clone().into(), problem });
            }
            let salvaged = setup.options().open_snapshot(&target)?;
            assert!(!report.is_complete() || salvaged.count() == state(BEFORE).len() as u64);
            Ok(())
        }
    }
}

/// Where the file is there and its removal is what failed, or nothing was opened after it was made.
fn may_stay(error: &Error) -> bool {
    matches!(error, Error::Io { operation: mapfall::Operation::Open, .. })
}

fn cached(setup: &mut Setup<'_>) -> Result<()> {
    let store = setup.cached()?.open(setup.path());
    with_store(setup, store, |setup, store| {
        read_all(setup, store)?;
        step(setup, store, CheckpointOptions::new())?;
        read_all(setup, store)?;
        store.save_warm_set(setup.directory.join("other"))?;
        Ok(())
    })?;
    let store = setup.cached()?.open(setup.path());
    with_store(setup, store, |setup, store| {
        store.load_warm_set(setup.directory.join("other"))?;
        read_all(setup, store)
    })
}

/// The I/O layer alone.
fn bare(setup: &mut Setup<'_>) -> Result<()> {
    const UNIT: usize = 4096;
    let path = setup.directory.join("bare");
    let options = IoOptions::new().mode(setup.mode).map_range_bytes(1 << 20).write(true).create(true);
    let file = options.open(path)?;
    let unit = |setup: &mut Setup<'_>, number: u64| {
        fill(&mut setup.buf[..UNIT], number, 1);
    };
    for number in 0..16 {
        unit(setup, number);
        file.write_at(number * UNIT as u64, &setup.buf[..UNIT])?;
    }
    file.sync(SyncKind::Data)?;
    let read = |setup: &mut Setup<'_>, number: u64| -> Result<()> {
        let buf = &mut setup.buf[..UNIT];
        file.read_at(number * UNIT as u64, buf)?;
        assert_eq!(whose(buf), (number, 1));
        Ok(())
    };
    (0..16).try_for_each(|number| read(setup, number))?;
    file.set_len(8 * UNIT as u64)?;
    assert!(matches!(file.read_at(8 * UNIT as u64, &mut [0; 9]), Err(Error::PastEnd { .. } | Error::Io { .. })));
    file.reserve(24 * UNIT as u64)?;
    for number in 8..24 {
        unit(setup, number);
        file.write_at(number * UNIT as u64, &setup.buf[..UNIT])?;
    }
    for hint in AccessHint::ALL {
        file.advise(0..24 * UNIT as u64, hint)?;
    }
    let parts = setup.buf.chunks_mut(UNIT).enumerate();
    let mut batch: Vec<_> =
        parts.map(|(number, buf)| BatchRead { offset: (number * 3 * UNIT) as u64, buf }).take(8).collect();
    file.read_batch(&mut batch)?;
    for (number, read) in batch.iter().enumerate() {
        assert_eq!(whose(read.buf), (number as u64 * 3, 1));
    }
    file.sync(SyncKind::All)?;
    assert_eq!(file.len()?, 24 * UNIT as u64);
    Ok(())
}

/// A scenario by its name: whether it begins with a store that is there.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    has_store: bool,
    run: fn(&mut Setup<'_>) -> Result<()>,
}

pub(crate) const SCENARIOS: [Scenario; 7] = [
    Scenario { name: "bare file", has_store: false, run: bare },
    Scenario { name: "create", has_store: false, run: create },
    Scenario { name: "read", has_store: true, run: read },
    Scenario { name: "change", has_store: true, run: change },
    Scenario { name: "compact", has_store: true, run: compact },
    Scenario { name: "salvage", has_store: true, run: salvage },
    Scenario { name: "cached", has_store: true, run: cached },
];

/// Makes the store that scenarios begin with.
pub(crate) fn make_base(setup: &mut Setup<'_>) {
    let store = setup.options().create(setup.path()).unwrap();
    (0..BEFORE).for_each(|_| step(setup, &store, CheckpointOptions::new()).unwrap());
}

impl Scenario {
    /// Puts into the directory what the scenario begins with.
    pub(crate) fn prepare(&self, setup: &Setup<'_>, base: &Path) {
        for name in ["store", "salvaged", "bare", "warm", "warm.new", "other", "other.new"] {
            let _ = fs::remove_file(setup.directory.join(name));
        }
        setup.shared.clear();
        if self.has_store {
            fs::copy(base, setup.path()).unwrap();
            setup.acknowledge(BEFORE);
            setup.shared.word(BEGUN).store(BEFORE, SeqCst);
        }
    }

    /// Runs it, and notes how it ended.
    pub(crate) fn run(&self, setup: &mut Setup<'_>) {
        if let Err(error) = (self.run)(setup) {
            setup.note(&error);
        }
    }

    /// What is there afterwards is the last state that was acknowledged, or the one that was begun.
    pub(crate) fn check(&self, setup: &mut Setup<'_>) {
        let word = |index: usize| setup.shared.word(index).load(SeqCst);
        let (acknowledged, begun) = (word(ACKNOWLEDGED), word(BEGUN));
        if !self.has_store && acknowledged == 0 && !setup.path().exists() {
            return;
        }
        let store = match setup.options().open(setup.path()) {
            // It was being made.
            Err(Error::NotAStore { .. }) if !self.has_store && acknowledged == 0 => return,
            store => store.unwrap(),
        };
        let (number, block) = read_cookie(&store.cookie());
        assert!((acknowledged..=begun.max(acknowledged)).contains(&number), "{acknowledged} {number} {begun}");
        read_all(setup, &store).unwrap();
        store.validate().unwrap();
        let report = store.verify(&VerifyOptions::new().blocks(block), &mut |_| ()).unwrap();
        assert!(report.is_clean(), "{report:#?}");
        // And it goes on.
        if number < LAST {
            step(setup, &store, CheckpointOptions::new()).unwrap();
        }
    }
}
