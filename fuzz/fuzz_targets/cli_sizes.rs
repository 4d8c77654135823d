//! Every text of a command line that is a size, a time, a share, a pattern or a name: a value in its range that is read
//! back from how it is shown, or an error that says what was expected.

#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use mapfall::workload::cache_sim::CacheSize;
use mapfall::workload::cache_state::{CacheState, parse_percent};
use mapfall::workload::contender::Io;
use mapfall::workload::duration::parse_duration;
use mapfall::workload::pattern::{Extent, Pattern};
use mapfall::workload::size::ByteSize;
use mapfall::workload::trace::{Format, Generator, Source};
use mapfall::workload::ycsb::PageCache;
use mapfall::{CachePolicy, ChecksumKind, IoMode};
use mapfall_fuzz::heap;

fuzz_target!(|text: &str| {
    heap::within(1 << 20, || {
        size(text);
        time(text);
        for part in text.split(',').take(8) {
            again::<ByteSize>(part);
            again::<CacheSize>(part);
            again::<CacheState>(part);
            again::<CachePolicy>(part);
            again::<ChecksumKind>(part);
            again::<Format>(part);
            again::<IoMode>(part);
            explained(part, part.parse::<Io>().map(|io| assert_eq!(io.name(), part)));
            explained(
                part,
                part.parse::<PageCache>().map(|cache| {
                    assert!(!matches!(cache, PageCache::Limited(part) if !(part > 0.0 && part <= 1.0)), "{cache:?}");
                }),
            );
            explained(part, parse_percent(part).map(|percent| assert!((1..=1000).contains(&percent))));
            pattern(part);
            generator(part);
        }
    });
});

/// An error is one line that says what was expected, and a value is read back.
fn again<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) {
    let Some(value) = explained(text, text.parse::<T>()) else { return };
    let shown = value.to_string();
    match shown.parse::<T>() {
        Ok(back) => assert_eq!(back, value, "{text:?} is shown as {shown:?}"),
        Err(error) => panic!("{text:?} is shown as {shown:?}, which is none: {error}"),
    }
}

fn explained<T, E: Display>(text: &str, result: Result<T, E>) -> Option<T> {
    result
        .map_err(|error| {
            let message = error.to_string();
            assert!(message.contains("expected ") && message.contains("found "), "{text:?}: {message:?}");
            assert!(!message.contains('\n'), "{text:?}: {message:?}");
        })
        .ok()
}

/// Read once more, by other means: as a fraction in lowest terms.
fn size(text: &str) {
    let Ok(found) = text.parse::<ByteSize>() else { return };
    let text = text.trim();
    let unit_at = text.find(|letter: char| letter.is_alphabetic() || letter == ' ').unwrap_or(text.len());
    let (number, unit) = (text[..unit_at].trim(), text[unit_at..].trim().to_ascii_uppercase());
    let power = ["B", "KIB", "MIB", "GIB", "TIB", "PIB"].iter().position(|name| *name == unit);
    let power = power.or(unit.is_empty().then_some(0)).unwrap_or_else(|| panic!("{text:?} has no unit"));
    let digits: Vec<u32> = number.chars().filter_map(|digit| digit.to_digit(10)).collect();
    let places = number.find('.').map_or(0, |point| number.len() - point - 1);
    // Multiplied by the unit, digit by digit, with what is behind the point apart: all of that must be 0.
    let mut product: Vec<u32> = digits.iter().rev().copied().chain([0; 24]).collect();
    for _ in 0..power * 10 {
        let mut carry = 0;
        for digit in &mut product {
            let doubled = *digit * 2 + carry;
            (*digit, carry) = (doubled % 10, doubled / 10);
        }
    }
    assert!(product[..places].iter().all(|digit| *digit == 0), "{text:?} is no whole number of bytes");
    let bytes = product[places..].iter().rev().fold(0_u128, |bytes, digit| bytes * 10 + u128::from(*digit));
    assert_eq!(u128::from(found.bytes()), bytes, "{text:?}");
    assert!(!found.rounded().is_empty());
}

fn time(text: &str) {
    let Some(time) = explained(text, parse_duration(text)) else { return };
    assert!(!time.is_zero() && Instant::now().checked_add(time).is_some(), "{text:?}");
    let unit = ["ms", "s", "m", "h"].into_iter().find(|unit| text.ends_with(unit)).expect("a unit");
    let number: f64 = text.trim_end_matches(unit).parse().expect("a number before the unit");
    let expected =
        number * [0.001, 1.0, 60.0, 3600.0][["ms", "s", "m", "h"].iter().position(|it| *it == unit).expect("it")];
    assert!((time.as_secs_f64() - expected).abs() <= expected * 1e-9 + 1e-9, "{text:?}: {time:?}");
}

fn pattern(text: &str) {
    again::<Pattern>(text);
    let Ok(pattern) = text.parse::<Pattern>() else { return };
    let extent = Extent { blocks: 100, block_bytes: 4096, reads: 50, threads: 3 };
    let offsets = pattern.offsets_of(&extent, 1);
    assert_eq!(offsets.len(), 50, "{pattern}");
    assert!(offsets.iter().all(|offset| offset % 4096 == 0 && *offset < 100 * 4096), "{pattern}");
}

fn generator(text: &str) {
    again::<Generator>(text);
    let Ok(generator) = text.parse::<Generator>() else { return };
    let mut requests = Source::Generated { generator, seed: 1 }.requests();
    for _ in 0..20 {
        let Some(request) = requests.next().expect("a request that is made up") else { break };
        assert_eq!(request.size_bytes, 1, "{generator}");
    }
}
