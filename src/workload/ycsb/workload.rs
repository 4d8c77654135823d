//! What is to be done to which records: YCSB's core workload, resolved from its properties.

use serde::{Deserialize, Serialize};

use super::error::{Result, YcsbError};
use super::names;
use super::properties::Properties;
use super::record::Layout;

/// By how much the proportions may miss 1: what adds up as decimals does not in binary.
const PROPORTION_ERROR_MAX: f64 = 1e-6;
/// YCSB's exponent, with which its frequencies are known.
pub(super) const ZIPFIAN_CONSTANT_DEFAULT: f64 = 0.99;
/// More is one key asked for over and over.
const ZIPFIAN_CONSTANT_MAX: f64 = 10.0;
/// No scan is longer.
const SCAN_LENGTH_MAX: u64 = 1_000_000;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operation {
    /// A record, copied out.
    Read,
    /// A field of a record, or all of it, written anew.
    Update,
    /// A new record.
    Insert,
    /// Records in the order of their keys, from one on.
    Scan,
    /// A record read, changed and written.
    ReadModifyWrite,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 5] =
        [Operation::Read, Operation::Update, Operation::Insert, Operation::Scan, Operation::ReadModifyWrite];

    /// YCSB's name, as its output has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Operation::Read => "READ",
            Operation::Update => "UPDATE",
            Operation::Insert => "INSERT",
            Operation::Scan => "SCAN",
            Operation::ReadModifyWrite => "READ-MODIFY-WRITE",
        }
    }

    fn property(self) -> &'static str {
        match self {
            Operation::Read => "readproportion",
            Operation::Update => "updateproportion",
            Operation::Insert => "insertproportion",
            Operation::Scan => "scanproportion",
            Operation::ReadModifyWrite => "readmodifywriteproportion",
        }
    }
}

/// How the record of an operation is chosen: `requestdistribution`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Distribution {
    /// `uniform`: any, with the same chance.
    Uniform,
    /// `zipfian`, as YCSB does it: ranks over ten billion, scattered over the records by a hash.
    ScrambledZipfian {
        /// The exponent.
        constant: f64,
    },
    /// `plainzipfian`: the n-th record has a chance in proportion to `1 / n^constant`.
    Zipfian {
        /// The exponent.
        constant: f64,
    },
    /// `latest`: zipfian by age, the newest record first.
    Latest {
        /// The exponent.
        constant: f64,
    },
    /// `hotspot`: a part of the records gets a part of the operations.
    Hotspot {
        /// That part of the records.
        data: f64,
        /// That part of the operations.
        operations: f64,
    },
    /// `exponential`: by age, the newest first.
    Exponential {
        /// So many percent of the operations go to ...
        percentile: f64,
        /// ... this part of the records.
        fraction: f64,
    },
    /// `sequential`: one after another, over and over, all threads together.
    Sequential,
    /// `constant`: the first one, always.
    Constant,
}

/// How long a scan is: `scanlengthdistribution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanLength {
    /// Any length, with the same chance.
    Uniform,
    /// Short ones most often.
    Zipfian,
}

/// YCSB's core workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// What a record is and what its key looks like.
    pub layout: Layout,
    /// Records that the store has, or is to have. Nothing where the property is not given.
    pub record_count: Option<u64>,
    /// Operations of a run. Nothing where only time ends it.
    pub operation_count: Option<u64>,
    /// The number of the first record.
    pub insert_start: u64,
    /// How many records a load inserts, or a run chooses among.
    pub insert_count: Option<u64>,
    /// The share of each kind of operation, in the order of [`Operation::ALL`].
    pub proportions: [f64; 5],
    /// How records are chosen.
    pub distribution: Distribution,
    /// How long scans are.
    pub scan_length: ScanLength,
    /// The shortest and the longest scan.
    pub scan_lengths: (u64, u64),
    /// Whether a read copies out all fields or one.
    pub read_all_fields: bool,
    /// Whether an update writes all fields or one.
    pub write_all_fields: bool,
}

impl Workload {
    /// From properties, each of which is obeyed or refused by name.
    ///
    /// # Errors
    ///
    /// [`YcsbError::UnknownProperty`], [`YcsbError::RefusedProperty`], [`YcsbError::Value`],
    /// [`YcsbError::Proportions`].
    pub fn resolve(properties: &Properties) -> Result<Workload> {
        names::check(properties)?;
        check_class(properties)?;
        let constant_lengths = "a record is a fixed number of bytes";
        only(properties, "fieldlengthdistribution", &["constant"], constant_lengths)?;
        let part = |name, default: f64| {
            let part = properties.parse(name, "a number from 0 to 1", |part: &f64| (0.0..=1.0).contains(part))?;
            Ok::<f64, YcsbError>(part.unwrap_or(default))
        };
        let count = |name, expected, least| properties.parse(name, expected, |count: &u64| *count >= least);
        let defaults = [0.95, 0.05, 0.0, 0.0, 0.0];
        let mut proportions = [0.0; 5];
        for ((operation, default), proportion) in Operation::ALL.iter().zip(defaults).zip(&mut proportions) {
            *proportion = part(operation.property(), default)?;
        }
        check_proportions(&proportions)?;
        let longest = properties
            .parse("maxscanlength", "1 to 1000000 records", |length: &u64| (1..=SCAN_LENGTH_MAX).contains(length))?;
        let longest = longest.unwrap_or(1000);
        let shortest = properties
            .parse("minscanlength", "1 to maxscanlength records", |length: &u64| (1..=longest).contains(length))?;
        let scan_lengths =
            [("uniform", ScanLength::Uniform), ("zipfian", ScanLength::Zipfian)].map(|(name, kind)| (name, kind));
        let record_count = count("recordcount", "a number of records above 0", 1)?;
        let insert_start = count("insertstart", "the number of the first record", 0)?.unwrap_or(0);
        let insert_count = count("insertcount", "a number of records above 0", 1)?;
        check_inserts(properties, record_count, insert_start, insert_count)?;
        Ok(Workload {
            layout: Layout::resolve(properties)?,
            record_count,
            operation_count: count("operationcount", "a number of operations", 0)?.filter(|count| *count > 0),
            insert_start,
            insert_count,
            proportions,
            distribution: distribution(properties)?,
            scan_length: properties
                .one_of("scanlengthdistribution", "uniform or zipfian", &scan_lengths)?
                .unwrap_or(ScanLength::Uniform),
            scan_lengths: (shortest.unwrap_or(1), longest),
            read_all_fields: properties.flag("readallfields")?.unwrap_or(true),
            write_all_fields: properties.flag("writeallfields")?.unwrap_or(false),
        })
    }

    /// The share of a kind of operation.
    #[must_use]
    pub fn proportion(&self, operation: Operation) -> f64 {
        self.proportions[operation as usize]
    }

    /// Whether any operation of a run writes.
    #[must_use]
    pub fn writes(&self) -> bool {
        [Operation::Update, Operation::Insert, Operation::ReadModifyWrite]
            .into_iter()
            .any(|operation| self.proportion(operation) > 0.0)
    }

    /// The numbers of the records that a load inserts.
    ///
    /// # Errors
    ///
    /// [`YcsbError::MissingProperty`] without `recordcount` and `insertcount`; [`YcsbError::Value`] where they leave
    /// nothing to insert.
    pub fn to_load(&self) -> Result<std::ops::Range<u64>> {
        let why = "how many records to load";
        let end = match (self.insert_count, self.record_count) {
            (Some(count), _) => self.insert_start.checked_add(count),
            (None, Some(count)) => Some(count),
            (None, None) => return Err(YcsbError::MissingProperty { name: "recordcount", why }),
        };
        let range = self.insert_start..end.unwrap_or(0);
        if range.is_empty() {
            let (name, expected) = ("insertstart", "less than recordcount");
            return Err(YcsbError::Value { name, expected, found: range.start.to_string(), origin: "-p".to_owned() });
        }
        Ok(range)
    }
}

/// The class of the workload, if it is named: YCSB's core workload under either of its packages.
fn check_class(properties: &Properties) -> Result<()> {
    let classes = ["site.ycsb.workloads.CoreWorkload", "com.yahoo.ycsb.workloads.CoreWorkload"];
    only(properties, "workload", &classes, "this driver has the core workload only")
}

/// Refuses any value but a few.
pub(super) fn only(properties: &Properties, name: &'static str, allowed: &[&str], reason: &'static str) -> Result<()> {
    match properties.get(name) {
        Some(found) if !allowed.contains(&found) => {
            Err(YcsbError::RefusedProperty { name, found: found.to_owned(), origin: properties.origin(name), reason })
        }
        _ => Ok(()),
    }
}

/// The part of the records that is named must be a part of them, as in YCSB.
fn check_inserts(properties: &Properties, records: Option<u64>, start: u64, count: Option<u64>) -> Result<()> {
    let Some(records) = records else { return Ok(()) };
    let wrong = |name, expected, found: u64| {
        let origin = properties.origin(name);
        Err(YcsbError::Value { name, expected, found: found.to_string(), origin })
    };
    match count {
        _ if start >= records => wrong("insertstart", "less than recordcount", start),
        Some(count) if count > records - start => wrong("insertcount", "at most recordcount - insertstart", count),
        _ => Ok(()),
    }
}

fn check_proportions(proportions: &[f64; 5]) -> Result<()> {
    let sum: f64 = proportions.iter().sum();
    if (sum - 1.0).abs() <= PROPORTION_ERROR_MAX {
        return Ok(());
    }
    let each = Operation::ALL.iter().zip(proportions).filter(|(_, proportion)| **proportion > 0.0);
    let each: Vec<_> = each.map(|(operation, proportion)| format!("{}={proportion}", operation.property())).collect();
    let sum = (sum * 1e9).round() / 1e9;
    let found = if each.is_empty() { "all of them 0".to_owned() } else { format!("{sum} ({})", each.join(", ")) };
    Err(YcsbError::Proportions { found })
}

fn distribution(properties: &Properties) -> Result<Distribution> {
    let in_range = |constant: &f64| *constant > 0.0 && *constant <= ZIPFIAN_CONSTANT_MAX;
    let constant = properties.parse(names::ZIPFIAN_CONSTANT, "an exponent above 0 and up to 10", in_range)?;
    let constant = constant.unwrap_or(ZIPFIAN_CONSTANT_DEFAULT);
    let part = |name, default: f64| {
        let part = properties.parse(name, "a number from 0 to 1", |part: &f64| (0.0..=1.0).contains(part))?;
        Ok::<f64, YcsbError>(part.unwrap_or(default))
    };
    let percentile = properties
        .parse("exponential.percentile", "a percentage above 0 and below 100", |p: &f64| *p > 0.0 && *p < 100.0)?
        .unwrap_or(95.0);
    let fraction = properties
        .parse("exponential.frac", "a number above 0 and up to 1", |part: &f64| *part > 0.0 && *part <= 1.0)?
        .unwrap_or(0.857_142_857_1);
    let words = [
        ("uniform", Distribution::Uniform),
        ("zipfian", Distribution::ScrambledZipfian { constant }),
        ("plainzipfian", Distribution::Zipfian { constant }),
        ("latest", Distribution::Latest { constant }),
        (
            "hotspot",
            Distribution::Hotspot {
                data: part("hotspotdatafraction", 0.2)?,
                operations: part("hotspotopnfraction", 0.8)?,
            },
        ),
        ("exponential", Distribution::Exponential { percentile, fraction }),
        ("sequential", Distribution::Sequential),
        ("constant", Distribution::Constant),
    ];
    let expected = "one of uniform, zipfian, plainzipfian, latest, hotspot, exponential, sequential, constant";
    Ok(properties.one_of("requestdistribution", expected, &words)?.unwrap_or(Distribution::Uniform))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;
    use std::path::Path;

    fn with(pairs: &[&str]) -> Result<Workload> {
        let mut properties = Properties::new();
        pairs.iter().for_each(|pair| properties.set_pair(pair).unwrap());
        Workload::resolve(&properties)
    }

    #[test]
    fn the_six_workloads_are_what_they_are_known_for() {
        for (letter, proportions) in [
            ('a', [0.5, 0.5, 0.0, 0.0, 0.0]),
            ('b', [0.95, 0.05, 0.0, 0.0, 0.0]),
            ('c', [1.0, 0.0, 0.0, 0.0, 0.0]),
            ('d', [0.95, 0.0, 0.05, 0.0, 0.0]),
            ('e', [0.0, 0.0, 0.05, 0.95, 0.0]),
            ('f', [0.5, 0.0, 0.0, 0.0, 0.5]),
        ] {
            let mut properties = Properties::new();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("workloads/workload{letter}"));
            properties.read_file(&path).unwrap();
            let workload = Workload::resolve(&properties).unwrap();
            assert_eq!(workload.proportions, proportions, "{letter}");
            let constant = ZIPFIAN_CONSTANT_DEFAULT;
            let distribution = match letter {
                'd' => Distribution::Latest { constant },
                _ => Distribution::ScrambledZipfian { constant },
            };
            assert_eq!(workload.distribution, distribution, "{letter}");
            assert_eq!(workload.scan_lengths, (1, if letter == 'e' { 100 } else { 1000 }));
            assert_eq!((workload.record_count, workload.operation_count), (Some(1000), Some(1000)));
            assert!(workload.read_all_fields && !workload.write_all_fields);
        }
    }

    #[test]
    fn wrong_values_are_named() {
        for (pairs, expected) in [
            (&["readproportion=0.5"][..], "add up to 1, found 0.55 (readproportion=0.5, updateproportion=0.05)"),
            (&["readproportion=0", "updateproportion=0"], "add up to 1, found all of them 0"),
            (&["readproportion=1.5"], "-p: readproportion: expected a number from 0 to 1, found \"1.5\""),
            (&["recordcount=0"], "-p: recordcount: expected a number of records above 0, found \"0\""),
            (&["recordcount=1e6"], "recordcount: expected"),
            (&["recordcount=10", "insertstart=10"], "-p: insertstart: expected less than recordcount, found \"10\""),
            (&["recordcount=10", "insertstart=4", "insertcount=7"], "insertcount: expected at most recordcount - "),
            (&["requestdistribution=zipf"], "requestdistribution: expected one of uniform, zipfian"),
            (&["scanlengthdistribution=latest"], "scanlengthdistribution: expected uniform or zipfian"),
            (&["maxscanlength=5", "minscanlength=6"], "minscanlength: expected 1 to maxscanlength"),
            (&["zipfianconstant=0"], "zipfianconstant: expected"),
            (&["readallfields=yes"], "readallfields: expected true or false"),
            (&["insertorder=random"], "insertorder: expected hashed or ordered"),
            (&["workload=site.ycsb.workloads.RestWorkload"], "core workload only"),
            (&["fieldlengthdistribution=zipfian"], "a fixed number of bytes"),
        ] {
            let message = with(pairs).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn what_is_loaded_goes_with_three_properties() {
        assert_eq!(with(&["recordcount=10"]).unwrap().to_load().unwrap(), 0..10);
        assert_eq!(with(&["recordcount=10", "insertstart=4"]).unwrap().to_load().unwrap(), 4..10);
        assert_eq!(with(&["recordcount=10", "insertstart=4", "insertcount=2"]).unwrap().to_load().unwrap(), 4..6);
        assert!(with(&[]).unwrap().to_load().is_err());
        assert!(with(&["insertstart=18446744073709551615", "insertcount=2"]).unwrap().to_load().is_err());
    }
}
