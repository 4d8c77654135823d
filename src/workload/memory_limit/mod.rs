//! Less memory than the machine has, for a child process: a control group of its own, with a limit that can be moved
//! while the child runs.
//!
//! Page cache counts towards the limit of the group whose process first touched the page. So a file that is to be
//! *cached within the limit* must be dropped from the page cache first ([`super::cache_state`]) and brought in by the
//! child; what was resident before stays there at someone else's expense.
//!
//! Version 1 and version 2 of the kernel's control groups will do. It needs root, or a group that was delegated to the
//! user; where the right is missing, [`MemoryLimit::new`] says which one, and nothing was changed.
//!
//! The group is removed when the value is dropped, in a panic too, and with it every process that is still in it. What
//! a killed process leaves behind (an empty group, which costs next to nothing) is removed by the next
//! [`MemoryLimit::new`] in the same place.
//!
//! ```no_run
//! use std::process::Command;
//!
//! use mapfall::workload::memory_limit::MemoryLimit;
//!
//! let limit = MemoryLimit::new(256 << 20)?;
//! let mut child = limit.spawn(Command::new("some-program"))?;
//! println!("{:?}", limit.usage()?);
//! limit.set(64 << 20)?; // the kernel takes page cache away until the group fits
//! child.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod controller;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::sys::process::spawn_in_group;
use controller::Controller;

/// How often, and after which pause each time, a group is tried to be removed: a killed process needs a moment to end.
const REMOVAL_ATTEMPTS: u32 = 300;
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);

/// Why memory cannot be limited here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LimitUnavailable {
    /// No hierarchy of control groups that could count memory is mounted, or this process is in none of it.
    #[error("no control group that counts memory is mounted here (neither cgroup v1 with `memory` nor cgroup2)")]
    NotMounted,

    /// There is one of version 2, and no group from this process's up to the root passes `memory` on to its children.
    #[error(
        "the memory controller is not enabled for children of {} or of a group above it (cgroup.subtree_control)",
        group.display()
    )]
    NotEnabled {
        /// This process's group.
        group: PathBuf,
    },

    /// The system refused: as a rule the right is missing.
    #[error("cannot {doing} {}: {source}", path.display())]
    Refused {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },

    /// The group was made, and has another limit than was asked for.
    #[error("a limit of {wanted_bytes} B was set in {}, and it is {found_bytes} B", group.display())]
    NotSet {
        /// The group.
        group: PathBuf,
        /// What was asked for.
        wanted_bytes: u64,
        /// What the kernel says.
        found_bytes: u64,
    },
}

/// What a group has used, and what the limit has done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// The limit now.
    pub limit_bytes: u64,
    /// All that counts towards it, the kernel's own memory (page tables, say) included.
    pub used_bytes: u64,
    /// Page cache of it.
    pub file_bytes: u64,
    /// Memory of its processes that belongs to no file.
    pub anonymous_bytes: u64,
    /// Pages of files that were evicted and came back soon after, since the group was made: what the limit costs.
    pub refaulted_pages: u64,
    /// How many times a use of memory met the limit.
    pub limit_hits: u64,
    /// Processes that were killed since nothing could be taken away.
    pub oom_kills: u64,
    /// For how long some process of the group stood still for want of memory, where the kernel tells (version 2 with
    /// PSI).
    pub stalled_us: Option<u64>,
}

/// A control group with a limit on memory, for processes that are started in it.
#[derive(Debug)]
pub struct MemoryLimit {
    controller: Controller,
    group: PathBuf,
}

impl MemoryLimit {
    /// Makes a group, empty so far, whose processes together may use `limit_bytes` (rounded down to whole pages),
    /// their page cache included. Swap is not used for it where that can be said.
    ///
    /// Limits of groups around it hold too: below this process's own group with version 1; with version 2 below the
    /// nearest that passes `memory` on, which is as a rule the one above this process's own.
    ///
    /// # Errors
    ///
    /// Why not, as [`LimitUnavailable`]; then nothing is left behind.
    pub fn new(limit_bytes: u64) -> Result<MemoryLimit, LimitUnavailable> {
        let (controller, group) = Controller::find()?.make_group()?;
        let limit = MemoryLimit { controller, group };
        let refused = |doing, path: PathBuf| move |source| LimitUnavailable::Refused { doing, path, source };
        // Asked for now, so that the right to it is known to be there before anything is prepared.
        drop(limit.procs().map_err(refused("open", limit.group.join("cgroup.procs")))?);
        limit.set(limit_bytes).map_err(refused("set the limit of", limit.group.clone()))?;
        let found_bytes = limit.limit_bytes().map_err(refused("ask for the limit of", limit.group.clone()))?;
        let page_bytes = rustix::param::page_size() as u64;
        if found_bytes / page_bytes == limit_bytes / page_bytes {
            limit.controller.avoid_swap(&limit.group);
            Ok(limit)
        } else {
            let group = limit.group.clone();
            Err(LimitUnavailable::NotSet { group, wanted_bytes: limit_bytes, found_bytes })
        }
    }

    /// Starts the command inside: it is in the group before its first instruction, and so are its children. It is
    /// killed when this value is dropped; wait for it before.
    ///
    /// # Errors
    ///
    /// Where the command cannot be started, or the system does not let it into the group.
    pub fn spawn(&self, command: Command) -> io::Result<Child> {
        spawn_in_group(command, self.procs()?)
    }

    /// Moves the limit. Lowered below what is used, the kernel takes page cache away before this returns.
    ///
    /// # Errors
    ///
    /// Where the system refuses. With version 1 that is `EBUSY` where not enough can be taken away; with version 2 the
    /// kernel kills a process of the group instead.
    pub fn set(&self, limit_bytes: u64) -> io::Result<()> {
        self.controller.set_limit(&self.group, limit_bytes)
    }

    /// The limit as the kernel has it.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn limit_bytes(&self) -> io::Result<u64> {
        self.controller.limit_bytes(&self.group)
    }

    /// What the group has used by now.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn usage(&self) -> io::Result<MemoryUsage> {
        self.controller.usage(&self.group)
    }

    /// Where the group is, for messages.
    #[must_use]
    pub fn group(&self) -> &Path {
        &self.group
    }

    /// What the limit is made with, in a word: `cgroup v1` or `cgroup v2`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.controller.kind()
    }

    fn procs(&self) -> io::Result<File> {
        File::options().write(true).open(self.group.join("cgroup.procs"))
    }

    fn kill_all(&self) {
        let listed = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            // One that has ended meanwhile is as good.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let mut last = None;
        for _ in 0..REMOVAL_ATTEMPTS {
            match fs::remove_dir(&self.group) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) => last = Some(error),
            }
            self.kill_all();
            thread::sleep(REMOVAL_PAUSE);
        }
        tracing::warn!(group = %self.group.display(), error = ?last, "a control group cannot be removed");
    }
}
