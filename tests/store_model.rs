//! The store against a model in memory: whatever is asked of it, pages, blocks, checkpoints and snapshots are what the
//! model says, and so are the errors. On real files, in both I/O modes.
//!
//! A case that fails is printed whole and shrunk, to be made a test of its own. `PROPTEST_CASES` sets how many there
//! are.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "store_model/checkpoints.rs"]
mod checkpoints;
#[path = "support/common.rs"]
mod common;
#[path = "store_model/found.rs"]
mod found;
#[path = "store_model/model.rs"]
mod model;
#[path = "store_model/snapshots.rs"]
mod snapshots;
#[path = "store_model/steps.rs"]
mod steps;

use mapfall::IoMode;
use proptest::test_runner::{Config, TestRunner};

use common::scratch;
use model::Model;
use steps::{Case, cases};

fn run(case: &Case, mode: IoMode) {
    let dir = scratch();
    let mut model = Model::create(dir.path().join("store"), case.setup, mode);
    for step in &case.steps {
        model.step(step);
    }
    model.end();
}

fn random_steps(mode: IoMode) {
    let config = Config { failure_persistence: None, max_shrink_iters: 2000, ..Config::with_cases(case_count()) };
    let result = TestRunner::new(config).run(&cases(), |case| {
        run(&case, mode);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{mode:?}: {error}");
    }
}

fn case_count() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(24)
}

#[test]
fn random_steps_by_pread() {
    random_steps(IoMode::Pread);
}

#[test]
fn random_steps_through_a_map() {
    random_steps(IoMode::Mmap);
}

#[test]
fn random_steps_with_batches_through_a_ring() {
    random_steps(IoMode::Uring);
}

#[test]
fn random_steps_past_the_page_cache() {
    random_steps(IoMode::Direct);
}
