//! How long to leave alone what has just failed, counted in reads.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A wait that doubles with each failure and halves with each success.
///
/// Counted in reads rather than in time: a read that falls back does a system call anyway, so the cost of trying again
/// stays a small share of the cost of the reads, however fast or slow they come, and no clock is read.
///
/// All accesses are Relaxed: the counts order nothing, and a lost or doubled one makes a try a little earlier or later.
#[derive(Debug)]
pub(super) struct Backoff {
    left: AtomicU32,
    wait_reads: AtomicU32,
    shortest_reads: u32,
    longest_reads: u32,
}

impl Backoff {
    pub(super) fn new(shortest_reads: u32, longest_reads: u32) -> Self {
        Backoff { left: AtomicU32::new(0), wait_reads: AtomicU32::new(0), shortest_reads, longest_reads }
    }

    /// Counts a read, and says whether it may try again what failed.
    pub(super) fn is_due(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err()
    }

    /// It failed: wait, twice as long as the last time.
    pub(super) fn failed(&self) {
        let wait_reads = self.wait_reads.load(Relaxed);
        let wait_reads = wait_reads.saturating_mul(2).clamp(self.shortest_reads, self.longest_reads);
        self.wait_reads.store(wait_reads, Relaxed);
        self.left.store(wait_reads, Relaxed);
    }

    /// It worked: wait half as long before the next try. False when there is no need to wait any more.
    pub(super) fn worked(&self) -> bool {
        let wait_reads = self.wait_reads.load(Relaxed) / 2;
        let wait_reads = if wait_reads < self.shortest_reads { 0 } else { wait_reads };
        self.wait_reads.store(wait_reads, Relaxed);
        self.left.store(wait_reads, Relaxed);
        wait_reads > 0
    }

    /// Forgets all failures.
    pub(super) fn reset(&self) {
        self.wait_reads.store(0, Relaxed);
        self.left.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_until_due(backoff: &Backoff) -> u32 {
        (0..).find(|_| backoff.is_due()).unwrap()
    }

    #[test]
    fn waits_double_to_a_limit_and_halve_to_nothing() {
        let backoff = Backoff::new(16, 64);
        assert_eq!(reads_until_due(&backoff), 0, "nothing has failed yet");
        for expected in [16, 32, 64, 64] {
            backoff.failed();
            assert_eq!(reads_until_due(&backoff), expected);
        }
        assert!(backoff.worked());
        assert_eq!(reads_until_due(&backoff), 32);
        assert!(backoff.worked());
        assert!(!backoff.worked());
        assert_eq!(reads_until_due(&backoff), 0);
        backoff.failed();
        assert_eq!(reads_until_due(&backoff), 16, "as at the first failure");
    }
}
