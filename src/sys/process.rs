//! What the process is told of itself.

use std::fs;

/// Bytes of page tables of this process (`VmPTE` in `/proc/self/status`), where `/proc` is mounted.
pub(crate) fn page_table_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmPTE:"))?.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn page_tables_have_a_size() {
        assert!(super::page_table_bytes().unwrap() >= 4096);
    }
}
