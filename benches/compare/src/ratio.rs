//! How many lookups are hits, at equal numbers of blocks.
//!
//! The others are told how many bytes of blocks they may hold. mapfall's budget has its tables in it, so it gets the
//! greatest budget with which it held no more blocks than that, after a run that fills all its lists. What each held at
//! the ends of the traces is shown.
//! All have one shard, since policies are compared, and nothing is put off: `moka` does its pending tasks after each
//! miss.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

use crate::contender::{Kind, Size};
use crate::workload::traces;
use crate::{Result, Wanted};

/// What part of the keys fits, per mille.
const PARTS_PERMILLE: [u32; 3] = [1, 10, 100];

pub(crate) fn run(wanted: &Wanted) -> Result<()> {
    let (keys, lookups): (u32, usize) = if wanted.quick { (16 << 10, 1 << 17) } else { (128 << 10, 1 << 20) };
    println!("\nratio: hits in the second half of {lookups} lookups over {keys} keys, %");
    for permille in PARTS_PERMILLE {
        let blocks = keys / 1000 * permille + keys % 1000 * permille / 1000;
        // mapfall takes memory in steps that grow with the budget: with these lengths a step is a few blocks.
        let block_bytes = if u64::from(blocks) * 4096 < 1 << 20 { 4096 } else { 512 };
        print!("\n{:<14}", format!("{blocks} blocks"));
        let mut sizes = Vec::new();
        for kind in &wanted.kinds {
            sizes.push(size(*kind, blocks, block_bytes)?);
            print!("{:>17}", kind.name());
        }
        println!();
        let mut held = vec![(u64::MAX, 0); sizes.len()];
        for trace in traces(keys, blocks, lookups) {
            print!("{:<14}", trace.name);
            for ((kind, size), held) in wanted.kinds.iter().zip(&sizes).zip(&mut held) {
                let contender = kind.build(size)?;
                let half = trace.numbers.len() / 2;
                let hits = contender.replay(&trace.numbers, half, block_bytes);
                *held = (held.0.min(contender.blocks()), held.1.max(contender.blocks()));
                print!("{:>17.2}", hits as f64 / (trace.numbers.len() - half) as f64 * 100.0);
            }
            println!();
        }
        print!("{:<14}", "blocks held");
        held.iter().for_each(|(least, most)| print!("{:>17}", format!("{least}-{most}")));
        println!();
    }
    Ok(())
}

/// The size with which a cache holds so many blocks.
fn size(kind: Kind, blocks: u32, block_bytes: usize) -> Result<Size> {
    let bytes = u64::from(blocks) * block_bytes as u64;
    let mut size = Size { bytes, mapfall_bytes: bytes, block_bytes, shards: 1 };
    if kind.is_mapfall() {
        // Blocks that are asked for twice, and then others, so that all lists and memories are full.
        let fill: Vec<u32> = (0..6 * blocks).map(|at| at / 2 % blocks + at / (2 * blocks) * blocks).collect();
        let (mut low, mut high) = (bytes, bytes * 2 + (1 << 20));
        while high - low > 512 {
            let middle = low.midpoint(high);
            size.mapfall_bytes = middle;
            let contender = kind.build(&size)?;
            contender.replay(&fill, 0, block_bytes);
            if contender.blocks() > u64::from(blocks) { high = middle } else { low = middle }
        }
        size.mapfall_bytes = low;
    }
    Ok(size)
}
