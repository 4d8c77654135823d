//! A store whose file is damaged: what is read is right or an error, whatever bit, sector or end of it is lost.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/model.rs"]
mod model;
#[path = "support/sim.rs"]
mod sim;

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use mapfall::{CheckpointOptions, ChecksumKind, Error, Fit, PageId, Store, VerifyOptions};

use driver::{Driver, Setup};
use model::{Model, examine, examine_kept, examine_snapshot, examine_store};
use sim::{MemIo, SECTOR, SLOTS};

const SETUP: Setup = Setup {
    unit_bytes: 512,
    page_bytes: 512,
    fit: Fit::First,
    checksum: ChecksumKind::Crc32,
    uuid: [3; 16],
    pages: 12,
    block_bytes_max: 2000,
};

/// A file and what is in it.
struct Base {
    bytes: Vec<u8>,
    model: Model,
}

impl Base {
    /// Stores whose newest checkpoint is in either slot, with and without one that is kept.
    fn all() -> [Self; 4] {
        [(0, true), (1, true), (0, false), (1, false)].map(|(more, keep)| Base::new(more, keep))
    }

    fn new(more: usize, keep: bool) -> Self {
        let mut driver = Driver::create(SETUP, 5);
        (0..12).for_each(|_| driver.allocate().unwrap());
        driver.write_pages(20).unwrap();
        [1, 700, 1300].into_iter().for_each(|len| driver.write_block(len).unwrap());
        driver.checkpoint(keep.then_some("kept"), 0, true).unwrap();
        for _ in 0..2 + more {
            driver.write_pages(3).unwrap();
            driver.free_page().unwrap();
            driver.free_block().unwrap();
            driver.write_block(900).unwrap();
            driver.checkpoint(None, 0, true).unwrap();
        }
        driver.reopen().unwrap();
        driver.check();
        let mut bytes = driver.sim.content().to_bytes();
        // The rest is free.
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        bytes.truncate(used.next_multiple_of(SECTOR));
        Base { bytes, model: driver.work.clone() }
    }

    /// Damages the file in every way of a list, each time from new, and checks what comes of it.
    fn each<T: Debug + Sync>(&self, ways: &[T], damage: impl Fn(&T, &mut Vec<u8>) + Sync, check: &Check) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let io = MemIo::default();
                    loop {
                        let from = next.fetch_add(64, Ordering::Relaxed);
                        let Some(some) = ways.get(from..ways.len().min(from + 64)).filter(|some| !some.is_empty())
                        else {
                            break;
                        };
                        for way in some {
                            let _case = Case(way);
                            io.bytes().clone_from(&self.bytes);
                            damage(way, &mut io.bytes());
                            check(&io, &self.model);
                        }
                    }
                });
            }
        });
    }

    fn each_bit(&self, step: usize, check: &Check) {
        let bits: Vec<_> = (0..self.bytes.len() * 8).step_by(step).collect();
        self.each(&bits, |bit, bytes| bytes[bit / 8] ^= 1 << (bit % 8), check);
    }

    fn sectors(&self) -> Vec<usize> {
        (0..self.bytes.len()).step_by(SECTOR).collect()
    }

    fn each_sector(&self, check: &Check) {
        self.each(&self.sectors(), |sector, bytes| bytes[*sector..][..SECTOR].fill(0), check);
    }

    /// Every pair of sectors: the one written over the other, and each in the other's place.
    fn each_pair(&self, step: usize, check: &Check) {
        let sectors = self.sectors();
        let pairs = sectors.iter().flat_map(|a| sectors.iter().map(move |b| (*a, *b))).step_by(step);
        let pairs: Vec<_> = pairs.collect();
        self.each(&pairs, |(a, b), bytes| bytes.copy_within(*a..a + SECTOR, *b), check);
        let swap = |(a, b): &(usize, usize), bytes: &mut Vec<u8>| {
            let (low, high) = bytes.split_at_mut(*b);
            low[*a..][..SECTOR].swap_with_slice(&mut high[..SECTOR]);
        };
        // Damage to both copies of a slot is what a checkpoint that did not come to its end may leave.
        let in_slot_copy = |at: usize| SLOTS.contains(&(at as u64)).then_some(at / 4096);
        let both_copies = |a: usize, b: usize| match (in_slot_copy(a), in_slot_copy(b)) {
            (Some(a), Some(b)) => a != b && a / 2 == b / 2,
            _ => false,
        };
        let pairs: Vec<_> = pairs.into_iter().filter(|(a, b)| a < b && !both_copies(*a, *b)).collect();
        self.each(&pairs, swap, check);
    }

    fn each_end(&self, check: &Check) {
        let ends: Vec<_> = (0..self.bytes.len()).step_by(SECTOR).collect();
        self.each(&ends, |end, bytes| bytes.truncate(*end), check);
    }
}

/// What is done with each damaged file. The model is what was in it.
type Check = dyn Fn(&MemIo, &Model) + Sync;

/// Says what the damage was when a test fails.
struct Case<'a, T: Debug>(&'a T);

#[allow(clippy::print_stderr, reason = "how to do it again")]
impl<T: Debug> Drop for Case<'_, T> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the damage: {:?}", self.0);
        }
    }
}

fn damaged(what: &str, error: &Error) {
    assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error}");
}

fn not_opened(error: &Error) {
    let typed = matches!(error, Error::Corrupt { .. } | Error::NotAStore { .. });
    assert!(typed, "{error}");
}

/// Reads everything, both ways.
fn read_all(io: &MemIo, model: &Model) {
    match SETUP.options().open_snapshot_io(io.boxed()) {
        Ok(snapshot) => examine_snapshot(&snapshot, model, &mut damaged),
        Err(error) => not_opened(&error),
    }
    match SETUP.options().open_io(io.boxed()) {
        Ok(store) => examine_store(&store, model, &mut damaged),
        Err(error) => not_opened(&error),
    }
}

/// What cannot be read, verification tells of.
fn verify(io: &MemIo, model: &Model) {
    let mut found = false;
    match SETUP.options().open_snapshot_io(io.boxed()) {
        Ok(snapshot) => examine_snapshot(&snapshot, model, &mut |what, error| {
            damaged(what, error);
            found = true;
        }),
        Err(_) => found = true,
    }
    let options = VerifyOptions::new().blocks(model.blocks.iter().map(|(address, _)| *address));
    match SETUP.options().verify_io(io.boxed(), &options, &mut |_| ()) {
        Ok(report) => assert!(!found || !report.is_clean(), "{report:#?}"),
        Err(error) => not_opened(&error),
    }
}

/// Goes on with the store, as far as it lets one, and reads everything.
fn work_on(io: &MemIo, model: &Model) {
    let Ok(store) = SETUP.options().open_io(io.boxed()) else { return };
    let mut model = model.clone();
    let checkpoint = |store: &Store, model: &mut Model| {
        let cookie = [model.generation as u8, 0xAA];
        match store.checkpoint(CheckpointOptions::new().cookie(&cookie)) {
            Ok(report) => {
                model.generation = report.generation;
                model.cookie = cookie.to_vec();
                true
            }
            Err(error) => {
                damaged("checkpoint", &error);
                false
            }
        }
    };
    let mut durable = model.clone();
    for round in 0..3 {
        change(&store, &mut model, round);
        if round == 1 && !model.kept.is_empty() {
            store.drop_checkpoint("kept").unwrap();
        }
        if checkpoint(&store, &mut model) {
            if round > 0 {
                model.kept.clear();
            }
            durable = model.clone();
        }
        examine(&store, &model, &mut damaged);
        examine_kept(&store, &durable, &mut damaged);
    }
    drop(store);
    match SETUP.options().open_io(io.boxed()) {
        Ok(store) => examine_store(&store, &durable, &mut damaged),
        Err(error) => not_opened(&error),
    }
}

/// Writes and frees pages and blocks.
fn change(store: &Store, model: &mut Model, round: u8) {
    let pages: Vec<_> = model.pages.keys().copied().collect();
    for (index, page) in pages.into_iter().enumerate() {
        let bytes = vec![round ^ index as u8; SETUP.page_bytes as usize];
        let result = match index % 4 {
            0 => store.pages().write(PageId(page), &bytes).map(|()| drop(model.pages.insert(page, bytes.into()))),
            1 if round == 1 => store.pages().free(PageId(page)).map(|()| drop(model.pages.remove(&page))),
            _ => Ok(()),
        };
        result.unwrap_or_else(|error| damaged("page", &error));
    }
    match store.pages().allocate() {
        Ok(page) => {
            let zeros = vec![0; SETUP.page_bytes as usize].into();
            assert!(model.pages.insert(page.0, zeros).is_none(), "page {page} was live");
        }
        Err(error) => damaged("allocate", &error),
    }
    let bytes = vec![round; 1500];
    match store.blocks().write(&bytes) {
        Ok(address) => model.blocks.push((address, bytes.into())),
        Err(error) => damaged("block", &error),
    }
    match store.blocks().free(&model.blocks[0].0) {
        Ok(()) => drop(model.blocks.remove(0)),
        Err(error) => damaged("free", &error),
    }
}

/// Without optimization only some of many are tried.
fn one_in(count: usize) -> usize {
    if cfg!(debug_assertions) { count } else { 1 }
}

#[test]
fn no_bit_can_change_unnoticed() {
    let [first, others @ ..] = Base::all();
    first.each_bit(one_in(61), &read_all);
    first.each_bit(one_in(61), &verify);
    for base in others {
        base.each_bit(one_in(11) * 13, &read_all);
    }
}

#[test]
fn no_sector_can_be_lost_or_misplaced_unnoticed() {
    for base in Base::all() {
        base.each_sector(&read_all);
        base.each_pair(one_in(31), &read_all);
        base.each_sector(&verify);
        base.each_pair(one_in(31) * 11, &verify);
    }
}

#[test]
fn no_end_can_be_cut_off_unnoticed() {
    for base in Base::all() {
        base.each_end(&read_all);
        base.each_end(&verify);
    }
}

#[test]
fn a_damaged_store_that_goes_on_loses_nothing_more() {
    for base in Base::all() {
        base.each_sector(&work_on);
        base.each_end(&work_on);
        base.each_pair(one_in(10) * 23, &work_on);
    }
}
