//! What a seed stands for: a store, who does what, what fails when, and in which order the clients come to their turns.
//! It is a value, so that parts of it can be left out to see what a failure needs.

use std::fmt;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::{ChecksumKind, Fit, Store, StoreOptions};

/// What kind of store it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) unit_bytes: u32,
    pub(super) page_bytes: u32,
    pub(super) fit: Fit,
    pub(super) checksum: ChecksumKind,
    pub(super) uuid: [u8; 16],
}

impl Setup {
    fn new(rng: &mut SmallRng) -> Self {
        let unit_bytes = 512 << rng.random_range(0..4);
        Setup {
            unit_bytes,
            page_bytes: unit_bytes * rng.random_range(1..=(2048 / unit_bytes).max(1)),
            fit: if rng.random() { Fit::Best } else { Fit::First },
            checksum: if rng.random() { ChecksumKind::Crc32 } else { ChecksumKind::Xxh3 },
            uuid: std::array::from_fn(|_| rng.random()),
        }
    }

    pub(super) fn options(&self) -> StoreOptions {
        let options = Store::options().unit_bytes(self.unit_bytes).page_bytes(self.page_bytes);
        options.fit(self.fit).checksum(self.checksum).uuid(self.uuid)
    }
}

/// One thing that a client does. A number picks among what is there then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Allocate { count: u32 },
    Write { pick: u64, count: u32 },
    Free { pick: u64 },
    Read { pick: u64 },
    ReadBatch { pick: u64, count: u32 },
    WriteBlock { len: u32 },
    FreeBlock { pick: u64 },
    ReadBlock { pick: u64 },
    Checkpoint { keep: bool, commit: bool, pack: bool },
    DropName { pick: u64 },
    TakeSnapshot { pick: u64 },
    ReadSnapshots,
}

impl Op {
    fn new(rng: &mut SmallRng) -> Op {
        let pick = rng.random();
        match rng.random_range(0..100) {
            0..10 => Op::Allocate { count: rng.random_range(1..=8) },
            10..34 => Op::Write { pick, count: rng.random_range(1..=4) },
            34..42 => Op::Free { pick },
            42..56 => Op::Read { pick },
            56..60 => Op::ReadBatch { pick, count: rng.random_range(2..=8) },
            60..68 => Op::WriteBlock { len: [300, 3_000, 30_000][rng.random_range(0..3)] },
            68..73 => Op::FreeBlock { pick },
            73..76 => Op::ReadBlock { pick },
            76..91 => Op::Checkpoint {
                keep: rng.random_range(0..4) == 0,
                commit: rng.random_range(0..8) > 0,
                pack: rng.random_range(0..6) == 0,
            },
            91..93 => Op::DropName { pick },
            93..97 => Op::TakeSnapshot { pick },
            _ => Op::ReadSnapshots,
        }
    }
}

/// What the system does wrong, at the first call that it can happen to, from a call on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Calls of the file since the epoch began.
    pub(super) at_call: u64,
    pub(super) kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// A read fails once.
    Read,
    /// A write fails, after some of it has come through.
    Write { part: u8 },
    /// All writes fail, to the end of the epoch.
    WriteForGood,
    /// The file cannot grow, to the end of the epoch.
    NoSpace,
    /// A change of length fails once.
    SetLen,
    /// A sync fails; whether the system forgets what was written before.
    Sync { forgets: bool },
    /// These bytes cannot be read any more.
    ReadForGood,
    /// A read finds a bit flipped that is right in the file.
    ReadFlip { pick: u64 },
    /// A write is acknowledged and does nothing.
    LostWrite,
    /// A write is acknowledged, and only its first sectors are there.
    TornWrite { pick: u64 },
    /// A write is acknowledged, and goes elsewhere.
    Misdirected { pick: u64 },
    /// A bit of the file flips.
    Rot { pick: u64 },
    /// Someone else cuts the file.
    Truncation { pick: u64 },
}

impl FaultKind {
    /// Whether the system says so. The others must be found out.
    pub(super) fn is_told(self) -> bool {
        matches!(
            self,
            FaultKind::Read
                | FaultKind::Write { .. }
                | FaultKind::WriteForGood
                | FaultKind::NoSpace
                | FaultKind::SetLen
                | FaultKind::Sync { .. }
        )
    }

    fn told(rng: &mut SmallRng) -> FaultKind {
        match rng.random_range(0..12) {
            0..2 => FaultKind::Read,
            2..5 => FaultKind::Write { part: rng.random() },
            5 => FaultKind::WriteForGood,
            6..8 => FaultKind::NoSpace,
            8 => FaultKind::SetLen,
            _ => FaultKind::Sync { forgets: rng.random() },
        }
    }

    fn silent(rng: &mut SmallRng) -> FaultKind {
        let pick = rng.random();
        match rng.random_range(0..12) {
            0 => FaultKind::ReadForGood,
            1..3 => FaultKind::ReadFlip { pick },
            3..5 => FaultKind::LostWrite,
            5..7 => FaultKind::TornWrite { pick },
            7..9 => FaultKind::Misdirected { pick },
            9..11 => FaultKind::Rot { pick },
            _ => FaultKind::Truncation { pick },
        }
    }
}

/// How an epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The store is closed, and opened again by another process.
    Close,
    /// The power goes at this call, or at the end of all that is done.
    Crash { at_call: u64, loss: u64 },
}

/// The life of a process that has the store open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    /// In the order of each client.
    pub(super) ops: Vec<(usize, Op)>,
    pub(super) faults: Vec<Fault>,
    pub(super) end: End,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) setup: Setup,
    pub(super) clients: usize,
    pub(super) epochs: Vec<Epoch>,
}

impl Plan {
    /// What a seed stands for, with so many operations.
    pub(super) fn new(seed: u64, ops: usize) -> Plan {
        let mut rng = SmallRng::seed_from_u64(seed);
        let setup = Setup::new(&mut rng);
        let clients = [1, 1, 2, 3][rng.random_range(0..4)];
        // Some seeds have nothing but crashes, some only what the system tells.
        let (told, silent) = [(false, false), (true, false), (true, false), (true, true)][rng.random_range(0..4)];
        let count = rng.random_range(1..=4).min(ops.max(1));
        let epochs = (0..count).map(|index| {
            let share = ops / count + usize::from(index < ops % count);
            let ops: Vec<_> = (0..share).map(|_| (rng.random_range(0..clients), Op::new(&mut rng))).collect();
            // A little more than the calls that there will be.
            let calls = (share as u64 * 3).max(4);
            let faults = if told { rng.random_range(0..3) } else { 0 };
            let faults = (0..faults).map(|_| {
                let is_silent = silent && rng.random();
                let kind = if is_silent { FaultKind::silent(&mut rng) } else { FaultKind::told(&mut rng) };
                Fault { at_call: rng.random_range(0..calls), kind }
            });
            let faults = faults.collect();
            let end = match rng.random_range(0..10) {
                0..3 => End::Close,
                _ => End::Crash { at_call: rng.random_range(1..calls + calls / 2), loss: rng.random() },
            };
            Epoch { ops, faults, end }
        });
        let epochs = epochs.collect();
        Plan { seed, setup, clients, epochs }
    }

    pub(super) fn op_count(&self) -> usize {
        self.epochs.iter().map(|epoch| epoch.ops.len()).sum()
    }

    pub(super) fn fault_count(&self) -> usize {
        self.epochs.iter().map(|epoch| epoch.faults.len()).sum()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { unit_bytes, page_bytes, fit, checksum, .. } = self.setup;
        writeln!(f, "{} clients; units of {unit_bytes} B, pages of {page_bytes} B, {fit:?}, {checksum}", self.clients)?;
        for (number, epoch) in self.epochs.iter().enumerate() {
            writeln!(f, "epoch {number}:")?;
            epoch.faults.iter().try_for_each(|fault| writeln!(f, "  from call {}: {:?}", fault.at_call, fault.kind))?;
            epoch.ops.iter().try_for_each(|(client, op)| writeln!(f, "  client {client}: {op:?}"))?;
            writeln!(f, "  {:?}", epoch.end)?;
        }
        Ok(())
    }
}
