//! Zipfian ranks as YCSB draws them.
//!
//! For exponents below 1 it is the method of Gray et al. ("Quickly generating billion-record synthetic databases",
//! SIGMOD 1994): exact for the first two ranks, an approximation for the others. Frequencies are those of YCSB's
//! generators therefore, not those of a true Zipf distribution, from which they differ by a few percent from the third
//! rank on. From 1 on the method has no answer, and `rand_distr`'s `Zipf`, which is exact, is used.
//!
//! YCSB adds up the zeta function term by term, which takes minutes for ten billion ranks, unless the exponent is 0.99,
//! for which it has the sum as a constant. Here the sum is had at once by the Euler-Maclaurin formula.

use std::array;

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Zipf};

/// Terms that are added up one by one. Behind them the formula's error is below 1e-16 of the sum.
const TERMS_ADDED: u64 = 64;

/// The sum of `1 / n^theta` for `n` from 1 to `count`.
#[must_use]
pub fn zeta(count: u64, theta: f64) -> f64 {
    zeta_behind(first_terms(count, theta), count, theta)
}

fn first_terms(count: u64, theta: f64) -> f64 {
    (1..=count.min(TERMS_ADDED)).map(|n| (n as f64).powf(-theta)).sum()
}

/// The sum, where that of its first terms is known.
fn zeta_behind(added: f64, count: u64, theta: f64) -> f64 {
    let term = |n: f64| n.powf(-theta);
    if count <= TERMS_ADDED {
        return added;
    }
    let (first, last) = ((TERMS_ADDED + 1) as f64, count as f64);
    let integral = if (theta - 1.0).abs() < 1e-12 {
        (last / first).ln()
    } else {
        (last.powf(1.0 - theta) - first.powf(1.0 - theta)) / (1.0 - theta)
    };
    // The ends, the first and the third derivative.
    let slope = theta * (term(first) / first - term(last) / last) / 12.0;
    let third = |n: f64| theta * (theta + 1.0) * (theta + 2.0) * term(n) / n.powi(3);
    added + integral + f64::midpoint(term(first), term(last)) + slope - (third(first) - third(last)) / 720.0
}

/// Draws ranks from 0 on, of a number of items that may grow.
#[derive(Clone, Debug)]
pub struct Ranks {
    theta: f64,
    items: u64,
    method: Method,
}

#[derive(Clone, Debug)]
enum Method {
    Gray { first_terms: f64, zeta_items: f64, eta: f64, second: f64, power: Power },
    Exact(Zipf<f64>),
}

impl Ranks {
    /// Of so many items, at least one, with an exponent above 0.
    #[must_use]
    pub fn new(items: u64, theta: f64) -> Ranks {
        let items = items.max(1);
        Ranks { theta, items, method: Method::new(items, theta, first_terms(items, theta)) }
    }

    /// The exponent.
    #[must_use]
    pub fn theta(&self) -> f64 {
        self.theta
    }

    /// How many items there are.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Changes their number.
    pub fn resize(&mut self, items: u64) {
        let items = items.max(1);
        if items == self.items {
            return;
        }
        // With each record that comes, so it must not take long.
        let known = match self.method {
            Method::Gray { first_terms, .. } if self.items.min(items) >= TERMS_ADDED => first_terms,
            _ => first_terms(items, self.theta),
        };
        self.items = items;
        self.method = Method::new(items, self.theta, known);
    }

    /// A rank below the number of items.
    #[inline]
    pub fn draw(&self, rng: &mut impl Rng) -> u64 {
        let [rank] = self.draw_all(rng);
        rank
    }

    /// Several, one after the other, which takes less time than as many draws.
    #[inline]
    pub fn draw_all<const COUNT: usize>(&self, rng: &mut impl Rng) -> [u64; COUNT] {
        let (zeta_items, eta, second, power) = match &self.method {
            Method::Gray { zeta_items, eta, second, power, .. } => (*zeta_items, *eta, *second, *power),
            Method::Exact(zipf) => return array::from_fn(|_| (zipf.sample(rng) as u64).clamp(1, self.items) - 1),
        };
        let drawn: [f64; COUNT] = array::from_fn(|_| rng.random());
        let parts = power.of(drawn.map(|u| eta * u - eta + 1.0));
        array::from_fn(|index| {
            let scaled = drawn[index] * zeta_items;
            let rank = if scaled < 1.0 {
                0
            } else if scaled < 1.0 + second {
                1
            } else {
                (self.items as f64 * parts[index]) as u64
            };
            rank.min(self.items - 1)
        })
    }

    /// The chance of a rank, by the formula that [`Ranks::draw`] follows.
    #[must_use]
    pub fn chance(&self, rank: u64) -> f64 {
        match &self.method {
            Method::Gray { zeta_items, eta, second, .. } => {
                let from = |rank: u64| {
                    // The least random number that gives this rank or a higher one, as far as the formula goes.
                    let part = (rank as f64 / self.items as f64).powf(1.0 - self.theta);
                    (part - 1.0 + eta) / eta
                };
                let first_two = (1.0 + second) / zeta_items;
                match rank {
                    0 => 1.0 / zeta_items,
                    // What lies between falls to the ranks that the formula gives there.
                    1 => second / zeta_items + (from(2).min(1.0) - first_two).max(0.0),
                    _ if rank >= self.items => 0.0,
                    _ => from(rank + 1).min(1.0) - from(rank).max(first_two),
                }
            }
            Method::Exact(_) => ((rank + 1) as f64).powf(-self.theta) / zeta(self.items, self.theta),
        }
    }
}

impl Method {
    fn new(items: u64, theta: f64, first_terms: f64) -> Method {
        if theta >= 1.0
            && let Ok(zipf) = Zipf::new(items as f64, theta)
        {
            return Method::Exact(zipf);
        }
        let zeta_items = zeta_behind(first_terms, items, theta);
        let eta = (1.0 - (2.0 / items as f64).powf(1.0 - theta)) / (1.0 - zeta(2, theta) / zeta_items);
        // Of one or two items all are drawn before the formula.
        let eta = if eta.is_finite() { eta } else { 0.0 };
        Method::Gray {
            first_terms,
            zeta_items,
            eta,
            second: 0.5f64.powf(theta),
            power: Power::new(1.0 / (1.0 - theta)),
        }
    }
}

/// An exponent.
#[derive(Clone, Copy, Debug)]
enum Power {
    /// A whole number, as 100 is for YCSB's constant of 0.99: some products, which the processor does for several
    /// numbers at once.
    Whole(u32),
    Other(f64),
}

impl Power {
    /// An exponent is taken for a whole number where that changes a rank's place by less than a part in a billion.
    fn new(exponent: f64) -> Power {
        let whole = exponent.round();
        // Ranks are at most 2^64 times another, whose logarithm is 44.
        if whole <= 1024.0 && (exponent / whole - 1.0).abs() * 44.0 < 1e-9 {
            Power::Whole(whole as u32)
        } else {
            Power::Other(exponent)
        }
    }

    /// The powers of some numbers.
    #[inline]
    fn of<const COUNT: usize>(self, bases: [f64; COUNT]) -> [f64; COUNT] {
        let exponent = match self {
            Power::Whole(exponent) => exponent,
            Power::Other(exponent) => return bases.map(|base| base.powf(exponent)),
        };
        let (mut product, mut squared, mut left) = ([1.0; COUNT], bases, exponent);
        while left > 0 {
            if left % 2 == 1 {
                product.iter_mut().zip(squared).for_each(|(product, factor)| *product *= factor);
            }
            squared.iter_mut().for_each(|factor| *factor *= *factor);
            left /= 2;
        }
        product
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    /// The constant in YCSB's source for ten billion items and an exponent of 0.99.
    const YCSB_ZETA: f64 = 26.469_028_201_783_02;

    #[test]
    fn zeta_is_what_adding_up_gives() {
        for theta in [0.1, 0.5, 0.99, 1.0, 1.2, 3.0] {
            for count in [1, 2, 64, 65, 66, 100, 1000, 100_000] {
                let added: f64 = (1..=count).rev().map(|n| (n as f64).powf(-theta)).sum();
                let error = (zeta(count, theta) - added).abs() / added;
                assert!(error < 1e-13, "zeta({count}, {theta}): {error}");
            }
        }
        let error = (zeta(10_000_000_000, 0.99) - YCSB_ZETA).abs() / YCSB_ZETA;
        assert!(error < 1e-9, "{error}");
    }

    #[test]
    fn chances_add_up_to_one() {
        for (items, theta) in [(1, 0.99), (2, 0.99), (3, 0.99), (10, 0.5), (1000, 0.99), (1000, 1.3), (5000, 0.2)] {
            let ranks = Ranks::new(items, theta);
            let sum: f64 = (0..items).map(|rank| ranks.chance(rank)).sum();
            assert!((sum - 1.0).abs() < 1e-9 || items <= 2, "{items} {theta}: {sum}");
        }
    }

    #[test]
    fn whole_powers_are_what_others_would_be() {
        // 0.99 and 0.98 have 100 and 50, but for what is lost by rounding; 0.97 has none.
        for (theta, is_whole) in [(0.99, true), (0.98, true), (0.5, true), (0.97, false), (0.9999, false)] {
            let exponent = 1.0 / (1.0 - theta);
            let power = Power::new(exponent);
            assert_eq!(matches!(power, Power::Whole(_)), is_whole, "{theta}");
            let bases: [f64; 64] = array::from_fn(|index| (index + 1) as f64 / 64.0);
            for (base, found) in bases.into_iter().zip(power.of(bases)) {
                let expected = base.powf(exponent);
                assert!((found - expected).abs() <= expected * 1e-9, "{base} to {exponent}: {found} {expected}");
            }
        }
    }

    #[test]
    fn several_draws_are_what_single_ones_are() {
        for theta in [0.99, 0.7, 1.3] {
            let (ranks, mut one, mut all) = (Ranks::new(1000, theta), seeded(), seeded());
            let single: [u64; 64] = array::from_fn(|_| ranks.draw(&mut one));
            assert_eq!(single, ranks.draw_all(&mut all), "{theta}");
        }
    }

    fn seeded() -> SmallRng {
        SmallRng::seed_from_u64(9)
    }

    #[test]
    fn growing_is_as_if_it_had_been_so_from_the_beginning() {
        let mut grown = Ranks::new(10, 0.99);
        grown.resize(900);
        grown.resize(1000);
        assert_eq!(format!("{grown:?}"), format!("{:?}", Ranks::new(1000, 0.99)));
        assert_eq!(grown.items(), 1000);
    }
}
