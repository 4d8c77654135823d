//! What is asked of a store, at random.

use mapfall::{Fit, IoMode, Verification};
use proptest::prelude::*;
use proptest::sample::Index;

/// What a store is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) unit_bytes: u32,
    pub(crate) page_bytes: u32,
    pub(crate) opening: Opening,
}

/// What it is opened with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) fit: Fit,
    pub(crate) verification: Verification,
}

/// What a checkpoint is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) cookie: Option<Vec<u8>>,
    pub(crate) name: Option<u8>,
    pub(crate) pack: bool,
}

/// An [`Index`] picks one of the live pages or blocks, or of the snapshots, as they are then. Where there are none, the
/// step is left out.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Allocate(u16),
    Write(Index),
    WriteBatch(Vec<Index>),
    /// One page of the batch is not there: none is written.
    WriteBatchWithMissing(Vec<Index>),
    WriteWrongLength(Index, usize),
    ReadBatch(Vec<Index>),
    /// What is missing and what has the wrong length are put among them.
    ReadBatchWithErrors(Vec<Index>, Index),
    ReadWrongLength(Index, usize),
    Free(Index),
    FreeMany(Vec<Index>),
    Missing(u64),
    WriteBlock(usize),
    WriteBlockOfNothing,
    ReadBlockWrongLength(Index, usize),
    FreeBlock(Index),
    FreeBlockTwice(Index),
    ReadFreedBlock(Index),
    /// One that was freed, and that a checkpoint or a reader still has.
    FreeHeldBlock(Index),
    Checkpoint(Ask),
    CheckpointRefused(usize),
    DropCheckpoint(u8),
    /// A cut, steps behind it, and then a commit, or none.
    Pending(Ask, Vec<Step>, bool),
    /// Eager ones are read after every step, others only when they are closed.
    Snapshot {
        name: Option<u8>,
        by_path: bool,
        mode: IoMode,
        eager: bool,
    },
    CloseSnapshot(Index),
    SecondWriter,
    Compact(u64),
    MoveBlockDown(Index),
    Verify,
    Crash(Opening),
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) setup: Setup,
    pub(crate) steps: Vec<Step>,
}

fn opening() -> impl Strategy<Value = Opening> {
    let fit = prop_oneof![Just(Fit::Best), Just(Fit::First)];
    let verification = prop_oneof![3 => Just(Verification::Always), 1 => Just(Verification::Off)];
    (fit, verification).prop_map(|(fit, verification)| Opening { fit, verification })
}

fn setup() -> impl Strategy<Value = Setup> {
    let sizes = prop_oneof![
        4 => Just((512, 512)),
        1 => Just((512, 1536)),
        1 => Just((512, 4096)),
        1 => Just((512, 8192)),
        2 => Just((4096, 4096)),
        1 => Just((4096, 8192)),
    ];
    (sizes, opening()).prop_map(|((unit_bytes, page_bytes), opening)| Setup { unit_bytes, page_bytes, opening })
}

fn ask() -> impl Strategy<Value = Ask> {
    let cookie = prop_oneof![
        6 => Just(None),
        3 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Some),
        1 => Just(Some(vec![7; 1024])),
    ];
    let name = prop_oneof![3 => Just(None), 1 => (0..4_u8).prop_map(Some)];
    let pack = prop::bool::weighted(0.2);
    (cookie, name, pack).prop_map(|(cookie, name, pack)| Ask { cookie, name, pack })
}

fn many() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..12)
}

/// Steps that can be done while a checkpoint is pending.
fn small_step() -> impl Strategy<Value = Step> {
    let mode = prop_oneof![Just(IoMode::Pread), Just(IoMode::Mmap)];
    let name = prop_oneof![2 => Just(None), 1 => (0..4_u8).prop_map(Some)];
    let snapshot = (name, any::<bool>(), mode, any::<bool>()).prop_map(|(name, by_path, mode, eager)| Step::Snapshot {
        name,
        by_path,
        mode,
        eager,
    });
    prop_oneof![
        4 => (1..20_u16).prop_map(Step::Allocate),
        1 => (200..600_u16).prop_map(Step::Allocate),
        6 => any::<Index>().prop_map(Step::Write),
        8 => many().prop_map(Step::WriteBatch),
        1 => many().prop_map(Step::WriteBatchWithMissing),
        1 => (any::<Index>(), 0..10_000_usize).prop_map(|(page, len)| Step::WriteWrongLength(page, len)),
        1 => many().prop_map(Step::ReadBatch),
        1 => (many(), any::<Index>()).prop_map(|(pages, at)| Step::ReadBatchWithErrors(pages, at)),
        1 => (any::<Index>(), 0..10_000_usize).prop_map(|(page, len)| Step::ReadWrongLength(page, len)),
        4 => any::<Index>().prop_map(Step::Free),
        2 => many().prop_map(Step::FreeMany),
        1 => prop_oneof![0..700_u64, Just(u64::MAX), Just(1 << 40), any::<u64>()].prop_map(Step::Missing),
        6 => prop_oneof![1..600_usize, 1..20_000_usize].prop_map(Step::WriteBlock),
        1 => Just(Step::WriteBlockOfNothing),
        1 => (any::<Index>(), 0..10_000_usize).prop_map(|(block, len)| Step::ReadBlockWrongLength(block, len)),
        4 => any::<Index>().prop_map(Step::FreeBlock),
        1 => any::<Index>().prop_map(Step::FreeBlockTwice),
        1 => any::<Index>().prop_map(Step::ReadFreedBlock),
        2 => any::<Index>().prop_map(Step::FreeHeldBlock),
        4 => snapshot,
        3 => any::<Index>().prop_map(Step::CloseSnapshot),
        1 => Just(Step::SecondWriter),
        2 => (0..4_u8).prop_map(Step::DropCheckpoint),
        1 => prop_oneof![1..10_u64, Just(u64::MAX)].prop_map(Step::Compact),
        1 => any::<Index>().prop_map(Step::MoveBlockDown),
        1 => Just(Step::Verify),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let pending = (ask(), prop::collection::vec(small_step(), 0..8), prop::bool::weighted(0.6));
    prop_oneof![
        10 => small_step(),
        3 => ask().prop_map(Step::Checkpoint),
        1 => (0..4_usize).prop_map(Step::CheckpointRefused),
        2 => pending.prop_map(|(ask, steps, commit)| Step::Pending(ask, steps, commit)),
        1 => opening().prop_map(Step::Crash),
    ]
}

pub(crate) fn cases() -> impl Strategy<Value = Case> {
    (setup(), prop::collection::vec(step(), 1..60)).prop_map(|(setup, steps)| Case { setup, steps })
}
