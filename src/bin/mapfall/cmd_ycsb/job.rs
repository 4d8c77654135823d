//! From what was typed to what is done: properties resolved, files opened, a phase run and shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use mapfall::workload::cache_state::FileCache;
use mapfall::workload::ycsb::{
    Bare, Configuration, LogFiles, PageCache, PhaseConfig, PhaseKind, PhaseOutcome, Properties, Settings, Status,
    Table, Target, Workload, describe, run_phase,
};
use mapfall::{CacheOptions, IoMode, IoOptions, Store, StoreCache, StoreOptions};

use super::{FileArgs, RunningArgs, WorkloadArgs};
use crate::fail::Failure;
use crate::{console, ycsb_text};

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) properties: Properties,
    pub(crate) workload: Workload,
    pub(crate) settings: Settings,
    args: WorkloadArgs,
}

impl Job {
    pub(super) fn resolve(args: &WorkloadArgs, is_load: bool) -> Result<Job, Failure> {
        let mut properties = Properties::new();
        for path in &args.properties {
            properties.read_file(path)?;
        }
        for pair in &args.property {
            properties.set_pair(pair)?;
        }
        for (name, option, value) in [("threadcount", "--threads", &args.threads), ("target", "--target", &args.target)]
        {
            if let Some(value) = value {
                properties.set(name, value, option);
            }
        }
        let workload = Workload::resolve(&properties)?;
        let settings = Settings::resolve(&properties, is_load)?;
        Ok(Job { properties, workload, settings, args: args.clone() })
    }

    pub(super) fn phase(&self, kind: PhaseKind, hlog: Option<&Path>) -> PhaseConfig {
        let settings = &self.settings;
        PhaseConfig {
            threads: settings.threads,
            target_per_s: settings.target_per_s,
            time_max: settings.time_max,
            checkpoint_every: self.args.checkpoint_every,
            interval: self.args.interval,
            status_every: if self.args.status { settings.status_every } else { Duration::MAX / 4 },
            seed: self.args.seed,
            logs: hlog.map(|path| LogFiles::Tagged(path.to_owned())).or_else(|| settings.logs.clone()),
            percentiles: settings.percentiles.clone(),
            ..PhaseConfig::new(kind)
        }
    }

    /// What a child is to be told, so that it does the same.
    pub(super) fn words(&self) -> Vec<String> {
        // What this process does itself, or each child would do over the others'.
        let own = ["exporter", "exportfile", "hdrhistogram.fileoutput", "hdrhistogram.output.path", "threadcount"];
        let told = self.properties.iter().filter(|(name, _)| !own.contains(name));
        let mut words: Vec<String> =
            told.flat_map(|(name, value)| ["-p".to_owned(), format!("{name}={value}")]).collect();
        words.extend(["--interval".to_owned(), format!("{}ms", self.args.interval.as_millis().max(1))]);
        match self.args.checkpoint_every {
            Some(mapfall::workload::ycsb::CheckpointEvery::Operations(count)) => {
                words.extend(["--checkpoint-every".to_owned(), format!("{count}ops")]);
            }
            Some(mapfall::workload::ycsb::CheckpointEvery::Time(time)) => {
                words.extend(["--checkpoint-every".to_owned(), format!("{}ms", time.as_millis().max(1))]);
            }
            None => {}
        }
        words
    }

    pub(super) fn seed(&self) -> u64 {
        self.args.seed
    }
}

impl FileArgs {
    pub(super) fn path(&self) -> &Path {
        self.store.as_deref().or(self.bare.as_deref()).unwrap_or(Path::new(""))
    }

    pub(super) fn is_bare(&self) -> bool {
        self.bare.is_some()
    }
}

/// A configuration of what was typed for a run.
pub(super) fn configuration(file: &FileArgs, running: &RunningArgs, io: IoMode, threads: usize) -> Configuration {
    Configuration {
        file: file.path().to_owned(),
        is_bare: file.is_bare(),
        io: io.name().to_owned(),
        cache_bytes: running.cache.map(|size| size.bytes()),
        threads,
        queue_depth: running.queue_depth,
        page_cache: running.page_cache,
    }
}

pub(super) fn store_options(io: IoOptions, cache_bytes: Option<u64>) -> Result<StoreOptions, Failure> {
    let options = Store::options().io(io);
    match cache_bytes {
        Some(bytes) => {
            let cache = CacheOptions::new(bytes).build()?;
            Ok(options.cache(StoreCache::new(Arc::new(cache))))
        }
        None => Ok(options),
    }
}

/// Opens what a run works on, and sees that it has what the run needs.
pub(super) fn open(job: &Job, configuration: &Configuration) -> Result<Target, Failure> {
    let mode: IoMode = configuration.io.parse().map_err(|error| Failure::usage(format!("--io: {error}")))?;
    let io = IoOptions::new().mode(mode).queue_depth(configuration.queue_depth);
    let path = &configuration.file;
    let target = if configuration.is_bare {
        let file = io.write(true).open(path)?;
        Target::Bare(Bare::new(file, job.workload.layout.clone())?)
    } else {
        // What it is, before anything is opened for writing.
        let (layout, _) = describe(path)?;
        layout.check_asked(&job.workload.layout)?;
        let store = store_options(io, configuration.cache_bytes)?.open(path)?;
        Target::Table(Box::new(Table::open(store)?))
    };
    Ok(target)
}

/// Brings the file where a configuration wants it. What cannot be had is said, and nothing is measured.
pub(super) fn prepare(configuration: &Configuration, stop: &AtomicBool) -> Result<Result<(), String>, Failure> {
    let path = &configuration.file;
    Ok(match configuration.page_cache {
        PageCache::AsIs => Ok(()),
        PageCache::Warm => FileCache::open(path, true)?.make_warm(stop)?,
        PageCache::Cold | PageCache::Limited(_) => FileCache::open(path, true)?.make_cold()?.map(|_| ()),
    })
}

/// Runs a phase, and shows how it stands.
pub(super) fn measure(
    job: &Job,
    target: &Target,
    config: &PhaseConfig,
    stop: &AtomicBool,
) -> Result<PhaseOutcome, Failure> {
    let mut heard = |status: &Status| console::say(&ycsb_text::status(status));
    Ok(run_phase(target, &job.workload, config, stop, &mut heard)?)
}

/// The exit code of a phase that went to its end, whatever came of it.
pub(super) fn ended(outcomes: &[PhaseOutcome], stop: &AtomicBool) -> Result<std::process::ExitCode, Failure> {
    if stop.load(std::sync::atomic::Ordering::Relaxed) {
        return Ok(crate::fail::interrupted());
    }
    let failed: u64 = outcomes.iter().map(|outcome| outcome.failed).sum();
    let all: u64 = outcomes.iter().map(|outcome| outcome.operations).sum();
    match failed {
        0 => Ok(std::process::ExitCode::SUCCESS),
        failed => Err(Failure::while_running(format!("{failed} of {all} operations failed: see [..-FAILED]"))),
    }
}

/// A file that must be there.
pub(super) fn must_exist(option: &str, path: &PathBuf) -> Result<(), Failure> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::usage(format!("{option}: cannot open {}: {error}", path.display()))),
    }
}
