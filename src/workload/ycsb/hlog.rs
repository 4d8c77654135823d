//! Interval logs in the format of HdrHistogram, which its tools read: a line an interval for each kind of operation,
//! with all of its latencies, in nanoseconds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::error::{Result, YcsbError};
use super::measure::Recorder;
use crate::workload::private_file;

/// Where interval logs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFiles {
    /// One file, each line tagged with what it is about.
    Tagged(PathBuf),
    /// A file for each kind, as YCSB's `hdrhistogram.fileoutput` has it: this, the name, and `.hdr`.
    Each {
        /// What comes before the name: `hdrhistogram.output.path`.
        prefix: String,
    },
}

/// Writes interval logs.
pub(super) struct LogWriter {
    files: LogFiles,
    start: SystemTime,
    open: BTreeMap<String, BufWriter<File>>,
    serializer: V2DeflateSerializer,
}

impl LogWriter {
    /// Of latencies from `start` on.
    pub(super) fn new(files: LogFiles, start: SystemTime) -> Result<LogWriter> {
        let mut log = LogWriter { files, start, open: BTreeMap::new(), serializer: V2DeflateSerializer::new() };
        // A place that cannot be written to is found out at once.
        if let LogFiles::Tagged(path) = &log.files {
            let path = path.clone();
            log.create(&path, "")?;
        }
        Ok(log)
    }

    fn create(&mut self, path: &Path, key: &str) -> Result<()> {
        let failed = YcsbError::system(format!("write {}", path.display()));
        let mut create = || {
            let mut file = BufWriter::new(private_file::create(path)?);
            let mut header = IntervalLogWriterBuilder::new();
            header.add_comment("[Logged with mapfall ycsb: nanoseconds]").with_base_time(self.start);
            header.with_start_time(self.start).begin_log_with(&mut file, &mut self.serializer)?;
            Ok(file)
        };
        let file = create().map_err(failed)?;
        self.open.insert(key.to_owned(), file);
        Ok(())
    }

    /// Writes what was measured in an interval, given from the start.
    pub(super) fn write(&mut self, recorder: &Recorder, begin: Duration, length: Duration) -> Result<()> {
        for (what, series) in recorder.iter() {
            let name = what.name();
            self.write_one(&name, &series.measured, begin, length)?;
            if let Some(intended) = &series.intended {
                self.write_one(&format!("Intended-{name}"), intended, begin, length)?;
            }
        }
        Ok(())
    }

    fn write_one(&mut self, name: &str, of: &Histogram<u64>, begin: Duration, length: Duration) -> Result<()> {
        if of.is_empty() {
            return Ok(());
        }
        let (key, path, tag) = match &self.files {
            LogFiles::Tagged(path) => (String::new(), path.clone(), Tag::new(name)),
            LogFiles::Each { prefix } => (name.to_owned(), PathBuf::from(format!("{prefix}{name}.hdr")), None),
        };
        if !self.open.contains_key(&key) {
            self.create(&path, &key)?;
        }
        let Some(file) = self.open.get_mut(&key) else { return Ok(()) };
        let mut write = || {
            // Without headers a writer adds nothing of its own.
            let mut log = IntervalLogWriterBuilder::new().begin_log_with(file, &mut self.serializer)?;
            log.write_histogram(of, begin, length, tag).map_err(|error| io::Error::other(format!("{error:?}")))
        };
        write().map_err(YcsbError::system(format!("write {}", path.display())))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        let flushed = self.open.values_mut().try_for_each(BufWriter::flush);
        flushed.map_err(YcsbError::system("write the interval logs"))
    }
}
