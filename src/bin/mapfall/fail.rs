//! How the program fails: one line, and an exit code that says whose fault it was.

use std::process::ExitCode;

use std::io::ErrorKind;
use std::path::Path;

use mapfall::workload::trace::TraceError;
use mapfall::workload::ycsb::YcsbError;
use mapfall::{Error, Operation};

/// The work itself failed.
const FAILURE: u8 = 1;
/// Wrong usage, or an input that cannot be used.
const USAGE: u8 = 2;
/// A store is damaged, or something of it was lost.
const DAMAGED: u8 = 3;
/// A store is open for writing elsewhere.
const LOCKED: u8 = 4;
/// Ended by Ctrl-C, as a shell would say it (128 + SIGINT).
const INTERRUPTED: u8 = 130;

/// What the help says of them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    all is well
  1    the work failed: an I/O error, a full disk
  2    wrong usage, or a file that cannot be used (missing, there already)
  3    damage was found, something was lost, or the file is no store
  4    the store is open for writing elsewhere
  130  ended by Ctrl-C";

/// Why the program ends without success.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: ExitCode,
}

impl Failure {
    /// The user asked for something that cannot be.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure { message: message.into(), code: ExitCode::from(USAGE) }
    }

    /// Something stands where a file was to be made.
    pub(crate) fn exists(path: &Path) -> Self {
        Failure::usage(format!("{} is there already", path.display()))
    }

    /// It could be, and did not work.
    pub(crate) fn while_running(message: impl Into<String>) -> Self {
        Failure { message: message.into(), code: ExitCode::from(FAILURE) }
    }

    /// Interrupted with nothing to show.
    pub(crate) fn interrupted() -> Self {
        Failure { message: "interrupted before there was anything to show".to_owned(), code: interrupted() }
    }
}

/// The exit code where something is damaged or lost.
pub(crate) fn damaged() -> ExitCode {
    ExitCode::from(DAMAGED)
}

/// The exit code after an interruption.
pub(crate) fn interrupted() -> ExitCode {
    ExitCode::from(INTERRUPTED)
}

impl From<mapfall::workload::Error> for Failure {
    fn from(error: mapfall::workload::Error) -> Self {
        match error {
            mapfall::workload::Error::Interrupted => Failure::interrupted(),
            mapfall::workload::Error::CacheSize(error) => Failure::usage(format!("--size: {error}")),
            // What cannot be read is the machine's fault, unless it is compressed and damaged.
            mapfall::workload::Error::Trace(TraceError::Read { compressed: false, .. }) => {
                Failure::while_running(error.to_string())
            }
            mapfall::workload::Error::Trace(error) => Failure::usage(error.to_string()),
            error => Failure::while_running(error.to_string()),
        }
    }
}

impl From<YcsbError> for Failure {
    fn from(error: YcsbError) -> Self {
        match error {
            YcsbError::Store(error) => error.into(),
            YcsbError::Workload(error) => error.into(),
            YcsbError::Damaged { .. } => Failure { message: error.to_string(), code: damaged() },
            YcsbError::System { .. } => Failure::while_running(error.to_string()),
            error => Failure::usage(error.to_string()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Corrupt { .. } | Error::NotAStore { .. } => DAMAGED,
            Error::Locked { .. } => LOCKED,
            Error::NotARegularFile { .. }
            | Error::Unsupported { .. }
            | Error::InvalidOption { .. }
            | Error::InvalidAddress { .. }
            | Error::NoSuchPage { .. }
            | Error::NoSuchCheckpoint { .. }
            | Error::Io { operation: Operation::Open, .. } => USAGE,
            _ => FAILURE,
        };
        let message = match &error {
            Error::Io { operation: Operation::Open, path, source, .. } if source.kind() == ErrorKind::AlreadyExists => {
                return Failure::exists(path);
            }
            Error::Io { operation: Operation::Open, path, source, .. } => {
                format!("cannot open {}: {source}", path.display())
            }
            error => error.to_string(),
        };
        Failure { message, code: ExitCode::from(code) }
    }
}
