//! Times, as people write them: `10s`, `500ms`, `1.5m`.

use std::time::Duration;

/// The longest: a century, which any clock can be set ahead by.
const SECONDS_MAX: f64 = 100.0 * 365.25 * 24.0 * 3600.0;

/// A time above 0 and up to a century: a number and `ms`, `s`, `m` or `h`.
///
/// # Errors
///
/// What was expected, where it is none.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a time above 0 and up to a century such as 10s, 500ms or 2m, found {text:?}");
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(expected)?;
    let (number, unit) = text.split_at(number_len);
    let unit_s = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    let number: f64 = number.parse().map_err(|_| expected())?;
    let seconds = Some(number * unit_s).filter(|seconds| *seconds <= SECONDS_MAX);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.filter(|duration| !duration.is_zero()).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        for text in ["", "10", "s", "0s", "-1s", "1d", "1e400s", "9999999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    /// What no clock can be set ahead by would end the command in a panic later.
    #[test]
    fn every_time_has_an_end() {
        assert!(parse_duration("5000000000000000h").is_err());
        let longest = parse_duration("876000h");
        assert!(longest.is_ok_and(|longest| Instant::now().checked_add(longest).is_some()));
    }
}
