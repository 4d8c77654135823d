//! A store in a file in memory against a model: pages, blocks, checkpoints, kept ones, snapshots; calls that fail, the
//! process begun anew, and crashes, after each of which the store must be at its last checkpoint or at the one that was
//! being made.
//!
//! The file, the model and the checks are those of the crate's own tests.

#![no_main]

#[path = "../../tests/support/driver.rs"]
mod driver;
#[path = "../../tests/support/model.rs"]
mod model;
#[path = "../../tests/support/sim.rs"]
#[allow(unused_imports, reason = "it takes what it needs")]
mod sim;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapfall::{ChecksumKind, Error, Fit};
use mapfall_fuzz::exhaustive;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use driver::{Driver, EIO, ENOSPC, Setup};
use sim::{Call, Fault, Loss};

const STEPS_MAX: usize = 60;

#[derive(Arbitrary, Debug)]
struct Plan {
    unit_shift: u8,
    page_units: u8,
    best: bool,
    xxh3: bool,
    steps: Vec<Step>,
    crash: Crash,
}

/// Which page or block it is about, and what is in it, is drawn from the byte.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Allocate(u8),
    WritePage(u8),
    WritePages(u8, u8),
    FreePage(u8),
    WriteBlock(u8, u16),
    WriteLongBlock(u8),
    FreeBlock(u8),
    Checkpoint,
    /// With changes behind its cut.
    CheckpointMeanwhile(u8, u8),
    /// Begun, and not made.
    CheckpointUndone(u8, u8),
    Keep(u8),
    DropKept(u8),
    Snapshot(u8),
    CheckSnapshots(u8),
    Check,
    Reopen,
    FailingCheckpoint {
        call: u8,
        after: u8,
        forgets: bool,
    },
    /// The power goes, and comes back.
    Crash(Crash),
}

/// At which place of all that was done, and what is lost.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Crash {
    back: u8,
    loss: u8,
}

const ALPHABET: [Step; 16] = [
    Step::Allocate(3),
    Step::WritePage(1),
    Step::WritePages(2, 2),
    Step::FreePage(1),
    Step::WriteBlock(1, 700),
    Step::FreeBlock(0),
    Step::Checkpoint,
    Step::CheckpointMeanwhile(3, 2),
    Step::CheckpointUndone(3, 2),
    Step::Keep(0),
    Step::DropKept(0),
    Step::Snapshot(0),
    Step::Reopen,
    Step::FailingCheckpoint { call: 0, after: 0, forgets: true },
    Step::FailingCheckpoint { call: 1, after: 1, forgets: false },
    Step::Crash(Crash { back: 0, loss: 1 }),
];

fuzz_target!(
    init: exhaustive::if_wanted(&ALPHABET, |steps| {
        // Behind a page and a block that are durable, so that four operations come far.
        let begun = [Step::Allocate(1), Step::WritePage(0), Step::WriteBlock(0, 600), Step::Checkpoint];
        for (loss, unit_shift) in [(0, 0), (2, 0), (1, 3)] {
            let steps = begun.iter().chain(steps).copied().collect();
            let crash = Crash { back: 0, loss };
            check(&Plan { unit_shift, page_units: 0, best: false, xxh3: false, steps, crash });
        }
    }),
    |plan: Plan| check(&plan)
);

fn check(plan: &Plan) {
    let unit_bytes = 512 << (plan.unit_shift % 4);
    let setup = Setup {
        unit_bytes,
        page_bytes: unit_bytes * (1 + u32::from(plan.page_units) % (4096 / unit_bytes)),
        fit: if plan.best { Fit::Best } else { Fit::First },
        checksum: if plan.xxh3 { ChecksumKind::Xxh3 } else { ChecksumKind::Crc32 },
        uuid: [5; 16],
        pages: 24,
        block_bytes_max: 20_000,
    };
    let mut run = Run { driver: Driver::create(setup, 1), setup, crashes: 0 };
    for step in plan.steps.iter().take(STEPS_MAX) {
        run.step(*step);
    }
    run.driver.check();
    run.crash(plan.crash);
    // It goes on.
    run.step(Step::WritePages(9, 3));
    run.step(Step::Checkpoint);
    run.driver.check();
    run.driver.store().validate().expect("a store that adds up");
}

struct Run {
    driver: Driver,
    setup: Setup,
    crashes: u64,
}

impl Run {
    fn draw(&mut self, byte: u8) {
        self.driver.rng = SmallRng::seed_from_u64(byte.into());
    }

    fn step(&mut self, step: Step) {
        let done = match step {
            Step::Allocate(count) => {
                (0..1 + count % 4).try_for_each(|_| match self.driver.work.pages.len() < self.setup.pages {
                    true => self.driver.allocate(),
                    false => Ok(()),
                })
            }
            Step::WritePage(byte) => {
                self.draw(byte);
                self.driver.write_pages(1)
            }
            Step::WritePages(byte, count) => {
                self.draw(byte);
                self.driver.write_pages(2 + count as usize % 30)
            }
            Step::FreePage(byte) => {
                self.draw(byte);
                self.driver.free_page()
            }
            Step::WriteBlock(byte, len) => {
                self.draw(byte);
                self.driver.write_block(1 + len as usize % self.setup.block_bytes_max)
            }
            Step::WriteLongBlock(byte) => {
                self.draw(byte);
                self.driver.write_block(1 << 20)
            }
            Step::FreeBlock(byte) => {
                self.draw(byte);
                self.driver.free_block()
            }
            Step::Checkpoint => self.driver.checkpoint(None, 0, true),
            Step::CheckpointMeanwhile(byte, count) => {
                self.draw(byte);
                self.driver.checkpoint(None, count as usize % 8, true)
            }
            Step::CheckpointUndone(byte, count) => {
                self.draw(byte);
                self.driver.checkpoint(None, count as usize % 8, false)
            }
            Step::Keep(number) => {
                let name = format!("kept {}", number % 4);
                match self.driver.checkpoint(Some(&name), 0, true) {
                    Err(Error::CheckpointExists { name: found }) => {
                        assert!(found == name && self.driver.work.kept.iter().any(|kept| kept.0 == name), "{name}");
                        Ok(())
                    }
                    result => result,
                }
            }
            Step::DropKept(byte) => {
                self.draw(byte);
                self.driver.drop_name()
            }
            Step::Snapshot(byte) => {
                self.draw(byte);
                self.driver.take_snapshot();
                Ok(())
            }
            Step::CheckSnapshots(byte) => {
                self.draw(byte);
                self.driver.check_snapshots();
                Ok(())
            }
            Step::Check => {
                self.driver.check();
                Ok(())
            }
            Step::Reopen => self.driver.reopen(),
            Step::FailingCheckpoint { call, after, forgets } => {
                let (call, errno) = match call % 4 {
                    0 => (Call::Sync, EIO),
                    1 => (Call::Write, EIO),
                    2 => (Call::Reserve, ENOSPC),
                    _ => (Call::SetLen, EIO),
                };
                let after = after as usize % 6;
                // Growth that is refused once asks for less.
                let always = call == Call::Reserve;
                self.driver.failing_checkpoint(Fault { call, after, always, errno, forgets });
                Ok(())
            }
            Step::Crash(crash) => {
                self.crash(crash);
                Ok(())
            }
        };
        done.unwrap_or_else(|error| panic!("{step:?}: {error}"));
    }

    /// Goes on with what is left of the file.
    fn crash(&mut self, crash: Crash) {
        // Most often near the end, where a checkpoint is being made.
        let back = if crash.back < 160 { crash.back % 8 } else { crash.back };
        let at = self.driver.sim.log_len().saturating_sub(back.into());
        let states = self.driver.states_at(at);
        if states.is_empty() {
            // The store was not made yet.
            return;
        }
        let loss = match crash.loss % 16 {
            0 => Loss::All,
            1 => Loss::Nothing,
            2 => Loss::AllButTheLast,
            3..8 => Loss::Sector(crash.loss as usize % 16 - 3),
            seed => Loss::Random((u64::from(seed) << 8) + u64::from(crash.loss)),
        };
        let content = self.driver.sim.crash(at, loss);
        self.crashes += 1;
        self.driver = Driver::recover(self.setup, 100 + self.crashes, content, &states);
        self.driver.check();
    }
}
