//! Traces that are made up, for whoever has none and for tests that know the answer.

use std::fmt;
use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use super::{Request, UNSIZED_BYTES};

/// Greater skews are one object asked for over and over.
const SKEW_MAX: f64 = 10.0;
/// Scans between stretches of Zipf are as long as a tenth of its objects.
const SCAN_PART: u32 = 10;
const DEFAULT_SCAN_SHARE: f64 = 0.25;
/// The window that drifts is a hundredth of the objects.
const DEFAULT_WINDOW_PART: u32 = 100;

/// Requests by a rule. Objects have no sizes.
///
/// In options it is written as its [`fmt::Display`] shows it:
///
/// - `zipf:SKEW:OBJECTS:REQUESTS`: each request is for any object, the n-th most popular with a chance in proportion
///   to `1 / n^SKEW`. 0 is uniform; 0.6 to 1.2 is what is seen in practice.
/// - `loop:OBJECTS:REQUESTS`: all objects in order, over and over.
/// - `scan-zipf:SKEW:OBJECTS:REQUESTS[:SHARE]`: `zipf`, and between its stretches scans of objects that never come
///   again, a tenth of `OBJECTS` each, which are `SHARE` of all requests (0.25).
/// - `drift:OBJECTS:REQUESTS[:WINDOW]`: any object of a window of `WINDOW` (a hundredth of `OBJECTS`), which moves
///   from the first object to the last: what was asked for recently is what will be.
///
/// ```
/// use mapfall::workload::trace::Generator;
///
/// let generator: Generator = "loop:3:7".parse()?;
/// assert_eq!(generator.to_string(), "loop:3:7");
/// # Ok::<(), mapfall::workload::trace::GenerateError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Generator {
    kind: Kind,
    objects: u32,
    requests: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Zipf { skew: f64 },
    Loop,
    ScanZipf { skew: f64, share: f64 },
    Drift { window: u32 },
}

/// Why a text is no [`Generator`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// It does not have the parts of any.
    #[error(
        "expected zipf:SKEW:OBJECTS:REQUESTS, loop:OBJECTS:REQUESTS, scan-zipf:SKEW:OBJECTS:REQUESTS[:SHARE] or \
         drift:OBJECTS:REQUESTS[:WINDOW], found {found:?}"
    )]
    Syntax {
        /// The whole text.
        found: String,
    },
    /// A part is out of range, or no number.
    #[error("expected {expected}, found {found:?}")]
    Value {
        /// What the part is, and in which range.
        expected: &'static str,
        /// The part.
        found: String,
    },
}

fn parse<T: FromStr>(text: &str, expected: &'static str, holds: impl Fn(&T) -> bool) -> Result<T, GenerateError> {
    let value = text.parse().ok().filter(holds);
    value.ok_or_else(|| GenerateError::Value { expected, found: text.to_owned() })
}

fn skew(text: &str) -> Result<f64, GenerateError> {
    parse(text, "a skew from 0 to 10", |skew| (0.0..=SKEW_MAX).contains(skew))
}

fn share(text: &str) -> Result<f64, GenerateError> {
    parse(text, "a share of scans above 0 and below 1", |share: &f64| *share > 0.0 && *share < 1.0)
}

impl FromStr for Generator {
    type Err = GenerateError;

    fn from_str(text: &str) -> Result<Self, GenerateError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (kind, objects, requests, window) = match parts[..] {
            ["zipf", s, objects, requests] => (Kind::Zipf { skew: skew(s)? }, objects, requests, None),
            ["loop", objects, requests] => (Kind::Loop, objects, requests, None),
            ["scan-zipf", s, objects, requests] => {
                (Kind::ScanZipf { skew: skew(s)?, share: DEFAULT_SCAN_SHARE }, objects, requests, None)
            }
            ["scan-zipf", s, objects, requests, part] => {
                (Kind::ScanZipf { skew: skew(s)?, share: share(part)? }, objects, requests, None)
            }
            ["drift", objects, requests] => (Kind::Drift { window: 0 }, objects, requests, None),
            ["drift", objects, requests, window] => (Kind::Drift { window: 0 }, objects, requests, Some(window)),
            _ => return Err(GenerateError::Syntax { found: text.to_owned() }),
        };
        let objects: u32 = parse(objects, "a number of objects from 1 to 4294967295", |objects| *objects > 0)?;
        let requests = parse(requests, "a number of requests above 0", |requests| *requests > 0)?;
        let kind = match kind {
            Kind::Drift { .. } => Kind::Drift {
                window: match window {
                    None => (objects / DEFAULT_WINDOW_PART).max(1),
                    Some(window) => parse(window, "a window of 1 to all objects", |w| (1..=objects).contains(w))?,
                },
            },
            kind => kind,
        };
        Ok(Generator { kind, objects, requests })
    }
}

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Generator { kind, objects, requests } = self;
        match kind {
            Kind::Zipf { skew } => write!(f, "zipf:{skew}:{objects}:{requests}"),
            Kind::Loop => write!(f, "loop:{objects}:{requests}"),
            Kind::ScanZipf { skew, share } => write!(f, "scan-zipf:{skew}:{objects}:{requests}:{share}"),
            Kind::Drift { window } => write!(f, "drift:{objects}:{requests}:{window}"),
        }
    }
}

impl Generator {
    /// The requests: the same for the same seed.
    pub(super) fn requests(self, seed: u64) -> Requests {
        let zipf = match self.kind {
            // Neither can fail: a generator has at least one object and a skew of at least 0.
            Kind::Zipf { skew } | Kind::ScanZipf { skew, .. } => Zipf::new(f64::from(self.objects), skew).ok(),
            Kind::Loop | Kind::Drift { .. } => None,
        };
        Requests { generator: self, rng: SmallRng::seed_from_u64(seed), zipf, done: 0, scanned: 0 }
    }
}

/// The requests of a [`Generator`].
pub(super) struct Requests {
    generator: Generator,
    rng: SmallRng,
    zipf: Option<Zipf<f64>>,
    done: u64,
    /// Requests of scans so far.
    scanned: u64,
}

impl Requests {
    pub(super) fn next(&mut self) -> Option<Request> {
        let Generator { kind, objects, requests } = self.generator;
        if self.done == requests {
            return None;
        }
        let objects = u64::from(objects);
        let key = match kind {
            Kind::Zipf { .. } => self.by_popularity(),
            Kind::Loop => self.done % objects,
            Kind::ScanZipf { share, .. } => {
                let scan = (objects / u64::from(SCAN_PART)).max(1);
                // A scan begins when a whole one is due, and is gone through without a break.
                let due = (self.done as f64 * share) as u64 / scan * scan;
                if self.scanned < due {
                    self.scanned += 1;
                    objects + self.scanned
                } else {
                    self.by_popularity()
                }
            }
            Kind::Drift { window } => {
                let window = u64::from(window);
                let way = u128::from(self.done) * u128::from(objects - window + 1) / u128::from(requests);
                way as u64 + self.rng.random_range(0..window)
            }
        };
        self.done += 1;
        Some(Request { key, size_bytes: UNSIZED_BYTES })
    }

    fn by_popularity(&mut self) -> u64 {
        // From 1 to the number of objects.
        self.zipf.map_or(0, |zipf| zipf.sample(&mut self.rng) as u64 - 1)
    }
}
