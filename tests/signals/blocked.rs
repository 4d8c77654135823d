//! Threads that block the signal, to which the kernel gives no fault.

use libc::SIGBUS;
use mapfall::{BlockIo, Error, FallbackReason};

use super::{Scene, about_to_die, dies_of, ends_well, ours, page, reads_until, signals};

/// What children play, by name.
pub(crate) const SCENES: [(&str, Scene); 2] = [("blocked", blocked), ("blocked_before", blocked_before)];

fn blocked_before() {
    let ours = ours();
    let blocked_reads = || ours.stats().fallbacks.get(FallbackReason::SignalBlocked);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            signals::block_bus(libc::SIG_BLOCK);
            ours.works(0, page());
            assert_eq!(blocked_reads(), 1);
            ours.other.set_len(page() as u64).unwrap();
            let error = ours.file.read_at(page() as u64, &mut vec![0; page()]).unwrap_err();
            assert!(matches!(error, Error::PastEnd { .. }), "{error}");
            ours.restore();
            ours.works(page(), page());
            assert_eq!((blocked_reads(), ours.faults()), (3, 0));
            signals::block_bus(libc::SIG_UNBLOCK);
            ours.recovers();
            assert_eq!(blocked_reads(), 3);
        });
        reader.join().unwrap();
    });
    // Others went by the map all the while.
    ours.works(0, page());
    // One that blocks the signal later is noticed after as many reads as lie between two looks.
    signals::block_bus(libc::SIG_BLOCK);
    reads_until(&ours, |stats| stats.fallbacks.get(FallbackReason::SignalBlocked) > 100);
}

#[test]
fn a_thread_that_blocks_the_signal_is_served_by_system_calls() {
    ends_well("blocked_before", &[]);
}

fn blocked() {
    let ours = ours();
    signals::block_bus(libc::SIG_BLOCK);
    signals::block_bus(libc::SIG_UNBLOCK);
    ours.recovers();
    signals::block_bus(libc::SIG_BLOCK);
    about_to_die();
    ours.recovers();
}

/// The handler is asked for by no read between.
#[test]
fn a_thread_that_blocks_the_signal_between_two_looks_dies_of_it_as_documented() {
    dies_of(SIGBUS, "blocked", &[]);
}
