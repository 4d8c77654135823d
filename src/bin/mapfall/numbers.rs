//! Numbers as people read them: three digits that mean something.

/// `13.4`, `2.65`, `0.048`, `0.0009`.
pub(crate) fn gib_per_s(rate: f64) -> String {
    match rate {
        100.0.. => format!("{rate:.0}"),
        10.0.. => format!("{rate:.1}"),
        1.0.. => format!("{rate:.2}"),
        0.01.. => format!("{rate:.3}"),
        _ => format!("{rate:.4}"),
    }
}

/// `467`, `86.2`: whole from 100 on.
pub(crate) fn nanoseconds(ns: f64) -> String {
    if ns >= 100.0 { format!("{ns:.0}") } else { format!("{ns:.1}") }
}

/// `0.31`, `12.5`: seconds.
pub(crate) fn seconds(s: f64) -> String {
    match s {
        100.0.. => format!("{s:.0}"),
        10.0.. => format!("{s:.1}"),
        _ => format!("{s:.2}"),
    }
}

/// `2.63x`.
pub(crate) fn times(ratio: f64) -> String {
    if ratio >= 100.0 { format!("{ratio:.0}x") } else { format!("{ratio:.2}x") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_that_mean_something() {
        let rates = [123.4, 13.44, 2.654, 0.0481, 0.00093].map(gib_per_s);
        assert_eq!(rates, ["123", "13.4", "2.65", "0.048", "0.0009"]);
        assert_eq!([467.2, 86.24].map(nanoseconds), ["467", "86.2"]);
        assert_eq!([0.314, 12.54, 120.4].map(seconds), ["0.31", "12.5", "120"]);
        assert_eq!([2.634, 1000.2].map(times), ["2.63x", "1000x"]);
    }
}
