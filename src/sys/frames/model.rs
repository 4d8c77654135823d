//! What `loom` is asked of the frames: copies without a pin, and pins, while others take the memory.

use loom::sync::Arc;
use loom::thread;

use super::{Frames, Gone, Key, Pinned};
use crate::sys::sync::explore::explore;

/// What a block is filled with: a number, twice.
fn block(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.chunks_mut(8).for_each(|word| word.copy_from_slice(&number.to_le_bytes()));
    bytes
}

fn key(number: u64) -> Key {
    [number, 0, 0]
}

fn fill(frames: &Frames, slot: u32, unit: u64, number: u64) -> bool {
    let filling = frames.reserve(slot, unit, &key(number), number, 16);
    let is_there = filling.is_some();
    if let Some(mut filling) = filling {
        filling.copy_in(&block(number));
        filling.publish();
    }
    is_there
}

/// Room for one block.
fn frames() -> Arc<Frames> {
    Arc::new(Frames::new(1).expect("there is memory"))
}

/// A read without a pin is of the block that was asked for, whole, or says no.
#[test]
fn a_copy_without_a_pin_against_another_block_in_its_place() {
    explore(2, || {
        let frames = frames();
        assert!(fill(&frames, 0, 0, 1));
        let writer = Arc::clone(&frames);
        let writer = thread::spawn(move || {
            assert_eq!(writer.retire(0), Gone::Now);
            assert!(fill(&writer, 0, 0, 2));
        });
        for number in [1, 2] {
            let mut buf = [0; 16];
            if frames.read(0, &key(number), &mut buf, 0) {
                assert_eq!(buf, block(number));
            }
        }
        writer.join().expect("it ran");
    });
}

/// The first block that a slot ever has: who sees that it is live sees its key, its place and its bytes.
#[test]
fn a_copy_without_a_pin_against_the_first_block() {
    explore(3, || {
        let frames = frames();
        let writer = Arc::clone(&frames);
        let writer = thread::spawn(move || assert!(fill(&writer, 0, 0, 1)));
        let mut buf = [0; 16];
        if frames.read(0, &key(1), &mut buf, 0) {
            assert_eq!(buf, block(1));
        }
        writer.join().expect("it ran");
    });
}

/// As long as a block is pinned nobody writes to its bytes.
#[test]
fn a_pin_against_another_block_in_its_place() {
    explore(3, || {
        let frames = frames();
        assert!(fill(&frames, 0, 0, 1));
        let writer = Arc::clone(&frames);
        let writer = thread::spawn(move || {
            if writer.retire(0) == Gone::Now {
                assert!(fill(&writer, 0, 0, 2));
            }
        });
        for number in [1, 2] {
            if let Some(pinned) = frames.pin(0, &key(number)) {
                assert_eq!(*pinned, block(number));
            }
        }
        writer.join().expect("it ran");
    });
}

/// The same where the memory goes to another slot, whose state nobody saw.
#[test]
fn a_pin_against_another_slot_in_its_place() {
    explore(3, || {
        let frames = Arc::new(Frames::new(2).expect("there is memory"));
        assert!(fill(&frames, 0, 0, 1));
        let writer = Arc::clone(&frames);
        let writer = thread::spawn(move || {
            if writer.retire(0) == Gone::Now {
                assert!(fill(&writer, 1, 0, 2));
            }
        });
        if let Some(pinned) = frames.pin(0, &key(1)) {
            assert_eq!(*pinned, block(1));
        }
        writer.join().expect("it ran");
    });
}

/// A block that is doomed while it is pinned leaves with the last pin, and once.
#[test]
fn two_pins_of_a_block_that_is_doomed() {
    explore(2, || {
        let frames = frames();
        assert!(fill(&frames, 0, 0, 1));
        let (other, doomer) = (Arc::clone(&frames), Arc::clone(&frames));
        let other = thread::spawn(move || other.pin(0, &key(1)).is_some_and(look_and_unpin));
        let doomer = thread::spawn(move || doomer.doom(0) == Gone::Now);
        let here = frames.pin(0, &key(1)).is_some_and(look_and_unpin);
        let ends = [here, other.join().expect("it ran"), doomer.join().expect("it ran")];
        assert_eq!(ends.into_iter().filter(|end| *end).count(), 1, "{ends:?}");
        assert!(fill(&frames, 0, 0, 2), "its memory is free");
    });
}

fn look_and_unpin(pinned: Pinned<'_>) -> bool {
    assert_eq!(*pinned, block(1));
    pinned.unpin()
}

/// Memory goes from one slot to another.
#[test]
fn two_slots_that_want_the_same_memory() {
    explore(3, || {
        let frames = Arc::new(Frames::new(2).expect("there is memory"));
        assert!(fill(&frames, 0, 0, 1));
        let writer = Arc::clone(&frames);
        let writer = thread::spawn(move || fill(&writer, 1, 0, 2));
        if let Some(pinned) = frames.pin(0, &key(1)) {
            assert_eq!(*pinned, block(1));
        }
        frames.retire(0);
        let took = writer.join().expect("it ran");
        let mut buf = [0; 16];
        assert_eq!(frames.read(1, &key(2), &mut buf, 0), took);
        assert!(!took || buf == block(2));
    });
}
