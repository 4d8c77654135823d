//! What the store must hold: every page's history, the live blocks, and each checkpoint that was tried.
//!
//! While one client writes a page, another may read it: the read may give what was there before, or what is being
//! written, and nothing else. So each page has a history, and each operation a span of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{BlockAddr, Snapshot};

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    Zeros,
    /// The bytes of this number.
    Tag(u64),
}

/// What a page became, by an operation that began and ended then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    state: State,
    begun: u64,
    ended: Option<u64>,
}

/// A block whose address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) address: BlockAddr,
    pub(super) tag: u64,
    pub(super) owner: usize,
}

/// What a checkpoint must hold. Of a page that was written while the cut was made, it may hold either.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut {
    pub(super) generation: u64,
    pub(super) cookie: Vec<u8>,
    pub(super) pages: BTreeMap<u64, Vec<State>>,
    /// Pages that could not be read before it was made: they may be there once the damage is gone, as a write to the
    /// wrong place is when the power goes.
    pub(super) unknown: BTreeSet<u64>,
    pub(super) blocks: Vec<Block>,
    /// Kept checkpoints by name, the oldest first.
    pub(super) kept: Vec<(String, Arc<Cut>)>,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) tick: u64,
    pub(super) pages: BTreeMap<u64, Vec<Entry>>,
    /// Pages that nobody can say anything of any more, since they could not be read.
    pub(super) unknown: BTreeSet<u64>,
    pub(super) owners: BTreeMap<u64, usize>,
    pub(super) blocks: Vec<Block>,
    pub(super) kept: Vec<(String, Arc<Cut>)>,
    /// Names to go with the next checkpoint.
    pub(super) drops: Vec<String>,
    pub(super) allocations_in_flight: u32,
    pub(super) checkpoint_runs: bool,
    pub(super) is_poisoned: bool,
    /// Checkpoints that a crash may leave: the last that is durable, and what was tried since.
    pub(super) candidates: Vec<Arc<Cut>>,
    /// All that were ever tried.
    pub(super) all: Vec<Arc<Cut>>,
    pub(super) next_tag: u64,
    pub(super) snapshots: Vec<(usize, Arc<Snapshot>, Arc<Cut>)>,
}

impl Oracle {
    /// A moment. Each is later than those before.
    pub(super) fn now(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    pub(super) fn tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
    }

    /// Something begins to become of a page.
    pub(super) fn begin(&mut self, page: u64, state: State) {
        let begun = self.now();
        let history = self.pages.entry(page).or_default();
        if history.len() > 64 {
            // No operation spans so many.
            history.drain(..32);
        }
        history.push(Entry { state, begun, ended: None });
    }

    /// It has, or nothing has.
    pub(super) fn end(&mut self, page: u64, has: bool) {
        let now = self.now();
        let Some(history) = self.pages.get_mut(&page) else { return };
        match history.last_mut() {
            Some(entry) if has => entry.ended = Some(now),
            _ => _ = history.pop(),
        }
    }

    /// A page that was found to be so.
    pub(super) fn settle(&mut self, page: u64, state: State) {
        self.pages.insert(page, vec![Entry { state, begun: 0, ended: Some(0) }]);
    }

    /// What a page may have been between two moments.
    pub(super) fn states(&self, page: u64, from: u64, to: u64) -> Vec<State> {
        let Some(history) = self.pages.get(&page) else { return vec![State::Absent] };
        let first = history.iter().rposition(|entry| entry.ended.is_some_and(|ended| ended < from));
        let mut states: Vec<_> = match first {
            Some(_) => Vec::new(),
            None => vec![State::Absent],
        };
        let later = history[first.unwrap_or(0)..].iter().filter(|entry| entry.begun <= to);
        states.extend(later.map(|entry| entry.state));
        states
    }

    fn is_live_now(&self, page: u64) -> bool {
        let last = self.pages.get(&page).and_then(|history| history.iter().rev().find(|entry| entry.ended.is_some()));
        last.is_some_and(|entry| entry.state != State::Absent)
    }

    /// Live pages that something is known of.
    pub(super) fn live(&self) -> Vec<u64> {
        self.pages.keys().copied().filter(|page| self.is_live_now(*page) && !self.unknown.contains(page)).collect()
    }

    /// Those of a client.
    pub(super) fn own(&self, client: usize) -> Vec<u64> {
        self.live().into_iter().filter(|page| self.owners.get(page) == Some(&client)).collect()
    }

    pub(super) fn page_end(&self) -> u64 {
        self.pages.last_key_value().map_or(0, |(page, _)| page + 1)
    }

    /// All that a cut made between two moments has.
    pub(super) fn cut(&self, from: u64, to: u64) -> Cut {
        let states = |page: &u64| (*page, self.states(*page, from, to));
        let known = self.pages.keys().filter(|page| !self.unknown.contains(page));
        Cut {
            pages: known.map(states).collect(),
            unknown: self.unknown.clone(),
            blocks: self.blocks.clone(),
            kept: self.kept.iter().filter(|(name, _)| !self.drops.contains(name)).cloned().collect(),
            ..Cut::default()
        }
    }
}

/// The bytes of a tag.
pub(super) fn bytes_of(tag: u64, len: usize) -> Vec<u8> {
    let mut word = tag;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(word.to_le_bytes());
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
    bytes.truncate(len);
    bytes
}

/// Whether these are a page's bytes in one of the states; which.
pub(super) fn state_of(bytes: &[u8], states: &[State]) -> Option<State> {
    let is = |state: &&State| match **state {
        State::Absent => false,
        State::Zeros => bytes.iter().all(|byte| *byte == 0),
        State::Tag(tag) => {
            bytes[..8.min(bytes.len())] == tag.to_le_bytes()[..8.min(bytes.len())]
                && bytes == bytes_of(tag, bytes.len())
        }
    };
    states.iter().find(is).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_sees_what_is_there_or_what_comes() {
        let mut oracle = Oracle::default();
        oracle.begin(3, State::Zeros);
        oracle.end(3, true);
        let from = oracle.now();
        assert_eq!(oracle.states(3, from, from), [State::Zeros]);
        oracle.begin(3, State::Tag(1));
        let during = oracle.now();
        assert_eq!(oracle.states(3, from, from), [State::Zeros]);
        assert_eq!(oracle.states(3, from, during), [State::Zeros, State::Tag(1)]);
        oracle.end(3, true);
        oracle.begin(3, State::Tag(2));
        let late = oracle.now();
        assert_eq!(oracle.states(3, during, late), [State::Zeros, State::Tag(1), State::Tag(2)]);
        assert_eq!(oracle.states(3, late, late), [State::Tag(1), State::Tag(2)]);
        oracle.end(3, false);
        let now = oracle.now();
        assert_eq!(oracle.states(3, now, now), [State::Tag(1)]);
        assert_eq!(oracle.states(4, now, now), [State::Absent]);
        assert_eq!((oracle.live(), oracle.page_end()), (vec![3], 4));
    }

    #[test]
    fn bytes_tell_their_tag() {
        let bytes = bytes_of(9, 700);
        assert_eq!(state_of(&bytes, &[State::Zeros, State::Tag(8), State::Tag(9)]), Some(State::Tag(9)));
        assert_eq!(state_of(&bytes, &[State::Zeros, State::Tag(8)]), None);
        let mut other = bytes;
        other[699] ^= 1;
        assert_eq!(state_of(&other, &[State::Tag(9)]), None);
        assert_eq!(state_of(&[0; 16], &[State::Absent, State::Zeros]), Some(State::Zeros));
    }
}
