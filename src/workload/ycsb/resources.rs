//! What a phase cost the machine: of each thread that does operations, from its start to its end, as `/proc` counts it.

use std::fs;
use std::io;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::workload::usage::Usage;

/// Processor time, faults, bytes of the device and switches: of a thread, or the sum over several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Seconds in user mode, in steps of a clock tick (10 ms as a rule).
    pub cpu_user_s: f64,
    /// Seconds in the kernel.
    pub cpu_system_s: f64,
    /// Page faults that needed no device.
    pub minor_faults: u64,
    /// Page faults that waited for one.
    pub major_faults: u64,
    /// Bytes that were fetched from the device for it. Nothing where the kernel does not tell (`/proc/thread-self/io`).
    pub device_read_bytes: Option<u64>,
    /// Bytes that it made dirty, which go to the device sooner or later.
    pub device_write_bytes: Option<u64>,
    /// Times that it waited for something.
    pub voluntary_switches: u64,
    /// Times that another took the processor.
    pub involuntary_switches: u64,
}

impl Resources {
    /// What the calling thread has used since it began.
    ///
    /// # Errors
    ///
    /// Where `/proc` is not mounted or reads like nothing known.
    pub fn of_this_thread() -> io::Result<Resources> {
        let usage = Usage::of_this_thread()?;
        let status = fs::read_to_string("/proc/thread-self/status")?;
        let io = fs::read_to_string("/proc/thread-self/io").unwrap_or_default();
        let switches = |name| line(&status, name).unwrap_or(0);
        Ok(Resources {
            cpu_user_s: usage.user_s,
            cpu_system_s: usage.sys_s,
            minor_faults: usage.minor_faults,
            major_faults: usage.major_faults,
            device_read_bytes: line(&io, "read_bytes"),
            device_write_bytes: line(&io, "write_bytes"),
            voluntary_switches: switches("voluntary_ctxt_switches"),
            involuntary_switches: switches("nonvoluntary_ctxt_switches"),
        })
    }

    /// What was used since an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Resources) -> Resources {
        let less = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Resources {
            cpu_user_s: (self.cpu_user_s - earlier.cpu_user_s).max(0.0),
            cpu_system_s: (self.cpu_system_s - earlier.cpu_system_s).max(0.0),
            minor_faults: self.minor_faults.saturating_sub(earlier.minor_faults),
            major_faults: self.major_faults.saturating_sub(earlier.major_faults),
            device_read_bytes: less(self.device_read_bytes, earlier.device_read_bytes),
            device_write_bytes: less(self.device_write_bytes, earlier.device_write_bytes),
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(earlier.involuntary_switches),
        }
    }
}

impl AddAssign for Resources {
    fn add_assign(&mut self, other: Resources) {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        self.cpu_user_s += other.cpu_user_s;
        self.cpu_system_s += other.cpu_system_s;
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.device_read_bytes = sum(self.device_read_bytes, other.device_read_bytes);
        self.device_write_bytes = sum(self.device_write_bytes, other.device_write_bytes);
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
    }
}

/// The number of a line such as `read_bytes: 4096`.
fn line(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_sleeps_and_works_is_seen() {
        let before = Resources::of_this_thread().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let page = memmap2::MmapMut::map_anon(64 * 4096).map(|mut map| map.fill(1));
        assert!(page.is_ok());
        let used = Resources::of_this_thread().unwrap().since(before);
        assert!(used.voluntary_switches > 0 && used.minor_faults > 0, "{used:?}");
        let mut sum = used;
        sum += used;
        assert_eq!(sum.minor_faults, 2 * used.minor_faults);
    }

    #[test]
    fn lines_are_found_by_their_whole_name() {
        assert_eq!(line("nonread_bytes: 1\nread_bytes: 2\n", "read_bytes"), Some(2));
        assert_eq!(line("read_bytes: x\n", "read_bytes"), None);
    }
}
