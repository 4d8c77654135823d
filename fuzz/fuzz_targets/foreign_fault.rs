//! Must die, and libFuzzer must tell of it: a fault in somebody else's map goes past our handler to the one that
//! libFuzzer installed before. A run that ends well has found a bug.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mapfall::{BlockIo, IoOptions};
use mapfall_fuzz::hand::Hand;

fuzz_target!(|_data: &[u8]| {
    let (file, path) = mapfall_fuzz::nameless_file();
    let map = IoOptions::new().open_mmap(&path).expect("a map");
    let other = Hand(file);
    other.write(0, &[7; 8192]);
    let foreign = memmap2::MmapOptions::new().map_raw_read_only(&other.0).expect("a plain map");

    // Ours comes through, so our handler is there.
    let mut block = [0; 4096];
    map.read_at(4096, &mut block).expect("a read");
    assert!(other.set_len(0));
    map.read_at(4096, &mut block).expect_err("nothing is there");
    let stats = map.stats();
    assert!(stats.map.is_some_and(|map| map.faults_recovered > 0), "no fault was taken");

    // Theirs does not.
    // SAFETY: it is not safe: the page is gone, and that this ends the process is the point.
    let byte = unsafe { foreign.as_ptr().add(4096).read_volatile() };
    panic!("a byte that is not there: {byte}");
});
