//! Planted bugs, one for each fuzz target, to show that the target finds them. Only in builds with
//! `--cfg mapfall_canary`, and asleep there unless `MAPFALL_CANARY` names one.

use std::sync::LazyLock;

static NAMED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("MAPFALL_CANARY").ok());

/// Whether the bug of this target is awake.
pub(crate) fn sings(target: &str) -> bool {
    NAMED.as_deref() == Some(target)
}
