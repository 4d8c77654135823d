//! Child processes: this test binary run again in a role, and the memory they share with their parent.
#![allow(unsafe_code)]
#![allow(dead_code, reason = "every test binary takes what it needs")]

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Output};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use mapfall::{BlockIo, FallbackReason, IoOptions};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::common::scratch;

/// Says in which role a child runs. The role's test does nothing without it, so `--ignored` is harmless.
const ROLE: &str = "MAPFALL_TEST_ROLE";

/// Said past the test harness, which keeps the output of tests that pass to itself.
#[allow(clippy::explicit_write, reason = "eprintln would be kept back with the output of the test")]
pub(crate) fn say(words: &str) {
    writeln!(io::stderr(), "{words}").unwrap();
}

/// Said by a child to its parent.
#[allow(clippy::explicit_write, reason = "println would be kept back with the output of the test")]
pub(crate) fn tell(words: &str) {
    writeln!(io::stdout(), "{words}").unwrap();
}

/// Whether this build maps files at all. Says so where it does not.
pub(crate) fn maps_files(test: &str) -> bool {
    let dir = scratch();
    let path = dir.path().join("probe");
    std::fs::write(&path, [1; 64]).unwrap();
    let file = IoOptions::new().open_mmap(&path).unwrap();
    file.read_at(0, &mut [0; 64]).unwrap();
    let stats = file.stats();
    assert!(stats.paths_add_up());
    if stats.fallbacks.get(FallbackReason::Unsupported) == 0 {
        return true;
    }
    assert_eq!(stats.pread.reads, 1);
    say(&format!("SKIPPED {test}: this build does not map files"));
    false
}

/// This test binary again, running only the ignored test `role` with `words` for [`words`].
pub(crate) fn child(role: &str, words: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", role, "--ignored", "--nocapture", "--test-threads=1"]).env(ROLE, words);
    command
}

/// In a child, what its parent told it; `None` if this process is nobody's child.
pub(crate) fn words() -> Option<String> {
    let words = env::var(ROLE).ok()?;
    leave_no_core_file();
    Some(words)
}

/// For processes that are meant to die of a signal, and their children.
pub(crate) fn leave_no_core_file() {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
}

/// What a child wrote, for assertion messages.
pub(crate) fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Two counters that any number of processes share: how many changes of a script were begun, and how many are done.
pub(crate) struct Progress {
    page: NonNull<[AtomicU64; 2]>,
}

// SAFETY: the page is a mapping that lives as long as the value, and it holds nothing but atomics.
unsafe impl Send for Progress {}
// SAFETY: as above.
unsafe impl Sync for Progress {}

impl Progress {
    const BYTES: usize = size_of::<[AtomicU64; 2]>();

    /// The counters kept in `file`, which nobody ever cuts.
    pub(crate) fn of(file: &File) -> Self {
        if file.metadata().unwrap().len() < Self::BYTES as u64 {
            file.set_len(Self::BYTES as u64).unwrap();
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: no address is asked for, so nothing that is mapped is replaced.
        let page =
            unsafe { libc::mmap(ptr::null_mut(), Self::BYTES, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(page, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Progress { page: NonNull::new(page.cast()).unwrap() }
    }

    fn counters(&self) -> &[AtomicU64; 2] {
        // SAFETY: the page is mapped, aligned, as long as two words, and whoever else has it uses atomics too.
        unsafe { self.page.as_ref() }
    }

    pub(crate) fn begun(&self) -> &AtomicU64 {
        &self.counters()[0]
    }

    pub(crate) fn done(&self) -> &AtomicU64 {
        &self.counters()[1]
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and no reference to it outlives the value.
        unsafe { libc::munmap(self.page.as_ptr().cast(), Self::BYTES) };
    }
}
