//! Frequencies against the formulas that they are to follow.
//!
//! Counts are held against what is expected by a chi-squared test that a right sequence fails once in a million times.
//! The seeds are fixed, so that it fails always or never.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::chooser::{Chooser, Inserts, Mix, Shared};
use super::super::record::fnv_hash;
use super::super::workload::Operation;
use super::super::zipf::{Ranks, zeta};
use super::workload;

const DRAWS: u64 = 400_000;
/// The normal distribution exceeds it once in a million times.
const ONE_IN_A_MILLION: f64 = 4.753_424;

/// Fails where counts are not as chances say. What is left of the chances is a class of its own.
fn assert_frequencies(what: &str, counts: &BTreeMap<u64, u64>, chances: &[(u64, f64)]) {
    let draws: u64 = counts.values().sum();
    let mut left = (draws, 1.0);
    let mut classes: Vec<(f64, f64)> = Vec::new();
    for (key, chance) in chances {
        let count = counts.get(key).copied().unwrap_or(0);
        left = (left.0 - count, left.1 - chance);
        classes.push((count as f64, chance * draws as f64));
    }
    if left.1 * draws as f64 > 5.0 {
        classes.push((left.0 as f64, left.1 * draws as f64));
    }
    assert!(classes.iter().all(|(_, expected)| *expected > 5.0), "{what}: too few draws for the test");
    let chi_squared: f64 = classes.iter().map(|(count, expected)| (count - expected).powi(2) / expected).sum();
    // Wilson and Hilferty: the cube root of chi-squared over its freedom is nearly normal.
    let freedom = (classes.len() - 1) as f64;
    let spread = 2.0 / (9.0 * freedom);
    let limit = freedom * (1.0 - spread + ONE_IN_A_MILLION * spread.sqrt()).powi(3);
    assert!(
        chi_squared < limit,
        "{what}: chi-squared {chi_squared:.1} with {freedom} degrees, expected below {limit:.1}"
    );
}

fn counts(draws: u64, mut draw: impl FnMut() -> u64) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    (0..draws).for_each(|_| *counts.entry(draw()).or_default() += 1);
    counts
}

/// What a workload of these properties chooses among so many records.
fn chosen(pairs: &[&str], records: u64) -> BTreeMap<u64, u64> {
    let workload = workload(pairs);
    let (mut chooser, shared) = (Chooser::new(&workload, records), Shared::new(records));
    let mut rng = SmallRng::seed_from_u64(11);
    counts(DRAWS, || chooser.choose(&mut rng, &shared))
}

#[test]
fn a_wrong_frequency_is_noticed() {
    let mut rng = SmallRng::seed_from_u64(3);
    let even = counts(DRAWS, || rng.random_range(0..10));
    let chances: Vec<_> = (0..10).map(|key| (key, 0.1)).collect();
    assert_frequencies("even", &even, &chances);
    // 5 % too many of one.
    let mut bent = even.clone();
    *bent.entry(0).or_default() += DRAWS / 200;
    assert!(std::panic::catch_unwind(|| assert_frequencies("bent", &bent, &chances)).is_err());
}

#[test]
fn ranks_follow_the_formula_of_gray() {
    for (items, theta) in [(1000, 0.99), (100_000, 0.99), (1000, 0.5), (1000, 0.2), (1000, 1.0), (1000, 1.4), (3, 0.99)]
    {
        let (ranks, mut rng) = (Ranks::new(items, theta), SmallRng::seed_from_u64(5));
        let found = counts(DRAWS, || ranks.draw(&mut rng));
        let top: Vec<_> = (0..items.min(40)).map(|rank| (rank, ranks.chance(rank))).collect();
        assert_frequencies(&format!("{items} ranks, exponent {theta}"), &found, &top);
        assert!(found.keys().all(|rank| *rank < items));
    }
    // The first two are those of a true Zipf distribution.
    let ranks = Ranks::new(1000, 0.99);
    assert!((ranks.chance(0) * zeta(1000, 0.99) - 1.0).abs() < 1e-9);
    assert!((ranks.chance(1) * zeta(1000, 0.99) - 0.5f64.powf(0.99)).abs() < 1e-9);
}

/// The most popular keys, by the ranks that the hash brings together in them.
#[test]
fn zipfian_is_scattered_as_ycsb_scatters_it() {
    const RECORDS: u64 = 1000;
    const RANKS_ADDED: u64 = 200_000;
    for constant in ["0.99", "0.8"] {
        let found = chosen(&["requestdistribution=zipfian", &format!("zipfianconstant={constant}")], RECORDS);
        let ranks = Ranks::new(10_000_000_000, constant.parse().unwrap());
        // One more item than records; whoever draws it draws again.
        let items = RECORDS + 1;
        let mut chances = vec![0.0; items as usize];
        let mut rest = 1.0;
        for rank in 0..RANKS_ADDED {
            chances[(fnv_hash(rank) % items) as usize] += ranks.chance(rank);
            rest -= ranks.chance(rank);
        }
        // The others are many and light: they are spread evenly.
        chances.iter_mut().for_each(|chance| *chance += rest / items as f64);
        let again = 1.0 - chances[RECORDS as usize];
        let mut top: Vec<_> = (0..RECORDS).map(|key| (key, chances[key as usize] / again)).collect();
        top.sort_by(|a, b| b.1.total_cmp(&a.1));
        assert_eq!(top[0].0, fnv_hash(0) % items);
        assert_frequencies(&format!("scrambled, {constant}"), &found, &top[..50]);
    }
}

#[test]
fn plain_zipfian_begins_with_the_first_record() {
    let found = chosen(&["requestdistribution=plainzipfian"], 1000);
    let ranks = Ranks::new(1000, 0.99);
    let top: Vec<_> = (0..40).map(|rank| (rank, ranks.chance(rank))).collect();
    assert_frequencies("plain zipfian", &found, &top);
}

#[test]
fn latest_goes_by_age_also_while_records_come() {
    let workload = workload(&["requestdistribution=latest", "insertproportion=0", "readproportion=0.95"]);
    let (mut chooser, shared) = (Chooser::new(&workload, 500), Shared::new(500));
    let mut rng = SmallRng::seed_from_u64(7);
    // As many records as YCSB's count of its last one.
    for records in [500, 501, 2000] {
        while shared.inserts.end() < records {
            shared.inserts.done(shared.inserts.next());
        }
        let last = records - 1;
        let ages = counts(DRAWS, || last - chooser.choose(&mut rng, &shared));
        let ranks = Ranks::new(last, 0.99);
        let top: Vec<_> = (0..40).map(|age| (age, ranks.chance(age))).collect();
        assert_frequencies(&format!("latest of {records}"), &ages, &top);
    }
}

#[test]
fn uniform_and_hotspot_have_their_shares() {
    let found = chosen(&["requestdistribution=uniform", "insertstart=100", "insertcount=50"], 1000);
    let all: Vec<_> = (100..150).map(|key| (key, 1.0 / 50.0)).collect();
    assert_frequencies("uniform", &found, &all);
    let hotspot = ["requestdistribution=hotspot", "hotspotdatafraction=0.1", "hotspotopnfraction=0.7"];
    let found = chosen(&hotspot, 100);
    let all: Vec<_> = (0..100).map(|key| (key, if key < 10 { 0.7 / 10.0 } else { 0.3 / 90.0 })).collect();
    assert_frequencies("hotspot", &found, &all);
}

#[test]
fn exponential_has_its_percentile_in_its_part() {
    let exponential = ["requestdistribution=exponential", "exponential.percentile=90", "exponential.frac=0.05"];
    let found = chosen(&exponential, 1000);
    // By age a geometric distribution, of which a tenth lies beyond 50 records; drawn again beyond all 1000.
    let rate = -(0.1f64.ln()) / 50.0;
    let below = |age: f64| (1.0 - (-rate * age).exp()) / (1.0 - (-rate * 1000.0).exp());
    let ages: Vec<_> = (0..60).map(|age| (999 - age, below((age + 1) as f64) - below(age as f64))).collect();
    assert_frequencies("exponential", &found, &ages);
    let in_part: u64 = found.range(950..).map(|(_, count)| count).sum();
    assert!((in_part as f64 / DRAWS as f64 - 0.9).abs() < 0.005);
}

#[test]
fn sequential_goes_round_and_constant_stays() {
    let workload = workload(&["requestdistribution=sequential", "insertstart=5"]);
    let (mut chooser, shared) = (Chooser::new(&workload, 8), Shared::new(8));
    let mut other = chooser.clone();
    let mut rng = SmallRng::seed_from_u64(1);
    let both: Vec<_> =
        (0..4).flat_map(|_| [chooser.choose(&mut rng, &shared), other.choose(&mut rng, &shared)]).collect();
    assert_eq!(both, [5, 6, 7, 5, 6, 7, 5, 6]);
    assert_eq!(chosen(&["requestdistribution=constant"], 10), BTreeMap::from([(0, DRAWS)]));
}

#[test]
fn operations_and_scans_have_their_shares() {
    let pairs = ["readproportion=0.4", "updateproportion=0.3", "insertproportion=0.1", "scanproportion=0.15"];
    let pairs = [&pairs[..], &["readmodifywriteproportion=0.05", "maxscanlength=20", "minscanlength=3"]].concat();
    let mix = Mix::new(&workload(&pairs));
    let mut rng = SmallRng::seed_from_u64(2);
    let found = counts(DRAWS, || mix.operation(&mut rng) as u64);
    let expected = [0.4, 0.3, 0.1, 0.15, 0.05];
    let chances: Vec<_> = Operation::ALL.iter().map(|kind| (*kind as u64, expected[*kind as usize])).collect();
    assert_frequencies("operations", &found, &chances);
    let lengths = counts(DRAWS, || mix.scan_length(&mut rng));
    let chances: Vec<_> = (3..=20).map(|length| (length, 1.0 / 18.0)).collect();
    assert_frequencies("lengths", &lengths, &chances);
    let zipfian = Mix::new(&workload(&["maxscanlength=100", "scanlengthdistribution=zipfian"]));
    let lengths = counts(DRAWS, || zipfian.scan_length(&mut rng));
    let ranks = Ranks::new(100, 0.99);
    let chances: Vec<_> = (1..=30).map(|length| (length, ranks.chance(length - 1))).collect();
    assert_frequencies("zipfian lengths", &lengths, &chances);
}

#[test]
fn a_record_is_seen_when_all_before_it_are() {
    let inserts = Inserts::new(10);
    let numbers: Vec<_> = (0..4).map(|_| inserts.next()).collect();
    assert_eq!((numbers, inserts.last()), (vec![10, 11, 12, 13], 9));
    inserts.done(12);
    inserts.done(11);
    assert_eq!(inserts.last(), 9);
    inserts.done(10);
    assert_eq!(inserts.last(), 12);
    inserts.done(13);
    assert_eq!(inserts.end(), 14);

    let (inserts, seen) = (Inserts::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let number = inserts.next();
                    inserts.done(number);
                    seen.fetch_max(inserts.last(), Relaxed);
                }
            });
        }
    });
    assert_eq!((inserts.end(), seen.into_inner()), (8000, 7999));
}
