//! Bugs that are there on purpose, in builds with `--cfg mapfall_canary` only: whoever looks for bugs must find them.
//!
//! `MAPFALL_CANARY` names the one that is alive. A planted line is `#[cfg(mapfall_canary)] if planted("name") {..}`.

use std::sync::OnceLock;

/// Whether this bug is alive.
pub(crate) fn planted(name: &str) -> bool {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    PLANTED.get_or_init(|| std::env::var("MAPFALL_CANARY").ok()).as_deref() == Some(name)
}
