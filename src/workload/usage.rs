//! What a thread has cost so far: page faults and processor time, as the kernel counts them.

use std::fs::File;
use std::io::{self, Read};
use std::ops::{AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// Faults and processor time of a thread, or the sum over several.
///
/// Read from `/proc/thread-self/stat`. The fault counts are exact; the times come in clock ticks, 10 ms as a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Page faults that needed no device.
    pub minor_faults: u64,
    /// Page faults that waited for one.
    pub major_faults: u64,
    /// Seconds in user mode.
    pub user_s: f64,
    /// Seconds in the kernel.
    pub sys_s: f64,
}

impl Usage {
    /// What the calling thread has used since it began.
    ///
    /// # Errors
    ///
    /// Where `/proc` is not mounted or reads like nothing known.
    pub fn of_this_thread() -> io::Result<Usage> {
        // On the stack, so that asking causes no fault of its own.
        let mut text = [0; 1024];
        let len = File::open("/proc/thread-self/stat")?.read(&mut text)?;
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        parse(&text[..len], ticks_per_s).ok_or_else(|| io::Error::other("/proc/thread-self/stat has an unknown form"))
    }
}

/// Fields 10, 12, 14 and 15 of `proc_pid_stat(5)`. The name, field 2, may hold anything, so counting starts behind its
/// closing parenthesis, the last in the line.
fn parse(stat: &[u8], ticks_per_s: f64) -> Option<Usage> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?.split_ascii_whitespace();
    let minor_faults = fields.nth(7)?.parse().ok()?;
    let major_faults = fields.nth(1)?.parse().ok()?;
    let user_ticks: u64 = fields.nth(1)?.parse().ok()?;
    let sys_ticks: u64 = fields.next()?.parse().ok()?;
    let seconds = |ticks: u64| ticks as f64 / ticks_per_s;
    Some(Usage { minor_faults, major_faults, user_s: seconds(user_ticks), sys_s: seconds(sys_ticks) })
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, earlier: Usage) -> Usage {
        Usage {
            minor_faults: self.minor_faults.saturating_sub(earlier.minor_faults),
            major_faults: self.major_faults.saturating_sub(earlier.major_faults),
            user_s: (self.user_s - earlier.user_s).max(0.0),
            sys_s: (self.sys_s - earlier.sys_s).max(0.0),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.user_s += other.user_s;
        self.sys_s += other.sys_s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_thread_name_does_not_shift_the_fields() {
        let stat = b"7 (a) 1 2 (b) R 1 7 7 0 -1 4194304 11 22 33 44 150 50 1 2 20 0 1 0 5 6 7\n";
        let usage = parse(stat, 100.0).unwrap();
        assert_eq!(usage, Usage { minor_faults: 11, major_faults: 33, user_s: 1.5, sys_s: 0.5 });
        assert_eq!(parse(b"7 (a) R 1", 100.0), None);
        assert_eq!(parse(b"", 100.0), None);
    }

    #[test]
    fn touching_new_pages_is_counted() {
        let before = Usage::of_this_thread().unwrap();
        let pages = memmap2::MmapMut::map_anon(64 * 4096).map(|mut map| map.fill(1));
        assert!(pages.is_ok());
        let used = Usage::of_this_thread().unwrap() - before;
        assert!(used.minor_faults > 0);
    }
}
