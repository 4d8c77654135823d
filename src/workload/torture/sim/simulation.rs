//! One run of a plan: epoch after epoch, and what must be true between them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use super::baton::Baton;
use super::client::{Checked, Client, World, tells_of_damage, wrong};
use super::content::Content;
use super::disk::Disk;
use super::oracle::{Block, Cut, Oracle, State, bytes_of, state_of};
use super::plan::{End, Epoch, Plan};
use crate::{BlockAddr, Error, PageId, VerifyOptions};

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ran {
    /// Of all calls of the file and what they gave.
    pub(super) hash: u64,
    pub(super) faults: u64,
    pub(super) crashes: u64,
    pub(super) opened: u64,
    /// Ended by damage, with a clear error: nothing could be opened any more.
    pub(super) was_fatal: bool,
    /// What was wrong, if anything.
    pub(super) problem: Option<String>,
}

/// Runs a plan. A panic is a failure as any other.
pub(super) fn run(plan: &Plan) -> Ran {
    let mut ran = Ran::default();
    let result = catch_unwind(AssertUnwindSafe(|| run_epochs(plan, &mut ran)));
    ran.problem = match result {
        Ok(Ok(())) => None,
        Ok(Err(problem)) => Some(problem),
        Err(panic) => Some(said(&*panic)),
    };
    ran
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", words.unwrap_or("of no words"))
}

fn run_epochs(plan: &Plan, ran: &mut Ran) -> Checked {
    let baton = |epoch: usize| Baton::new(plan.clients, plan.seed ^ (epoch as u64 + 1) << 40);
    let disk = Disk::new(Content::default(), baton(0));
    let store = plan.setup.options().create_io(disk.boxed()).map_err(|error| format!("creation: {error}"))?;
    let empty = Arc::new(Cut { generation: 1, ..Cut::default() });
    let oracle = Oracle { candidates: vec![empty.clone()], all: vec![empty], ..Oracle::default() };
    let mut world = World::new(store, disk, plan.setup, oracle);
    for (index, epoch) in plan.epochs.iter().enumerate() {
        let (disk, oracle) = live(plan, world, epoch, ran)?;
        ran.hash = disk.hash();
        ran.faults = disk.fired();
        let disk = match epoch.end {
            End::Close if !disk.is_down() => disk.after_close(baton(index + 1)),
            End::Crash { loss, .. } => {
                ran.crashes += 1;
                disk.after_crash(loss, baton(index + 1))
            }
            End::Close => return Err("the power went by itself".to_owned()),
        };
        match recover(plan, disk, &oracle)? {
            Some(next) => world = next,
            None => {
                ran.was_fatal = true;
                return Ok(());
            }
        }
        ran.opened += 1;
    }
    let (disk, oracle) = world.close();
    ran.hash = disk.hash();
    verify(plan, disk, &oracle)
}

/// An epoch's clients, and what can be said of the store when all have ended.
fn live(plan: &Plan, world: World, epoch: &Epoch, ran: &mut Ran) -> Checked<(Disk, Oracle)> {
    let crash_at = match epoch.end {
        End::Crash { at_call, .. } => Some(at_call),
        End::Close => None,
    };
    world.disk.plan(&epoch.faults, crash_at);
    let ops_of = |client: usize| -> Vec<_> {
        epoch.ops.iter().filter(|(owner, _)| *owner == client).map(|(_, op)| *op).collect()
    };
    let run = |number: usize| {
        let client = Client { world: &world, number };
        let ops = ops_of(number);
        let guarded = || catch_unwind(AssertUnwindSafe(|| client.run(&ops))).unwrap_or_else(|panic| Err(said(&*panic)));
        world.disk.baton().run(number, guarded)
    };
    let results: Vec<_> = if plan.clients == 1 {
        vec![run(0)]
    } else {
        thread::scope(|scope| {
            let run = &run;
            let threads: Vec<_> = (0..plan.clients).map(|number| scope.spawn(move || run(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| Err(said(&*panic)))).collect()
        })
    };
    ran.hash = world.disk.hash();
    ran.faults = world.disk.fired();
    results.into_iter().collect::<Checked>()?;
    world.disk.heal();
    if !world.disk.is_down() {
        check_open(&world)?;
    }
    Ok(world.close())
}

/// What must be true of a store that is open, and that nobody uses right now.
fn check_open(world: &World) -> Checked {
    let is_damaged = world.disk.is_damaged();
    let mut oracle = world.oracle();
    let now = oracle.now();
    let cut = oracle.cut(now, now);
    // What a checkpoint has that nobody knows the end of is not used again.
    let adds_up = !oracle.is_poisoned;
    drop(oracle);
    let read = |page: u64, bytes: &mut [u8]| world.store.pages().read(PageId(page), bytes);
    examine(&cut, world.setup.page_bytes as usize, is_damaged, &read, &|address, bytes| {
        world.store.blocks().read(address, bytes)
    })?;
    if !is_damaged && adds_up {
        world.store.validate().map_err(|problem| format!("the accounts of space do not add up: {problem}"))?;
    }
    Ok(())
}

type ReadPage<'a> = &'a dyn Fn(u64, &mut [u8]) -> crate::Result<()>;
type ReadBlock<'a> = &'a dyn Fn(&BlockAddr, &mut [u8]) -> crate::Result<()>;

/// Reads all that a cut has, and says what each page is, where that can be read.
fn examine(
    cut: &Cut,
    page_bytes: usize,
    is_damaged: bool,
    read_page: ReadPage<'_>,
    read_block: ReadBlock<'_>,
) -> Checked<Vec<(u64, Option<State>)>> {
    let mut found = Vec::new();
    let mut bytes = vec![0xEE; page_bytes];
    let excuse = |what: String, error: Error| match is_damaged && tells_of_damage(&error) {
        true => Ok(()),
        false => Err(format!("{what}: {error}")),
    };
    for (page, states) in &cut.pages {
        let state = match read_page(*page, &mut bytes) {
            Ok(()) => match state_of(&bytes, states) {
                None => return Err(wrong(&format!("page {page}"), &bytes, states)),
                state => state,
            },
            Err(Error::NoSuchPage { .. }) if states.contains(&State::Absent) => Some(State::Absent),
            Err(error) => {
                excuse(format!("page {page}, expected {states:?}"), error)?;
                None
            }
        };
        found.push((*page, state));
    }
    for Block { address, tag, .. } in &cut.blocks {
        let mut bytes = vec![0xEE; address.len_bytes as usize];
        match read_block(address, &mut bytes) {
            Ok(()) if bytes == bytes_of(*tag, bytes.len()) => {}
            Ok(()) => return Err(wrong(&format!("block {address}"), &bytes, &[State::Tag(*tag)])),
            Err(error) => excuse(format!("block {address}"), error)?,
        }
    }
    Ok(found)
}

/// Opens what is left, and finds out which checkpoint it is. `None`: damage that leaves nothing to open.
fn recover(plan: &Plan, disk: Disk, old: &Oracle) -> Checked<Option<World>> {
    let is_damaged = disk.is_damaged();
    let store = match plan.setup.options().open_io(disk.boxed()) {
        Ok(store) => store,
        Err(error) if is_damaged && tells_of_damage(&error) => return Ok(None),
        Err(error) => return Err(format!("the store does not open: {error}")),
    };
    let (generation, cookie) = (store.generation(), store.cookie());
    let allowed = if is_damaged { &old.all } else { &old.candidates };
    let found = allowed.iter().rev().find(|cut| cut.generation == generation && cut.cookie == cookie);
    let Some(found) = found else {
        let expected: Vec<_> = allowed.iter().map(|cut| (cut.generation, &cut.cookie)).collect();
        return Err(format!("opened at generation {generation} {cookie:?}, expected one of {expected:?}"));
    };
    let mut oracle = Oracle { next_tag: old.next_tag, all: old.all.clone(), ..Oracle::default() };
    let page_bytes = plan.setup.page_bytes as usize;
    let states = examine(
        found,
        page_bytes,
        is_damaged,
        &|page, bytes| store.pages().read(PageId(page), bytes),
        &|at, bytes| store.blocks().read(at, bytes),
    )?;
    for (page, state) in states {
        oracle.owners.insert(page, page as usize % plan.clients);
        match state {
            Some(state) => oracle.settle(page, state),
            None => {
                oracle.settle(page, found.pages[&page][0]);
                oracle.unknown.insert(page);
            }
        }
    }
    oracle.unknown.extend(&found.unknown);
    let beyond = oracle.page_end();
    for page in beyond..beyond + 3 {
        let read = store.pages().read(PageId(page), &mut vec![0; page_bytes]);
        let is_absent =
            matches!(&read, Err(Error::NoSuchPage { .. })) || is_damaged && read.as_ref().is_err_and(tells_of_damage);
        if !is_absent && !found.pages.contains_key(&page) && !found.unknown.contains(&page) {
            return Err(format!("page {page} is in no checkpoint: {read:?}"));
        }
    }
    let kept: Vec<_> = store.checkpoints().into_iter().map(|info| (info.name, info.generation)).collect();
    let expected: Vec<_> = found.kept.iter().map(|(name, cut)| (name.clone(), cut.generation)).collect();
    if kept != expected {
        return Err(format!("kept checkpoints are {kept:?}, expected {expected:?}"));
    }
    for (name, cut) in &found.kept {
        let snapshot = store.snapshot_of(name).map_err(|error| format!("{name:?}: {error}"))?;
        examine(cut, page_bytes, is_damaged, &|page, bytes| snapshot.read(PageId(page), bytes), &|at, bytes| {
            snapshot.read_block(at, bytes)
        })
        .map_err(|problem| format!("{name:?}: {problem}"))?;
    }
    for (index, block) in found.blocks.iter().enumerate() {
        oracle.blocks.push(Block { owner: index % plan.clients, ..*block });
    }
    oracle.kept.clone_from(&found.kept);
    oracle.candidates = vec![found.clone()];
    Ok(Some(World::new(store, disk, plan.setup, oracle)))
}

/// What the offline check says of the last state, against what can be read of it.
fn verify(plan: &Plan, disk: Disk, oracle: &Oracle) -> Checked {
    let is_damaged = disk.is_damaged();
    let report = match plan.setup.options().verify_io(disk.boxed(), &VerifyOptions::new(), &mut |_| ()) {
        Ok(report) => report,
        Err(error) if is_damaged && tells_of_damage(&error) => return Ok(()),
        Err(error) => return Err(format!("verification: {error}")),
    };
    if !is_damaged {
        return match report.is_clean() {
            true => Ok(()),
            false => Err(format!("verification finds {:?}", report.problems)),
        };
    }
    // What it calls clean can be read.
    let Ok(snapshot) = plan.setup.options().open_snapshot_io(disk.boxed()) else { return Ok(()) };
    let is_it = |cut: &&Arc<Cut>| cut.generation == snapshot.generation() && cut.cookie == snapshot.cookie();
    let Some(cut) = oracle.all.iter().rev().find(is_it) else { return Ok(()) };
    let pages = Cut { pages: cut.pages.clone(), ..Cut::default() };
    let found = examine(
        &pages,
        plan.setup.page_bytes as usize,
        true,
        &|page, bytes| snapshot.read(PageId(page), bytes),
        &|_, _| Ok(()),
    )?;
    match found.iter().find(|(_, state)| state.is_none()) {
        Some((page, _)) if report.is_clean() => Err(format!("verification calls clean what has no page {page}")),
        _ => Ok(()),
    }
}
