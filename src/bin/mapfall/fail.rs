//! How the program fails: one line, and an exit code that says whose fault it was.

use std::process::ExitCode;

/// Wrong usage, or an input that cannot be used.
const USAGE: u8 = 2;
/// The work itself failed.
const FAILURE: u8 = 1;
/// Ended by Ctrl-C, as a shell would say it (128 + SIGINT).
const INTERRUPTED: u8 = 130;

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

    /// It could be, and did not work.
    pub(crate) fn while_running(message: impl Into<String>) -> Self {
        Failure { message: message.into(), code: ExitCode::from(FAILURE) }
    }

    /// Interrupted with nothing to show.
    pub(crate) fn interrupted() -> Self {
        Failure { message: "interrupted before there was anything to show".to_owned(), code: interrupted() }
    }
}

/// The exit code after an interruption.
pub(crate) fn interrupted() -> ExitCode {
    ExitCode::from(INTERRUPTED)
}

impl From<mapfall::workload::Error> for Failure {
    fn from(error: mapfall::workload::Error) -> Self {
        match error {
            mapfall::workload::Error::Interrupted => Failure::interrupted(),
            error => Failure::while_running(error.to_string()),
        }
    }
}
