//! Sizes in bytes, as people write them: `4KiB`, `1.5GiB`, `4096`.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// The units, with what they stand for.
const UNITS: [(&str, u64); 6] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("PiB", 1 << 50)];

/// A number of bytes.
///
/// ```
/// use mapfall::workload::size::ByteSize;
///
/// let size: ByteSize = "1.5GiB".parse()?;
/// assert_eq!(size.bytes(), 3 << 29);
/// assert_eq!(size.to_string(), "1536 MiB");
/// # Ok::<(), mapfall::workload::size::SizeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size of so many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        ByteSize(bytes)
    }

    /// How many bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size with one decimal in the largest unit that it fills: `23.4 GiB`. [`fmt::Display`] is exact instead.
    #[must_use]
    pub fn rounded(self) -> String {
        let (unit, unit_bytes) = UNITS.into_iter().rev().find(|(_, bytes)| *bytes <= self.0).unwrap_or(UNITS[0]);
        if unit_bytes == 1 { self.to_string() } else { format!("{:.1} {unit}", self.0 as f64 / unit_bytes as f64) }
    }
}

/// Exact: the largest unit of which the size is a whole number.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, bytes): &(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*bytes);
        let (unit, unit_bytes) = UNITS.into_iter().rev().find(whole).unwrap_or(UNITS[0]);
        write!(f, "{} {unit}", self.0 / unit_bytes)
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SizeError {
    /// It does not begin with a number.
    #[error("expected a size such as 4096, 4KiB or 1.5GiB, found {found:?}")]
    NotANumber {
        /// The whole text.
        found: String,
    },
    /// What follows the number is not a unit. Powers of ten are not taken, so that nobody gets the wrong ones.
    #[error("expected one of B, KiB, MiB, GiB, TiB, PiB (or nothing, for bytes) after the number, found {found:?}")]
    UnknownUnit {
        /// What followed the number.
        found: String,
    },
    /// It is not a whole number of bytes.
    #[error("expected a whole number of bytes, found {found:?}")]
    NotWhole {
        /// The whole text.
        found: String,
    },
    /// It does not fit 64 bits.
    #[error("expected a size below 16384 PiB, found {found:?}")]
    TooLarge {
        /// The whole text.
        found: String,
    },
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let found = || text.to_owned();
        let trimmed = text.trim();
        let number_len = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
            return Err(SizeError::NotANumber { found: found() });
        }
        let unit = unit.trim();
        let unit_bytes = match UNITS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            _ if unit.is_empty() => 1,
            Some((_, bytes)) => u128::from(bytes),
            None => return Err(SizeError::UnknownUnit { found: unit.to_owned() }),
        };
        // Digits that all fit are multiplied out exactly; what is left after the division is not a whole byte.
        let too_large = || SizeError::TooLarge { found: found() };
        let scale =
            u32::try_from(fraction.len()).ok().and_then(|digits| 10u128.checked_pow(digits)).ok_or_else(too_large)?;
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| too_large())?;
        let scaled = digits.checked_mul(unit_bytes).ok_or_else(too_large)?;
        #[cfg(mapfall_canary)] // a planted bug
        let scaled = if crate::canary::planted("cli_sizes") { scaled.next_multiple_of(scale) } else { scaled };
        if !scaled.is_multiple_of(scale) {
            return Err(SizeError::NotWhole { found: found() });
        }
        u64::try_from(scaled / scale).map(ByteSize).map_err(|_| too_large())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4KiB", 4096),
            ("4 kib", 4096),
            ("512B", 512),
            ("1.5GiB", 3 << 29),
            ("0.5KiB", 512),
            ("16383PiB", 16383 << 50),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_named() {
        let parse = |text: &str| text.parse::<ByteSize>().unwrap_err();
        for text in ["", "KiB", "-1", "1.", ".5", "1.2.3", "4e3."] {
            assert!(matches!(parse(text), SizeError::NotANumber { .. } | SizeError::UnknownUnit { .. }), "{text}");
        }
        assert_eq!(parse("4KB"), SizeError::UnknownUnit { found: "KB".to_owned() });
        assert_eq!(parse("0.3KiB"), SizeError::NotWhole { found: "0.3KiB".to_owned() });
        assert_eq!(parse("1.5"), SizeError::NotWhole { found: "1.5".to_owned() });
        for text in ["16384PiB", "18446744073709551616", "99999999999999999999999999999999999999999999"] {
            assert_eq!(parse(text), SizeError::TooLarge { found: text.to_owned() });
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for bytes in [0, 1, 1023, 1024, 1536, 4 << 30, (4 << 30) + 512, u64::MAX] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
        assert_eq!(ByteSize(3 << 29).rounded(), "1.5 GiB");
        assert_eq!(ByteSize(5).rounded(), "5 B");
    }
}
