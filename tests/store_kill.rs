//! Processes that work on a store and are killed at any moment: what they acknowledged is there, exactly, and the next
//! one goes on with it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;
#[path = "support/store_life.rs"]
mod life;
#[path = "support/store_readers.rs"]
mod readers;

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mapfall::{Fit, IoMode, VerifyOptions};

use children::{child, say, tell, words};
use common::scratch;
use life::{Life, Rng, State, check_snapshot, name_of, number_of, options};
use readers::{Told, either_mode, mode_of, read};

/// How often a writer is killed, in each test. `MAPFALL_TEST_KILLS` sets another number.
const KILLS: u64 = 100;
/// `MAPFALL_TEST_SEED` sets the seed.
const SEED: u64 = 20_251_007;
/// Nothing in here needs a longer file, though each of the writers that come while one reader lives uses new space.
const FILE_BYTES_MAX: u64 = 256 << 20;

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Works until it is killed.
#[test]
#[ignore = "a child of the other tests"]
fn writer() {
    let Some(words) = words() else { return };
    let [mode, seed, noise, path] = words.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{words}") };
    let mut noise = Rng(noise.parse().unwrap());
    let fit = if noise.one_in(4) { Fit::Best } else { Fit::First };
    let mut life = Life::open(&options(mode_of(mode)).fit(fit), Path::new(path), seed.parse().unwrap());
    life.check_accounts();
    tell(&format!("at {} of generation {}", life.state.number, life.store.generation()));
    loop {
        life.advance(&mut noise);
        tell(&format!("at {}", life.state.number));
        life.check();
    }
}

/// See [`readers::read`].
#[test]
#[ignore = "a child of the other tests"]
fn reader() {
    read();
}

/// What the parent knows.
struct Watch {
    path: PathBuf,
    rng: Rng,
    state: State,
    /// The states that are kept.
    kept: BTreeMap<u64, State>,
    /// A reader, and the state that it reads.
    reader: Option<(Told, u64)>,
    quarantines: u64,
    /// Checkpoints that were durable and not acknowledged yet.
    unacknowledged: u64,
}

impl Watch {
    fn kill_one(&mut self) {
        let mode = either_mode(&mut self.rng);
        let (seed, noise, path) = (self.state.seed, self.rng.next(), self.path.display());
        let mut writer = Told::spawn(child("writer", &format!("{mode:?} {seed} {noise} {path}")));
        if self.rng.one_in(6) {
            // While it opens the store, or before.
            thread::sleep(Duration::from_micros(self.rng.below(8_000)));
        } else {
            writer.expect(self.state.number);
            thread::sleep(Duration::from_micros(self.rng.below(60_000)));
        }
        let acknowledged = writer.kill().unwrap_or(self.state.number);
        self.check(acknowledged);
    }

    /// All that was acknowledged is there, and at most the checkpoint that was under way beside.
    fn check(&mut self, acknowledged: u64) {
        let options = options(either_mode(&mut self.rng));
        let snapshot = options.open_snapshot(&self.path).unwrap();
        let (found, _) = number_of(&snapshot);
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{acknowledged} was acknowledged, found {found}");
        self.unacknowledged += found - acknowledged.max(self.state.number);
        while self.state.number < found {
            self.state.step();
            self.kept.insert(self.state.number, self.state.clone());
        }
        self.kept.retain(|number, _| self.state.kept.contains(number));
        let directory = check_snapshot(&snapshot, &self.state);
        drop(snapshot);
        for (number, state) in &self.kept {
            check_snapshot(&options.open_snapshot_of(&self.path, &name_of(*number)).unwrap(), state);
        }
        let verify = VerifyOptions::new().blocks(directory.all_blocks());
        let report = options.verify(&self.path, &verify, &mut |_| ()).unwrap();
        assert!(report.is_clean() && report.pages == self.state.live_pages(), "{report:#?}");
        // Mostly the next writer finds the file as the last one left it.
        if self.rng.one_in(3) {
            let mut life = Life::open(&options, &self.path, self.state.seed);
            life.check();
            life.check_accounts();
            let older = self.reader.as_ref().is_some_and(|(_, number)| *number < found);
            assert_eq!(life.store.stats().is_quarantined, older);
            self.quarantines += u64::from(older);
            if self.reader.is_none() {
                life.pack();
                life.check_accounts();
            }
        }
        let bytes = std::fs::metadata(&self.path).unwrap().len();
        assert!(bytes < FILE_BYTES_MAX, "{bytes} bytes");
    }

    fn begin_to_read(&mut self) {
        let mut reader = Told::reader(either_mode(&mut self.rng), self.state.seed, None, &self.path);
        reader.expect(self.state.number);
        self.reader = Some((reader, self.state.number));
    }

    /// What the reader held is used again, and the file gets short.
    fn end_to_read(&mut self) {
        self.reader.take().unwrap().0.end();
        let mut life = Life::open(&options(either_mode(&mut self.rng)), &self.path, self.state.seed);
        assert!(!life.store.stats().is_quarantined);
        let before = life.store.stats().file_bytes;
        life.pack();
        let after = life.store.stats().file_bytes;
        assert!(after <= before, "{before} to {after}");
        life.check();
        life.check_accounts();
    }
}

fn writers_are_killed(directory: &Path, sizes: (u32, u32), test: &str) {
    let start = Instant::now();
    let (kills, seed) = (setting("MAPFALL_TEST_KILLS", KILLS), setting("MAPFALL_TEST_SEED", SEED));
    say(&format!("{test}: {kills} kills, MAPFALL_TEST_SEED={seed}"));
    let path = directory.join("store");
    drop(options(IoMode::Pread).unit_bytes(sizes.0).page_bytes(sizes.1).create(&path).unwrap());
    let mut watch = Watch {
        path,
        rng: Rng(seed ^ u64::from(sizes.0)),
        state: State::first(seed),
        kept: BTreeMap::new(),
        reader: None,
        quarantines: 0,
        unacknowledged: 0,
    };
    for kill in 0..kills {
        match kill % 20 {
            8 => watch.begin_to_read(),
            16 => watch.end_to_read(),
            _ => {}
        }
        watch.kill_one();
    }
    watch.reader.take().into_iter().for_each(|(reader, _)| reader.end());

    // What readers and kept checkpoints held comes back.
    let mut life = Life::open(&options(IoMode::Mmap), &watch.path, seed);
    for kept in std::mem::take(&mut life.state.kept) {
        life.store.drop_checkpoint(&name_of(kept)).unwrap();
    }
    life.pack();
    life.check();
    life.check_accounts();
    let used = life.store.stats().file_bytes - life.store.stats().free_bytes;
    drop(life);
    let bytes = std::fs::metadata(&watch.path).unwrap().len();
    assert!(bytes < 4 << 20 && used < 4 << 20, "{bytes} bytes, {used} of them in use");
    let Watch { quarantines, unacknowledged, state, .. } = watch;
    let (states, seconds) = (state.number, start.elapsed().as_secs_f64());
    say(&format!("{test}: {states} checkpoints, {unacknowledged} durable and not acknowledged, {seconds:.1} s"));
    say(&format!("{test}: {quarantines} writers found an older reader"));
}

#[test]
fn writers_are_killed_on_a_disk() {
    writers_are_killed(scratch().path(), (4096, 4096), "writers_are_killed_on_a_disk");
}

/// Where syncs cost nothing, so that kills fall into every stage of a checkpoint.
#[test]
fn writers_are_killed_in_memory() {
    let memory = Path::new("/dev/shm");
    let dir = tempfile::tempdir_in(if memory.is_dir() { memory } else { Path::new("/tmp") }).unwrap();
    writers_are_killed(dir.path(), (512, 1536), "writers_are_killed_in_memory");
}
