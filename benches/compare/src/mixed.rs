//! Lookups a second, where some are misses, and a miss copies a block.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

use std::thread;

use crate::contender::Size;
use crate::table::{self, Made, THREADS};
use crate::workload::{BLOCK_BYTES, sequences};
use crate::{Result, Wanted};

const BLOCKS: u32 = 64 << 10;
const EXPONENT: f64 = 0.99;
const LOOKUPS: usize = 1 << 20;
/// What part of the blocks fits, and about how many lookups are hits then: 80 % and 90 %.
const PARTS: [u32; 2] = [6, 3];
/// What is loaded is copied from here.
const SOURCE_BYTES: usize = 16 << 20;

pub(crate) fn run(wanted: &Wanted) -> Result<()> {
    let (rounds, duration) = table::rounds(wanted.quick);
    let processors = thread::available_parallelism()?.get();
    let blocks = if wanted.quick { BLOCKS / 16 } else { BLOCKS };
    let source = vec![1_u8; SOURCE_BYTES];
    let all = sequences(THREADS[THREADS.len() - 1], blocks, EXPONENT, LOOKUPS);
    for part in PARTS {
        let fit = blocks / part;
        let bytes = u64::from(fit) * BLOCK_BYTES as u64;
        let shards = (processors * 4).next_power_of_two();
        let size = Size { bytes, mapfall_bytes: bytes, block_bytes: BLOCK_BYTES, shards };
        let mut made: Vec<Made> = Vec::new();
        for kind in &wanted.kinds {
            let contender = kind.build(&size)?;
            contender.replay(&all[0], 0, BLOCK_BYTES);
            made.push((*kind, contender));
        }
        println!(
            "\nmixed: Zipf {EXPONENT} over {blocks} blocks of {BLOCK_BYTES} bytes, of which {fit} fit (in mapfall"
        );
        println!("the tables count, in the others only bytes of blocks); a miss copies a block;");
        println!("{processors} processors, {shards} shards, {rounds} interleaved rounds of {duration:?}");
        table::print_head(&made, "M lookups/s");
        for threads in THREADS {
            let passes =
                table::interleave(&made, rounds, |contender| contender.mixed(&all[..threads], duration, &source));
            table::print(&made, threads, &passes);
        }
    }
    Ok(())
}
