//! Known answers: what theory and counting by hand say that caches hit.

use std::fs;

use super::*;
use crate::workload::size::ByteSize;
use crate::workload::trace::{Generator, TraceFile};

fn lru() -> CachePolicy {
    BASELINE.parse().unwrap()
}

fn config(source: Source, sizes: &[&str]) -> Config {
    let sizes = sizes.iter().map(|size| size.parse().unwrap()).collect();
    Config { source, policies: CachePolicy::ALL.to_vec(), sizes, warmup: 0.0, ignore_sizes: false }
}

fn generated(text: &str) -> Source {
    let generator: Generator = text.parse().unwrap();
    Source::Generated { generator, seed: 1 }
}

fn simulated(config: &Config) -> Outcome {
    run(config, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

fn with_trace<T>(content: &str, then: impl FnOnce(Source) -> T) -> T {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    then(Source::Files { files: vec![TraceFile::new(file.path())], format: None, blocks: None })
}

fn hits_of(outcome: &Outcome, policy: CachePolicy, size: &str) -> u64 {
    let size: CacheSize = size.parse().unwrap();
    outcome.results.iter().find(|cell| cell.policy == policy.name() && cell.size == size).unwrap().hits
}

/// Che's approximation: an object of popularity p is in an LRU cache with a chance of 1 - e^(-p t), where t is such
/// that those chances add up to the capacity. The hit ratio of Zipf with this skew.
fn che(objects: u32, skew: f64, capacity: f64) -> f64 {
    let weights: Vec<f64> = (1..=objects).map(|rank| f64::from(rank).powf(-skew)).collect();
    let sum: f64 = weights.iter().sum();
    let popularity: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
    let resident = |time: f64| popularity.iter().map(|p| 1.0 - (-p * time).exp()).sum::<f64>();
    let (mut low, mut high) = (0.0, 1e12);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if resident(middle) < capacity { low = middle } else { high = middle }
    }
    popularity.iter().map(|p| p * (1.0 - (-p * low).exp())).sum()
}

#[test]
fn zipf_under_lru_is_what_che_says() {
    for skew in ["0.6", "0.99", "1.2"] {
        let source = generated(&format!("zipf:{skew}:5000:400000"));
        let outcome =
            simulated(&Config { policies: vec![lru()], warmup: 0.25, ..config(source, &["50obj", "1000obj"]) });
        assert_eq!((outcome.counted_requests, outcome.config.warmup_requests), (300_000, 100_000));
        for cell in &outcome.results {
            let expected = che(5000, skew.parse().unwrap(), cell.capacity as f64);
            assert!((cell.hit_ratio - expected).abs() < 0.005, "{skew} {}: {expected} {}", cell.size, cell.hit_ratio);
        }
    }
}

#[test]
fn loops_and_scans() {
    let outcome = simulated(&config(generated("loop:1000:10000"), &["999obj", "100%"]));
    assert_eq!(hits_of(&outcome, lru(), "999obj"), 0);
    for policy in CachePolicy::ALL {
        assert_eq!(hits_of(&outcome, policy, "100%"), 9000, "{policy}");
    }
    assert_eq!((outcome.cold_misses, outcome.cold_miss_ratio), (1000, 0.1));

    // A scan costs lru what it had: it hits less than in the Zipf alone, by more than the scans' share.
    let sizes = &["200obj"];
    let alone = simulated(&config(generated("zipf:0.99:2000:100000"), sizes));
    let scans = simulated(&config(generated("scan-zipf:0.99:2000:100000:0.5"), sizes));
    let (alone, scans) = (hits_of(&alone, lru(), sizes[0]), hits_of(&scans, lru(), sizes[0]));
    assert!(scans < alone / 2, "{scans} {alone}");

    // A window that fits: nearly all that is not new is hit by lru.
    let outcome = simulated(&config(generated("drift:10000:100000:50"), &["100obj"]));
    let repeats = outcome.counted_requests - outcome.cold_misses;
    assert!(hits_of(&outcome, lru(), "100obj") > repeats * 99 / 100);
}

#[test]
fn sizes_count_unless_told_otherwise() {
    // a and c are in the cache of 300 bytes when b comes: a goes. Then c hits, and a (100) sends c away.
    let trace = "a,100\nc,200\na,100\nb,200\nb,200\na,100\nd,301\nz,0\nd,301\n";
    with_trace(trace, |source| {
        let only_lru = Config { policies: vec![lru()], ..config(source, &["300B"]) };
        let outcome = simulated(&only_lru);
        let cell = &outcome.results[0];
        // a hits, then b (c went for it), then a, which stayed.
        assert_eq!((cell.hits, cell.hit_bytes, cell.evictions, cell.too_large), (3, Some(400), 1, 2));
        assert_eq!((outcome.trace.objects, outcome.trace.footprint_bytes), (4, Some(801)));
        assert_eq!((outcome.trace.left_out_requests, outcome.trace.requests), (1, 8));
        assert_eq!(cell.byte_hit_ratio, Some(400.0 / 1502.0));
        let ignoring = Config { ignore_sizes: true, sizes: vec![CacheSize::Objects(4)], ..only_lru.clone() };
        let outcome = simulated(&ignoring);
        assert_eq!((outcome.results[0].hits, outcome.config.counted), (4, Counted::Objects));
        for (size, expected) in [
            (CacheSize::Objects(4), "since objects have 100 to 301 bytes (or --ignore-sizes); found 4obj"),
            (CacheSize::Bytes(ByteSize::new(64)), ""),
        ] {
            let result = run(&Config { sizes: vec![size], ..only_lru.clone() }, &AtomicBool::new(false), &mut |_| {});
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{error}");
        }
    });
}

#[test]
fn sizes_of_caches_are_resolved() {
    let outcome = simulated(&config(generated("loop:1000:5000"), &["50%", "0.0001%", "1obj", "10%", "500obj"]));
    let sizes: Vec<(String, u64)> =
        outcome.config.sizes.iter().map(|size| (size.asked.to_string(), size.capacity)).collect();
    assert_eq!(sizes, [("0.0001%".into(), 1), ("10%".into(), 100), ("50%".into(), 500)]);
    let bytes = config(generated("loop:10:20"), &["4KiB"]);
    let error = run(&bytes, &AtomicBool::new(false), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("since the trace has no sizes; found 4 KiB"), "{error}");
    // Blocks are all of a size, so that a number of them is one of bytes.
    with_trace("0 2 0 0\n8 1 0 1\n", |source| {
        let outcome = simulated(&config(source, &["2obj", "1KiB"]));
        assert_eq!((outcome.config.sizes[0].capacity, outcome.config.sizes.len()), (1024, 1));
        assert_eq!(outcome.config.block_bytes, Some(512));
    });
    for (text, expected) in [
        ("0%", "above 0% and up to 100%"),
        ("101%", "above 0% and up to 100%"),
        ("NaN%", "above 0% and up to 100%"),
        ("0obj", "number of objects above 0"),
        ("1.5obj", "number of objects above 0"),
        ("0", "expected a size above 0"),
        ("10KB", "found \"KB\""),
        ("", "expected a size such as 10%, 64MiB or 10000obj"),
    ] {
        let error = text.parse::<CacheSize>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_ratio_over_time_adds_up() {
    let outcome = simulated(&config(generated("zipf:0.9:500:12345"), &["50obj"]));
    assert_eq!((outcome.interval_ends.len(), outcome.interval_ends.last()), (100, Some(&12_345)));
    for cell in &outcome.results {
        let mut start = 0;
        let misses: f64 = outcome
            .interval_ends
            .iter()
            .zip(&cell.interval_miss_ratios)
            .map(|(end, ratio)| (end - std::mem::replace(&mut start, *end)) as f64 * ratio)
            .sum();
        assert!((misses - (12_345 - cell.hits) as f64).abs() < 1e-6, "{misses}");
        assert_eq!(cell.interval_miss_ratios.len(), 100);
    }
    let short = simulated(&config(generated("loop:2:5"), &["2obj"]));
    assert_eq!(short.interval_ends, [1, 2, 3, 4, 5]);
    assert_eq!(short.results[0].interval_miss_ratios, [1.0, 1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn lru_is_what_others_are_compared_with() {
    let both = simulated(&config(generated("zipf:0.9:500:20000"), &["5%", "20%"]));
    for cell in &both.results {
        let lru = hits_of(&both, lru(), &cell.size.to_string()) as f64;
        let expected = (cell.hits as f64 - lru) / 20_000.0;
        assert!((cell.hit_ratio_over_lru.unwrap() - expected).abs() < 1e-9);
    }
}

#[test]
fn an_interruption_tells_what_there_is_or_nothing() {
    let config = Config { warmup: 0.1, ..config(generated("zipf:0.9:500:200000"), &["20%"]) };
    let stop = AtomicBool::new(true);
    assert!(matches!(run(&config, &stop, &mut |_| {}), Err(Error::Interrupted)));
    stop.store(false, Relaxed);
    let outcome = run(&config, &stop, &mut |event| {
        if matches!(event, Event::Simulating { done, .. } if done > 100_000) {
            stop.store(true, Relaxed);
        }
    });
    let outcome = outcome.unwrap();
    assert!(!outcome.complete && outcome.counted_requests < 180_000, "{}", outcome.counted_requests);
    assert!(outcome.results[0].hit_ratio > 0.1 && outcome.results[0].interval_miss_ratios.len() < 100);
    assert_eq!(outcome.results[0].interval_miss_ratios.len(), outcome.interval_ends.len());
}

#[test]
fn a_trace_that_changes_between_the_passes_is_an_error() {
    for after in ["1\n2\n", "1\n2\n3\n4\n", "1\n2\n4\n"] {
        with_trace("1\n2\n3\n", |source| {
            let Source::Files { files, .. } = &source else { unreachable!("it is a file") };
            let survey = Survey::of(&source, &AtomicBool::new(false), &mut |_| {}).unwrap();
            fs::write(&files[0].path, after).unwrap();
            let batches = Batches::new(&source, &survey, Counted::Objects, 0);
            let timeline = Timeline::new(3, 0, 100);
            let found = simulate(&mut [], batches, &timeline, &AtomicBool::new(false), &mut |_| {});
            assert!(matches!(found, Err(Error::Trace(TraceError::Changed { .. }))), "{after}: {found:?}");
        });
    }
    with_trace("x,0\n", |source| {
        let error = run(&config(source, &["1%"]), &AtomicBool::new(false), &mut |_| {}).unwrap_err().to_string();
        assert!(error.ends_with("expected requests for more than 0 bytes, found none, and 1 for 0 bytes"), "{error}");
    });
}
