//! Processes with limits of their own, small file systems, and files made for them.
#![allow(unsafe_code)]

use std::env;
use std::ffi::c_void;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

use mapfall::{BlockIo, FallbackReason, MapStats};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::children::say;
use crate::common::stats;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const BLOCK: u64 = 4096;

/// Set in a process that was started by [`alone`].
const ALONE: &str = "MAPFALL_TEST_ALONE";

/// Runs `body` in a process of its own: what it does to its limits, or to its address space, harms no other test.
/// `test` is the name of the test that calls this, with its module's.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    alone_behind(&[], test, body);
}

/// As [`alone`], where the file systems that are mounted are gone when the process is. Nothing is run, and that is
/// said, where the system does not let us mount.
pub(crate) fn alone_with_mounts(test: &str, body: impl FnOnce()) {
    let namespace: &[&str] = if rustix::process::geteuid().is_root() {
        &["unshare", "--mount", "--propagation", "private"]
    } else {
        &["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
    };
    let can = || Command::new(namespace[0]).args(&namespace[1..]).arg("true").output();
    if env::var_os(ALONE).is_none() && !can().is_ok_and(|output| output.status.success()) {
        say(&format!("SKIPPED {test}: mounting needs a mount namespace, and unshare(1) gives none"));
        return;
    }
    alone_behind(namespace, test, body);
}

fn alone_behind(wrapper: &[&str], test: &str, body: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        return body();
    }
    let exe = env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(exe),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(exe);
            command
        }
    };
    let output = command
        .args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    errors.lines().filter(|line| line.contains("SKIPPED")).for_each(say);
    assert!(output.status.success(), "{}\n{told}\n{errors}", output.status);
    assert!(told.contains("1 passed"), "{test} is not the name of its test\n{told}");
}

/// Mounts a tmpfs of this size, in a process started by [`alone_with_mounts`].
pub(crate) fn small_tmpfs(at: &Path, bytes: u64) -> bool {
    let size = format!("size={bytes}");
    let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(at).output();
    let mounted = output.as_ref().is_ok_and(|output| output.status.success());
    if !mounted {
        say(&format!("SKIPPED {}: no tmpfs can be mounted: {output:?}", env::var(ALONE).unwrap_or_default()));
    }
    mounted
}

/// Fills a file system with a file of this name.
pub(crate) fn fill(path: &Path) {
    let file = File::create(path).unwrap();
    let mut offset = 0;
    // Byte by byte at the end, so that not one page is left.
    for step in [64 * KIB, BLOCK, 1] {
        while file.write_all_at(&vec![1; step as usize], offset).is_ok() {
            offset += step;
        }
    }
}

/// Changes what the kernel lets this process have from now on; `None` is as much as it may.
pub(crate) fn limit(resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: current.or(maximum), maximum }).unwrap();
}

/// Leaves this much address space beside what is in use.
pub(crate) fn limit_address_space(room_bytes: u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let kib: u64 = kib.trim().strip_suffix("kB").unwrap().trim().parse().unwrap();
    limit(Resource::As, Some(kib * KIB + room_bytes));
}

/// From now on this process learns of too long a file by EFBIG, not by dying of it.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN is a valid disposition of this signal, and nobody else in this process handles it.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// All the map entries that the kernel gives a process (`vm.max_map_count`), but `left` of them.
pub(crate) struct NoMapEntries {
    base: *mut c_void,
    bytes: usize,
}

impl NoMapEntries {
    /// `None` if the kernel gives more than can be used up here.
    pub(crate) fn but(left: usize) -> Option<Self> {
        const ENTRIES_MAX: usize = 300_000;
        let page = rustix::param::page_size();
        let bytes = ENTRIES_MAX * page;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: no address is asked for, so nothing that is mapped is replaced.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), flags) }.unwrap();
        let taken = NoMapEntries { base, bytes };
        // Every second page gets another protection: each is an entry of its own, and so is each in between.
        let odd = |index: usize| base.wrapping_byte_add((2 * index + 1) * page);
        let refused = (0..ENTRIES_MAX / 2).find(|index| {
            // SAFETY: the page is in the range mapped above, and nobody uses its memory.
            unsafe { mprotect(odd(*index), page, MprotectFlags::READ) }.is_err()
        })?;
        for index in refused - left.div_ceil(2)..refused {
            // SAFETY: as above. The page joins its neighbours again.
            unsafe { mprotect(odd(index), page, MprotectFlags::empty()) }.unwrap();
        }
        Some(taken)
    }
}

impl Drop for NoMapEntries {
    fn drop(&mut self) {
        // SAFETY: the range is ours since it was made, and nobody uses its memory.
        unsafe { munmap(self.base, self.bytes) }.unwrap();
    }
}

/// What belongs into a block: no two are alike, and none ends in a zero byte.
pub(crate) fn block(number: u64) -> Vec<u8> {
    let mut block: Vec<u8> = number.to_le_bytes().repeat((BLOCK / 8) as usize);
    block[BLOCK as usize - 1] = 1;
    block
}

pub(crate) fn blocks(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    numbers.flat_map(block).collect()
}

/// A file of `count` blocks.
pub(crate) fn make(path: &Path, count: u64) {
    fs::write(path, blocks(0..count)).unwrap();
}

/// Reads a block and checks it.
pub(crate) fn check_block(file: &dyn BlockIo, number: u64) {
    let mut found = vec![0xEE; BLOCK as usize];
    file.read_at(number * BLOCK, &mut found).unwrap();
    assert!(found == block(number), "block {number}");
}

/// Reads a block of zeros and checks it.
pub(crate) fn check_hole(file: &dyn BlockIo, number: u64) {
    let mut found = vec![0xEE; BLOCK as usize];
    file.read_at(number * BLOCK, &mut found).unwrap();
    assert!(found.iter().all(|byte| *byte == 0), "block {number}");
}

pub(crate) fn map_stats(file: &dyn BlockIo) -> MapStats {
    stats(file).map.unwrap()
}

pub(crate) fn fallbacks(file: &dyn BlockIo, reason: FallbackReason) -> u64 {
    stats(file).fallbacks.get(reason)
}

/// Reads a block again and again until the map serves it. Fails where it does not come to that.
pub(crate) fn mapped_in_the_end(file: &dyn BlockIo, number: u64, check: fn(&dyn BlockIo, u64)) {
    let before = stats(file).mmap.reads;
    for _ in 0..20_000 {
        check(file, number);
        if stats(file).mmap.reads > before {
            return;
        }
    }
    panic!("the map does not come back: {:?}", stats(file));
}

/// These reads are served by the map and nothing else.
pub(crate) fn all_mapped(file: &dyn BlockIo, numbers: impl Iterator<Item = u64>) {
    let before = stats(file);
    let mut count = 0;
    for number in numbers {
        check_block(file, number);
        count += 1;
    }
    let after = stats(file);
    assert_eq!((after.mmap.reads, after.pread.reads), (before.mmap.reads + count, before.pread.reads), "{after:?}");
    assert_eq!(after.fallbacks, before.fallbacks);
}

/// Runs a program that makes or mounts a file system. Where it cannot, that is said.
pub(crate) fn run(test: &str, program: &str, args: &[&str], at: &Path) -> bool {
    let output = Command::new(program).args(args).arg(at).output();
    let done = output.as_ref().is_ok_and(|output| output.status.success());
    if !done {
        say(&format!("SKIPPED {test}: {program} {args:?}: {output:?}"));
    }
    done
}
