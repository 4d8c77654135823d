//! Calls that the system fails: each call of a fixed run of a store, one after the other.

use mapfall::{ChecksumKind, Error, Fit, Operation, Result};

use super::recover_unborn;
use crate::driver::{Driver, EIO, ENOSPC, Setup, poisons};
use crate::sim::{Call, Fault, Loss, SimFile};

const SETUP: Setup = Setup {
    unit_bytes: 512,
    page_bytes: 1024,
    fit: Fit::First,
    checksum: ChecksumKind::Crc32,
    uuid: [7; 16],
    pages: 20,
    block_bytes_max: 4 << 20,
};

type Run = Box<dyn Fn(&mut Driver) -> Result<()>>;

/// The run. It makes the file grow and shrink.
fn steps() -> Vec<Run> {
    let mut steps: Vec<Run> = Vec::new();
    let mut add = |step: fn(&mut Driver) -> Result<()>| steps.push(Box::new(step));
    add(|driver| (0..20).try_for_each(|_| driver.allocate()));
    add(|driver| driver.write_pages(20));
    add(|driver| driver.write_block(3 << 20));
    add(|driver| driver.checkpoint(None, 0, true));
    add(|driver| driver.write_pages(7));
    add(|driver| driver.write_block(1111));
    add(|driver| driver.checkpoint(Some("kept"), 3, true));
    add(|driver| driver.write_pages(1));
    add(|driver| (0..3).try_for_each(|_| driver.free_page()));
    add(|driver| driver.reopen());
    add(|driver| driver.write_pages(9));
    add(|driver| driver.write_block(700));
    add(|driver| driver.checkpoint(None, 5, true));
    add(|driver| driver.checkpoint(None, 4, false));
    add(|driver| driver.drop_name());
    add(|driver| driver.checkpoint(None, 0, true));
    add(|driver| driver.write_block(4 << 20));
    add(|driver| driver.checkpoint(None, 0, true));
    add(|driver| (0..driver.work.blocks.len()).try_for_each(|_| driver.free_block()));
    add(|driver| driver.checkpoint(None, 0, true));
    add(|driver| driver.write_pages(1));
    add(|driver| driver.checkpoint(None, 0, true));
    add(|driver| driver.reopen());
    add(|driver| driver.write_pages(3));
    steps
}

fn assert_is(error: &Error, fault: Fault) {
    let operation = match fault.call {
        Call::Write => Operation::Write,
        Call::SetLen => Operation::SetLen,
        Call::Reserve => Operation::Reserve,
        Call::Sync => Operation::Sync,
    };
    let found = matches!(error, Error::Io { operation: found, .. } if *found == operation);
    assert!(found && error.raw_os_error() == Some(fault.errno), "{error}");
}

/// Now.
fn crash(driver: &Driver) {
    let at = driver.sim.log_len();
    for loss in [Loss::All, Loss::Nothing, Loss::Random(1)] {
        Driver::recover(SETUP, 12, driver.sim.crash(at, loss), &driver.states_at(at));
    }
}

/// Whether the fault came about.
fn run(fault: Fault) -> bool {
    let sim = SimFile::new();
    sim.inject(fault);
    let mut driver = match Driver::try_create(SETUP, 11, sim.clone()) {
        Ok(driver) => driver,
        Err(error) => {
            assert_is(&error, fault);
            recover_unborn(&SETUP, sim.content());
            return true;
        }
    };
    let mut failed = 0;
    for step in steps() {
        let before = sim.failed();
        let Err(error) = step(&mut driver) else { continue };
        assert!(sim.failed() > before, "{error}");
        assert_is(&error, fault);
        if !driver.is_open() {
            failed += sim.heal();
            driver.reopen().unwrap();
            continue;
        }
        driver.check();
        if poisons(&error) {
            driver.check_poisoned();
            failed += sim.heal();
            driver.reopen().unwrap();
            // What was found must not be lost by what is written now.
            driver.write_pages(20).unwrap();
            crash(&driver);
        }
    }
    failed += sim.heal();
    // It goes on.
    driver.check();
    for checkpoint in [false, true] {
        driver.write_pages(20).unwrap();
        driver.write_block(2000).unwrap();
        if checkpoint {
            driver.checkpoint(None, 2, true).unwrap();
        }
        driver.check();
        crash(&driver);
    }
    driver.reopen().unwrap();
    driver.check();
    failed > 0
}

fn each_call_fails(call: Call, forgets: bool) -> usize {
    let mut calls = 0;
    for (errno, always) in [(EIO, false), (ENOSPC, true)] {
        calls = 0;
        while run(Fault { call, after: calls, always, errno, forgets }) {
            calls += 1;
        }
    }
    calls
}

#[test]
fn each_write_fails() {
    assert!(each_call_fails(Call::Write, false) > 70);
}

#[test]
fn each_change_of_length_fails() {
    // It gives the file's end back.
    assert!(each_call_fails(Call::SetLen, false) > 0);
    assert!(each_call_fails(Call::Reserve, false) > 2);
}

#[test]
fn each_sync_fails() {
    let count = each_call_fails(Call::Sync, false);
    assert!(count > 10);
    assert_eq!(each_call_fails(Call::Sync, true), count);
}

#[test]
fn a_full_disk_does_not_keep_a_checkpoint_from_being_made() {
    for seed in 0..24 {
        let sim = SimFile::new();
        let unit_bytes = 512 << (seed % 4);
        let setup = Setup {
            unit_bytes,
            page_bytes: unit_bytes,
            pages: 200,
            fit: if seed % 7 < 3 { Fit::Best } else { Fit::First },
            ..SETUP
        };
        let mut driver = Driver::try_create(setup, seed, sim.clone()).unwrap();
        let full = Fault { call: Call::Reserve, after: 0, always: true, errno: ENOSPC, forgets: false };
        (0..200).for_each(|_| driver.allocate().unwrap());
        driver.write_block(1).unwrap();
        sim.inject(full);
        for round in 0..30 {
            let error = loop {
                // A page that is written again takes no more space.
                let result = match (round + seed) % 3 {
                    0 => driver.write_block(1),
                    1 => driver.write_block(3000),
                    _ => driver.write_pages(17).and_then(|()| driver.write_block(20_000)),
                };
                if let Err(error) = result {
                    break error;
                }
            };
            assert_is(&error, full);
            if let Err(error) = driver.checkpoint(None, 0, true) {
                // Where a node is several units, there may be enough of them and no two together.
                assert!(unit_bytes < 4096, "seed {seed}, round {round}: {error}");
                assert_is(&error, full);
                driver.check();
                sim.heal();
                driver.checkpoint(None, 0, true).unwrap();
                driver.check();
                break;
            }
            driver.check();
            for _ in 0..7 {
                driver.free_block().unwrap();
                driver.free_page().unwrap();
                driver.allocate().unwrap();
            }
            driver.checkpoint(None, 0, true).unwrap();
            driver.check();
        }
    }
}
