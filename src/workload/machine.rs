//! What a measurement was made on.

use std::fs;
use std::path::Path;
use std::thread;

use serde::Serialize;

/// A machine, as far as it says what it is. A field is absent where the system does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: Option<String>,
    /// Processors that this process may run on.
    pub cpus: Option<usize>,
    /// The instruction set the program was compiled for.
    pub arch: &'static str,
    /// Whether the processor says that it is a virtual one.
    pub virtual_machine: bool,
    /// All memory.
    pub memory_bytes: Option<u64>,
    /// Memory that could be had without swapping, when the run began.
    pub memory_available_bytes: Option<u64>,
    /// The kernel's name and release.
    pub kernel: Option<String>,
    /// The size of the smallest pages.
    pub page_bytes: usize,
    /// The setting for anonymous 2 MiB pages: `always`, `madvise` or `never`.
    pub transparent_huge_pages: Option<String>,
    /// The file system of the file.
    pub file_system: Option<FileSystem>,
}

/// The file system that a file is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSystem {
    /// Its type, `ext4` for one.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// What it was mounted with.
    pub mount_options: String,
    /// What it lies on.
    pub device: String,
}

impl Machine {
    /// This machine, and the file system of `file`.
    #[must_use]
    pub fn inspect(file: &Path) -> Machine {
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        let meminfo = read("/proc/meminfo").unwrap_or_default();
        Machine {
            cpu: cpuinfo_value(&cpuinfo, "model name").map(str::trim).map(str::to_owned),
            cpus: thread::available_parallelism().ok().map(usize::from),
            arch: std::env::consts::ARCH,
            virtual_machine: cpuinfo_value(&cpuinfo, "flags").is_some_and(|flags| flags.contains(" hypervisor")),
            memory_bytes: meminfo_bytes(&meminfo, "MemTotal"),
            memory_available_bytes: memory_available_bytes(),
            kernel: read("/proc/sys/kernel/osrelease").map(|release| format!("Linux {}", release.trim())),
            page_bytes: rustix::param::page_size(),
            transparent_huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled").as_deref().and_then(chosen),
            file_system: fs::canonicalize(file)
                .ok()
                .and_then(|file| file_system(&read("/proc/self/mountinfo")?, &file)),
        }
    }
}

/// Memory that can be had without swapping, by the machine's count and by the control groups of this process.
#[must_use]
pub fn memory_available_bytes() -> Option<u64> {
    let of_machine = meminfo_bytes(&read("/proc/meminfo")?, "MemAvailable")?;
    Some(of_machine.min(memory_left_in_control_groups().unwrap_or(u64::MAX)))
}

/// What the tightest of the version 2 control groups above this process still allows. Page cache counts as taken there
/// although it could be given back, so this is on the careful side.
fn memory_left_in_control_groups() -> Option<u64> {
    let membership = read("/proc/self/cgroup")?;
    let own = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own.trim());
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let left =
        |group: &Path| Some(number(&group.join("memory.max"))?.saturating_sub(number(&group.join("memory.current"))?));
    own.ancestors().take_while(|group| group.starts_with(root)).filter_map(left).min()
}

/// Bytes of this process that are mapped with 2 MiB entries, of anonymous memory and of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HugeMapped {
    /// Anonymous memory.
    pub anonymous_bytes: u64,
    /// Files in the page cache, those of tmpfs included.
    pub file_bytes: u64,
}

impl HugeMapped {
    /// As it is now. The kernel walks all page tables for it: milliseconds for gigabytes. `None` where it does not
    /// tell.
    #[must_use]
    pub fn now() -> Option<HugeMapped> {
        let rollup = read("/proc/self/smaps_rollup")?;
        Some(HugeMapped {
            anonymous_bytes: meminfo_bytes(&rollup, "AnonHugePages")?,
            file_bytes: meminfo_bytes(&rollup, "FilePmdMapped")? + meminfo_bytes(&rollup, "ShmemPmdMapped")?,
        })
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn cpuinfo_value<'a>(cpuinfo: &'a str, key: &str) -> Option<&'a str> {
    let pair = |line: &'a str| line.split_once(':');
    cpuinfo.lines().filter_map(pair).find(|(found, _)| found.trim() == key).map(|(_, value)| value)
}

/// A line such as `MemTotal:  1024 kB`, in bytes.
fn meminfo_bytes(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The one in brackets: `always [madvise] never`.
fn chosen(setting: &str) -> Option<String> {
    Some(setting.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// The line of `mountinfo` (see `proc_pid_mountinfo(5)`) whose mount point is the longest that `file` lies below; of
/// equal ones the last, which covers the others.
fn file_system(mountinfo: &str, file: &Path) -> Option<FileSystem> {
    let parse = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let (mount_point, mount_options) = (mount.next()?, mount.next()?);
        let mut source = source.split(' ');
        let (kind, device, super_options) = (source.next()?, source.next()?, source.next()?);
        Some(FileSystem {
            kind: kind.to_owned(),
            mount_point: unescape(mount_point),
            mount_options: format!("{mount_options},{super_options}"),
            device: unescape(device),
        })
    };
    let mounts = mountinfo.lines().filter_map(parse).filter(|mount| file.starts_with(&mount.mount_point));
    mounts.max_by_key(|mount| mount.mount_point.len())
}

/// Undoes the kernel's octal escapes of white space and backslashes.
pub(super) fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_last_mount_wins() {
        let mountinfo = "1 0 8:1 / / rw,relatime - ext4 /dev/vda rw\n\
                         2 1 0:5 / /a\\040b rw shared:1 - tmpfs tmpfs rw,size=1k\n\
                         3 1 0:6 / /a\\040b ro - xfs /dev/vdb rw,noquota\n\
                         4 1 0:7 / /a rw - proc proc rw\n";
        let found = |path: &str| file_system(mountinfo, Path::new(path)).map(|found| (found.kind, found.mount_options));
        assert_eq!(found("/x"), Some(("ext4".to_owned(), "rw,relatime,rw".to_owned())));
        assert_eq!(found("/a b/c"), Some(("xfs".to_owned(), "ro,rw,noquota".to_owned())));
        assert_eq!(found("/ab"), Some(("ext4".to_owned(), "rw,relatime,rw".to_owned())));
        assert_eq!(file_system("", Path::new("/x")), None);
    }

    #[test]
    fn settings_and_sizes_are_read() {
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(chosen("1"), None);
        assert_eq!(meminfo_bytes("MemTotal:  12 kB\nMemFree: 3 kB\n", "MemFree"), Some(3072));
        assert_eq!(meminfo_bytes("MemTotal:  12 kB\n", "Mem"), None);
        assert_eq!(cpuinfo_value("processor\t: 0\nmodel name\t: A CPU\n", "model name"), Some(" A CPU"));
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::inspect(Path::new("."));
        assert!(machine.memory_bytes.is_some() && machine.kernel.is_some() && machine.file_system.is_some());
        assert!(machine.memory_available_bytes <= machine.memory_bytes);
    }
}
