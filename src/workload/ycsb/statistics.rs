//! Whether one configuration is faster than another, as far as their rounds say.
//!
//! The rounds are pairs: in each, one follows the other on the same machine a few seconds later, so what changes slowly
//! is the same for both. The logarithms of the pairs' ratios are taken for independent draws around the true one, and
//! Student's t gives an interval for it. Where several comparisons are made, each interval is the wider for it
//! (Bonferroni), so that all of them hold together 95 times in 100. A difference is called one only where its interval
//! leaves out 1, from three rounds on.

use serde::{Deserialize, Serialize};

use crate::workload::summary::Spread;

/// How sure all intervals together are.
pub const CONFIDENCE: f64 = 0.95;
/// Fewer rounds never show a difference.
pub const ROUNDS_MIN: usize = 3;

/// What rounds say about a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Of the rounds' ratios.
    pub spread: Spread,
    /// Their geometric mean.
    pub mean: f64,
    /// Where the true ratio is. Nothing for a single round.
    pub interval: Option<(f64, f64)>,
    /// What can be said.
    pub verdict: Verdict,
}

/// What can be said of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is above 1.
    Above,
    /// It is below 1.
    Below,
    /// The interval has 1 in it: the rounds differ too much to tell.
    NotShown,
    /// There are too few rounds to say anything.
    TooFewRounds,
}

impl Ratio {
    /// Of pairs of one configuration's figure and the other's, all above 0, where `comparisons` are made at once.
    #[must_use]
    pub fn of(pairs: &[(f64, f64)], comparisons: usize) -> Option<Ratio> {
        let pairs: Vec<_> = pairs.iter().filter(|(one, other)| *one > 0.0 && *other > 0.0).collect();
        let logs: Vec<f64> = pairs.iter().map(|(one, other)| (one / other).ln()).collect();
        let spread = Spread::of(logs.iter().map(|log| log.exp()))?;
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let interval = (logs.len() > 1).then(|| {
            let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
            let outside = (1.0 - CONFIDENCE) / comparisons.max(1) as f64;
            let half = student_t(1.0 - outside / 2.0, logs.len() - 1) * (variance / count).sqrt();
            ((mean - half).exp(), (mean + half).exp())
        });
        let verdict = match interval {
            _ if logs.len() < ROUNDS_MIN => Verdict::TooFewRounds,
            Some((low, _)) if low > 1.0 => Verdict::Above,
            Some((_, high)) if high < 1.0 => Verdict::Below,
            _ => Verdict::NotShown,
        };
        Some(Ratio { spread, mean: mean.exp(), interval, verdict })
    }
}

/// The value that Student's t with so many degrees of freedom is below with this chance, of a half at least.
fn student_t(chance: f64, freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while student_chance(high, freedom) < chance && high < 1e12 {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if student_chance(middle, freedom) < chance { low = middle } else { high = middle }
    }
    high
}

/// The chance that Student's t is below a value: the finite sums for whole degrees of freedom (Abramowitz and Stegun,
/// 26.7.3 and 26.7.4).
fn student_chance(value: f64, freedom: usize) -> f64 {
    let angle = (value / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    let mut term = if odd { cosine } else { 1.0 };
    let (mut sum, mut step) = (0.0, if odd { 1 } else { 0 });
    while step + 2 <= freedom {
        sum += term;
        let k = step as f64;
        term *= cosine * cosine * (k + 1.0) / (k + 2.0);
        step += 2;
    }
    let within = if odd { (angle + sine * sum) * 2.0 / std::f64::consts::PI } else { sine * sum };
    0.5 + within / 2.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    /// From the tables that everyone has.
    #[test]
    fn students_t_is_as_in_tables() {
        for (freedom, chance, expected) in [
            (1, 0.975, 12.706),
            (2, 0.975, 4.303),
            (3, 0.975, 3.182),
            (4, 0.975, 2.776),
            (5, 0.975, 2.571),
            (9, 0.975, 2.262),
            (30, 0.975, 2.042),
            (4, 0.995, 4.604),
            (7, 0.9995, 5.408),
        ] {
            let found = student_t(chance, freedom);
            assert!((found - expected).abs() < 6e-4, "t({chance}, {freedom}) = {found}, expected {expected}");
        }
    }

    #[test]
    fn a_clear_difference_is_called_and_noise_is_not() {
        let ratio = Ratio::of(&[(2.0, 1.0), (2.1, 1.0), (1.9, 1.0), (2.0, 1.02)], 1).unwrap();
        assert_eq!(ratio.verdict, Verdict::Above);
        assert!(ratio.interval.unwrap().0 > 1.8 && ratio.interval.unwrap().1 < 2.2, "{ratio:?}");
        let noise = Ratio::of(&[(1.3, 1.0), (0.8, 1.0), (1.1, 1.0), (1.2, 1.0)], 1).unwrap();
        assert_eq!(noise.verdict, Verdict::NotShown);
        assert_eq!(Ratio::of(&[(1.0, 2.0), (1.0, 2.0), (1.0, 2.01)], 1).unwrap().verdict, Verdict::Below);
        let few = Ratio::of(&[(2.0, 1.0), (2.0, 1.0)], 1).unwrap();
        assert_eq!((few.verdict, few.spread.median), (Verdict::TooFewRounds, 2.0));
        assert!(Ratio::of(&[(2.0, 1.0)], 1).unwrap().interval.is_none());
        assert_eq!(Ratio::of(&[], 1), None);
    }

    /// Of configurations that are the same, a difference is called as rarely as is promised: with five comparisons at
    /// once, in about 5 of 100 runs any of them.
    #[test]
    fn nothing_is_called_where_nothing_is() {
        let mut rng = SmallRng::seed_from_u64(4);
        let mut noisy = || 1.0 + 0.1 * (0..12).map(|_| rng.random::<f64>() - 0.5).sum::<f64>();
        let called = (0..2000).filter(|_| {
            (0..5).any(|_| {
                let pairs: Vec<_> = (0..5).map(|_| (noisy(), noisy())).collect();
                matches!(Ratio::of(&pairs, 5).unwrap().verdict, Verdict::Above | Verdict::Below)
            })
        });
        let share = called.count() as f64 / 2000.0;
        assert!((0.02..0.08).contains(&share), "{share}");
    }
}
