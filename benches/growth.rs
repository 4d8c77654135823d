//! Reads while the file grows: a map that reaches past the end of the file, against the protocol that unmaps and maps
//! again, and against system calls.
//!
//! `cargo bench --bench growth` has criterion's figures for each contender by itself and then a table from interleaved
//! rounds; with `-- table` the table alone. A round of a contender goes through three phases, several times over:
//!
//! - *at rest*: the file does not grow, and every page has been touched. Another file grows, in the same steps at the
//!   same pace.
//! - *growing*: the file grows.
//! - *first touches*: what has just grown is read through a fresh handle. Another file grows again, and readers go on
//!   into the new part at the pace at which it grew. New pages must be touched for the first time in this phase and in
//!   the one before; what growth itself costs is the difference between the two.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

#[path = "support/phase.rs"]
mod phase;
#[path = "support/remap.rs"]
mod remap;
#[path = "support/run.rs"]
mod run;

use std::cell::RefCell;
use std::env;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use mapfall::workload::size::ByteSize;
use mapfall::{BlockIo, IoOptions, IoStats, MmapFile};
use tempfile::NamedTempFile;

use self::phase::{Content, Counts, Growing, Phase, Plan, Writer, read_all};
use self::remap::RemapFile;
use self::run::{Contender, Result, interleave, is_quick, ratio, rounds, shown, spread, wants_table};

/// How the file is opened, read and made to grow.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Pread,
    Mapfall,
    /// Someone else appends, through another handle: readers find out by themselves.
    MapfallOthersGrow,
    /// The range ends a little behind the base of the file, so that a larger map is made on the way.
    MapfallSmallRange,
    /// The protocol, a new map for each step.
    Remap,
    /// The protocol, a new map for one step in ten, as WiredTiger has it for writes that extend a file.
    RemapTenth,
}

const KINDS: [(Kind, &str); 6] = [
    (Kind::Pread, "pread"),
    (Kind::Mapfall, "mapfall"),
    (Kind::MapfallOthersGrow, "mapfall-others-grow"),
    (Kind::MapfallSmallRange, "mapfall-small-range"),
    (Kind::Remap, "remap"),
    (Kind::RemapTenth, "remap-tenth"),
];

impl Kind {
    fn open(self, path: &Path, base_bytes: u64) -> Result<Box<dyn Growing>> {
        let options = IoOptions::new().write(true);
        Ok(match self {
            Kind::Pread => Box::new(options.open_pread(path)?),
            Kind::Mapfall => Box::new(options.open_mmap(path)?),
            Kind::MapfallOthersGrow => {
                let other = File::options().write(true).open(path)?;
                Box::new(OthersGrow { file: IoOptions::new().open_mmap(path)?, other })
            }
            Kind::MapfallSmallRange => Box::new(options.map_range_bytes(base_bytes + (4 << 20)).open_mmap(path)?),
            Kind::Remap => Box::new(RemapFile::open(path, 1)?),
            Kind::RemapTenth => Box::new(RemapFile::open(path, 10)?),
        })
    }
}

fn counts_of(stats: &IoStats) -> Counts {
    assert!(stats.paths_add_up());
    let reasons = stats.fallbacks.iter().filter(|(_, count)| *count > 0);
    let reasons: Vec<_> = reasons.map(|(reason, count)| format!("{reason} {count}")).collect();
    let remaps = stats.map.as_ref().map_or(0, |map| map.remaps);
    Counts { syscall_reads: stats.pread.reads, remaps, reasons: reasons.join(", ") }
}

impl<F: BlockIo> Growing for F {
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Ok(self.read_at(offset, buf)?)
    }

    fn append(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.write_at(offset, bytes)?)
    }

    fn counts(&self) -> Counts {
        counts_of(&self.stats())
    }
}

struct OthersGrow {
    file: MmapFile,
    other: File,
}

impl Growing for OthersGrow {
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Ok(self.file.read_at(offset, buf)?)
    }

    fn append(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.other.write_all_at(bytes, offset)?)
    }

    fn counts(&self) -> Counts {
        counts_of(&self.file.stats())
    }
}

impl Growing for RemapFile {
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Ok(RemapFile::read(self, offset, buf)?)
    }

    fn append(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(RemapFile::append(self, offset, bytes)?)
    }

    fn counts(&self) -> Counts {
        Counts { syscall_reads: self.syscall_reads(), remaps: self.remaps(), reasons: String::new() }
    }
}

/// The file that is read, the other one that grows while that is at rest, and what is written to both.
struct Stage {
    plan: Plan,
    read: NamedTempFile,
    other: NamedTempFile,
    content: Content,
}

impl Stage {
    fn new(plan: Plan) -> Result<Self> {
        let file = || tempfile::Builder::new().prefix("growth-").tempfile_in(env!("CARGO_TARGET_TMPDIR"));
        let mut content = Content::new();
        let read = file()?;
        // In the steps in which it will grow, so that all its pages have the size that growth gives them.
        for offset in (0..plan.base_bytes).step_by(plan.step_bytes) {
            read.as_file().write_all_at(content.at(offset, plan.step_bytes), offset)?;
        }
        read.as_file().sync_all()?;
        Ok(Stage { plan, read, other: file()?, content })
    }

    /// Opens the file and touches every page up to a length.
    fn open(&self, kind: Kind, touched_bytes: u64) -> Result<Box<dyn Growing>> {
        let contender = kind.open(self.read.path(), self.plan.base_bytes)?;
        let _ = read_all(&*contender, 0..touched_bytes)?;
        Ok(contender)
    }

    /// Cuts the file to what it was at the beginning, and opens it.
    fn open_afresh(&self, kind: Kind) -> Result<Box<dyn Growing>> {
        self.read.as_file().set_len(self.plan.base_bytes)?;
        self.open(kind, self.plan.base_bytes)
    }

    fn run(&mut self, place: usize, contender: &dyn Growing, plan: &Plan, reads_max: u64) -> Result<Phase> {
        let other = self.other.as_file();
        other.set_len(plan.base_bytes)?;
        let writer = match place {
            AT_REST => Writer::GrowsAnother(other),
            GROWING => Writer::Grows,
            _ => Writer::GrowsAnotherAndReveals(other),
        };
        phase::run(contender, writer, plan, &mut self.content, reads_max)
    }

    fn round(&mut self, kind: Kind) -> Result<Round> {
        let mut phases = [Phase::empty(), Phase::empty(), Phase::empty()];
        let mut faults_again = 0;
        let contender = self.open_afresh(kind)?;
        let slice_bytes = (self.plan.grown_bytes - self.plan.base_bytes) / SLICES;
        for slice in 0..SLICES {
            let base_bytes = self.plan.base_bytes + slice * slice_bytes;
            let plan = Plan { base_bytes, grown_bytes: base_bytes + slice_bytes, ..self.plan };
            phases[AT_REST] += self.run(AT_REST, &*contender, &plan, u64::MAX)?;
            phases[GROWING] += self.run(GROWING, &*contender, &plan, u64::MAX)?;
            let fresh = self.open(kind, base_bytes)?;
            phases[FIRST_TOUCHES] += self.run(FIRST_TOUCHES, &*fresh, &plan, u64::MAX)?;
            // Everything is touched for the next slice at rest.
            faults_again += read_all(&*contender, 0..self.plan.base_bytes)?;
            let _ = read_all(&*contender, self.plan.base_bytes..plan.grown_bytes)?;
        }
        Ok(Round { phases, faults_again, counts: contender.counts() })
    }
}

/// One contender's phases, in the order of [`PHASES`].
struct Round {
    phases: [Phase; 3],
    /// Faults of passes over the pages that were touched before the file grew, each after it has grown some more.
    faults_again: u64,
    counts: Counts,
}

const PHASES: [&str; 3] = ["at rest", "growing", "first touches"];
const AT_REST: usize = 0;
const GROWING: usize = 1;
const FIRST_TOUCHES: usize = 2;
/// How often a round goes through its phases: what slows the machine down for a second then meets all three.
const SLICES: u64 = 8;

fn main() -> Result<()> {
    let mut plan = Plan {
        old_bytes: 256 << 20,
        base_bytes: 256 << 20,
        grown_bytes: 512 << 20,
        step_bytes: 64 << 10,
        pace: Duration::from_micros(pace_us()),
        // One processor is the writer's.
        readers: thread::available_parallelism().map_or(1, |processors| (processors.get() - 1).max(1)),
    };
    if is_quick() {
        (plan.old_bytes, plan.base_bytes, plan.grown_bytes) = (4 << 20, 4 << 20, 12 << 20);
    }
    let mut stage = Stage::new(plan)?;
    let mut criterion = Criterion::default().configure_from_args();
    measure_each(&mut criterion, &mut stage);
    criterion.final_summary();
    if wants_table() { print_table(stage) } else { Ok(()) }
}

/// Microseconds between two steps: `GROWTH_PACE_US`, or 250: 4000 steps and 250 MiB a second.
fn pace_us() -> u64 {
    env::var("GROWTH_PACE_US").ok().and_then(|us| us.parse().ok()).unwrap_or(250)
}

fn measure_each(criterion: &mut Criterion, stage: &mut Stage) {
    let mut group = criterion.benchmark_group("growth");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for (kind, name) in KINDS {
        for place in [AT_REST, GROWING] {
            let _ = group.bench_function(BenchmarkId::new(name, PHASES[place]), |bencher| {
                bencher.iter_custom(|reads| timed(stage, kind, place, reads).expect("the files can be read and grown"));
            });
        }
    }
    group.finish();
}

/// The time of so many reads of each reader. Where the file has grown to its end before, it is cut and grows again.
fn timed(stage: &mut Stage, kind: Kind, place: usize, reads: u64) -> Result<Duration> {
    let mut reading = Duration::ZERO;
    let mut left = reads;
    while left > 0 {
        let contender = stage.open_afresh(kind)?;
        let plan = stage.plan;
        let phase = stage.run(place, &*contender, &plan, left)?;
        reading += phase.reading;
        left = left.saturating_sub(phase.all_ns.len() / stage.plan.readers as u64);
    }
    Ok(reading)
}

fn print_table(stage: Stage) -> Result<()> {
    let plan = stage.plan;
    let stage = RefCell::new(stage);
    let mut contenders: Vec<Contender<'_, Round>> = Vec::new();
    for (kind, _) in &KINDS {
        contenders.push(Box::new(|| stage.borrow_mut().round(*kind)));
    }
    let rounds = interleave(rounds(), &mut contenders)?;
    let (from, to) = (ByteSize::new(plan.base_bytes), ByteSize::new(plan.grown_bytes));
    let (step, readers) = (ByteSize::new(plan.step_bytes as u64), plan.readers);
    println!(
        "\na file grows from {from} to {to} in steps of {step} every {:?}; {readers} reader(s) of random",
        plan.pace
    );
    println!("4 KiB blocks at full speed; {} interleaved rounds of {SLICES} slices", rounds[0].len());
    print_phases(&rounds);
    print_claims(&rounds);
    Ok(())
}

fn print_phases(rounds: &[Vec<Round>]) {
    println!("\nns a read, the clock's own cost included; medians over the rounds, and the greatest of all");
    print!(
        "{:<20} {:<14} {:>6} {:>6} {:>7} {:>9} {:>10}",
        "contender", "phase", "p50", "p99", "p99.9", "max", "greatest"
    );
    println!(" {:>9} {:>9} {:>9} {:>7} {:>8}", "M reads/s", "by map", "by call", "faults", "writer s");
    for ((_, name), rounds) in KINDS.iter().zip(rounds) {
        for (place, what) in PHASES.iter().enumerate() {
            let over = |value: &dyn Fn(&Phase) -> f64| spread(values(rounds, |round| value(&round.phases[place])));
            let at = |quantile| over(&|phase| phase.all_ns.value_at_quantile(quantile) as f64).median;
            print!("{name:<20} {what:<14} {:>6.0} {:>6.0} {:>7.0}", at(0.5), at(0.99), at(0.999));
            let max = over(&|phase| phase.all_ns.max() as f64);
            print!(" {:>9.0} {:>10.0}", max.median, max.max);
            let speed = over(&|phase| phase.all_ns.len() as f64 / phase.reading.as_secs_f64() / 1e6).median;
            let by_map = over(&|phase| phase.all_ns.len().saturating_sub(phase.syscall_reads) as f64).median;
            let by_call = over(&|phase| phase.syscall_reads as f64).median;
            let faults = over(&|phase| phase.minor_faults as f64).median;
            let growing = over(&|phase| phase.growing.as_secs_f64()).median;
            println!(" {speed:>9.3} {by_map:>9.0} {by_call:>9.0} {faults:>7.0} {growing:>8.2}");
        }
    }
}

fn print_claims(rounds: &[Vec<Round>]) {
    println!(
        "\np99.9 while growing to p99.9 at rest, of all blocks and of those of the old part; to p99.9 of first touches:"
    );
    println!("median (least-greatest) over the rounds. Faults again: of passes over the old part, one a slice");
    print!("{:<20} {:<20} {:<20} {:<20}", "contender", "to at rest", "to at rest, old", "to first touches");
    println!(" {:>12} {:>6}  reasons of system calls", "faults again", "remaps");
    for ((_, name), rounds) in KINDS.iter().zip(rounds) {
        let all = |place: usize| values(rounds, |round| round.phases[place].all_ns.value_at_quantile(0.999) as f64);
        let old = |place: usize| values(rounds, |round| round.phases[place].old_ns.value_at_quantile(0.999) as f64);
        print!(
            "{name:<20} {:<20} {:<20} {:<20}",
            shown(ratio(&all(GROWING), &all(AT_REST))),
            shown(ratio(&old(GROWING), &old(AT_REST))),
            shown(ratio(&all(GROWING), &all(FIRST_TOUCHES))),
        );
        let faults_again = spread(values(rounds, |round| round.faults_again as f64)).median;
        let remaps = spread(values(rounds, |round| round.counts.remaps as f64)).median;
        let reasons = rounds.last().map_or("", |round| &round.counts.reasons);
        println!(" {faults_again:>12.0} {remaps:>6.0}  {reasons}");
    }
}

fn values(rounds: &[Round], value: impl Fn(&Round) -> f64) -> Vec<f64> {
    rounds.iter().map(value).collect()
}
