//! When operations are to begin.
//!
//! With a target each thread has a schedule of its own: an operation each tick, and the threads' ticks evenly between
//! each other, so that operations come one by one at the rate asked for, at any rate. A wait is slept through but for
//! its end, which is spun through, since a sleep ends some 50 us late. An operation that takes longer than a tick does
//! not move the schedule: those behind it are late, begin as soon as they can, and their latency is counted from when
//! they should have begun.

use std::hint;
use std::thread;
use std::time::{Duration, Instant};

/// The end of a wait that is not slept through.
const SPUN: Duration = Duration::from_micros(80);
/// A sleep is no longer, so that whoever waits sees that it is to end.
const SLEPT_MAX: Duration = Duration::from_millis(50);

/// A thread's schedule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    first_ns: f64,
    tick_ns: f64,
}

impl Schedule {
    /// For the `lane`-th of some threads that together do `per_s` operations a second.
    pub(super) fn new(per_s: f64, lane: usize, lanes: usize) -> Schedule {
        let between_ns = 1e9 / per_s;
        Schedule { first_ns: between_ns * lane as f64, tick_ns: between_ns * lanes as f64 }
    }

    /// How long after the start the `index`-th operation of the thread is to begin.
    pub(super) fn at(&self, index: u64) -> Duration {
        Duration::from_nanos((self.first_ns + self.tick_ns * index as f64) as u64)
    }
}

/// Waits until then, or until it is to end. Says whether it is then.
pub(super) fn wait_until(then: Instant, is_to_end: impl Fn() -> bool) -> bool {
    loop {
        let left = then.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if left > SPUN {
            if is_to_end() {
                return false;
            }
            thread::sleep((left - SPUN).min(SLEPT_MAX));
        } else {
            hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_turns_at_the_rate_asked_for() {
        let lanes: Vec<_> = (0..4).map(|lane| Schedule::new(1000.0, lane, 4)).collect();
        let mut all: Vec<_> = (0..25).flat_map(|index| lanes.iter().map(move |lane| lane.at(index))).collect();
        all.sort();
        let even: Vec<_> = (0..100).map(Duration::from_millis).collect();
        assert_eq!(all, even);
    }

    #[test]
    fn a_wait_ends_when_it_is_told_to() {
        assert!(!wait_until(Instant::now() + Duration::from_secs(3600), || true));
        assert!(wait_until(Instant::now(), || true));
    }
}
