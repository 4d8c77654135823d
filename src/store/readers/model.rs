//! What `loom` is asked of it: a reader that comes while a writer in another process makes checkpoints. System calls on
//! a file are one after the other for everyone, so each is under a lock here; what is explored is how those of the two
//! fall between each other.

use loom::sync::{Arc, Mutex};
use loom::thread;

use super::{Checkpoints, hold};
use crate::error::Result;
use crate::format::Slot;
use crate::sys::sync::explore::explore;

const GENERATIONS: usize = 4;
/// What a block has whose space is used for something else.
const REUSED: u64 = u64::MAX;

/// The file, as system calls see it: the last slot, the locks, and a block that each checkpoint has for itself.
struct File {
    slot: Mutex<Slot>,
    locks: [Mutex<u32>; GENERATIONS],
    blocks: [Mutex<u64>; GENERATIONS],
}

fn slot(generation: u64, kept: u64) -> Slot {
    // The generation of a checkpoint that is kept stands where the list of them would.
    Slot { generation, sequence: kept, ..Slot::default() }
}

impl File {
    fn new(slot: Slot) -> Arc<Self> {
        Arc::new(File {
            slot: Mutex::new(slot),
            locks: std::array::from_fn(|_| Mutex::new(0)),
            blocks: std::array::from_fn(|generation| Mutex::new(generation as u64)),
        })
    }

    /// As the store commits: the slot first; then the locks are looked at, and what nobody holds is used again.
    fn commit(&self, slot: Slot, freed: &[u64]) {
        *self.slot.lock().expect("nobody panics") = slot;
        for generation in freed {
            let is_held = *self.locks[*generation as usize].lock().expect("nobody panics") > 0;
            if !is_held {
                *self.blocks[*generation as usize].lock().expect("nobody panics") = REUSED;
            }
        }
    }

    fn block(&self, generation: u64) -> u64 {
        *self.blocks[generation as usize].lock().expect("nobody panics")
    }
}

impl Checkpoints for Arc<File> {
    fn newest(&self) -> Result<Slot> {
        Ok(self.slot.lock().expect("nobody panics").clone())
    }

    fn lock(&self, generation: u64) -> Result<()> {
        *self.locks[generation as usize].lock().expect("nobody panics") += 1;
        Ok(())
    }

    fn unlock(&self, generation: u64) -> Result<()> {
        *self.locks[generation as usize].lock().expect("nobody panics") -= 1;
        Ok(())
    }
}

/// The reader's checkpoint has what it had, however often it is looked at.
fn is_whole(file: &Arc<File>, generation: u64) {
    for _ in 0..2 {
        assert_eq!(file.block(generation), generation, "the space of a held checkpoint was used again");
    }
}

/// A reader of the checkpoint that `choose` finds, against a writer.
fn against(slot: &Slot, choose: fn(&Slot) -> u64, write: fn(&File)) {
    let slot = slot.clone();
    explore(3, move || {
        let file = File::new(slot.clone());
        let writer = thread::spawn({
            let file = file.clone();
            move || write(&file)
        });
        let (found, generation) = hold(&file, |slot| Ok((choose(slot), choose(slot)))).expect("no call fails");
        assert_eq!(choose(&found), generation);
        is_whole(&file, generation);
        writer.join().expect("nobody panics");
        is_whole(&file, generation);
    });
}

#[test]
fn a_reader_of_the_last_checkpoint_against_two_more() {
    against(
        &slot(1, 0),
        |slot| slot.generation,
        |file| {
            file.commit(slot(2, 0), &[1]);
            file.commit(slot(3, 0), &[2]);
        },
    );
}

/// The kept one is dropped meanwhile, and its space is free with the checkpoint that no longer keeps it.
#[test]
fn a_reader_of_a_kept_checkpoint_against_its_end() {
    against(&slot(2, 1), |slot| slot.sequence, |file| file.commit(slot(3, 3), &[1, 2]));
}
