//! What the process is told of itself, and how it starts others.
//!
//! # Safety
//!
//! Between `fork` and `exec` a child makes one `write(2)` on a descriptor that was open before, and nothing else: no
//! memory is allocated and no lock is taken.
#![allow(unsafe_code)]

use std::fs;

/// Bytes of page tables of this process (`VmPTE` in `/proc/self/status`), where `/proc` is mounted.
pub(crate) fn page_table_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmPTE:"))?.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Starts the command in the control group whose `cgroup.procs` is passed, open for writing: the child moves itself
/// there before it becomes the program.
#[cfg(feature = "workload")]
pub(crate) fn spawn_in_group(
    mut command: std::process::Command,
    procs: fs::File,
) -> std::io::Result<std::process::Child> {
    use std::io::{Error, ErrorKind, Write};
    use std::os::unix::process::CommandExt;

    // 0 is whoever writes it.
    let join = move || match (&procs).write(b"0") {
        Ok(1) => Ok(()),
        Ok(_) => Err(Error::from(ErrorKind::WriteZero)),
        Err(error) => Err(error),
    };
    // SAFETY: the closure runs in the child after `fork`, where only what is safe in a signal handler may be done. It
    // makes one `write(2)` on a descriptor that it owns and that was opened before; `File::write` is nothing more. The
    // errors that it returns are numbers, which own no memory: the system's, or a kind.
    unsafe { command.pre_exec(join) };
    command.spawn()
}

#[cfg(test)]
mod tests {
    #[test]
    fn page_tables_have_a_size() {
        assert!(super::page_table_bytes().unwrap() >= 4096);
    }
}
