//! The bytes of a simulated file, and what a crash leaves of them.
//!
//! # What a crash leaves
//!
//! All that came before the last sync that succeeded. Of what came after it, each sector of 512 bytes of each write
//! may be there or not, independently: where writes overlap, the older one may be what stays, so that is every order
//! of them too. One sector may be torn: a part of it new, a part old, or a part that is neither. The length is any that
//! the file had since the sync, and bytes that came with a length and no write are zeros.
//!
//! The crash tests have this file too, so it uses nothing of the crate.
#![allow(dead_code, reason = "who includes it takes what it needs")]

use std::ops::Range;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

pub(crate) const SECTOR: usize = 512;
const CHUNK: usize = 4096;

/// Where the store writes its slots.
pub(crate) const SLOTS: Range<u64> = 8192..24576;

/// The bytes of a file. Copies share what they have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    len: u64,
    /// What is not there is zeros.
    chunks: Vec<Option<Arc<[u8; CHUNK]>>>,
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The range is inside the file.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) {
        each_chunk(offset, buf.len(), |index, within, part| match self.chunks.get(index).and_then(Option::as_ref) {
            Some(chunk) => buf[part].copy_from_slice(&chunk[within]),
            None => buf[part].fill(0),
        });
    }

    /// Makes the file longer where it must.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.len = self.len.max(offset + bytes.len() as u64);
        self.chunks.resize(self.chunks.len().max((self.len as usize).div_ceil(CHUNK)), None);
        each_chunk(offset, bytes.len(), |index, within, part| {
            Arc::make_mut(self.chunks[index].get_or_insert_with(|| Arc::new([0; CHUNK])))[within]
                .copy_from_slice(&bytes[part]);
        });
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.chunks.resize((len as usize).div_ceil(CHUNK), None);
        let tail = len as usize % CHUNK;
        if len < self.len
            && tail > 0
            && let Some(Some(chunk)) = self.chunks.last_mut()
        {
            // They are zeros when the file grows again.
            Arc::make_mut(chunk)[tail..].fill(0);
        }
        self.len = len;
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(0, &mut bytes);
        bytes
    }
}

fn each_chunk(offset: u64, len: usize, mut part: impl FnMut(usize, Range<usize>, Range<usize>)) {
    let (offset, mut at) = (offset as usize, 0);
    while at < len {
        let (index, from) = ((offset + at) / CHUNK, (offset + at) % CHUNK);
        let count = (CHUNK - from).min(len - at);
        part(index, from..from + count, at..at + count);
        at += count;
    }
}

/// What was done to the file.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write {
        offset: u64,
        bytes: Arc<[u8]>,
    },
    SetLen(u64),
    /// A length that was longer than the file.
    Reserve(u64),
    Sync,
    /// A sync that failed; whether the system forgot the writes before it.
    FailedSync {
        forgot: bool,
    },
}

impl Step {
    pub(crate) fn is_slot_write(&self) -> bool {
        matches!(self, Step::Write { offset, .. } if SLOTS.contains(offset))
    }
}

/// What a crash does with the writes that nothing made durable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    All,
    Nothing,
    /// Of writes, only the last is there.
    AllButTheLast,
    /// This sector of the last write is not there, and everything else is.
    Sector(usize),
    /// Any, by this seed.
    Random(u64),
}

/// What is left of `waiting` after a crash, on top of what is durable.
pub(crate) fn drop_some(mut content: Content, waiting: &[Step], loss: Loss) -> Content {
    let last_write = waiting.iter().rposition(|step| matches!(step, Step::Write { .. }));
    let (mut rng, share) = match loss {
        Loss::Random(seed) => {
            let mut rng = SmallRng::seed_from_u64(seed);
            let share = [0.03, 0.2, 0.5, 0.8, 0.97][rng.random_range(0..5)];
            (rng, share)
        }
        _ => (SmallRng::seed_from_u64(0), 0.0),
    };
    let lengths = 1 + waiting.iter().filter(|step| !matches!(step, Step::Sync)).count();
    // Lengths change in the order in which they were asked for.
    let mut lengths_left = match loss {
        Loss::All => 0,
        Loss::Random(_) if rng.random_bool(0.5) => rng.random_range(0..lengths),
        _ => lengths,
    };
    let mut len = content.len();
    let mut torn = false;
    for (index, step) in waiting.iter().enumerate() {
        let in_length = lengths_left > 0;
        lengths_left -= usize::from(in_length);
        match step {
            Step::SetLen(to) if in_length => {
                content.set_len(*to);
                len = *to;
            }
            Step::Reserve(to) if in_length => len = len.max(*to),
            Step::Write { offset, bytes } => {
                if in_length {
                    len = len.max(offset + bytes.len() as u64);
                }
                let whole_write = matches!(loss, Loss::Random(_)) && rng.random_bool(0.3);
                let write_stays = rng.random_bool(share);
                for (sector, (at, part)) in sectors(*offset, bytes).enumerate() {
                    let stays = match loss {
                        Loss::All => false,
                        Loss::Nothing => true,
                        Loss::AllButTheLast => Some(index) == last_write,
                        Loss::Sector(lost) => Some(index) != last_write || sector != lost,
                        Loss::Random(_) if whole_write => write_stays,
                        Loss::Random(_) => rng.random_bool(share),
                    };
                    if !stays {
                        continue;
                    }
                    if matches!(loss, Loss::Random(_)) && !torn && rng.random_bool(0.02) {
                        torn = true;
                        let end = rng.random_range(0..part.len());
                        content.write(at, &part[..end]);
                        if rng.random() {
                            let garbage: Vec<u8> = (end..part.len()).map(|_| rng.random()).collect();
                            content.write(at + end as u64, &garbage);
                        }
                        continue;
                    }
                    content.write(at, part);
                }
            }
            _ => {}
        }
    }
    // What came to a place that the file does not reach is not there.
    content.set_len(content.len().min(len));
    content.set_len(len);
    content
}

/// The parts of a write that are in one sector each.
pub(crate) fn sectors(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let first = (SECTOR - offset as usize % SECTOR).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let parts = std::iter::once(head).chain(rest.chunks(SECTOR));
    let mut at = offset;
    parts.map(move |part| {
        let found = (at, part);
        at += part.len() as u64;
        found
    })
}
