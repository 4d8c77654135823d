//! Batches at depth: one system call for many reads, the same answers whatever is refused, and statistics that say so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;
#[path = "support/limits.rs"]
#[allow(dead_code, reason = "every test binary takes what it needs")]
mod limits;
#[path = "support/refuse.rs"]
mod refuse;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;

use mapfall::{BatchRead, BlockIo, Error, IoOptions, IoStats, UringFile};
use rustix::process::{Resource, getrlimit};

use children::say;
use common::{other_hand, scratch, stats};
use limits::{BLOCK, alone, block, limit, make};

const RINGS_MAX: usize = 256;

fn open(path: &Path) -> UringFile {
    IoOptions::new().open_uring(path).unwrap()
}

/// Reads these blocks in one batch, and checks each.
fn check_batch(file: &dyn BlockIo, numbers: &[u64]) {
    let mut bufs = vec![vec![0xEE; BLOCK as usize]; numbers.len()];
    let mut batch: Vec<_> =
        numbers.iter().zip(&mut bufs).map(|(number, buf)| BatchRead { offset: number * BLOCK, buf }).collect();
    file.read_batch(&mut batch).unwrap();
    assert!(numbers.iter().zip(&bufs).all(|(number, buf)| *buf == block(*number)));
}

/// So many different blocks of a file of `count`, in no order.
fn some(reads: u64, count: u64, seed: u64) -> Vec<u64> {
    (0..reads).map(|number| (number * 7_919 + seed * 104_729) % count).collect()
}

/// A file of so many blocks, if there are rings here. Says so if not.
fn with_rings(test: &str, count: u64) -> Option<(tempfile::TempDir, std::path::PathBuf)> {
    let dir = scratch();
    let path = dir.path().join("data");
    make(&path, count);
    let file = open(&path);
    // Another thread's ring: this one's is still to be made.
    thread::scope(|scope| scope.spawn(|| check_batch(&file, &[0, 1])).join().unwrap());
    match stats(&file).rings.unwrap().last_refusal {
        None => Some((dir, path)),
        Some(why) => {
            say(&format!("SKIPPED {test}: there is no io_uring here: {why}"));
            None
        }
    }
}

fn paths(stats: &IoStats) -> [u64; 4] {
    [stats.ring.reads, stats.pool.reads, stats.pread.reads, stats.mmap.reads]
}

#[test]
fn a_batch_is_one_system_call() {
    let Some((_dir, path)) = with_rings("a_batch_is_one_system_call", 1_000) else { return };
    let file = open(&path);
    for batch in 0..10 {
        check_batch(&file, &some(64, 1_000, batch));
    }
    let told = stats(&file);
    let rings = told.rings.clone().unwrap();
    assert_eq!((paths(&told), told.reads, told.read_bytes), ([640, 0, 0, 0], 640, 640 * BLOCK));
    assert_eq!((rings.depth, rings.batches, rings.refusals), (64, 10, 0));
    assert!(rings.rings <= 1, "a thread has one ring: {rings:?}");
    assert!((10..=40).contains(&rings.submits), "{rings:?}");
    // A second file of the thread finds the ring.
    let other = open(&path);
    check_batch(&other, &some(32, 1_000, 0));
    assert_eq!(stats(&other).rings.unwrap().rings, 0);
    // A single read is a single call, and so is a batch of one.
    check_batch(&file, &[5]);
    limits::check_block(&file, 6);
    assert_eq!(paths(&stats(&file)), [640, 0, 2, 0]);
}

#[test]
fn every_depth_reads_the_same() {
    let Some((_dir, path)) = with_rings("every_depth_reads_the_same", 500) else { return };
    for depth in [1, 2, 3, 7, 64, 100, 1024] {
        let file = IoOptions::new().queue_depth(depth).open_uring(&path).unwrap();
        for reads in [2, 31, 200, 1_500] {
            check_batch(&file, &some(reads, 500, reads));
        }
        let told = stats(&file);
        assert_eq!(paths(&told), [1_733, 0, 0, 0], "at depth {depth}");
        assert_eq!(told.rings.unwrap().depth, depth);
    }
    for depth in [0, 1025, u32::MAX] {
        match IoOptions::new().queue_depth(depth).open_uring(&path) {
            Err(Error::InvalidOption { option: "queue_depth", found, .. }) => assert_eq!(found, depth.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_cannot_be_read_is_told_as_pread_tells_it() {
    let Some((_dir, path)) = with_rings("what_cannot_be_read_is_told_as_pread_tells_it", 10) else { return };
    let file = open(&path);
    let mut bufs = vec![vec![0xEE; BLOCK as usize]; 5];
    // The file's current position, for the kernel, is the largest number; and the end is in the middle of one.
    let offsets = [0, u64::MAX, 10 * BLOCK - 100, 3 * BLOCK, i64::MAX as u64 - 10];
    let mut batch: Vec<_> = offsets.iter().zip(&mut bufs).map(|(&offset, buf)| BatchRead { offset, buf }).collect();
    match file.read_batch(&mut batch) {
        Err(Error::Batch { index: 1, source }) => match *source {
            Error::PastEnd { offset: u64::MAX, wanted_bytes: BLOCK, file_len_bytes } => {
                assert_eq!(file_len_bytes, 10 * BLOCK);
            }
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
    assert!(bufs[0] == block(0) && bufs[3] == block(3));
    let told = stats(&file);
    assert_eq!((paths(&told), told.failed_reads), ([2, 0, 0, 0], 3));
}

#[test]
fn a_kernel_without_rings() {
    // Both what a filter says and what an old kernel says.
    for (test, errno) in [("EPERM", libc::EPERM), ("ENOSYS", libc::ENOSYS)] {
        let Some((_dir, path)) = with_rings("a_kernel_without_rings", 1_000) else { return };
        let file = open(&path);
        let refused = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                refuse::refuse(&[libc::SYS_io_uring_setup], errno)?;
                for batch in 0..40 {
                    check_batch(&file, &some(64, 1_000, batch));
                }
                Ok::<(), std::io::Error>(())
            });
            reader.join().unwrap()
        });
        if let Err(why) = refused {
            say(&format!("SKIPPED a_kernel_without_rings: no filter can be set: {why}"));
            return;
        }
        let told = stats(&file);
        let rings = told.rings.clone().unwrap();
        assert_eq!(paths(&told), [0, 40 * 64, 0, 0], "{test}");
        assert_eq!((rings.rings, rings.batches, rings.refusals, rings.submits), (0, 0, 40, 0), "{test}");
        let expected = std::io::Error::from_raw_os_error(errno).to_string();
        assert_eq!(rings.last_refusal.unwrap(), expected, "{test}");
        // Others are not concerned.
        check_batch(&file, &some(64, 1_000, 0));
        assert_eq!(stats(&file).ring.reads, 64);
    }
}

#[test]
fn a_ring_that_stops_working() {
    let Some((_dir, path)) = with_rings("a_ring_that_stops_working", 1_000) else { return };
    let file = open(&path);
    thread::scope(|scope| {
        scope.spawn(|| {
            check_batch(&file, &some(64, 1_000, 1));
            if let Err(why) = refuse::refuse(&[libc::SYS_io_uring_enter], libc::EPERM) {
                say(&format!("SKIPPED a_ring_that_stops_working: no filter can be set: {why}"));
                return;
            }
            // The reads of the batch that finds out are done one by one.
            check_batch(&file, &some(64, 1_000, 2));
            let told = stats(&file);
            assert_eq!(paths(&told), [64, 0, 64, 0], "{told:?}");
        });
    });
}

#[test]
fn the_administrator_forbids_rings() {
    const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";
    let test = "the_administrator_forbids_rings";
    if !rustix::process::geteuid().is_root() || fs::metadata(SWITCH).is_err() {
        say(&format!("SKIPPED {test}: only root may write {SWITCH}"));
        return;
    }
    /// Puts back what was there.
    struct Switch(String);
    impl Drop for Switch {
        fn drop(&mut self) {
            fs::write(SWITCH, &self.0).unwrap();
        }
    }
    if std::env::var_os("MAPFALL_TEST_ALONE").is_some() {
        return alone(test, || {
            let dir = scratch();
            let path = dir.path().join("data");
            make(&path, 1_000);
            let file = open(&path);
            let _dir = std::mem::ManuallyDrop::new(dir);
            fs::remove_dir_all(path.parent().unwrap()).unwrap();
            refuse::become_nobody();
            check_batch(&file, &some(64, 1_000, 1));
            let told = stats(&file);
            assert_eq!(paths(&told), [0, 64, 0, 0]);
            assert!(told.rings.unwrap().last_refusal.unwrap().contains("not permitted"));
        });
    }
    let before = fs::read_to_string(SWITCH).unwrap();
    // 1: those without the right to administer get none. Root, and with it the other tests, does.
    let _switch = Switch(before);
    if fs::write(SWITCH, "1").is_err() {
        say(&format!("SKIPPED {test}: {SWITCH} cannot be written"));
        return;
    }
    alone(test, || unreachable!("the child took the way above"));
}

#[test]
fn no_descriptors_left_then_some() {
    alone("no_descriptors_left_then_some", || {
        let Some((_dir, path)) = with_rings("no_descriptors_left_then_some", 1_000) else { return };
        let file = open(&path);
        let normal = getrlimit(Resource::Nofile).current;
        limit(Resource::Nofile, Some(3));
        for batch in 0..10 {
            check_batch(&file, &some(64, 1_000, batch));
        }
        limit(Resource::Nofile, normal);
        let told = stats(&file);
        assert_eq!(paths(&told), [0, 640, 0, 0]);
        assert!(told.rings.unwrap().last_refusal.unwrap().contains("open files"));
        // It is tried again, not at once.
        for batch in 0..40 {
            check_batch(&file, &some(64, 1_000, batch));
        }
        let told = stats(&file);
        let rings = told.rings.clone().unwrap();
        assert!(told.ring.reads > 0 && rings.rings == 1, "{told:?}");
        assert_eq!(rings.batches + rings.refusals, 50);
    });
}

#[test]
fn there_are_no_more_rings_than_said() {
    alone("there_are_no_more_rings_than_said", || {
        const THREADS: usize = RINGS_MAX + 20;
        let Some((_dir, path)) = with_rings("there_are_no_more_rings_than_said", 1_000) else { return };
        let room = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        if room < 2 * THREADS as u64 {
            limit(Resource::Nofile, None);
        }
        let file = open(&path);
        let all_have_read = Barrier::new(THREADS);
        thread::scope(|scope| {
            for seed in 0..THREADS {
                let (file, all_have_read) = (&file, &all_have_read);
                let reader = move || {
                    check_batch(file, &some(8, 1_000, seed as u64));
                    all_have_read.wait();
                };
                thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, reader).unwrap();
            }
        });
        let rings = stats(&file).rings.unwrap();
        assert_eq!((rings.rings, rings.refusals), (RINGS_MAX as u64, 20), "{rings:?}");
        assert!(rings.last_refusal.unwrap().contains("256 rings"));
        // The rings ended with their threads.
        check_batch(&file, &some(8, 1_000, 0));
        assert_eq!(stats(&file).rings.unwrap().rings, RINGS_MAX as u64 + 1);
    });
}

#[test]
fn a_forked_child_has_a_ring_of_its_own() {
    alone("a_forked_child_has_a_ring_of_its_own", || {
        let Some((_dir, path)) = with_rings("a_forked_child_has_a_ring_of_its_own", 1_000) else { return };
        let file = open(&path);
        check_batch(&file, &some(64, 1_000, 1));
        let rings = stats(&file).rings.unwrap().rings;
        assert!(refuse::in_a_fork(|| {
            check_batch(&file, &some(64, 1_000, 2));
            let told = stats(&file);
            assert_eq!((told.ring.reads, told.rings.unwrap().rings), (128, rings + 1));
        }));
        check_batch(&file, &some(64, 1_000, 3));
        assert_eq!((stats(&file).ring.reads, stats(&file).rings.unwrap().rings), (128, rings));
    });
}

#[test]
fn signals_and_cuts_in_the_middle_of_batches() {
    let Some((_dir, path)) = with_rings("signals_and_cuts_in_the_middle_of_batches", 1_000) else { return };
    let file = open(&path);
    let other = other_hand(&path);
    let (stop, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (send, receive) = mpsc::channel();
    thread::scope(|scope| {
        let (file, stop, is_over) = (&file, &stop, &is_over);
        let reader = scope.spawn(move || {
            send.send(refuse::this_thread()).unwrap();
            let mut cut = 0;
            for round in 0..400 {
                check_batch(file, &some(100, 500, round));
                // The second half of the file comes and goes. Buffers that the kernel wrote to late would be seen: they
                // are freed and used again at once.
                let numbers = some(100, 1_000, round);
                let mut bufs = vec![vec![0xEE; BLOCK as usize]; numbers.len()];
                let mut batch: Vec<_> =
                    numbers.iter().zip(&mut bufs).map(|(at, buf)| BatchRead { offset: at * BLOCK, buf }).collect();
                match file.read_batch(&mut batch) {
                    Ok(()) => {}
                    Err(Error::Batch { index, source }) => {
                        assert!(numbers[index] >= 500, "{source}");
                        assert!(matches!(*source, Error::PastEnd { .. }), "{source}");
                        cut += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
                let below = numbers.iter().zip(&bufs).filter(|(number, _)| **number < 500);
                below.for_each(|(number, buf)| assert!(*buf == block(*number), "block {number}"));
            }
            is_over.store(true, Ordering::Relaxed);
            // It is sent signals until they know that it is over.
            while !stop.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            cut
        });
        let thread = receive.recv().unwrap();
        let signals = scope.spawn(move || refuse::disturb(thread, stop));
        while !is_over.load(Ordering::Relaxed) && !reader.is_finished() {
            other.set_len(500 * BLOCK + 77).unwrap();
            other.set_len(1_000 * BLOCK).unwrap();
        }
        // Only now may the reader end. Should it have failed, it is joined last all the same.
        stop.store(true, Ordering::Relaxed);
        assert!(signals.join().unwrap() > 0);
        reader.join().unwrap();
    });
    stats(&file);
}
