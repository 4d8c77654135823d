//! Readers at full speed beside a writer: one phase of the growth bench.

use std::fs::File;
use std::ops::{AddAssign, Range};
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mapfall::workload::usage::Usage;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::run::Result;

pub(crate) const BLOCK_BYTES: usize = 4096;

/// A file that is read while it grows.
pub(crate) trait Growing: Sync {
    /// Fills `buf` with the bytes at `offset`.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Writes at the end.
    fn append(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// What it has done since it was opened.
    fn counts(&self) -> Counts;
}

/// How a contender served its reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) syscall_reads: u64,
    pub(crate) remaps: u64,
    /// Why reads were served by system calls, where the contender knows.
    pub(crate) reasons: String,
}

/// How a file grows, and beside what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// What of the file counts as there before it grew.
    pub(crate) old_bytes: u64,
    /// From where it grows in this phase.
    pub(crate) base_bytes: u64,
    pub(crate) grown_bytes: u64,
    pub(crate) step_bytes: usize,
    /// From one step to the next, if the writer can.
    pub(crate) pace: Duration,
    pub(crate) readers: usize,
}

/// What the writer does. Either way it appends as many bytes in as many steps at the same pace, and spins until the
/// next step is due: the kernel and the other processor are equally busy, and what differs is which file grows.
#[derive(Clone, Copy)]
pub(crate) enum Writer<'a> {
    /// The file that is read grows, from `base_bytes` on.
    Grows,
    /// Another file grows; the one that is read does not, and readers go no further than the base.
    GrowsAnother(&'a File),
    /// The same, but readers go on into what lies behind the base at the pace at which it would grow: the first touches
    /// of a growing file without the growth.
    GrowsAnotherAndReveals(&'a File),
}

/// What the readers of a phase saw.
pub(crate) struct Phase {
    /// Nanoseconds per read, the clock's own cost included.
    pub(crate) all_ns: Histogram<u64>,
    /// Of them, those of blocks that were in the file before it grew.
    pub(crate) old_ns: Histogram<u64>,
    /// Time of the readers, their loops' own cost included; the mean over them.
    pub(crate) reading: Duration,
    pub(crate) minor_faults: u64,
    pub(crate) syscall_reads: u64,
    /// Time from the first step of the writer to the end of its last.
    pub(crate) growing: Duration,
}

impl AddAssign for Phase {
    fn add_assign(&mut self, other: Phase) {
        self.all_ns += other.all_ns;
        self.old_ns += other.old_ns;
        self.reading += other.reading;
        self.minor_faults += other.minor_faults;
        self.syscall_reads += other.syscall_reads;
        self.growing += other.growing;
    }
}

impl Phase {
    /// One in which nothing has happened yet.
    pub(crate) fn empty() -> Self {
        let zero = Duration::ZERO;
        Phase {
            all_ns: histogram(),
            old_ns: histogram(),
            reading: zero,
            minor_faults: 0,
            syscall_reads: 0,
            growing: zero,
        }
    }
}

/// Random bytes; what is written is made of them, so that some blocks end in a zero byte, as in any file.
pub(crate) struct Content(Vec<u8>);

impl Content {
    pub(crate) fn new() -> Self {
        let mut bytes = vec![0; 16 << 20];
        SmallRng::seed_from_u64(7).fill_bytes(&mut bytes);
        Content(bytes)
    }

    /// What belongs at `offset`: each block begins with its own number, so that a reader can check it.
    pub(crate) fn at(&mut self, offset: u64, len: usize) -> &[u8] {
        let start = offset as usize % (self.0.len() - len + 1);
        let bytes = &mut self.0[start..start + len];
        for (index, block) in bytes.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            block[..8].copy_from_slice(&(offset / BLOCK_BYTES as u64 + index as u64).to_le_bytes());
        }
        bytes
    }
}

/// What the threads of a phase share: written at each step, read at each read, the same for every contender.
struct Shared {
    readable_bytes: AtomicU64,
    done: AtomicBool,
}

/// Runs a phase, until the writer is done or each reader has done `reads_max`.
pub(crate) fn run(
    contender: &dyn Growing,
    writer: Writer<'_>,
    plan: &Plan,
    content: &mut Content,
    reads_max: u64,
) -> Result<Phase> {
    let shared = Shared { readable_bytes: AtomicU64::new(plan.base_bytes), done: AtomicBool::new(false) };
    let shared = &shared;
    let syscall_reads_before = contender.counts().syscall_reads;
    let (growing, parts) = thread::scope(|scope| {
        let reader = |number| scope.spawn(move || read_until_done(contender, shared, plan, number, reads_max));
        let readers: Vec<_> = (0..plan.readers as u64).map(reader).collect();
        let growing = write_steps(contender, writer, plan, content, shared);
        shared.done.store(true, Relaxed);
        let parts: Vec<_> = readers.into_iter().map(|reader| reader.join().expect("a reader panicked")).collect();
        (growing, parts)
    });
    let syscall_reads = contender.counts().syscall_reads - syscall_reads_before;
    let mut phase = Phase { growing: growing?, syscall_reads, ..Phase::empty() };
    for part in parts {
        phase += part?;
    }
    phase.reading /= plan.readers as u32;
    Ok(phase)
}

fn write_steps(
    contender: &dyn Growing,
    writer: Writer<'_>,
    plan: &Plan,
    content: &mut Content,
    shared: &Shared,
) -> Result<Duration> {
    let start = Instant::now();
    let mut due = start;
    for offset in (plan.base_bytes..plan.grown_bytes).step_by(plan.step_bytes) {
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        due += plan.pace;
        if shared.done.load(Relaxed) {
            break;
        }
        let bytes = content.at(offset, plan.step_bytes);
        match writer {
            Writer::Grows => contender.append(offset, bytes)?,
            Writer::GrowsAnother(file) | Writer::GrowsAnotherAndReveals(file) => file.write_all_at(bytes, offset)?,
        }
        if !matches!(writer, Writer::GrowsAnother(_)) {
            // Release: who reads this length finds the bytes.
            shared.readable_bytes.store(offset + bytes.len() as u64, Release);
        }
    }
    Ok(start.elapsed())
}

fn read_until_done(
    contender: &dyn Growing,
    shared: &Shared,
    plan: &Plan,
    number: u64,
    reads_max: u64,
) -> Result<Phase> {
    let mut rng = SmallRng::seed_from_u64(number);
    let mut buf = vec![1; BLOCK_BYTES];
    let (mut all_ns, mut old_ns) = (histogram(), histogram());
    // The first read of a thread makes its counters; that is not what is measured.
    contender.read(0, &mut buf)?;
    let usage_before = Usage::of_this_thread()?;
    let start = Instant::now();
    let mut reads = 0;
    while reads < reads_max && !shared.done.load(Relaxed) {
        let readable_bytes = shared.readable_bytes.load(Acquire);
        let block = rng.random_range(0..readable_bytes / BLOCK_BYTES as u64);
        let offset = block * BLOCK_BYTES as u64;
        let before = Instant::now();
        contender.read(offset, &mut buf)?;
        let taken = before.elapsed().as_nanos() as u64;
        all_ns.saturating_record(taken);
        if offset < plan.old_bytes {
            old_ns.saturating_record(taken);
        }
        if buf[..8] != block.to_le_bytes() {
            return Err(format!("wrong bytes at offset {offset}").into());
        }
        reads += 1;
    }
    let reading = start.elapsed();
    let minor_faults = (Usage::of_this_thread()? - usage_before).minor_faults;
    // The writer need not go on for nobody.
    shared.done.store(true, Relaxed);
    Ok(Phase { all_ns, old_ns, reading, minor_faults, ..Phase::empty() })
}

/// From 1 ns to 10 s, exact to two digits, and touched, so that recording faults no page in.
fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 10_000_000_000, 2).expect("bounds and digits are in order");
    histogram.reset();
    histogram
}

/// Reads every page in a range, in order, and returns the minor faults that it took.
pub(crate) fn read_all(contender: &dyn Growing, range: Range<u64>) -> Result<u64> {
    let mut buf = vec![1; BLOCK_BYTES];
    contender.read(0, &mut buf)?;
    let before = Usage::of_this_thread()?;
    for offset in range.step_by(BLOCK_BYTES) {
        contender.read(offset, &mut buf)?;
    }
    Ok((Usage::of_this_thread()? - before).minor_faults)
}
