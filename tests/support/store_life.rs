//! The life of a store, state by state. What state `n` has follows from a seed and `n` alone, so every process that is
//! told the seed knows what a checkpoint must have: its cookie says which state it is and where the directory is, a
//! block with the numbers of all pages and the addresses of all blocks.
#![allow(dead_code, reason = "every test binary takes what it needs")]

use std::path::Path;
use std::thread;

use mapfall::{BlockAddr, CheckpointOptions, IoMode, IoOptions, PageId, Snapshot, Store, StoreOptions, VerifyOptions};

pub(crate) const PAGES: usize = 300;
const BLOCKS: usize = 24;
/// The version of a page that was made and never written.
const ZEROS: u64 = 1;
/// So many checkpoints are kept at most.
const KEPT_MAX: usize = 3;

/// Numbers that follow from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What belongs into a page or block.
pub(crate) fn content(key: u64, bytes: usize) -> Vec<u8> {
    let mut rng = Rng(key);
    let mut content: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| rng.next().to_le_bytes()).collect();
    content.truncate(bytes);
    content
}

pub(crate) fn options(mode: IoMode) -> StoreOptions {
    Store::options().io(IoOptions::new().mode(mode))
}

/// A state: the version of each page and each block, 0 where there is none, and the states that are kept.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) seed: u64,
    pub(crate) number: u64,
    pages: Vec<u64>,
    blocks: Vec<u64>,
    pub(crate) kept: Vec<u64>,
}

impl State {
    /// State 0: nothing.
    pub(crate) fn first(seed: u64) -> Self {
        State { seed, number: 0, pages: vec![0; PAGES], blocks: vec![0; BLOCKS], kept: Vec::new() }
    }

    pub(crate) fn at(seed: u64, number: u64) -> Self {
        let mut state = State::first(seed);
        (0..number).for_each(|_| state.step());
        state
    }

    pub(crate) fn step(&mut self) {
        self.number += 1;
        let mut rng = Rng(self.seed ^ self.number.wrapping_mul(0x1234_5678_9abc_def1));
        let version = self.number + ZEROS;
        // Now and then nearly all of it, and now and then next to nothing.
        let changes = [1, 10, 30, 30, 30, 2 * PAGES as u64][rng.below(6) as usize];
        for _ in 0..changes {
            let page = &mut self.pages[rng.below(PAGES as u64) as usize];
            *page = [0, ZEROS, version, version, version, version, version, version][rng.below(8) as usize];
        }
        for _ in 0..rng.below(6) {
            let block = &mut self.blocks[rng.below(BLOCKS as u64) as usize];
            *block = if rng.one_in(3) { 0 } else { version };
        }
        if rng.one_in(5) {
            self.kept.push(self.number);
        }
        if self.kept.len() > KEPT_MAX || rng.one_in(20) && !self.kept.is_empty() {
            let gone = rng.below(self.kept.len() as u64) as usize;
            self.kept.remove(gone);
        }
    }

    fn key(&self, slot: usize, version: u64) -> u64 {
        self.seed.rotate_left(17) ^ ((slot as u64) << 40) ^ version
    }

    fn page(&self, slot: usize, bytes: usize) -> Vec<u8> {
        match self.pages[slot] {
            ZEROS => vec![0; bytes],
            version => content(self.key(slot, version), bytes),
        }
    }

    fn block(&self, slot: usize) -> Vec<u8> {
        let key = self.key(PAGES + slot, self.blocks[slot]);
        // Of all lengths, and few of them long.
        let bytes = 1 + Rng(!key).below([100, 5_000, 20_000, 100_000][(key % 4) as usize]);
        content(key, bytes as usize)
    }

    pub(crate) fn live_pages(&self) -> u64 {
        self.pages.iter().filter(|version| **version != 0).count() as u64
    }
}

pub(crate) fn name_of(number: u64) -> String {
    format!("state {number}")
}

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    own: Option<BlockAddr>,
    pages: Vec<Option<PageId>>,
    blocks: Vec<Option<BlockAddr>>,
}

impl Directory {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for page in &self.pages {
            bytes.extend_from_slice(&page.map_or(u64::MAX, |page| page.0).to_le_bytes());
        }
        for block in &self.blocks {
            bytes.push(u8::from(block.is_some()));
            block.inspect(|block| block.pack_into(&mut bytes));
        }
        bytes
    }

    /// The number of the state, and its directory.
    pub(crate) fn read(cookie: &[u8], read: impl FnOnce(&BlockAddr, &mut [u8])) -> (u64, Self) {
        let mut directory = Directory { own: None, pages: vec![None; PAGES], blocks: vec![None; BLOCKS] };
        if cookie.is_empty() {
            return (0, directory);
        }
        let (number, address) = cookie.split_first_chunk::<8>().unwrap();
        let (address, rest) = BlockAddr::unpack(address).unwrap();
        assert!(rest.is_empty());
        directory.own = Some(address);
        let mut bytes = vec![0; address.len_bytes() as usize];
        read(&address, &mut bytes);
        let mut rest = &bytes[..];
        for page in &mut directory.pages {
            let (id, behind) = rest.split_first_chunk::<8>().unwrap();
            let id = u64::from_le_bytes(*id);
            *page = (id != u64::MAX).then_some(PageId(id));
            rest = behind;
        }
        for block in &mut directory.blocks {
            let (there, behind) = rest.split_first().unwrap();
            rest = behind;
            if *there == 1 {
                let (address, behind) = BlockAddr::unpack(rest).unwrap();
                (*block, rest) = (Some(address), behind);
            }
        }
        assert!(rest.is_empty());
        (u64::from_le_bytes(*number), directory)
    }

    fn cookie(&self, number: u64) -> Vec<u8> {
        let mut cookie = number.to_le_bytes().to_vec();
        self.own.unwrap().pack_into(&mut cookie);
        cookie
    }

    pub(crate) fn all_blocks(&self) -> impl Iterator<Item = BlockAddr> + '_ {
        self.own.into_iter().chain(self.blocks.iter().flatten().copied())
    }
}

/// The number of the state that a snapshot has.
pub(crate) fn number_of(snapshot: &Snapshot) -> (u64, Directory) {
    Directory::read(snapshot.cookie(), |address, buf| snapshot.read_block(address, buf).unwrap())
}

/// All that a snapshot has is what the state says.
pub(crate) fn check_snapshot(snapshot: &Snapshot, state: &State) -> Directory {
    let (number, directory) = number_of(snapshot);
    assert_eq!(number, state.number);
    assert_eq!(snapshot.count(), state.live_pages(), "state {number}");
    check(
        state,
        &directory,
        |page, buf| snapshot.read(page, buf),
        |address, buf| snapshot.read_block(address, buf),
        snapshot.page_bytes(),
    );
    directory
}

fn check(
    state: &State,
    directory: &Directory,
    read: impl Fn(PageId, &mut [u8]) -> mapfall::Result<()>,
    read_block: impl Fn(&BlockAddr, &mut [u8]) -> mapfall::Result<()>,
    page_bytes: usize,
) {
    let number = state.number;
    let mut buf = vec![0xEE; page_bytes];
    for (slot, page) in directory.pages.iter().enumerate() {
        assert_eq!(page.is_some(), state.pages[slot] != 0, "slot {slot} of state {number}");
        if let Some(page) = page {
            read(*page, &mut buf).unwrap_or_else(|error| panic!("slot {slot} of state {number}: {error}"));
            assert!(buf == state.page(slot, page_bytes), "page {page} in slot {slot} of state {number}");
        }
    }
    for (slot, address) in directory.blocks.iter().enumerate() {
        assert_eq!(address.is_some(), state.blocks[slot] != 0, "block {slot} of state {number}");
        if let Some(address) = address {
            let mut buf = vec![0xEE; address.len_bytes() as usize];
            read_block(address, &mut buf).unwrap_or_else(|error| panic!("block {slot} of state {number}: {error}"));
            assert!(buf == state.block(slot), "block {address} in slot {slot} of state {number}");
        }
    }
}

/// A store that is open for writing, and the state that it is in.
pub(crate) struct Life {
    pub(crate) store: Store,
    pub(crate) state: State,
    pub(crate) directory: Directory,
}

impl Life {
    /// Of the store as it was found.
    pub(crate) fn of(store: Store, seed: u64) -> Self {
        let blocks = store.blocks();
        let read = |address: &BlockAddr, buf: &mut [u8]| blocks.read(address, buf).unwrap();
        let (number, directory) = Directory::read(&store.cookie(), read);
        Life { store, state: State::at(seed, number), directory }
    }

    pub(crate) fn open(options: &StoreOptions, path: &Path, seed: u64) -> Self {
        Life::of(options.open(path).unwrap(), seed)
    }

    pub(crate) fn check(&self) {
        let (pages, blocks) = (self.store.pages(), self.store.blocks());
        assert_eq!(pages.count(), self.state.live_pages());
        let read = |page, buf: &mut [u8]| pages.read(page, buf);
        check(&self.state, &self.directory, read, |address, buf| blocks.read(address, buf), pages.page_bytes());
        let kept: Vec<_> = self.store.checkpoints().into_iter().map(|kept| kept.name).collect();
        let expected: Vec<_> = self.state.kept.iter().map(|number| name_of(*number)).collect();
        assert_eq!(kept, expected, "state {}", self.state.number);
    }

    /// The accounts add up, and all in the file is what was written.
    pub(crate) fn check_accounts(&self) {
        self.store.validate().unwrap();
        let options = VerifyOptions::new().blocks(self.directory.all_blocks());
        let report = self.store.verify(&options, &mut |_| ()).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }

    /// The next state, with a checkpoint. On the way there is much that no checkpoint has in the end.
    pub(crate) fn advance(&mut self, noise: &mut Rng) {
        let last = self.state.clone();
        self.state.step();
        let page_bytes = self.store.pages().page_bytes();
        if noise.one_in(3) {
            self.change_and_take_back(noise, page_bytes);
        }
        self.change_pages(&last, noise, page_bytes);
        self.change_blocks(&last, noise);
        for gone in last.kept.iter().filter(|number| !self.state.kept.contains(number)) {
            self.store.drop_checkpoint(&name_of(*gone)).unwrap();
        }
        if noise.one_in(10) {
            drop(self.store.begin_checkpoint(CheckpointOptions::new().cookie(b"undone")).unwrap());
        }
        let number = self.state.number;
        let mut options = CheckpointOptions::new().cookie(&self.directory.cookie(number)).pack(noise.one_in(8));
        if self.state.kept.last() == Some(&number) {
            options = options.keep_as(&name_of(number));
        }
        if noise.one_in(8) {
            self.store.compaction().unwrap().step(50).unwrap();
        }
        let pending = self.store.begin_checkpoint(options).unwrap();
        if noise.one_in(2) {
            pending.commit().unwrap();
            return;
        }
        // Pages are written while the checkpoint is made.
        thread::scope(|scope| {
            scope.spawn(|| pending.commit().unwrap());
            for _ in 0..20 {
                let slot = noise.below(PAGES as u64) as usize;
                if let Some(page) = self.directory.pages[slot] {
                    self.store.pages().write(page, &self.state.page(slot, page_bytes)).unwrap();
                }
            }
            self.change_and_take_back(noise, page_bytes);
        });
    }

    /// Makes the file as short as it can be, but for what is kept. The state is the same.
    pub(crate) fn pack(&mut self) {
        for _ in 0..4 {
            self.store.compaction().unwrap().step(u64::MAX).unwrap();
            for address in self.directory.blocks.iter_mut().flatten() {
                *address = self.store.blocks().move_down(address).unwrap().unwrap_or(*address);
            }
            self.write_directory();
            let options = CheckpointOptions::new().cookie(&self.directory.cookie(self.state.number));
            self.store.checkpoint(options.pack(true)).unwrap();
        }
    }

    fn change_and_take_back(&self, noise: &mut Rng, page_bytes: usize) {
        let (pages, blocks) = (self.store.pages(), self.store.blocks());
        let made: Vec<_> = (0..noise.below(20)).map(|_| pages.allocate().unwrap()).collect();
        made.iter().for_each(|page| pages.write(*page, &content(page.0, page_bytes)).unwrap());
        let block = blocks.write(&content(7, 1 + noise.below(50_000) as usize)).unwrap();
        made.iter().for_each(|page| pages.free(*page).unwrap());
        blocks.free(&block).unwrap();
    }

    fn change_pages(&mut self, last: &State, noise: &mut Rng, page_bytes: usize) {
        let pages = self.store.pages();
        let mut batch = Vec::new();
        for slot in 0..PAGES {
            let (old, new) = (last.pages[slot], self.state.pages[slot]);
            if old == new {
                continue;
            }
            // What was written cannot be made unwritten.
            if old != 0 && new <= ZEROS {
                pages.free(self.directory.pages[slot].take().unwrap()).unwrap();
            }
            if new == 0 {
                continue;
            }
            let page = *self.directory.pages[slot].get_or_insert_with(|| pages.allocate().unwrap());
            if new == ZEROS {
                continue;
            }
            if noise.one_in(8) {
                pages.write(page, &content(noise.next(), page_bytes)).unwrap();
            }
            batch.push((page, self.state.page(slot, page_bytes)));
            if noise.one_in(10) {
                write_batch(&self.store, &mut batch);
            }
        }
        write_batch(&self.store, &mut batch);
    }

    fn change_blocks(&mut self, last: &State, noise: &mut Rng) {
        let blocks = self.store.blocks();
        for slot in 0..BLOCKS {
            let (old, new) = (last.blocks[slot], self.state.blocks[slot]);
            if old != new
                && let Some(address) = self.directory.blocks[slot].take()
            {
                blocks.free(&address).unwrap();
            }
            if old != new && new != 0 {
                self.directory.blocks[slot] = Some(blocks.write(&self.state.block(slot)).unwrap());
            } else if let Some(address) = &mut self.directory.blocks[slot]
                && noise.one_in(40)
            {
                *address = blocks.move_down(address).unwrap().unwrap_or(*address);
            }
        }
        self.write_directory();
    }

    fn write_directory(&mut self) {
        let blocks = self.store.blocks();
        if let Some(old) = self.directory.own.take() {
            blocks.free(&old).unwrap();
        }
        self.directory.own = Some(blocks.write(&self.directory.encode()).unwrap());
    }
}

fn write_batch(store: &Store, batch: &mut Vec<(PageId, Vec<u8>)>) {
    let writes: Vec<_> = batch.iter().map(|(page, bytes)| (*page, &bytes[..])).collect();
    store.pages().write_batch(&writes).unwrap();
    batch.clear();
}
