//! Files to read, whole in the page cache.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use mapfall::workload::cache_state::FileCache;
use mapfall::workload::contender::Reader;
use mapfall::workload::content::TemporaryFile;
use mapfall::workload::pass::{self, End, Job, Pass};
use mapfall::workload::pattern::Pattern;

use super::run::Result;

/// A file of random bytes, below the target directory.
pub(crate) fn random_file(len_bytes: u64) -> Result<TemporaryFile> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    Ok(TemporaryFile::create(dir, len_bytes, 1, &AtomicBool::new(false), |_| {})?)
}

/// Brings a file into the page cache, in 2 MiB pages where the file system has them, and makes sure of it.
pub(crate) fn warm(path: &Path) -> Result<()> {
    Ok(FileCache::open(path, true)?.warm_afresh(&AtomicBool::new(false))??)
}

/// A contender with its type forgotten. The loop over the reads is inside, compiled for the type.
pub(crate) type Runner<'a> = Box<dyn Fn(&[u64], usize, usize) -> Pass + 'a>;

/// Wraps a contender up, after it has read the whole file once: the benches that use this are about steady states, so
/// no page is touched for the first time under the clock.
pub(crate) fn runner<'a, R: Reader + 'a>(reader: R, file_bytes: u64) -> Runner<'a> {
    let run = move |offsets: &[u64], block_bytes: usize, threads: usize| {
        let stop = AtomicBool::new(false);
        let job = Job { threads, ..Job::new(offsets, block_bytes, &stop) };
        let pass = pass::run(&reader, &job).expect("the file is there and nobody cuts it");
        assert_eq!(pass.end, End::Complete);
        pass
    };
    let _ = run(&Pattern::Seq.offsets(file_bytes / 4096, 4096, 0), 4096, 1);
    Box::new(run)
}

/// The time of so many reads over all threads, going through the offsets as often as it takes.
pub(crate) fn timed(runner: &Runner<'_>, offsets: &[u64], block_bytes: usize, threads: usize, reads: u64) -> Duration {
    let mut left = usize::try_from(reads).unwrap_or(usize::MAX);
    let mut elapsed = Duration::ZERO;
    while left > 0 {
        let now = left.min(offsets.len());
        elapsed += runner(&offsets[..now], block_bytes, threads).elapsed;
        left -= now;
    }
    elapsed
}
