//! What `loom` is asked of the page table: the life of an address, from the write of a page to the use of its space by
//! another, against reads that take no lock.

use std::sync::atomic::Ordering::Relaxed;

use loom::sync::atomic::AtomicU64;
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::{Words, before_reuse, is_still, load};
use crate::format::{Entry, NOT_LOADED, PageState};
use crate::sys::sync::explore::explore;

/// A file of three blocks of two words, and what is free of it.
struct Disk {
    blocks: [[AtomicU64; 2]; 4],
    /// As the store's space is under its lock.
    free: Mutex<Vec<u64>>,
    words: Words,
}

impl Disk {
    fn new(free: &[u64]) -> Arc<Self> {
        let block = || [AtomicU64::new(0), AtomicU64::new(0)];
        let blocks = std::array::from_fn(|_| block());
        Arc::new(Disk { blocks, free: Mutex::new(free.to_vec()), words: Words::new() })
    }

    /// Pages 0 and 1, one behind the other.
    fn load_two(&self) {
        for (page, number) in [(0, 1), (1, 11)] {
            self.fill(page + 1, number);
            self.words.store(page, Entry::stored(page + 1, number, number as u32));
        }
    }

    /// Fills a block with a number.
    fn fill(&self, block: u64, number: u64) {
        self.blocks[block as usize].iter().for_each(|word| word.store(number, Relaxed));
    }

    /// Writes a page as the store does: elsewhere; then its entry moves, and its old block is free.
    fn write(&self, page: u64, number: u64) {
        let taken = self.free.lock().expect("nobody panics").pop();
        let Some(block) = taken else { return };
        before_reuse();
        self.fill(block, number);
        let mut free = self.free.lock().expect("nobody panics");
        let old = self.words.get(page).map(load).expect("it was written before");
        self.words.store(page, Entry::stored(block, number, number as u32));
        if let PageState::Stored { offset_units, .. } = old.state() {
            free.push(offset_units);
        }
    }

    fn copy(&self, block: u64) -> [u64; 2] {
        std::array::from_fn(|word| self.blocks[block as usize][word].load(Relaxed))
    }

    /// Reads a page by its entry. Nothing where it was written meanwhile.
    fn read(&self, page: u64) -> Option<[u64; 2]> {
        let words = self.words.get(page)?;
        let entry = load(words);
        let PageState::Stored { offset_units, sequence, .. } = entry.state() else { return None };
        let block = self.copy(offset_units);
        is_still(words, entry).then(|| {
            assert_eq!(block[0] % 100, sequence % 100, "a block of another write");
            block
        })
    }
}

/// Numbers of page 0 are 1, 2, ..; those of page 1 are 11, 12, ...
fn is_of_page(page: u64, block: [u64; 2]) -> bool {
    block[0] == block[1] && block[0] / 10 == page
}

/// A page is written, and the space of the old block is used for another page, while it is read.
#[test]
fn a_read_by_its_entry_against_writes_that_use_its_space_again() {
    explore(3, || {
        let disk = Disk::new(&[3]);
        disk.load_two();
        let writer = Arc::clone(&disk);
        let writer = thread::spawn(move || {
            writer.write(0, 2);
            writer.write(1, 12);
        });
        if let Some(block) = disk.read(0) {
            assert!(is_of_page(0, block), "{block:?}");
        }
        writer.join().expect("it ran");
        assert_eq!(disk.read(0), Some([2; 2]));
        assert_eq!(disk.read(1), Some([12; 2]));
    });
}

/// The same with two writers: who uses the space again is not who freed it.
#[test]
fn a_read_against_two_writers() {
    explore(2, || {
        let disk = Disk::new(&[3]);
        disk.load_two();
        let (first, second) = (Arc::clone(&disk), Arc::clone(&disk));
        let first = thread::spawn(move || first.write(0, 2));
        let second = thread::spawn(move || second.write(1, 12));
        if let Some(block) = disk.read(0) {
            assert!(is_of_page(0, block), "{block:?}");
        }
        first.join().expect("it ran");
        second.join().expect("it ran");
    });
}

/// A page that is read for the first time: its entry is whole, and its bytes are there.
#[test]
fn a_read_against_the_first_write() {
    explore(3, || {
        let disk = Disk::new(&[3]);
        disk.words.store(0, Entry::ZEROS);
        let writer = Arc::clone(&disk);
        let writer = thread::spawn(move || writer.write(0, 1));
        for _ in 0..2 {
            if let Some(block) = disk.read(0) {
                assert_eq!(block, [1; 2]);
            }
        }
        writer.join().expect("it ran");
        assert_eq!(disk.read(0), Some([1; 2]));
    });
}

/// Pages that lie one behind the other are read by their run's word while one is written and its space used again.
#[test]
fn a_read_by_its_run_against_writes_that_use_its_space_again() {
    explore(3, || {
        let disk = Disk::new(&[3]);
        disk.load_two();
        disk.words.note_run(0, 1);
        let writer = Arc::clone(&disk);
        let writer = thread::spawn(move || {
            writer.write(0, 2);
            writer.write(1, 12);
        });
        if let Some(run) = disk.words.run(0) {
            let block = disk.copy(run.offset_units(1));
            if run.is_still() {
                assert_eq!(block, [1; 2]);
            }
        }
        writer.join().expect("it ran");
        assert!(disk.words.run(0).is_none(), "for good");
    });
}

/// A leaf that is loaded: who sees the run sees the entries.
#[test]
fn a_run_against_the_loading_of_its_leaf() {
    explore(3, || {
        let disk = Disk::new(&[]);
        disk.words.store(0, Entry(NOT_LOADED, 0));
        let loader = Arc::clone(&disk);
        let loader = thread::spawn(move || {
            for page in [0, 1] {
                loader.words.store(page, Entry::stored(page + 1, 7, 7));
            }
            loader.words.note_run(0, 1);
        });
        if let Some(run) = disk.words.run(1) {
            assert_eq!(run.offset_units(1), 2);
            let entry = disk.words.get(1).map(load);
            assert_eq!(entry, Some(Entry::stored(2, 7, 7)));
        }
        loader.join().expect("it ran");
    });
}
