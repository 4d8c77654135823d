//! W-TinyLFU with learned admission: a window for what is new, a main list, and a contest between them.
//!
//! What is new passes through a small window. The block that drops out of it, the candidate, is compared with the
//! block that the main list would give up, and the less worthy one leaves. In the published policy the one that a
//! sketch counted more often wins, and the window's size is adapted so that recency gets its share. Here the contest
//! itself is learned. Blocks are sorted into classes: which list they come from, how often
//! they were hit since the last look, and how often the sketch has counted them. For each class the policy keeps a
//! running mean of how many of its blocks were used again within one round of the hand; the class with more wins.
//!
//! The outcome is known whichever way a contest ends. A block that stayed has hits, or none, when the hand comes round.
//! A block that left is remembered in a ghost table for as long; to save memory, only a sample of them is in a large
//! cache, and each counts for as many. Both must weigh the same: if they do not, the mean of a class follows the
//! contests' outcomes instead of the requests, and the policy can stay with a wrong choice, as on a loop a little
//! longer than the cache. A second mean over fewer outcomes notices when the load changes.
//!
//! The window's size follows from the same outcomes. A window twice as long would have hit the blocks that came back
//! within its length after they left it. As many blocks of the main list's end would be gone for it, and what they are
//! worth is known. The window moves to where the two are equal: to nothing in a loop, to its most where what is new is
//! used again soon.
//!
//! So a candidate has to be used again more than what is there, in this load: on a loop all are equal and the main
//! list stays as it is; in a scan the candidates are never used again; when the working set moves on, frequent blocks
//! of the past turn out to be worth nothing, and new ones come in at once.

use super::ghost::{Ghost, mix};
use super::list::{Links, List, NONE, at};
use super::sketch::Sketch;
use super::{Policy, PolicyCounts, Residents};

/// The window's share of the capacity: at first, and its bounds.
const WINDOW_SHARE: f32 = 0.01;
const WINDOW_SHARE_MIN: f32 = 0.003;
const WINDOW_SHARE_MAX: f32 = 0.1;
/// What one step makes of it. There are this many steps while as many blocks come in as there are, but not more often
/// than that many blocks.
const WINDOW_STEP: f32 = 1.1;
const WINDOW_STEPS: u64 = 4;
const WINDOW_STEP_BLOCKS_MIN: u64 = 250;
/// The window grows while it gains more than this part of what the main list loses: many of the blocks that the main
/// list would lose are replaced by better ones anyway.
const WINDOW_PRICE: f32 = 0.7;
/// The window has room for one of the largest blocks even so, up to this part: what comes in must not drain it, or the
/// main list has to make room without a contest.
const WINDOW_PART_MAX: u64 = 10;
/// Blocks that the hand passes at most for one candidate.
const LOOKS_MAX: usize = 10;
/// Further candidates that must lose against a block before the hand goes on. A slow hand tells rarely used blocks from
/// unused ones; it is fast again as soon as candidates win.
const DEFENCES: u8 = 4;
/// Of at most as many blocks that leave, one is remembered: the slowest hand's round is about as many times the main
/// list.
const GHOST_SAMPLE_MAX: u64 = (1 + DEFENCES as u64).next_power_of_two();
/// Blocks that are remembered in a small cache, where a sample would be too few to learn from.
const GHOST_BLOCKS_MIN: u64 = 800;
/// How much one outcome moves the mean of its class; and the mean that is to notice a change, where all that leave are
/// remembered. With a sample, whose outcomes weigh more, it has to be slower by as much.
const RATE: f32 = 1.0 / 400.0;
/// Of the first outcomes each counts for two, so that what is assumed at first is soon forgotten.
const FIRST_OUTCOMES: u32 = 10_000;
const RATE_RECENT: f32 = 1.0 / 16.0;
/// The load has changed for a class when its two means are apart by more than chance.
const CHANGED: f32 = 0.35;
/// How much one contest moves the mean worth of opponents.
const OPPONENT_RATE: f32 = 1.0 / 200.0;
/// A candidate must be better by this: between equals, moving is a loss.
const MARGIN: f32 = 0.02;
/// Hits from here on are the same to a class.
const HITS_MAX: u8 = 3;

/// A class has a frequency in its lowest 3 bits, hits in the next 2, and then whether it is of the main list.
const CLASSES: usize = 64;
const CLASS_HITS_SHIFT: u32 = 3;
const LEVEL_MAX: u8 = 7;
const CLASS_MAIN: u8 = 1 << 5;
/// In a block's tag, beside its class: it is in the main list.
const IN_MAIN: u8 = 1 << 7;
/// It is a candidate: its hits were taken, and the class is what they made of it.
const CONTENDS: u8 = 1 << 6;

/// Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM Transactions on Storage
/// 2017. Einziger, Eytan, Friedman and Manes, "Adaptive Software Cache Management", Middleware 2018, adapt the window
/// by trying whether another size has more hits.
#[derive(Debug)]
pub(crate) struct WTinyLfu {
    capacity_units: u64,
    window_units: u64,
    window_share: f32,
    /// Since the window's last step: blocks that came in, and those that a window twice as long would have kept.
    step_inserts: u64,
    step_returns: u64,
    /// The mean worth of those that candidates are compared with.
    opponents_worth: f32,
    /// The most that a block cost so far.
    cost_max: u32,
    links: Links,
    window: List,
    /// The oldest is where the hand is.
    main: List,
    /// The class that a block had at the last look, with [`IN_MAIN`] or [`CONTENDS`].
    tags: Vec<u8>,
    sketch: Sketch,
    ghost: Ghost,
    /// Of as many blocks that leave, one is remembered. A power of two.
    ghost_sample: u64,
    /// For each class, how many of its blocks are used again within a round.
    worth: [f32; CLASSES],
    /// The same over fewer outcomes.
    recent: [f32; CLASSES],
    /// Outcomes that were learned from.
    outcomes: u32,
    /// Blocks that came in.
    time: u64,
    /// Blocks that came in and blocks that the hand passed lately: their ratio is the hand's pace.
    paced_inserts: u64,
    paced_looks: u64,
    /// Candidates that the block at the hand is still to be compared with; not 0 only if it was looked at.
    defences_left: u8,
    counts: PolicyCounts,
}

/// A class's part for a frequency.
fn level(frequency: u64) -> u8 {
    match frequency {
        0..=1 => 0,
        2 => 1,
        3 => 2,
        4..=5 => 3,
        6..=7 => 4,
        8..=10 => 5,
        11..=14 => 6,
        _ => LEVEL_MAX,
    }
}

impl WTinyLfu {
    pub(crate) fn new() -> Self {
        // Until more is known: what was not hit in its round gives way to most of what is new.
        let mut worth = [0.5; CLASSES];
        for (class, worth) in (0..).zip(&mut worth).skip(usize::from(CLASS_MAIN)) {
            *worth = if class >> CLASS_HITS_SHIFT & HITS_MAX == 0 { f32::from(class & LEVEL_MAX) / 10.0 } else { 1.0 };
        }
        WTinyLfu {
            capacity_units: 0,
            window_units: 0,
            window_share: WINDOW_SHARE,
            step_inserts: 0,
            step_returns: 0,
            opponents_worth: 0.3,
            cost_max: 0,
            links: Links::default(),
            window: List::new(),
            main: List::new(),
            tags: Vec::new(),
            sketch: Sketch::new(),
            ghost: Ghost::new(),
            ghost_sample: 1,
            worth,
            recent: worth,
            outcomes: 0,
            time: 0,
            paced_inserts: 0,
            paced_looks: 0,
            defences_left: 0,
            counts: PolicyCounts::default(),
        }
    }

    /// Blocks that come in while the hand goes round once.
    fn round(&self) -> u64 {
        self.paced_inserts * u64::from(self.main.len) / self.paced_looks.max(1)
    }

    /// Takes an outcome that stands for `weight` alike into the mean of its class.
    fn learn(&mut self, class: u8, used: bool, weight: u64) {
        let (worth, recent) = (&mut self.worth[usize::from(class)], &mut self.recent[usize::from(class)]);
        let (used, weight) = (f32::from(u8::from(used)), weight as f32);
        let rate = if self.outcomes < FIRST_OUTCOMES { 2.0 * RATE } else { RATE };
        self.outcomes = self.outcomes.saturating_add(1);
        *worth += (used - *worth) * rate * weight;
        *recent += (used - *recent) * RATE_RECENT * weight / self.ghost_sample as f32;
        if (*worth - *recent).abs() > CHANGED {
            *worth = *recent;
        }
    }

    /// Whether a block is one of those that the ghost table remembers.
    fn is_sampled(&self, mixed: u64) -> bool {
        mixed >> 24 & (self.ghost_sample - 1) == 0
    }

    /// Makes room to remember a round's blocks, or the half in a large cache: the slowest rounds are rare.
    fn cover_ghost(&mut self, blocks: u64) {
        let round = blocks * GHOST_SAMPLE_MAX;
        self.ghost_sample = round.div_ceil(GHOST_BLOCKS_MIN).next_power_of_two().min(GHOST_SAMPLE_MAX);
        self.ghost.cover((round / self.ghost_sample).min(GHOST_BLOCKS_MIN.max(blocks / 2)) as usize);
    }

    /// Takes a block's hits into the sketch. Its part of a class that depends on use.
    fn use_class(&mut self, slot: u32, residents: &dyn Residents) -> u8 {
        let hits = residents.hits(slot).min(HITS_MAX);
        let mixed = mix(residents.hash(slot));
        if hits == 0 {
            return level(self.sketch.estimate(mixed));
        }
        residents.set_hits(slot, 0);
        hits << CLASS_HITS_SHIFT | level(self.sketch.add(mixed, u64::from(hits)))
    }

    /// Looks at a block of the main list: how its last class did, and its class now. Whether it was hit since.
    fn look(&mut self, slot: u32, residents: &dyn Residents) -> bool {
        let class = CLASS_MAIN | self.use_class(slot, residents);
        let hit = class >> CLASS_HITS_SHIFT & HITS_MAX != 0;
        self.learn(self.tags[at(slot)] & !IN_MAIN, hit, 1);
        self.tags[at(slot)] = IN_MAIN | class;
        self.paced_looks += 1;
        hit
    }

    fn unlink(&mut self, slot: u32, residents: &dyn Residents) {
        if slot == self.main.oldest {
            self.defences_left = 0;
        }
        let list = if self.tags[at(slot)] & IN_MAIN == 0 { &mut self.window } else { &mut self.main };
        self.links.unlink(list, slot, residents.cost(slot));
    }

    fn rotate(&mut self) {
        self.defences_left = 0;
        self.links.rotate(&mut self.main);
    }

    /// Moves a candidate of this class to the main list.
    fn admit(&mut self, slot: u32, class: u8, residents: &dyn Residents) {
        self.unlink(slot, residents);
        self.tags[at(slot)] = IN_MAIN | class;
        self.links.push(&mut self.main, slot, residents.cost(slot));
    }

    /// Takes a block of this class out for good, and remembers it.
    fn leave(&mut self, slot: u32, class: u8, residents: &dyn Residents) -> u32 {
        self.unlink(slot, residents);
        let mixed = mix(residents.hash(slot));
        if self.is_sampled(mixed)
            && let Some(old) = self.ghost.put(mixed, class, self.time)
            && old.age > self.round()
        {
            self.learn(old.tag, false, self.ghost_sample);
        }
        slot
    }

    /// Moves the hand on to a block to compare a candidate with: one that was not hit, or the least worthy of
    /// [`LOOKS_MAX`].
    fn opponent(&mut self, residents: &dyn Residents) -> Option<u32> {
        let mut least: Option<u32> = None;
        for _ in 0..LOOKS_MAX {
            let slot = self.main.oldest;
            if slot == NONE {
                break;
            }
            if self.defences_left > 0 && residents.hits(slot) == 0 {
                self.defences_left -= 1;
                return Some(slot);
            }
            let hit = self.look(slot, residents);
            if least.is_none_or(|least| self.worth_of(slot) < self.worth_of(least)) {
                least = Some(slot);
            }
            if !hit {
                self.defences_left = DEFENCES;
                break;
            }
            self.rotate();
        }
        least
    }

    /// The class of the window's oldest block. One that is large and has to win against several keeps what it has.
    fn candidate_class(&mut self, slot: u32, residents: &dyn Residents) -> u8 {
        if self.tags[at(slot)] & CONTENDS == 0 {
            self.tags[at(slot)] = CONTENDS | self.use_class(slot, residents);
        }
        self.tags[at(slot)] & !CONTENDS
    }

    fn fits_main(&self, slot: u32, residents: &dyn Residents) -> bool {
        self.main.units + u64::from(residents.cost(slot)) + self.window_units.max(1) <= self.capacity_units
    }

    fn set_window(&mut self) {
        let large = u64::from(self.cost_max).min(self.capacity_units / WINDOW_PART_MAX);
        self.window_units = large.max((self.capacity_units as f64 * f64::from(self.window_share)) as u64);
    }

    /// Makes the window longer or shorter, by what that would have been worth since the last step.
    fn step_window(&mut self) {
        // Hits for each block that came in.
        let gain = self.step_returns as f32 / self.step_inserts as f32;
        let loss = self.window.len as f32 * self.opponents_worth / self.round().max(1) as f32;
        (self.step_inserts, self.step_returns) = (0, 0);
        let factor = if gain > loss * WINDOW_PRICE { WINDOW_STEP } else { 1.0 / WINDOW_STEP };
        self.window_share = (self.window_share * factor).clamp(WINDOW_SHARE_MIN, WINDOW_SHARE_MAX);
        self.set_window();
    }

    fn worth_of(&self, slot: u32) -> f32 {
        self.worth[usize::from(self.tags[at(slot)]) % CLASSES]
    }

    /// Takes out the next block of the main list that was not hit since the hand came by.
    fn evict_main(&mut self, residents: &dyn Residents) -> Option<u32> {
        // Hits that come in meanwhile must not keep this going.
        for _ in 0..self.main.len {
            let slot = self.main.oldest;
            if !self.look(slot, residents) {
                break;
            }
            self.rotate();
        }
        let slot = self.main.oldest;
        (slot != NONE).then(|| self.leave(slot, self.tags[at(slot)] & !IN_MAIN, residents))
    }
}

impl Policy for WTinyLfu {
    fn hits_max(&self) -> u8 {
        HITS_MAX
    }

    fn set_capacity(&mut self, units: u64) {
        self.capacity_units = units;
        self.set_window();
    }

    fn insert(&mut self, slot: u32, residents: &dyn Residents) {
        self.links.cover(slot);
        if at(slot) >= self.tags.len() {
            self.tags.resize(at(slot) + 1, 0);
            self.sketch.cover(self.tags.len());
            self.cover_ghost(self.tags.len() as u64);
        }
        residents.set_hits(slot, 0);
        if residents.cost(slot) > self.cost_max {
            self.cost_max = residents.cost(slot);
            self.set_window();
        }
        self.time += 1;
        self.paced_inserts += 1;
        if self.paced_inserts >= u64::from(self.main.len.max(64)) {
            self.paced_inserts /= 2;
            self.paced_looks /= 2;
        }
        let mixed = mix(residents.hash(slot));
        if self.is_sampled(mixed)
            && let Some(known) = self.ghost.take(mixed, self.time)
        {
            let used = known.age <= self.round();
            self.counts.ghost_hits += u64::from(used);
            self.learn(known.tag, used, self.ghost_sample);
            if known.tag & CLASS_MAIN == 0 && known.age <= u64::from(self.window.len) {
                self.step_returns += self.ghost_sample;
            }
        }
        self.step_inserts += 1;
        let step = u64::from(self.main.len + self.window.len) / WINDOW_STEPS;
        if self.step_inserts >= step.max(WINDOW_STEP_BLOCKS_MIN) {
            self.step_window();
        }
        self.sketch.add(mixed, 1);
        self.tags[at(slot)] = 0;
        self.links.push(&mut self.window, slot, residents.cost(slot));
    }

    fn evict(&mut self, residents: &dyn Residents) -> Option<u32> {
        loop {
            let candidate = self.window.oldest;
            let main_is_over = self.main.units + self.window_units > self.capacity_units;
            if candidate == NONE || self.window.units < self.window_units && main_is_over {
                return self.evict_main(residents);
            }
            let class = self.candidate_class(candidate, residents);
            if self.fits_main(candidate, residents) {
                self.admit(candidate, class, residents);
                continue;
            }
            if let Some(opponent) = self.opponent(residents) {
                self.opponents_worth += (self.worth_of(opponent) - self.opponents_worth) * OPPONENT_RATE;
                if self.worth[usize::from(class)] > self.worth_of(opponent) + MARGIN {
                    self.leave(opponent, self.tags[at(opponent)] & !IN_MAIN, residents);
                    if self.fits_main(candidate, residents) {
                        self.admit(candidate, class, residents);
                    }
                    return Some(opponent);
                }
                if self.defences_left == 0 && opponent == self.main.oldest {
                    self.rotate();
                }
            }
            self.counts.refusals += 1;
            return Some(self.leave(candidate, class, residents));
        }
    }

    fn keep(&mut self, slot: u32, residents: &dyn Residents) {
        // It did not leave, so its coming back says nothing.
        self.ghost.take(mix(residents.hash(slot)), self.time);
        self.tags[at(slot)] = IN_MAIN | self.tags[at(slot)] & !CONTENDS;
        self.links.push(&mut self.main, slot, residents.cost(slot));
    }

    fn remove(&mut self, slot: u32, residents: &dyn Residents) {
        self.unlink(slot, residents);
    }

    fn counts(&self) -> PolicyCounts {
        self.counts
    }

    fn memory_bytes(&self) -> u64 {
        self.links.memory_bytes() + self.tags.capacity() as u64 + self.sketch.memory_bytes() + self.ghost.memory_bytes()
    }

    fn validate(&self, residents: &dyn Residents) -> Result<Vec<u32>, String> {
        let mut slots = self.links.validate(&self.window, residents)?;
        let main = self.links.validate(&self.main, residents)?;
        let in_main = |slot: &u32| self.tags[at(*slot)] & IN_MAIN != 0;
        if slots.iter().any(in_main) || !main.iter().all(in_main) {
            return Err("a block is in one list and marked as in the other".to_owned());
        }
        slots.extend(main);
        Ok(slots)
    }
}
