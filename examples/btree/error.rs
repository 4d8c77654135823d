//! What can go wrong in the tree, as values.

use mapfall::PageId;

/// The result of every fallible operation of the tree.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on the tree failed. The tree is then what it was before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] mapfall::Error),

    /// A key is too long for this page size. [`super::Tree::key_bytes_max`] says what is not.
    #[error("key of {found_bytes} bytes, expected at most {max_bytes}")]
    KeyTooLong {
        /// The key's length.
        found_bytes: usize,
        /// The longest that there can be.
        max_bytes: usize,
    },

    /// A page's bytes are those that were written, but no node.
    #[error("page {page} is not the expected node: {problem}")]
    Damaged {
        /// The page.
        page: PageId,
        /// What was expected and what was found.
        problem: String,
    },

    /// The store has something else than a tree in it.
    #[error("the store has no tree in it: {problem}")]
    NotATree {
        /// What was expected and what was found.
        problem: String,
    },
}
