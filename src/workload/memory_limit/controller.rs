//! Where groups can be made, and what their files are called in the two versions.
//!
//! See `cgroup-v1/memory.rst` and `cgroup-v2.rst` in the kernel's documentation. Version 1: a group may have processes
//! and children, so ours is a child of this process's own. Version 2: a group that passes `memory` on has no processes
//! of its own unless it is the root, so ours stands beside this process's group, or beside one above it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{LimitUnavailable, MemoryUsage};
use crate::workload::machine::unescape;

/// What the names of our groups begin with, before the process's number.
const NAME_PREFIX: &str = "mapfall-";

/// Groups that this process has made so far.
static GROUPS_MADE: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A hierarchy of groups that counts memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Controller {
    version: Version,
    /// Where the hierarchy is mounted.
    root: PathBuf,
    /// This process's group in it.
    own: PathBuf,
}

impl Controller {
    pub(super) fn find() -> Result<Controller, LimitUnavailable> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|source| LimitUnavailable::Refused {
                doing: "read",
                path: path.into(),
                source,
            })
        };
        let (mountinfo, membership) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        parse(&mountinfo, &membership).ok_or(LimitUnavailable::NotMounted)
    }

    /// Makes a group without processes and without a limit.
    pub(super) fn make_group(self) -> Result<(Controller, PathBuf), LimitUnavailable> {
        let parent = self.parent()?;
        remove_abandoned(&parent);
        let number = GROUPS_MADE.fetch_add(1, Relaxed);
        let group = parent.join(format!("{NAME_PREFIX}{}-{number}", process::id()));
        match fs::create_dir(&group) {
            Ok(()) => Ok((self, group)),
            Err(source) => Err(LimitUnavailable::Refused { doing: "make the control group", path: group, source }),
        }
    }

    fn parent(&self) -> Result<PathBuf, LimitUnavailable> {
        if self.version == Version::One {
            return Ok(self.own.clone());
        }
        let passes_on = |group: &&Path| {
            let passed_on = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
            passed_on.split_whitespace().any(|controller| controller == "memory")
        };
        let groups = self.own.ancestors().take_while(|group| group.starts_with(&self.root));
        let nearest = groups.into_iter().find(passes_on).map(Path::to_owned);
        nearest.ok_or_else(|| LimitUnavailable::NotEnabled { group: self.own.clone() })
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.version {
            Version::One => "cgroup v1",
            Version::Two => "cgroup v2",
        }
    }

    fn limit_file(&self, group: &Path) -> PathBuf {
        group.join(match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        })
    }

    pub(super) fn set_limit(&self, group: &Path, limit_bytes: u64) -> io::Result<()> {
        // Not created where it is missing.
        fs::OpenOptions::new().write(true).open(self.limit_file(group)).and_then(|mut file| {
            // One call: what is written is one value.
            io::Write::write_all(&mut file, limit_bytes.to_string().as_bytes())
        })
    }

    pub(super) fn limit_bytes(&self, group: &Path) -> io::Result<u64> {
        number(&self.limit_file(group))
    }

    /// As far as the kernel lets us. Without swap there is nothing to avoid, and no file for it.
    pub(super) fn avoid_swap(&self, group: &Path) {
        let file = match self.version {
            Version::One => "memory.swappiness",
            Version::Two => "memory.swap.max",
        };
        if let Err(error) = fs::write(group.join(file), "0") {
            tracing::debug!(file, %error, "swap is not switched off for the group");
        }
    }

    pub(super) fn usage(&self, group: &Path) -> io::Result<MemoryUsage> {
        let text = |file: &str| fs::read_to_string(group.join(file));
        let stat = text("memory.stat")?;
        let of_stat = |key| keyed(&stat, key).ok_or_else(|| unknown_form(&group.join("memory.stat"), key));
        let limit_bytes = self.limit_bytes(group)?;
        match self.version {
            Version::One => Ok(MemoryUsage {
                limit_bytes,
                used_bytes: number(&group.join("memory.usage_in_bytes"))?,
                file_bytes: of_stat("cache")?,
                anonymous_bytes: of_stat("rss")?,
                refaulted_pages: keyed(&stat, "workingset_refault_file").unwrap_or(0),
                limit_hits: number(&group.join("memory.failcnt"))?,
                oom_kills: keyed(&text("memory.oom_control")?, "oom_kill").unwrap_or(0),
                stalled_us: None,
            }),
            Version::Two => {
                let events = text("memory.events")?;
                Ok(MemoryUsage {
                    limit_bytes,
                    used_bytes: number(&group.join("memory.current"))?,
                    file_bytes: of_stat("file")?,
                    anonymous_bytes: of_stat("anon")?,
                    refaulted_pages: keyed(&stat, "workingset_refault_file").unwrap_or(0),
                    limit_hits: keyed(&events, "max").unwrap_or(0),
                    oom_kills: keyed(&events, "oom_kill").unwrap_or(0),
                    stalled_us: text("memory.pressure").ok().as_deref().and_then(stalled_us),
                })
            }
        }
    }
}

/// The hierarchy that has `memory`, from `mountinfo` (`proc_pid_mountinfo(5)`) and the process's groups (`cgroups(7)`).
/// A hierarchy of version 1 that has it keeps version 2 from having it.
fn parse(mountinfo: &str, membership: &str) -> Option<Controller> {
    let group_in = |wanted: &dyn Fn(&str, &str) -> bool| {
        membership.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            wanted(hierarchy, controllers).then_some(path)
        })
    };
    let has_memory = |list: &str| list.split(',').any(|name| name == "memory");
    let mount_of = |kind: &str, holds: &dyn Fn(&str) -> bool| {
        mountinfo.lines().find_map(|line| {
            let (mount, source) = line.split_once(" - ")?;
            let mut source = source.split(' ');
            let matches = source.next()? == kind && holds(source.nth(1)?);
            let mut mount = mount.split(' ').skip(3);
            let (shown_from, mount_point) = (mount.next()?, mount.next()?);
            matches.then(|| (unescape(shown_from), PathBuf::from(unescape(mount_point))))
        })
    };
    let (version, path, (shown_from, root)) = match group_in(&|_, controllers| has_memory(controllers)) {
        Some(path) => (Version::One, path, mount_of("cgroup", &has_memory)?),
        None => (Version::Two, group_in(&|hierarchy, _| hierarchy == "0")?, mount_of("cgroup2", &|_| true)?),
    };
    // A mount in a container may show only the part of the hierarchy from the container's group on.
    let below = Path::new(path).strip_prefix(&shown_from).ok()?;
    let own = root.join(below);
    Some(Controller { version, root, own })
}

/// Removes the empty groups of processes of ours that are gone.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(NAME_PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // One that has processes stays: the kernel refuses.
            let removed = fs::remove_dir(entry.path());
            tracing::debug!(group = %entry.path().display(), ?removed, "an abandoned control group");
        }
    }
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    match text.trim() {
        // What version 2 calls no limit.
        "max" => Ok(u64::MAX),
        number => number.parse().map_err(|_| unknown_form(path, "a number")),
    }
}

fn unknown_form(path: &Path, expected: &str) -> io::Error {
    io::Error::other(format!("expected {expected} in {}", path.display()))
}

/// The value of a line such as `cache 4096`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `total` of the first line of a pressure file: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn stalled_us(pressure: &str) -> Option<u64> {
    pressure.lines().find_map(|line| line.strip_prefix("some ")?.rsplit_once("total=")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                             32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                             35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V2_MOUNTS: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn found(mountinfo: &str, membership: &str) -> Option<(Version, PathBuf)> {
        parse(mountinfo, membership).map(|controller| (controller.version, controller.own))
    }

    #[test]
    fn the_hierarchy_with_memory_is_found() {
        let v1 = found(V1_MOUNTS, "5:cpu:/\n4:memory:/a/b:c\n0::/\n");
        assert_eq!(v1, Some((Version::One, "/sys/fs/cgroup/memory/a/b:c".into())));
        let v2 = found(V2_MOUNTS, "0::/user.slice/x.scope\n");
        assert_eq!(v2, Some((Version::Two, "/sys/fs/cgroup/user.slice/x.scope".into())));
        // Version 1 has other controllers, version 2 has memory.
        let hybrid = found(V1_MOUNTS, "5:cpu:/\n0::/\n");
        assert_eq!(hybrid, Some((Version::Two, "/sys/fs/cgroup/unified/".into())));
    }

    #[test]
    fn a_container_sees_its_part_of_the_hierarchy() {
        let mounts = "9 1 0:32 /docker/f00 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let controller = parse(mounts, "4:memory:/docker/f00/in\n").unwrap();
        assert_eq!(controller.own, Path::new("/sys/fs/cgroup/memory/in"));
        assert_eq!(parse(mounts, "4:memory:/elsewhere\n"), None);
    }

    #[test]
    fn without_a_mount_or_a_group_there_is_none() {
        assert_eq!(parse("", "4:memory:/\n"), None);
        assert_eq!(parse(V2_MOUNTS, "4:memory:/\n"), None);
        assert_eq!(parse(V2_MOUNTS, ""), None);
        assert_eq!(parse("nonsense - \n - \n", "::\n4\n\n"), None);
    }

    #[test]
    fn the_kernels_lines_are_read() {
        let stat = "cache_total 1\ncache 4096\nrss x\n";
        assert_eq!((keyed(stat, "cache"), keyed(stat, "rss"), keyed(stat, "cac")), (Some(4096), None, None));
        assert_eq!(stalled_us("some avg10=0.00 avg60=0.10 avg300=0.00 total=123\nfull avg10=1 total=4\n"), Some(123));
        assert_eq!(stalled_us("full avg10=1 total=4\n"), None);
    }
}
