//! The names of YCSB's properties: those that are obeyed, and those that are refused with the reason.

use super::error::{Result, YcsbError};
use super::properties::Properties;

/// Read by [`super::Workload`] or by the phase's settings.
pub(super) const OBEYED: [&str; 41] = [
    "dataintegrity",
    "dotransactions",
    "exponential.frac",
    "exponential.percentile",
    "exporter",
    "exportfile",
    "fieldcount",
    "fieldlength",
    "fieldlengthdistribution",
    "hdrhistogram.fileoutput",
    "hdrhistogram.output.path",
    "hdrhistogram.percentiles",
    "hotspotdatafraction",
    "hotspotopnfraction",
    "insertcount",
    "insertorder",
    "insertproportion",
    "insertstart",
    "keyprefix",
    "label",
    "maxexecutiontime",
    "maxscanlength",
    "measurement.interval",
    "measurementtype",
    "minscanlength",
    "operationcount",
    "readallfields",
    "readmodifywriteproportion",
    "readproportion",
    "recordcount",
    "requestdistribution",
    "scanlengthdistribution",
    "scanproportion",
    "status.interval",
    "table",
    "target",
    "threadcount",
    "updateproportion",
    "workload",
    "writeallfields",
    "zeropadding",
];
/// Ours: the exponent of the zipfian distributions.
pub(super) const ZIPFIAN_CONSTANT: &str = "zipfianconstant";

/// Never obeyed: the name, the value with which it changes nothing, and why.
const REFUSED: [(&str, &str, &str); 18] = [
    ("core_workload_insertion_retry_interval", "3", "an insert that fails is counted as an error and not tried again"),
    ("core_workload_insertion_retry_limit", "0", "an insert that fails is counted as an error and not tried again"),
    ("datafile", "", "it belongs to other workloads than the core workload"),
    ("db", "", "the database is the store named by --store"),
    ("fieldlengthhistogram", "hist.txt", "a record is a fixed number of bytes"),
    ("fieldnameprefix", "field", "a record's fields are known by their number"),
    ("histogram.buckets", "1000", "latencies go into an HdrHistogram"),
    ("latencytrackederrors", "", "errors are counted by kind, all of them"),
    ("measurement.histogram.verbose", "false", "--json has the percentiles, --hlog every bucket"),
    ("measurement.raw.no_summary", "false", "latencies go into an HdrHistogram"),
    ("measurement.raw.output_file", "", "latencies go into an HdrHistogram; --hlog has every bucket"),
    ("measurement.trackjvm", "false", "there is no Java machine to watch; resources are always shown"),
    ("mindatalength", "", "it belongs to other workloads than the core workload"),
    ("minfieldlength", "1", "a record is a fixed number of bytes"),
    ("operationcountfortimeseries", "", "it belongs to the time series workload"),
    ("reportlatencyforeacherror", "false", "failed operations have one histogram for each kind of operation"),
    ("requestdistribution.file", "", "replay a trace instead: mapfall ycsb trace replay"),
    ("timeseries.granularity", "1000", "--interval sets the time series"),
];

/// Refuses what is unknown, and what would be ignored.
pub(super) fn check(properties: &Properties) -> Result<()> {
    for (name, value) in properties.iter() {
        let origin = || properties.origin(name);
        if OBEYED.contains(&name) || name == ZIPFIAN_CONSTANT {
            continue;
        }
        match REFUSED.iter().find(|(refused, ..)| *refused == name) {
            Some((_, harmless, _)) if *harmless == value && !harmless.is_empty() => {}
            Some((name, _, reason)) => {
                return Err(YcsbError::RefusedProperty { name, found: value.to_owned(), origin: origin(), reason });
            }
            None => {
                let near = near(name);
                return Err(YcsbError::UnknownProperty { name: name.to_owned(), origin: origin(), near });
            }
        }
    }
    Ok(())
}

/// The known name that is at most two letters from this one, the nearest.
fn near(name: &str) -> Option<&'static str> {
    let known = OBEYED.into_iter().chain([ZIPFIAN_CONSTANT]);
    let distances = known.map(|known| (distance(&name.to_lowercase(), known), known));
    distances.filter(|(distance, _)| *distance <= 2).min().map(|(_, known)| known)
}

/// How many letters have to be put in, taken out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    fn refusal(pair: &str) -> String {
        let mut properties = Properties::new();
        properties.set_pair(pair).unwrap();
        check(&properties).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_obeyed_is_named() {
        assert_eq!(refusal("recordcuont=5"), "-p: unknown property recordcuont, is recordcount meant?");
        assert_eq!(refusal("RecordCount=5"), "-p: unknown property RecordCount, is recordcount meant?");
        assert_eq!(refusal("redis.host=x"), "-p: unknown property redis.host");
        assert!(refusal("db=site.ycsb.db.RedisClient").contains("is not supported: the database is the store"));
        assert!(refusal("histogram.buckets=10").contains("HdrHistogram"));
        let mut harmless = Properties::new();
        harmless.set_pair("histogram.buckets=1000").unwrap();
        harmless.set_pair("fieldnameprefix=field").unwrap();
        check(&harmless).unwrap();
    }

    #[test]
    fn letters_are_counted() {
        assert_eq!((distance("", "abc"), distance("abc", "abc"), distance("kitten", "sitting")), (3, 0, 3));
    }
}
