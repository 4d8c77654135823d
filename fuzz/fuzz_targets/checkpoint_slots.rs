//! Any bytes as a slot, as a record and as the list of kept checkpoints, as they are and with right checksums: a value
//! that is written back the same, or none.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapfall::fuzzing;
use mapfall_fuzz::heap;

const HEAP_BYTES: usize = 1 << 20;

#[derive(Arbitrary, Debug)]
struct Plan<'a> {
    is_names: bool,
    bytes: &'a [u8],
}

fuzz_target!(|plan: Plan| {
    heap::within(HEAP_BYTES, || {
        if plan.is_names {
            fuzzing::names(plan.bytes);
            // What only an exact beginning leads to.
            let count = plan.bytes.first().map_or(0, |first| u32::from(*first));
            let head = [b"\x89MPFNAME".as_slice(), &count.to_le_bytes(), &[0; 4]].concat();
            fuzzing::names(&[&head, plan.bytes].concat());
        } else {
            let superblock = [b"\x89MAPFALL".as_slice(), &[1, 0, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 1]].concat();
            fuzzing::slot(plan.bytes, &superblock);
        }
    });
});
