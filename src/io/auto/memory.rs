//! How much memory the page cache may take: what the machine has left, and what the process's memory cgroups allow.
//!
//! Sources: `MemAvailable` in `/proc/meminfo` (proc(5)); `memory.max`, `memory.current`, `memory.stat` and
//! `memory.pressure` of cgroup v2, `memory.limit_in_bytes`, `memory.usage_in_bytes` and `memory.stat` of v1
//! (the kernel's admin-guide/cgroup-v2 and cgroup-v1/memory). A group counts with all groups above it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Above this share of time in which some task waited for memory (`avg10` of PSI, in percent), less is taken.
const PRESSURE_PERCENT: f64 = 20.0;

/// An answer is good for as long, for all files of the process.
const ASK_PERIOD: Duration = Duration::from_millis(50);
/// The process's groups are looked for again after this: it may have been moved.
const PROBE_PERIOD: Duration = Duration::from_secs(5);

/// What can be had.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Memory {
    /// Bytes of page cache that there can be, clean pages that are there already included.
    pub(super) capacity_bytes: u64,
    /// The tightest cgroup limit, where one is lower than the machine's memory.
    pub(super) limit_bytes: Option<u64>,
    /// How much of the last 10 s some task waited for memory, in percent, where the kernel says.
    pub(super) pressure_percent: Option<f64>,
}

/// Where to ask.
#[derive(Debug)]
pub(super) struct Probe {
    meminfo: PathBuf,
    /// The process's group and those above it, as far as they limit memory.
    groups: Vec<Group>,
    pressure: Option<PathBuf>,
}

#[derive(Debug)]
struct Group {
    directory: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Where to ask, what the answer was, and when.
#[derive(Debug)]
struct Asked {
    probe: Probe,
    probed: Instant,
    memory: Memory,
    asked: Instant,
}

static ASKED: Mutex<Option<Asked>> = Mutex::new(None);

/// What can be had now, or a moment ago. Nothing while another thread asks: it takes some files of the kernel's, which
/// nobody waits for.
pub(super) fn lately() -> Option<Memory> {
    ASKED.try_lock().map(|mut asked| at(&mut asked, Instant::now(), Probe::new))
}

fn at(asked: &mut Option<Asked>, now: Instant, probe: impl Fn() -> Probe) -> Memory {
    if asked.as_ref().is_none_or(|asked| now.duration_since(asked.probed) >= PROBE_PERIOD) {
        let probe = probe();
        let memory = probe.ask();
        *asked = Some(Asked { probe, probed: now, memory, asked: now });
        return memory;
    }
    let Some(asked) = asked else { return Memory::default() };
    if now.duration_since(asked.asked) >= ASK_PERIOD {
        (asked.memory, asked.asked) = (asked.probe.ask(), now);
    }
    asked.memory
}

impl Probe {
    /// Looks for the groups that the process is in now.
    pub(super) fn new() -> Self {
        Self::below(Path::new("/"))
    }

    /// As if the file system began there.
    fn below(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let groups = groups(&read("proc/self/cgroup"), &read("proc/self/mountinfo"), root);
        let of_group = groups.iter().find(|group| group.version == Version::V2);
        let of_group = of_group.map(|group| group.directory.join("memory.pressure"));
        let pressure = of_group.into_iter().chain([root.join("proc/pressure/memory")]).find(|path| path.exists());
        Probe { meminfo: root.join("proc/meminfo"), groups, pressure }
    }

    /// Asks.
    pub(super) fn ask(&self) -> Memory {
        let meminfo = fs::read_to_string(&self.meminfo).unwrap_or_default();
        let kib = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        // Nothing said: no limit is known.
        let mut capacity_bytes = kib("MemAvailable").map_or(u64::MAX, |kib| kib.saturating_mul(1024));
        let mut limit_bytes: Option<u64> = None;
        for (limit, left) in self.groups.iter().filter_map(Group::limit_and_left) {
            capacity_bytes = capacity_bytes.min(left);
            limit_bytes = Some(limit_bytes.unwrap_or(limit).min(limit));
        }
        let pressure_percent = self.pressure.as_deref().and_then(pressure);
        if pressure_percent.is_some_and(|percent| percent >= PRESSURE_PERCENT) {
            capacity_bytes = capacity_bytes / 4 * 3;
        }
        Memory { capacity_bytes, limit_bytes, pressure_percent }
    }
}

impl Group {
    /// The group's limit, and how much page cache there can be below it. Nothing where it has no limit.
    fn limit_and_left(&self) -> Option<(u64, u64)> {
        let (limit, usage, files) = match self.version {
            Version::V1 => {
                ("memory.limit_in_bytes", "memory.usage_in_bytes", ["total_inactive_file", "total_active_file"])
            }
            Version::V2 => ("memory.max", "memory.current", ["inactive_file", "active_file"]),
        };
        let number = |name| fs::read_to_string(self.directory.join(name)).ok()?.trim().parse::<u64>().ok();
        // "max" is no number; v1 says a number near 2^63.
        let limit = number(limit).filter(|limit| *limit < 1 << 60)?;
        let usage = number(usage)?;
        let stat = fs::read_to_string(self.directory.join("memory.stat")).ok()?;
        let file_bytes: u64 = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| files.contains(name))
            .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
            .sum();
        Some((limit, limit.saturating_sub(usage.saturating_sub(file_bytes))))
    }
}

/// The share of the last 10 s in which some task waited.
fn pressure(path: &Path) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

/// The memory groups of the process, its own first.
///
/// `cgroup` has lines like `4:memory:/a/b` (v1) and `0::/a/b` (v2), relative to where the hierarchy is mounted;
/// `mountinfo` says where that is, and which group is its root there.
fn groups(cgroup: &str, mountinfo: &str, root: &Path) -> Vec<Group> {
    let mut found = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let version = match (number, controllers) {
            ("0", "") => Version::V2,
            (_, controllers) if controllers.split(',').any(|name| name == "memory") => Version::V1,
            _ => continue,
        };
        let Some((mounted_root, mount_point)) = mountinfo.lines().find_map(|line| mount_of(line, version)) else {
            continue;
        };
        let path = Path::new(path);
        // A process outside of the mounted part of the hierarchy (in a container, say) sees only the mount's root.
        let below = path.strip_prefix(mounted_root).unwrap_or(Path::new(""));
        let mount_point = root.join(mount_point.trim_start_matches('/'));
        let directory = mount_point.join(below);
        let directories = directory.ancestors().take_while(|directory| directory.starts_with(&mount_point));
        let limited = match version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        let directories = directories.filter(|directory| directory.join(limited).exists());
        found.extend(directories.map(|directory| Group { directory: directory.to_owned(), version }));
    }
    found
}

/// The root and the place of a mount, if it is the one of that version's memory hierarchy.
fn mount_of(line: &str, version: Version) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let kind = after.next()?;
    let is_it = match version {
        Version::V2 => kind == "cgroup2",
        Version::V1 => kind == "cgroup" && after.nth(1)?.split(',').any(|option| option == "memory"),
    };
    let mut before = before.split(' ').skip(3);
    is_it.then(|| Some((before.next()?, before.next()?))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = Probe::new().ask();
        assert!(memory.capacity_bytes > 1 << 20, "{memory:?}");
    }

    #[test]
    fn the_process_asks_once_a_moment_and_looks_for_its_groups_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let say = |mib: u64| write(root, "proc/meminfo", &format!("MemAvailable: {} kB\n", mib << 10));
        let (mut asked, began) = (None, Instant::now());
        let mut capacity_mib = |after| at(&mut asked, began + after, || Probe::below(root)).capacity_bytes >> 20;
        say(100);
        assert_eq!(capacity_mib(Duration::ZERO), 100);
        say(200);
        assert_eq!(capacity_mib(ASK_PERIOD / 2), 100);
        assert_eq!(capacity_mib(ASK_PERIOD), 200);
        write(root, "proc/self/cgroup", "0::/\n");
        write(root, "proc/self/mountinfo", "32 20 0:9 / /cg rw - cgroup2 cgroup2 rw\n");
        write(root, "cg/memory.max", &format!("{}\n", 50 << 20));
        write(root, "cg/memory.current", "0\n");
        write(root, "cg/memory.stat", "");
        assert_eq!(capacity_mib(ASK_PERIOD * 2), 200, "the group is not known yet");
        assert_eq!(capacity_mib(PROBE_PERIOD), 50);
    }

    #[test]
    fn nothing_known_is_no_limit() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Probe::below(dir.path()).ask();
        assert_eq!(memory, Memory { capacity_bytes: u64::MAX, limit_bytes: None, pressure_percent: None });
    }

    #[test]
    fn the_tightest_group_above_the_process_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, "proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable:    8000000 kB\n");
        write(root, "proc/self/cgroup", "4:memory,hugetlb:/jobs/a\n2:cpu:/\n0::/x\n");
        write(
            root,
            "proc/self/mountinfo",
            "30 20 0:9 / /cg/cpu rw,relatime - cgroup cgroup rw,cpu\n\
             31 20 0:9 / /cg/memory rw,relatime shared:7 - cgroup cgroup rw,memory,hugetlb\n\
             32 20 0:9 / /cg/unified rw - cgroup2 cgroup2 rw\n",
        );
        for (group, limit) in [("", u64::MAX >> 1), ("/jobs", 1000 << 20), ("/jobs/a", 2000 << 20)] {
            write(root, &format!("cg/memory{group}/memory.limit_in_bytes"), &format!("{limit}\n"));
            write(root, &format!("cg/memory{group}/memory.usage_in_bytes"), &format!("{}\n", 900 << 20));
            let stat = format!("cache 1\ntotal_inactive_file {}\ntotal_active_file {}\n", 500 << 20, 300 << 20);
            write(root, &format!("cg/memory{group}/memory.stat"), &stat);
        }
        let memory = Probe::below(root).ask();
        // 100 MiB of the 900 are no page cache.
        assert_eq!(memory.capacity_bytes, 900 << 20);
        assert_eq!(memory.limit_bytes, Some(1000 << 20));
        assert_eq!(memory.pressure_percent, None);
    }

    #[test]
    fn the_second_version_says_max_and_has_pressure() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, "proc/meminfo", "MemAvailable: 4000000 kB\n");
        write(root, "proc/self/cgroup", "0::/user/b\n");
        // Only a part of the hierarchy is mounted, as in a container.
        write(root, "proc/self/mountinfo", "32 20 0:9 /user /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        write(root, "sys/fs/cgroup/memory.max", "max\n");
        write(root, "sys/fs/cgroup/b/memory.max", &format!("{}\n", 512 << 20));
        write(root, "sys/fs/cgroup/b/memory.current", &format!("{}\n", 512 << 20));
        write(root, "sys/fs/cgroup/b/memory.stat", &format!("anon 5\ninactive_file {}\nactive_file 0\n", 400 << 20));
        assert_eq!(Probe::below(root).ask().capacity_bytes, 400 << 20);
        write(root, "sys/fs/cgroup/b/memory.pressure", "some avg10=35.10 avg60=1.00 avg300=0.00 total=5\n");
        let memory = Probe::below(root).ask();
        assert_eq!((memory.capacity_bytes, memory.limit_bytes), (300 << 20, Some(512 << 20)));
        assert_eq!(memory.pressure_percent, Some(35.10));
    }

    #[test]
    fn odd_text_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for text in
            ["", ":", "::", "0::", "a:memory:", "4:memory:/x", "MemAvailable: -5 kB", "some avg10=x", " - cgroup2"]
        {
            for path in ["proc/meminfo", "proc/self/cgroup", "proc/self/mountinfo", "proc/pressure/memory"] {
                write(root, path, text);
            }
            assert_eq!(Probe::below(root).ask().limit_bytes, None);
        }
    }
}
