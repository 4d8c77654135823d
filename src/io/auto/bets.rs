//! Whether reading regions whole has paid lately.
//!
//! To read a region whole is a bet that it will be read much more. Whoever knows nothing does best to place it when
//! single reads have cost about as much (rent or buy), and then loses a factor at most. But whether such bets were won
//! can be seen: a region that was read whole is used, or it is not. Where nearly all of the last ones were, the next is
//! placed at the first read.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// So many can be open, their regions not used yet. With one more, the oldest is lost.
const OPEN_MAX: usize = 8;
/// A bet that was lost counts as many as were won: the next is placed at once where four of five are won.
const LOST: u32 = 4;
const SCORE_MAX: u32 = 8;
const SCORE_GOOD: u32 = 4;

/// The regions that were read whole last, and what became of those before them.
#[derive(Debug, Default)]
pub(super) struct Bets(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    open: VecDeque<u64>,
    score: u32,
}

impl Bets {
    /// A region was read whole.
    pub(super) fn placed(&self, region: u64) {
        let mut recent = self.0.lock();
        if recent.open.len() >= OPEN_MAX {
            recent.open.pop_front();
            recent.score = recent.score.saturating_sub(LOST);
        }
        recent.open.push_back(region);
    }

    /// Whether the next bet will most likely be won. `is_used` says of a region that was read whole whether it was read
    /// since. Not while another thread asks.
    pub(super) fn are_good(&self, is_used: impl Fn(u64) -> bool) -> bool {
        self.0.try_lock().is_some_and(|mut recent| {
            let open = recent.open.len();
            recent.open.retain(|region| !is_used(*region));
            let won = open - recent.open.len();
            recent.score = (recent.score + won as u32).min(SCORE_MAX);
            recent.score >= SCORE_GOOD
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_won_counts_until_much_is_lost() {
        let bets = Bets::default();
        assert!(!bets.are_good(|_| true), "nothing is known");
        (0..4).for_each(|region| bets.placed(region));
        assert!(!bets.are_good(|_| false));
        assert!(!bets.are_good(|region| region < 3));
        assert!(bets.are_good(|_| true));
        // Open ones are neither won nor lost.
        (10..18).for_each(|region| bets.placed(region));
        assert!(bets.are_good(|_| false));
        bets.placed(18);
        assert!(!bets.are_good(|_| false), "one of eight was lost");
        assert!(bets.are_good(|region| region > 12), "and the others won");
    }

    #[test]
    fn nine_of_ten_are_enough_and_three_are_not() {
        let won_of_ten = |won: u64| {
            let bets = Bets::default();
            let is_won = move |region: u64| region % 10 < won;
            let good = (0..1000).filter(|region| {
                bets.placed(*region);
                bets.are_good(is_won)
            });
            good.count()
        };
        assert!(won_of_ten(9) > 900);
        assert!(won_of_ten(3) < 100);
    }
}
