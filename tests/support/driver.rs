//! A store under random use, and what it would have to hold after a crash at any moment of that.
#![allow(dead_code, reason = "every test binary takes what it needs")]

use std::sync::Arc;

use mapfall::{CheckpointOptions, ChecksumKind, Error, Fit, Operation, PageId, Result, Snapshot, Store, StoreOptions};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::model::{Bytes, Model, examine, examine_kept, examine_snapshot, examine_store, no_errors};
use crate::sim::{Call, Content, Fault, SLOTS, SimFile, Step};

pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSPC: i32 = 28;

/// What kind of store it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) unit_bytes: u32,
    pub(crate) page_bytes: u32,
    pub(crate) fit: Fit,
    pub(crate) checksum: ChecksumKind,
    pub(crate) uuid: [u8; 16],
    /// About so many pages.
    pub(crate) pages: usize,
    /// No block is longer.
    pub(crate) block_bytes_max: usize,
}

impl Setup {
    pub(crate) fn random(rng: &mut SmallRng) -> Self {
        let unit_bytes = 512 << rng.random_range(0..4);
        let page_bytes = unit_bytes * rng.random_range(1..=4096 / unit_bytes);
        let uuid = std::array::from_fn(|_| rng.random());
        Setup {
            unit_bytes,
            page_bytes,
            fit: if rng.random() { Fit::Best } else { Fit::First },
            checksum: if rng.random() { ChecksumKind::Crc32 } else { ChecksumKind::Xxh3 },
            uuid,
            // Several leaves of the page table and the held list; blocks that make the file grow and shrink.
            pages: if rng.random_bool(0.06) { 600 } else { rng.random_range(4..40) },
            block_bytes_max: if rng.random_bool(0.06) { 5 << 20 } else { 20_000 },
        }
    }

    pub(crate) fn options(&self) -> StoreOptions {
        let options = Store::options().unit_bytes(self.unit_bytes).page_bytes(self.page_bytes);
        options.fit(self.fit).checksum(self.checksum).uuid(self.uuid)
    }
}

/// What a moment of the log means for a crash after it.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The slot of this state was written, or begun to be.
    Written(usize),
    /// This state is durable, and nothing before it is to be seen again.
    Durable(usize),
}

/// A store, its file, and what it must hold.
pub(crate) struct Driver {
    pub(crate) sim: SimFile,
    pub(crate) setup: Setup,
    /// What the store holds now, durable or not.
    pub(crate) work: Model,
    pub(crate) rng: SmallRng,
    store: Option<Arc<Store>>,
    /// Every checkpoint that was tried.
    states: Vec<Arc<Model>>,
    events: Vec<(usize, Event)>,
    /// Names to go with the next checkpoint.
    drops: Vec<String>,
    snapshots: Vec<(Snapshot, Arc<Model>)>,
    tag: u64,
}

impl Driver {
    pub(crate) fn create(setup: Setup, seed: u64) -> Self {
        Self::try_create(setup, seed, SimFile::new()).unwrap()
    }

    pub(crate) fn try_create(setup: Setup, seed: u64, sim: SimFile) -> Result<Self> {
        let store = setup.options().create_io(sim.boxed())?;
        let empty = Arc::new(Model { generation: 1, ..Model::default() });
        let events = vec![(sim.log_len(), Event::Durable(0))];
        Ok(Driver::new(setup, seed, sim, store, vec![empty], 0, events))
    }

    /// Opens what a crash has left. `states` are those that may be there.
    pub(crate) fn recover(setup: Setup, seed: u64, content: Content, states: &[Arc<Model>]) -> Self {
        let sim = SimFile::from_content(content);
        let snapshot = setup.options().open_snapshot_io(sim.boxed()).unwrap();
        let store = setup.options().open_io(sim.boxed()).unwrap();
        let now = identify(&store, states);
        examine_snapshot(&snapshot, &now, &mut no_errors);
        examine_store(&store, &now, &mut no_errors);
        // All that the crash left is on the device.
        Driver::new(setup, seed, sim, store, vec![now], 0, vec![(0, Event::Durable(0))])
    }

    fn new(
        setup: Setup,
        seed: u64,
        sim: SimFile,
        store: Store,
        states: Vec<Arc<Model>>,
        now: usize,
        events: Vec<(usize, Event)>,
    ) -> Self {
        Driver {
            sim,
            setup,
            work: (*states[now]).clone(),
            rng: SmallRng::seed_from_u64(seed),
            store: Some(Arc::new(store)),
            states,
            events,
            drops: Vec::new(),
            snapshots: Vec::new(),
            // Cookies of a recovered store are not those of the run that crashed.
            tag: seed << 16,
        }
    }

    pub(crate) fn store(&self) -> Arc<Store> {
        self.store.clone().unwrap()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.store.is_some()
    }

    /// The states that a crash after so many steps of the log may leave; none while the store is made.
    pub(crate) fn states_at(&self, at: usize) -> Vec<Arc<Model>> {
        let mut found = Vec::new();
        for (from, event) in &self.events {
            match event {
                _ if *from > at => break,
                Event::Written(state) => found.push(*state),
                Event::Durable(state) => found = vec![*state],
            }
        }
        found.into_iter().map(|state| self.states[state].clone()).collect()
    }

    fn content(&mut self, len: usize) -> Bytes {
        let mut word = self.rng.random::<u64>();
        let next = || {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (word >> 56) as u8
        };
        // Long blocks repeat themselves, for speed.
        let some: Vec<u8> = std::iter::repeat_with(next).take(len.min(8192)).collect();
        some.repeat(len.div_ceil(8192))[..len].into()
    }

    fn any_page(&mut self) -> Option<u64> {
        let count = self.work.pages.len();
        (count > 0).then(|| *self.work.pages.keys().nth(self.rng.random_range(0..count)).unwrap())
    }

    pub(crate) fn allocate(&mut self) -> Result<()> {
        let page = self.store().pages().allocate()?;
        let zeros = vec![0; self.setup.page_bytes as usize].into();
        assert!(self.work.pages.insert(page.0, zeros).is_none(), "page {page} was live");
        Ok(())
    }

    pub(crate) fn write_pages(&mut self, count: usize) -> Result<()> {
        let len = self.setup.page_bytes as usize;
        let mut batch = Vec::new();
        for _ in 0..count {
            let Some(page) = self.any_page() else { return Ok(()) };
            batch.push((page, self.content(len)));
        }
        let written: Vec<_> = batch.iter().map(|(page, bytes)| (PageId(*page), &bytes[..])).collect();
        match &written[..] {
            [(page, bytes)] => self.store().pages().write(*page, bytes)?,
            _ => self.store().pages().write_batch(&written)?,
        }
        self.work.pages.extend(batch);
        Ok(())
    }

    pub(crate) fn free_page(&mut self) -> Result<()> {
        let Some(page) = self.any_page() else { return Ok(()) };
        self.store().pages().free(PageId(page))?;
        self.work.pages.remove(&page);
        Ok(())
    }

    pub(crate) fn write_block(&mut self, len: usize) -> Result<()> {
        let bytes = self.content(len);
        let address = self.store().blocks().write(&bytes)?;
        self.work.blocks.push((address, bytes));
        Ok(())
    }

    pub(crate) fn free_block(&mut self) -> Result<()> {
        if self.work.blocks.is_empty() {
            return Ok(());
        }
        let index = self.rng.random_range(0..self.work.blocks.len());
        self.store().blocks().free(&self.work.blocks[index].0)?;
        self.work.blocks.swap_remove(index);
        Ok(())
    }

    pub(crate) fn drop_name(&mut self) -> Result<()> {
        let names: Vec<_> =
            self.work.kept.iter().map(|kept| &kept.0).filter(|name| !self.drops.contains(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        let name = names[self.rng.random_range(0..names.len())].clone();
        self.store().drop_checkpoint(&name)?;
        self.drops.push(name);
        Ok(())
    }

    pub(crate) fn take_snapshot(&mut self) {
        let store = self.store();
        let snapshot = match self.work.kept.last() {
            Some((name, _)) if self.rng.random_bool(0.3) => store.snapshot_of(name).unwrap(),
            _ => store.snapshot(),
        };
        let is_it =
            |state: &&Arc<Model>| state.generation == snapshot.generation() && state.cookie == snapshot.cookie();
        // What was kept before a crash is in no other list.
        let kept = self.work.kept.iter().map(|(_, kept)| kept);
        let state = kept.chain(self.states.iter().rev()).find(is_it).unwrap().clone();
        self.snapshots.push((snapshot, state));
    }

    pub(crate) fn check_snapshots(&mut self) {
        for (snapshot, state) in &self.snapshots {
            examine_snapshot(snapshot, state, &mut no_errors);
        }
        if self.snapshots.len() > 3 || self.rng.random() {
            let count = self.snapshots.len();
            self.snapshots.drain(..self.rng.random_range(0..=count));
        }
    }

    /// Whether all that was done, durable or not, is there to be read.
    pub(crate) fn check(&self) {
        let store = self.store();
        examine(&*store, &self.work, &mut no_errors);
        examine_kept(&store, &self.work, &mut no_errors);
    }

    /// A checkpoint, during which so many changes are made that do not belong to it.
    pub(crate) fn checkpoint(&mut self, name: Option<&str>, meanwhile: usize, commit: bool) -> Result<()> {
        self.tag += 1;
        let store = self.store();
        let mut options = CheckpointOptions::new().cookie(&self.tag.to_le_bytes());
        let mut state = self.work.clone();
        state.kept.retain(|(name, _)| !self.drops.contains(name));
        state.cookie = self.tag.to_le_bytes().to_vec();
        state.generation = store.generation() + 1;
        if let Some(name) = name {
            options = options.keep_as(name);
            let own = Model { kept: Vec::new(), ..state.clone() };
            state.kept.push((name.to_owned(), Arc::new(own)));
        }
        let pending = store.begin_checkpoint(options)?;
        for _ in 0..meanwhile {
            match self.rng.random_range(0..5) {
                0 => self.allocate()?,
                1 => self.free_page()?,
                2 => self.write_block(700)?,
                3 => self.free_block()?,
                _ => self.write_pages(2)?,
            }
        }
        if !commit {
            drop(pending);
            return Ok(());
        }
        let from = self.sim.log_len();
        let result = pending.commit();
        let state = Arc::new(state);
        self.note(from, &state);
        let report = result?;
        assert_eq!(report.generation, state.generation);
        assert!(matches!(self.events.last(), Some((_, Event::Durable(last))) if *last == self.states.len() - 1));
        self.drops.clear();
        let Model { generation, cookie, kept, .. } = (*state).clone();
        self.work = Model { generation, cookie, kept, ..std::mem::take(&mut self.work) };
        Ok(())
    }

    /// Notes from when on a state may be there, and from when on it must be.
    fn note(&mut self, from: usize, state: &Arc<Model>) {
        let steps = self.sim.log_from(from);
        let Some(written) = steps.iter().position(Step::is_slot_write) else { return };
        let index = self.states.len();
        self.events.push((from + written + 1, Event::Written(index)));
        if let Some(sync) = steps[written..].iter().position(|step| matches!(step, Step::Sync)) {
            self.events.push((from + written + sync + 1, Event::Durable(index)));
        }
        self.states.push(state.clone());
    }

    /// Ends the process, and begins another one. What the system has in memory is still there.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        self.snapshots.clear();
        self.store = None;
        let from = self.sim.log_len();
        let store = self.setup.options().open_io(self.sim.boxed())?;
        let allowed = self.states_at(from);
        let found = identify(&store, &allowed);
        examine_store(&store, &found, &mut no_errors);
        let index = self.states.iter().position(|state| Arc::ptr_eq(state, &found)).unwrap();
        if let Some(sync) = self.sim.log_from(from).iter().position(|step| matches!(step, Step::Sync)) {
            self.events.push((from + sync + 1, Event::Durable(index)));
        }
        self.work = (*found).clone();
        self.drops.clear();
        self.store = Some(Arc::new(store));
        Ok(())
    }

    /// A checkpoint that the system fails, and what comes of it.
    pub(crate) fn failing_checkpoint(&mut self, fault: Fault) {
        self.sim.inject(fault);
        let result = self.checkpoint(None, 0, true);
        if self.sim.heal() == 0 {
            return result.unwrap();
        }
        if let Err(error) = result {
            self.after_failed_checkpoint(&error);
        } else {
            // Nothing needs the file to become shorter.
            assert_eq!(fault.call, Call::SetLen);
        }
    }

    /// What a store must do after this error of a checkpoint.
    pub(crate) fn after_failed_checkpoint(&mut self, error: &Error) {
        self.check();
        if poisons(error) {
            self.check_poisoned();
            self.reopen().unwrap();
        }
    }

    /// That nothing is written anymore, and everything read.
    pub(crate) fn check_poisoned(&mut self) {
        let (store, log_len) = (self.store(), self.sim.log_len());
        let bytes = vec![1; self.setup.page_bytes as usize];
        let (page, block) = (self.any_page(), self.work.blocks.first().map(|block| block.0));
        let mut results = vec![
            store.pages().allocate().map(|_| ()),
            store.blocks().write(&bytes).map(|_| ()),
            store.checkpoint(CheckpointOptions::new()).map(|_| ()),
            store.begin_checkpoint(CheckpointOptions::new()).map(|_| ()),
            store.drop_checkpoint("none"),
        ];
        if let Some(page) = page {
            results.push(store.pages().write(PageId(page), &bytes));
            results.push(store.pages().write_batch(&[(PageId(page), &bytes)]));
            results.push(store.pages().free(PageId(page)));
        }
        results.extend(block.map(|block| store.blocks().free(&block)));
        for result in &results {
            assert!(matches!(result, Err(Error::Poisoned { .. })), "{results:?}");
        }
        self.check();
        assert_eq!(self.sim.log_len(), log_len, "something was written");
    }

    /// One random thing.
    pub(crate) fn step(&mut self) {
        let want_more = self.work.pages.len() < self.setup.pages;
        match self.rng.random_range(0..100) {
            0..14 if want_more => {
                for _ in 0..self.rng.random_range(1..=self.setup.pages / 2) {
                    self.allocate().unwrap();
                }
            }
            0..24 => self.write_pages(1).unwrap(),
            24..36 => {
                let count = self.rng.random_range(2..=self.setup.pages.min(300));
                self.write_pages(count).unwrap();
            }
            36..44 => {
                for _ in 0..self.rng.random_range(1..=self.setup.pages / 4) {
                    self.free_page().unwrap();
                }
            }
            44..54 => {
                let most = [600, 5000, self.setup.block_bytes_max][self.rng.random_range(0..3)];
                let len = self.rng.random_range(1..=most);
                self.write_block(len).unwrap();
            }
            54..62 => self.free_block().unwrap(),
            62..66 => self.take_snapshot(),
            66..68 => self.check_snapshots(),
            68..71 => self.drop_name().unwrap(),
            71..84 => self.checkpoint(None, 0, true).unwrap(),
            84..88 => {
                let meanwhile = self.rng.random_range(1..8);
                self.checkpoint(None, meanwhile, true).unwrap();
            }
            88..90 => {
                let meanwhile = self.rng.random_range(0..8);
                self.checkpoint(None, meanwhile, false).unwrap();
            }
            90..94 => {
                let name = format!("kept {}", self.tag);
                self.checkpoint(Some(&name), 0, true).unwrap();
            }
            94..96 => self.reopen().unwrap(),
            96..98 => {
                let call = if self.rng.random() { Call::Sync } else { Call::Write };
                let (after, forgets) = (self.rng.random_range(0..3), self.rng.random());
                self.failing_checkpoint(Fault { call, after, always: false, errno: EIO, forgets });
            }
            _ => self.check(),
        }
    }
}

/// Whether nobody can know what is on the device after this error of a checkpoint.
pub(crate) fn poisons(error: &Error) -> bool {
    match error {
        Error::Io { operation: Operation::Sync, .. } => true,
        Error::Io { operation: Operation::Write, offset, .. } => SLOTS.contains(offset),
        Error::Io { .. } => false,
        error => panic!("{error}"),
    }
}

/// Which of these states the store has: nothing else is right.
fn identify(store: &Store, states: &[Arc<Model>]) -> Arc<Model> {
    let (generation, cookie) = (store.generation(), store.cookie());
    let found = states.iter().find(|state| state.generation == generation && state.cookie == cookie);
    let expected: Vec<_> = states.iter().map(|state| (state.generation, &state.cookie)).collect();
    found.unwrap_or_else(|| panic!("found {generation} {cookie:?}, expected one of {expected:?}")).clone()
}
