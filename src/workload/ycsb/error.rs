//! What can go wrong in the driver, as values: each message is one line that says what was expected and what was found.

use std::io;
use std::path::PathBuf;

use crate::PageId;

/// The result of a fallible step of the driver.
pub type Result<T, E = YcsbError> = std::result::Result<T, E>;

/// Why the driver does not begin, or ended without a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum YcsbError {
    /// A file of properties cannot be read.
    #[error("cannot read the properties file {}: {problem}", path.display())]
    PropertiesFile {
        /// The file.
        path: PathBuf,
        /// What the matter is.
        problem: String,
    },

    /// A property that neither YCSB's core workload nor this driver has.
    #[error("{origin}: unknown property {name}{}", near.map(|near| format!(", is {near} meant?")).unwrap_or_default())]
    UnknownProperty {
        /// Its name.
        name: String,
        /// The file that has it, or `-p`.
        origin: String,
        /// A known one that is written much like it.
        near: Option<&'static str>,
    },

    /// A property of YCSB's that this driver does not obey, with this value at least.
    #[error("{origin}: {name}={found} is not supported: {reason}")]
    RefusedProperty {
        /// Its name.
        name: &'static str,
        /// Its value.
        found: String,
        /// The file that has it, or `-p`.
        origin: String,
        /// Why, and what to do instead.
        reason: &'static str,
    },

    /// A value that means nothing.
    #[error("{origin}: {name}: expected {expected}, found {found:?}")]
    Value {
        /// The property.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
        /// The file that has it, or `-p`.
        origin: String,
    },

    /// A property without which nothing can be done.
    #[error("expected the property {name}: {why}")]
    MissingProperty {
        /// The property.
        name: &'static str,
        /// What for.
        why: &'static str,
    },

    /// The proportions of the operations do not add up to 1.
    #[error("expected proportions of the operations that add up to 1, found {found}")]
    Proportions {
        /// Each with its value, and the sum.
        found: String,
    },

    /// The store has something else in it than records of this driver.
    #[error("the store has no records of mapfall ycsb in it: {problem}")]
    NotLoaded {
        /// What was expected and what was found.
        problem: String,
    },

    /// The store's records are others than those asked for.
    #[error("the store was loaded with {name}={store}, found {name}={asked}")]
    OtherRecords {
        /// The property that tells them apart.
        name: &'static str,
        /// The store's value.
        store: String,
        /// The value asked for.
        asked: String,
    },

    /// The store has fewer records than are to be used.
    #[error("expected a store with at least {asked} records (recordcount), found {found}: load it first")]
    TooFewRecords {
        /// How many are asked for.
        asked: u64,
        /// How many the store has.
        found: u64,
    },

    /// A key or a record that the store cannot hold.
    #[error("{what}: expected at most {max}, found {found}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The most there can be.
        max: u64,
        /// What was asked for.
        found: u64,
    },

    /// A page's bytes are those that were written, but no part of the index.
    #[error("page {page} is not a part of the index: {problem}")]
    Damaged {
        /// The page.
        page: PageId,
        /// What was expected and what was found.
        problem: String,
    },

    /// A recorded trace cannot be read.
    #[error("{}: line {line}: expected {expected}, found {found:?}", path.display())]
    TraceLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What should be there.
        expected: &'static str,
        /// What is.
        found: String,
    },

    /// A configuration that cannot be.
    #[error("{0}")]
    Unusable(String),

    /// The store or its file refused or failed.
    #[error(transparent)]
    Store(#[from] crate::Error),

    /// A part of the measuring code failed.
    #[error(transparent)]
    Workload(#[from] crate::workload::Error),

    /// The system refused something that the driver needs.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: String,
        /// The system's own error.
        source: io::Error,
    },
}

impl YcsbError {
    /// For `map_err`: the error of doing something.
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> YcsbError {
        let doing = doing.into();
        move |source| YcsbError::System { doing, source }
    }
}
