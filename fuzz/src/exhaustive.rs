//! Every sequence of a few operations, before long random ones: `fuzz/run TARGET exhaustive 4`.

use std::time::Instant;

/// Where the environment asks for it, runs all sequences of up to that many of these operations, and ends the process.
pub fn if_wanted<T: Clone>(operations: &[T], run: impl Fn(&[T])) {
    let Ok(wanted) = std::env::var("MAPFALL_EXHAUSTIVE") else { return };
    let length_max: u32 = wanted.parse().expect("MAPFALL_EXHAUSTIVE is a number of operations");
    let (start, mut done) = (Instant::now(), 0_u64);
    for length in 1..=length_max {
        for number in 0..operations.len().pow(length) {
            let (mut rest, mut sequence) = (number, Vec::new());
            for _ in 0..length {
                sequence.push(operations[rest % operations.len()].clone());
                rest /= operations.len();
            }
            run(&sequence);
            done += 1;
        }
        eprintln!("{done} sequences of up to {length} of {} operations: {:?}", operations.len(), start.elapsed());
    }
    std::process::exit(0);
}
