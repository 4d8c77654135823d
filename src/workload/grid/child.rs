//! A pass in a process of its own: what it is asked, what it answers, and the process's side of it.
//!
//! The parent starts the process inside a [memory limit](crate::workload::memory_limit), writes one [`Request`] as a
//! line of JSON, and reads two [`Reply`]s: that the clock starts now, and what came of it. Then the process waits for
//! the end of its input, so that the parent can look at its memory while all of it is there.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::workload::contender::{Io, Opening, Reader, ReaderTask, open_and};
use crate::workload::error::{Error, Result};
use crate::workload::pass::{self, End, Explanation, Job, Kind, Pass, Series, SeriesPlan};
use crate::workload::pattern::{Extent, Pattern};
use crate::workload::usage::Usage;
use crate::{Advice, BlockIo, HugePages, IoOptions};

/// How much is read at a time while memory is filled.
const FILL_BLOCK_BYTES: u64 = 1 << 20;
/// Mixed into the seed, so that a warm-up reads other offsets than the pass.
const WARM_UP_SEED: u64 = 0x5bd1_e995_9e37_79b9;

/// What the process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) io: Io,
    pub(super) pattern: Pattern,
    pub(super) extent: Extent,
    pub(super) seed: u64,
    pub(super) batch: usize,
    pub(super) queue_depth: u32,
    #[serde(with = "HugePagesName")]
    pub(super) huge_pages: HugePages,
    #[serde(with = "AdviceName")]
    pub(super) advice: Advice,
    pub(super) latency: bool,
    /// The beginning of the file that is read first, so that memory is full.
    pub(super) fill_bytes: u64,
    /// How much is then read as the pass reads, at most.
    pub(super) warm_up_bytes: u64,
    pub(super) warm_up_limit: Duration,
    pub(super) pass_limit: Duration,
    pub(super) series: Option<Duration>,
    pub(super) explain: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "HugePages")]
enum HugePagesName {
    Auto,
    On,
    Off,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Advice")]
enum AdviceName {
    Normal,
    Random,
    Sequential,
}

/// What the process answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The clock starts.
    Started {
        warm_up_reads: u64,
    },
    Done(Done),
    Failed {
        reason: String,
    },
}

/// A [`Pass`] as it goes over the pipe.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    elapsed: Duration,
    reads: u64,
    checksum: u64,
    end: End,
    usage: Usage,
    /// The values of the histogram, and how often each was there.
    latency_ns: Option<Vec<(u64, u64)>>,
    slice_bytes: Option<Vec<u64>>,
    explanation: Option<Explanation>,
    pub(super) fallback_reads: u64,
}

impl Done {
    fn of(pass: Pass, fallback_reads: u64) -> Done {
        let values = |histogram: Histogram<u64>| {
            histogram.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
        };
        Done {
            elapsed: pass.elapsed,
            reads: pass.reads,
            checksum: pass.checksum,
            end: pass.end,
            usage: pass.usage,
            latency_ns: pass.latency_ns.map(values),
            slice_bytes: pass.series.map(|series| series.slice_bytes),
            explanation: pass.explanation,
            fallback_reads,
        }
    }

    pub(super) fn into_pass(self) -> Pass {
        let histogram = |values: Vec<(u64, u64)>| {
            let mut histogram = pass::new_histogram();
            for (value, count) in values {
                histogram.saturating_record_n(value, count);
            }
            histogram
        };
        Pass {
            elapsed: self.elapsed,
            reads: self.reads,
            checksum: self.checksum,
            end: self.end,
            usage: self.usage,
            latency_ns: self.latency_ns.map(histogram),
            series: self.slice_bytes.map(|slice_bytes| Series { slice_bytes }),
            explanation: self.explanation,
        }
    }
}

/// The whole life of the process: reads a request, does it on the file at `path`, answers, and returns when the input
/// ends.
///
/// # Errors
///
/// Where `input` or `output` fail, or `input` is no request. Where the pass fails, the answer says so.
pub fn serve(path: &Path, mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line)?;
    let mut reply = |reply: &Reply| {
        serde_json::to_writer(&mut output, reply)?;
        output.write_all(b"\n")?;
        output.flush()
    };
    let done = request.run(path, &mut |started| reply(started));
    reply(&match done {
        Ok(done) => Reply::Done(done),
        Err(error) => Reply::Failed { reason: error.to_string() },
    })?;
    io::copy(&mut input, &mut io::sink()).map(|_| ())
}

impl Request {
    fn run(&self, path: &Path, started: &mut dyn FnMut(&Reply) -> io::Result<()>) -> Result<Done> {
        let warm_up = self.warm_up_offsets();
        let offsets = self.pattern.offsets_of(&self.extent, self.seed);
        self.fill(path)?;
        let opening = Opening { path, huge_pages: self.huge_pages, advice: self.advice, queue_depth: self.queue_depth };
        let task = Measure { request: self, warm_up, offsets, started };
        let refused = || Error::system("answer about", path)(io::Error::other(format!("{} has no form here", self.io)));
        open_and(self.io, &opening, task)?.ok_or_else(refused)?
    }

    /// What a pass like this one, with other random numbers, would have read last before the pass begins: the end of
    /// the first piece of each thread.
    fn warm_up_offsets(&self) -> Vec<u64> {
        let part = self.extent.reads_per_thread() as usize;
        let reads = (self.warm_up_bytes / self.extent.block_bytes / self.extent.threads.max(1) as u64) as usize;
        let offsets = self.pattern.offsets_of(&self.extent, self.seed ^ WARM_UP_SEED);
        let tails = offsets.chunks(part).flat_map(|part| {
            let piece = &part[..part.len() / self.pattern.phases()];
            &piece[piece.len() - reads.min(piece.len())..]
        });
        tails.copied().collect()
    }

    fn fill(&self, path: &Path) -> Result<()> {
        let file = IoOptions::new().open_pread(path)?;
        let mut buf = vec![0; FILL_BLOCK_BYTES as usize];
        let mut offset = 0;
        while offset < self.fill_bytes {
            let len = FILL_BLOCK_BYTES.min(self.fill_bytes - offset);
            file.read_at(offset, &mut buf[..len as usize])?;
            offset += len;
        }
        Ok(())
    }
}

/// The warm-up and the pass, by one reader.
struct Measure<'a> {
    request: &'a Request,
    warm_up: Vec<u64>,
    offsets: Vec<u64>,
    started: &'a mut dyn FnMut(&Reply) -> io::Result<()>,
}

impl ReaderTask for Measure<'_> {
    type Output = Result<Done>;

    fn run<R: Reader>(self, reader: &R) -> Result<Done> {
        let Request { extent, pattern, batch, .. } = *self.request;
        // Nobody sets it: the parent ends the process instead.
        let stop = AtomicBool::new(false);
        let job = |offsets| Job {
            threads: extent.threads,
            batch,
            close_look: true,
            ..Job::new(offsets, extent.block_bytes as usize, &stop)
        };
        let warm_up = pass::run(reader, &Job { limit: self.request.warm_up_limit, ..job(&self.warm_up) })?;
        let kind = if self.request.latency { Kind::Latency } else { Kind::Copy };
        let series = self.request.series.map(|duration| SeriesPlan { duration, phases: pattern.phases() });
        let Request { explain, pass_limit: limit, .. } = *self.request;
        let job = Job { kind, limit, series, explain, ..job(&self.offsets) };
        let fallback_reads = reader.fallback_reads();
        let told = (self.started)(&Reply::Started { warm_up_reads: warm_up.reads });
        told.map_err(Error::system("answer on", "standard output"))?;
        let pass = pass::run(reader, &job)?;
        Ok(Done::of(pass, reader.fallback_reads() - fallback_reads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pattern: Pattern) -> Request {
        Request {
            io: Io::PREAD,
            pattern,
            extent: Extent { blocks: 100, block_bytes: 512, reads: 100, threads: 2 },
            seed: 7,
            batch: 1,
            queue_depth: 64,
            huge_pages: HugePages::Auto,
            advice: Advice::Random,
            latency: false,
            fill_bytes: 20_000,
            warm_up_bytes: 20 * 512,
            warm_up_limit: Duration::from_secs(10),
            pass_limit: Duration::from_secs(10),
            series: None,
            explain: false,
        }
    }

    /// What the process says, and what a pass in this process finds.
    fn served(request: &Request) -> Vec<Reply> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, (0..51_200u32).map(|i| (i * 7 / 3) as u8).collect::<Vec<_>>()).unwrap();
        let mut output = Vec::new();
        serve(&path, (serde_json::to_string(request).unwrap() + "\n").as_bytes(), &mut output).unwrap();
        let output = String::from_utf8(output).unwrap();
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_request_is_served() {
        let mut checksums = Vec::new();
        for io in [Io::PREAD, Io::MMAP, Io::PreadRandom, Io::Bare] {
            let replies = served(&Request { io, ..request(Pattern::Rand) });
            let [Reply::Started { warm_up_reads: 20 }, Reply::Done(_)] = &replies[..] else { panic!("{replies:?}") };
            let Some(Reply::Done(done)) = replies.into_iter().last() else { panic!() };
            let pass = done.into_pass();
            assert_eq!((pass.reads, pass.end), (100, End::Complete));
            checksums.push(pass.checksum);
        }
        checksums.dedup();
        assert_eq!(checksums.len(), 1);
    }

    #[test]
    fn latencies_and_series_come_over_the_pipe() {
        let Some(Reply::Done(done)) = served(&Request { latency: true, ..request(Pattern::Rand) }).pop() else {
            panic!()
        };
        assert_eq!(done.into_pass().latency_ns.map(|histogram| histogram.len()), Some(100));
        let series = Some(Duration::from_millis(150));
        let replies = served(&Request { series, batch: 4, ..request(Pattern::Shift { percent: 10 }) });
        let Some(Reply::Done(done)) = replies.into_iter().last() else { panic!() };
        let pass = done.into_pass();
        assert!(pass.reads > 0 && pass.series.is_some_and(|series| series.slice_bytes.len() == 2));
    }

    #[test]
    fn what_was_decided_comes_over_the_pipe() {
        let replies = served(&Request { io: Io::AUTO, explain: true, ..request(Pattern::Rand) });
        let Some(Reply::Done(done)) = replies.into_iter().last() else { panic!() };
        let explanation = done.into_pass().explanation.unwrap();
        assert_eq!(explanation.moments.last().unwrap().parts.len(), 1, "{explanation:?}");
    }

    #[test]
    fn the_warm_up_ends_where_the_pass_begins() {
        // 20 reads of two threads: the last ten of each thread's half.
        let seq = request(Pattern::Seq).warm_up_offsets();
        let blocks: Vec<u64> = seq.iter().map(|offset| offset / 512).collect();
        assert_eq!(blocks, (40..50).chain(90..100).collect::<Vec<_>>());
        // Before the working set moves.
        let shift = request(Pattern::Shift { percent: 10 }).warm_up_offsets();
        assert!(shift.len() == 20 && shift.iter().all(|offset| *offset < 10 * 512));
    }

    #[test]
    fn what_cannot_be_is_answered_and_what_is_no_request_is_an_error() {
        let failed = served(&Request { io: Io::Limit, ..request(Pattern::Rand) });
        assert!(matches!(&failed[..], [Reply::Failed { .. }]), "{failed:?}");
        let past_end = served(&Request { fill_bytes: 1 << 40, ..request(Pattern::Rand) });
        assert!(matches!(&past_end[..], [Reply::Failed { .. }]), "{past_end:?}");
        for text in ["", "\n", "{}\n", "[1"] {
            assert!(serve(Path::new("missing"), text.as_bytes(), Vec::new()).is_err(), "{text}");
        }
    }
}
