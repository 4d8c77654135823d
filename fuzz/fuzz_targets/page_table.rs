//! Nodes of the page table as bytes, and files whose checksums are right with any page table in them: they are opened,
//! read, verified, written to and salvaged, soon and in little memory.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapfall_fuzz::forged::{Forgery, Lists};

#[derive(Arbitrary, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
enum Plan<'a> {
    Node(&'a [u8]),
    File(Lists),
}

fuzz_target!(|plan: Plan| {
    match plan {
        Plan::Node(bytes) => mapfall::fuzzing::node(bytes),
        Plan::File(lists) => Forgery::of_lists(&lists).check(),
    }
});
