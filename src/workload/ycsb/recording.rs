//! Operations in a file: written while they run, and read to be run again.
//!
//! A line is an operation: nanoseconds from the beginning to when it began, its name as in the output, the number of
//! its record and, for a scan, how many records. Lines that begin with `#` are passed over. The lines of a thread are
//! in their order, those of several threads only about; they are sorted when they are read.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::error::{Result, YcsbError};
use super::record::fnv_hash;
use super::session::Request;
use super::workload::Operation;
use crate::workload::private_file;
use crate::workload::trace::Source;

/// What the first line says.
const HEADER: &str = "# mapfall ycsb trace 1: ns operation record [length]";
/// How much a thread writes at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// A file that operations are written to.
#[derive(Debug)]
pub(super) struct Recorder {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

/// What a thread has to write yet.
#[derive(Debug, Default)]
pub(super) struct Lines(String);

impl Recorder {
    pub(super) fn create(path: &Path) -> Result<Recorder> {
        let failed = |error| YcsbError::system(format!("write {}", path.display()))(error);
        let mut file = BufWriter::new(private_file::create(path).map_err(failed)?);
        writeln!(file, "{HEADER}").map_err(failed)?;
        Ok(Recorder { path: path.to_owned(), file: Mutex::new(file) })
    }

    pub(super) fn note(&self, lines: &mut Lines, at_ns: u64, request: &Request) -> Result<()> {
        let Request { operation, number, length } = request;
        let _ = match operation {
            Operation::Scan => writeln!(lines.0, "{at_ns} {} {number} {length}", operation.name()),
            _ => writeln!(lines.0, "{at_ns} {} {number}", operation.name()),
        };
        if lines.0.len() >= CHUNK_BYTES { self.flush(lines) } else { Ok(()) }
    }

    pub(super) fn flush(&self, lines: &mut Lines) -> Result<()> {
        let mut file = self.file.lock();
        let failed = YcsbError::system(format!("write {}", self.path.display()));
        file.write_all(lines.0.as_bytes()).and_then(|()| file.flush()).map_err(failed)?;
        lines.0.clear();
        Ok(())
    }
}

/// Operations to be run again, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Each with the nanosecond that it begins in, in that order.
    pub(super) requests: Vec<(u64, Request)>,
    has_times: bool,
}

impl Recording {
    /// Reads a file that a run was recorded to.
    ///
    /// # Errors
    ///
    /// [`YcsbError::System`] where it cannot be read, [`YcsbError::TraceLine`] with the first line that is none.
    pub fn read(path: &Path) -> Result<Recording> {
        let failed = |error| YcsbError::system(format!("read {}", path.display()))(error);
        let file = BufReader::new(File::open(path).map_err(failed)?);
        let mut requests = Vec::new();
        for (line, number) in file.lines().zip(1..) {
            let line = line.map_err(failed)?;
            let text = line.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            requests.push(parse(text).map_err(|expected| YcsbError::TraceLine {
                path: path.to_owned(),
                line: number,
                expected,
                found: text.chars().take(60).collect(),
            })?);
        }
        requests.sort_by_key(|(at_ns, _)| *at_ns);
        Ok(Recording { requests, has_times: true })
    }

    /// The first requests of a trace of a cache, each as a read of one of `records` records: the one that a hash of its
    /// key says.
    ///
    /// # Errors
    ///
    /// [`YcsbError::Workload`] where the trace cannot be read.
    pub fn of_trace(source: &Source, records: u64, requests_max: u64) -> Result<Recording> {
        let mut trace = source.requests();
        let mut requests = Vec::new();
        while (requests.len() as u64) < requests_max {
            let Some(request) = trace.next().map_err(crate::workload::Error::from)? else { break };
            if request.size_bytes > 0 {
                let number = fnv_hash(request.key) % records.max(1);
                requests.push((0, Request { operation: Operation::Read, number, length: 1 }));
            }
        }
        Ok(Recording { requests, has_times: false })
    }

    /// Whether a file begins as a recorded run does.
    #[must_use]
    pub fn is_recorded(path: &Path) -> bool {
        let mut line = String::new();
        let read = File::open(path).and_then(|file| BufReader::new(file).read_line(&mut line));
        read.is_ok() && line.trim() == HEADER
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether it says when operations began.
    #[must_use]
    pub fn has_times(&self) -> bool {
        self.has_times
    }

    /// Leaves out all but the first operations.
    pub fn truncate(&mut self, count: u64) {
        self.requests.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    }

    /// Whether any operation writes.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.requests.iter().any(|(_, request)| !matches!(request.operation, Operation::Read | Operation::Scan))
    }
}

fn parse(line: &str) -> Result<(u64, Request), &'static str> {
    let mut words = line.split_ascii_whitespace();
    let mut number = |expected| words.next().and_then(|word| word.parse::<u64>().ok()).ok_or(expected);
    let at_ns = number("nanoseconds, an operation and the number of a record")?;
    let name = words.next().unwrap_or_default();
    let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name);
    let operation = operation.ok_or("one of READ, UPDATE, INSERT, SCAN, READ-MODIFY-WRITE")?;
    let mut number = |expected| words.next().and_then(|word| word.parse::<u64>().ok()).ok_or(expected);
    let record = number("the number of a record")?;
    let length = if operation == Operation::Scan { number("how many records are scanned")? } else { 1 };
    match words.next() {
        None => Ok((at_ns, Request { operation, number: record, length })),
        Some(_) => Err("nothing behind the operation"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let recorder = Recorder::create(&path).unwrap();
        let request = |operation, number, length| Request { operation, number, length };
        let all = [
            (5, request(Operation::Read, 7, 1)),
            (9, request(Operation::Scan, 1, 100)),
            (9, request(Operation::ReadModifyWrite, u64::MAX, 1)),
        ];
        let mut lines = Lines::default();
        for (at_ns, request) in all.iter().rev() {
            recorder.note(&mut lines, *at_ns, request).unwrap();
        }
        recorder.flush(&mut lines).unwrap();
        let mut recording = Recording::read(&path).unwrap();
        assert_eq!(recording.requests, [all[0], all[2], all[1]]);
        assert!(Recording::is_recorded(&path) && recording.has_times() && recording.writes());
        recording.truncate(1);
        assert!(recording.len() == 1 && !recording.writes());
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        for (line, expected) in [
            ("x", "expected nanoseconds, an operation"),
            ("1 GET 5", "expected one of READ, UPDATE"),
            ("1 READ", "expected the number of a record"),
            ("1 SCAN 5", "expected how many records"),
            ("1 READ 5 6", "expected nothing behind"),
        ] {
            std::fs::write(&path, format!("{HEADER}\n\n{line}\n")).unwrap();
            let message = Recording::read(&path).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("trace: line 3: "), "{message}");
        }
    }
}
