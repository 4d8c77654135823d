//! The contract among threads: exact counts, and anything at once.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use mapfall::{Error, SyncKind};

use crate::contract::{Done, Kind, MIB, RANGE_BYTES_MIN, byte_at, bytes_at, can_map, past_end};
use crate::each;

#[test]
fn reads_by_many_threads_are_counted_exactly() {
    const THREADS: u64 = 8;
    const READS: u64 = 5_000;
    let len = 3 * MIB;
    each(len as usize, |kind, file, _| {
        // Threads that end leave their counts to those that come after them.
        for round in 1..=2 {
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    scope.spawn(move || {
                        let mut buf = [0xEE; 4096];
                        for number in 0..READS {
                            let wanted = (number % 4096) as usize + 1;
                            if number % 10 == 9 {
                                past_end(
                                    &file.read_at(len - number % wanted as u64, &mut buf[..wanted]).unwrap_err(),
                                    len - number % wanted as u64,
                                    wanted,
                                    len,
                                );
                                continue;
                            }
                            let offset = (number * 7_919 + thread * 104_729) % (len - 4096);
                            file.read_at(offset, &mut buf[..wanted]).unwrap();
                            assert_eq!(buf[0], byte_at(offset, 0));
                            assert_eq!(buf[wanted - 1], byte_at(offset + wanted as u64 - 1, 0));
                        }
                    });
                }
            });
            let failed = THREADS * READS / 10 * round;
            let bytes = (0..READS).filter(|number| number % 10 != 9).map(|number| number % 4096 + 1).sum::<u64>();
            let stats = file.stats();
            let expected = Done {
                reads: THREADS * READS * round - failed,
                read_bytes: bytes * THREADS * round,
                failed_reads: failed,
                ..Done::default()
            };
            assert_eq!(Done::told_by(&stats), expected, "{kind:?}");
            assert!(stats.paths_add_up());
            if kind.maps() {
                assert_eq!((stats.pread.reads, stats.fallbacks.total()), (0, failed), "{kind:?}");
            }
        }
    });
}

#[test]
fn any_number_of_threads_may_call_anything_at_once() {
    const BLOCK: u64 = 8192;
    // What nobody touches; what is overwritten with one of two versions; what comes and goes.
    let (quiet, rewritten, restless) = (0..MIB, MIB..2 * MIB, 2 * MIB..5 * MIB);
    each(2 * MIB as usize, |kind, file, _| {
        let (stop, failed) = (AtomicBool::new(false), AtomicU64::new(0));
        let (stop, failed, rewritten, restless) = (&stop, &failed, &rewritten, &restless);
        let go_on = move || !stop.load(Ordering::Relaxed);
        thread::scope(|scope| {
            let reader = |seed: u64| {
                let mut buf = vec![0xEE; BLOCK as usize];
                let mut reads = 0;
                for number in (seed..).take_while(|_| go_on()) {
                    let place = |range: &Range<u64>| {
                        range.start + number.wrapping_mul(0x9E37_79B9) % (range.end - range.start - BLOCK)
                    };
                    let offset = place(&quiet);
                    file.read_at(offset, &mut buf).unwrap();
                    assert!(buf == bytes_at(offset, buf.len(), 0), "{kind:?}");
                    let offset = place(rewritten);
                    file.read_at(offset, &mut buf).unwrap();
                    let known = |(at, byte): (u64, &u8)| (0..2).any(|version| *byte == byte_at(at, version));
                    assert!((offset..).zip(&buf).all(known), "{kind:?}");
                    reads += 2;
                    let offset = place(restless);
                    match file.read_at(offset, &mut buf) {
                        Ok(()) => {
                            let known = |(at, byte): (u64, &u8)| *byte == 0 || *byte == byte_at(at, 7);
                            assert!((offset..).zip(&buf).all(known), "{kind:?}");
                            reads += 1;
                        }
                        Err(Error::PastEnd { offset: at, wanted_bytes, file_len_bytes }) => {
                            assert_eq!((at, wanted_bytes), (offset, BLOCK));
                            assert!((restless.start..offset + BLOCK).contains(&file_len_bytes), "{kind:?}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => panic!("{kind:?}: {error}"),
                    }
                }
                reads
            };
            let readers = [scope.spawn(move || reader(1)), scope.spawn(move || reader(1 << 20))];
            let onlooker = scope.spawn(move || {
                let mut last = 0;
                while go_on() {
                    let stats = file.stats();
                    assert!(stats.reads >= last && file.len().unwrap() >= 2 * MIB);
                    last = stats.reads;
                }
            });
            for round in 1..=60_u64 {
                let version = (round % 2) as u8;
                file.write_at(rewritten.start, &bytes_at(rewritten.start, MIB as usize, version)).unwrap();
                let end = restless.start + round * 997_331 % (restless.end - restless.start);
                file.set_len(end).unwrap();
                file.write_at(end, &bytes_at(end, 5_000, 7)).unwrap();
                file.set_len(restless.end - round).unwrap();
                if round % 20 == 0 {
                    file.sync(SyncKind::Data).unwrap();
                }
            }
            stop.store(true, Ordering::Relaxed);
            let reads: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
            onlooker.join().unwrap();
            let stats = file.stats();
            assert_eq!((stats.reads, stats.failed_reads), (reads, failed.load(Ordering::Relaxed)), "{kind:?}");
            assert_eq!((stats.writes, stats.set_lens, stats.syncs), (120, 120, 3), "{kind:?}");
            if kind.maps() {
                assert!(stats.mmap.reads > 0, "{kind:?}");
            }
            if kind == Kind::MmapTinyRange && can_map() {
                let map = stats.map.unwrap();
                assert!(map.remaps > 0 && map.range_bytes > RANGE_BYTES_MIN, "{map:?}");
            }
        });
    });
}
