//! That the models find what they are for: one ordering is weakened at a time, or one store left out, and each time the
//! model named must fail. A process of its own does it, since what is weakened is chosen once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Bugs that are planted in the code, and the model that finds them.
const PLANTED: [(&str, &str); 5] = [
    (WINDOW_RETIRES, "retired_map_unmapped"),
    (WINDOW_CUT_FAR, "no_end_check"),
    (WINDOW_CUT_NEAR, "no_end_check"),
    (READERS_LAST, "reader_looks_once"),
    (READERS_KEPT, "reader_looks_once"),
];

/// The model, the file, a line in there and the one behind it that is changed, and how.
const MUTANTS: [(&str, &str, &str, &str, &str); 25] = [
    // What readers see of a map.
    (WINDOW_GROWTH, WINDOW, "pub(crate) fn publish", "self.hot.readable_bytes.store(readable_bytes", "weaker"),
    (WINDOW_GROWTH, WINDOW, "pub(crate) fn copy_out(", "self.hot.readable_bytes.load(", "weaker"),
    (WINDOW_GROWTH, WINDOW, "pub(crate) fn replace", "self.hot.base.store(", "omitted"),
    (WINDOW_RANGE, WINDOW, "pub(crate) fn replace", "self.hot.range_bytes.store(", "weaker"),
    (WINDOW_RANGE, WINDOW, "pub(crate) fn copy_out_within", "self.hot.range_bytes.load(", "weaker"),
    (WINDOW_CUT_FAR, WINDOW_MAP, "unsafe fn copy(", "fence(", "weaker"),
    (WINDOW_CUT_ZERO, WINDOW_MAP, "unsafe fn copy(", "fence(", "weaker"),
    // Entries of pages.
    (WORDS_FIRST, WORDS, "fn store(words", "words[0].store(", "weaker"),
    (WORDS_FIRST, WORDS, "pub(crate) fn load(", "words[0].load(", "weaker"),
    (WORDS_ENTRY, WORDS, "pub(crate) fn is_still(words", "fence(", "weaker"),
    (WORDS_ENTRY, WORDS, "pub(crate) fn before_reuse", "fence(", "weaker"),
    (WORDS_WRITERS, WORDS, "pub(crate) fn before_reuse", "fence(", "weaker"),
    (WORDS_RUN, WORDS, "// Before the entry, so that", "run.store(", "omitted"),
    (WORDS_RUN, WORDS, "pub(crate) fn is_still(&self) -> bool", "fence(", "weaker"),
    (WORDS_LEAF, WORDS, "pub(crate) fn note_run", "run.store(", "weaker"),
    (WORDS_LEAF, WORDS, "pub(crate) fn run(", "words.load(", "weaker"),
    // Blocks of a cache.
    (FRAMES_COPY, FRAMES, "pub(crate) fn reserve", "fence(", "weaker"),
    (FRAMES_COPY, FRAMES, "pub(crate) fn read(", "fence(", "weaker"),
    (FRAMES_FIRST, FRAMES, "pub(crate) fn read(", "words[STATE].load(", "weaker"),
    (FRAMES_FIRST, FRAMES, "fn publish_with", "words[STATE].store(", "weaker"),
    (FRAMES_PIN, FRAMES, "pub(crate) fn pin(", "words[STATE].compare_exchange_weak(", "weaker"),
    (FRAMES_PIN, FRAMES, "fn unpin(", "words[STATE].fetch_sub(", "weaker"),
    (FRAMES_SLOT, FRAMES, "fn empty(", "words[STATE].compare_exchange(", "weaker"),
    (FRAMES_SLOTS, FRAMES, "fn claim(", "claims[word].fetch_or(", "weaker"),
    (FRAMES_SLOTS, FRAMES, "fn unclaim(", "[word].fetch_and(", "weaker"),
];

const READERS_LAST: &str = "store::readers::model::a_reader_of_the_last_checkpoint_against_two_more";
const READERS_KEPT: &str = "store::readers::model::a_reader_of_a_kept_checkpoint_against_its_end";
const WINDOW: &str = "src/sys/window.rs";
const WINDOW_MAP: &str = "src/sys/window/model.rs"; // as `sys/copy/*.rs` has it
const WINDOW_RETIRES: &str = "sys::window::model::a_map_that_retires_against_reads";
const WINDOW_GROWTH: &str = "sys::window::model::growth_past_the_map_against_reads";
const WINDOW_RANGE: &str = "sys::window::model::growth_past_the_map_against_a_read_of_who_asked";
const WINDOW_CUT_FAR: &str = "sys::window::model::a_cut_far_from_the_end_against_a_read";
const WINDOW_CUT_NEAR: &str = "sys::window::model::a_cut_near_the_end_against_a_read";
const WINDOW_CUT_ZERO: &str = "sys::window::model::a_cut_near_the_end_against_a_read_of_a_zero";
const WORDS: &str = "src/tree/words.rs";
const WORDS_FIRST: &str = "tree::words::model::a_read_against_the_first_write";
const WORDS_ENTRY: &str = "tree::words::model::a_read_by_its_entry_against_writes_that_use_its_space_again";
const WORDS_WRITERS: &str = "tree::words::model::a_read_against_two_writers";
const WORDS_RUN: &str = "tree::words::model::a_read_by_its_run_against_writes_that_use_its_space_again";
const WORDS_LEAF: &str = "tree::words::model::a_run_against_the_loading_of_its_leaf";
const FRAMES: &str = "src/sys/frames.rs";
const FRAMES_COPY: &str = "sys::frames::model::a_copy_without_a_pin_against_another_block_in_its_place";
const FRAMES_FIRST: &str = "sys::frames::model::a_copy_without_a_pin_against_the_first_block";
const FRAMES_PIN: &str = "sys::frames::model::a_pin_against_another_block_in_its_place";
const FRAMES_SLOT: &str = "sys::frames::model::a_pin_against_another_slot_in_its_place";
const FRAMES_SLOTS: &str = "sys::frames::model::two_slots_that_want_the_same_memory";

/// The number of the line with this text, behind another one.
fn line(file: &str, behind: &str, text: &str) -> usize {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let mut lines = (1..).zip(source.lines());
    lines.find(|(_, line)| line.contains(behind)).unwrap_or_else(|| panic!("{file} no longer says: {behind}"));
    lines.find(|(_, line)| line.contains(text)).unwrap_or_else(|| panic!("{file} no longer says: {text}")).0
}

/// Runs a model. Whether it failed, and for a reason that a model has.
fn is_caught(model: &str, variable: &str, mutant: &str) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args([model, "--exact"]).env(variable, mutant).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("running 1 test"), "no model {model}: {said}");
    let passed = output.status.success();
    let by_itself = said.contains("nothing to choose from") || !said.contains("panicked at");
    assert!(passed || !by_itself, "{model}, {mutant}: {said}");
    !passed
}

#[test]
fn every_mutant_is_caught() {
    let mut missed = Vec::new();
    for (model, file, behind, text, change) in MUTANTS {
        let mutant = format!("{file}:{}:{change}", line(file, behind, text));
        if !is_caught(model, "MAPFALL_MUTANT", &mutant) {
            missed.push(format!("{mutant} ({behind}: {text}) by {model}"));
        }
    }
    for (model, bug) in PLANTED {
        if !is_caught(model, "MAPFALL_CANARY", bug) {
            missed.push(format!("{bug} by {model}"));
        }
    }
    let all = MUTANTS.len() + PLANTED.len();
    _ = writeln!(std::io::stdout(), "{} of {} mutants were caught", all - missed.len(), all);
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
}
