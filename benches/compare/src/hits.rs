//! Hits a second, when every block is there.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

use std::thread;

use crate::contender::Size;
use crate::table::{self, Made, THREADS};
use crate::workload::{BLOCK_BYTES, sequences};
use crate::{Result, Wanted};

/// How many blocks there are.
const BLOCKS: [u32; 2] = [64 << 10, 2 << 10];
const EXPONENT: f64 = 0.99;
/// Lookups after which a thread begins anew: far more than there are blocks, few enough to be drawn quickly.
const LOOKUPS: usize = 1 << 20;

pub(crate) fn run(wanted: &Wanted) -> Result<()> {
    let (rounds, duration) = table::rounds(wanted.quick);
    let processors = thread::available_parallelism()?.get();
    for blocks in BLOCKS {
        let blocks = if wanted.quick { blocks / 16 } else { blocks };
        // Half as much again as the blocks take, so that all find room in whatever shard they belong to.
        let bytes = u64::from(blocks) * BLOCK_BYTES as u64 * 3 / 2 + (4 << 20);
        let shards = (processors * 4).next_power_of_two();
        let size = Size { bytes, mapfall_bytes: bytes, block_bytes: BLOCK_BYTES, shards };
        let all = sequences(THREADS[THREADS.len() - 1], blocks, EXPONENT, LOOKUPS);
        let every: Vec<u32> = (0..blocks).collect();
        let mut made: Vec<Made> = Vec::new();
        for kind in &wanted.kinds {
            let contender = kind.build(&size)?;
            contender.replay(&every, 0, BLOCK_BYTES);
            let there = contender.replay(&every, 0, BLOCK_BYTES);
            if there < u64::from(blocks) {
                println!("{}: {there} of {blocks} blocks are there; the others count as lookups too", kind.name());
            }
            made.push((*kind, contender));
        }
        let mib = (u64::from(blocks) * BLOCK_BYTES as u64) >> 20;
        println!("\nhits: Zipf {EXPONENT} over {blocks} blocks of {BLOCK_BYTES} bytes ({mib} MiB), all there;");
        println!("{processors} processors, {shards} shards, {rounds} interleaved rounds of {duration:?}");
        table::print_head(&made, "M hits/s");
        for threads in THREADS {
            let passes = table::interleave(&made, rounds, |contender| contender.hits(&all[..threads], duration));
            table::print(&made, threads, &passes);
        }
    }
    Ok(())
}
