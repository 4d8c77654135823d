//! Any bytes as a file of properties and as `-p` options: a workload whose every number is in its range, or an error
//! that names the property.

#![no_main]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use std::{fs::File, io::Write, os::fd::AsRawFd};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapfall::workload::ycsb::{Distribution, Operation, Properties, Settings, Workload, YcsbError};
use mapfall_fuzz::heap;
use rustix::fs::{MemfdFlags, memfd_create};

const HEAP_BYTES: usize = 4 << 20;

#[derive(Arbitrary, Debug)]
struct Plan<'a> {
    is_load: bool,
    pairs: Vec<(u8, Value<'a>)>,
    other_pairs: Vec<&'a str>,
    file: &'a [u8],
}

#[derive(Arbitrary, Debug)]
enum Value<'a> {
    Text(&'a str),
    Number(u64),
    Part(f64),
    Word(u8),
}

const NAMES: [&str; 40] = [
    "recordcount",
    "operationcount",
    "insertstart",
    "insertcount",
    "fieldcount",
    "fieldlength",
    "readproportion",
    "updateproportion",
    "insertproportion",
    "scanproportion",
    "readmodifywriteproportion",
    "requestdistribution",
    "zipfianconstant",
    "hotspotdatafraction",
    "hotspotopnfraction",
    "exponential.percentile",
    "exponential.frac",
    "minscanlength",
    "maxscanlength",
    "scanlengthdistribution",
    "threadcount",
    "target",
    "maxexecutiontime",
    "status.interval",
    "hdrhistogram.percentiles",
    "hdrhistogram.fileoutput",
    "hdrhistogram.output.path",
    "measurement.interval",
    "measurementtype",
    "exporter",
    "keyprefix",
    "zeropadding",
    "insertorder",
    "table",
    "dataintegrity",
    "readallfields",
    "writeallfields",
    "dotransactions",
    "workload",
    "label",
];

const WORDS: [&str; 14] = [
    "true",
    "false",
    "uniform",
    "zipfian",
    "plainzipfian",
    "latest",
    "hotspot",
    "exponential",
    "sequential",
    "constant",
    "ordered",
    "hashed",
    "both",
    "site.ycsb.workloads.CoreWorkload",
];

fuzz_target!(|plan: Plan| heap::within(HEAP_BYTES, || check(&plan)));

fn check(plan: &Plan) {
    let mut file = File::from(memfd_create("properties", MemfdFlags::CLOEXEC).expect("a file in memory"));
    file.write_all(plan.file).expect("bytes of it");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let mut properties = Properties::new();
    match properties.read_file(&path) {
        Ok(()) | Err(YcsbError::PropertiesFile { .. }) => {}
        Err(error) => panic!("{error:?}"),
    }
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    let pairs = plan.pairs.iter().take(40).map(|(name, value)| {
        let value = match value {
            Value::Text(text) => (*text).to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Part(part) => part.to_string(),
            Value::Word(word) => WORDS[*word as usize % WORDS.len()].to_owned(),
        };
        format!("{}={value}", NAMES[*name as usize % NAMES.len()])
    });
    for pair in pairs.chain(plan.other_pairs.iter().take(8).map(|pair| (*pair).to_owned())) {
        let parts = pair.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        match (properties.set_pair(&pair), parts) {
            (Ok(()), Some((name, value))) if !name.is_empty() => {
                expected.insert(name.to_owned(), value.to_owned());
            }
            (Err(YcsbError::Unusable(message)), parts) if parts.is_none_or(|(name, _)| name.is_empty()) => {
                assert!(message.contains("expected name=value"), "{message}");
            }
            (result, _) => panic!("{pair:?}: {result:?}"),
        }
    }
    // The last word on a name counts.
    for (name, value) in &expected {
        assert_eq!(properties.get(name), Some(value.as_str()), "{name}");
    }
    match Workload::resolve(&properties) {
        Ok(workload) => in_range(&workload, &properties),
        Err(error) => names_it(&error, &properties),
    }
    match Settings::resolve(&properties, plan.is_load) {
        Ok(settings) => {
            assert!((1..=1024).contains(&settings.threads));
            assert!(settings.target_per_s.is_none_or(|target| target.is_finite() && target > 0.0));
            assert!(
                settings.time_max.is_none_or(|time| !time.is_zero() && Instant::now().checked_add(time).is_some())
                    && !settings.status_every.is_zero()
            );
            assert!(settings.percentiles.iter().all(|percentile| (0.0..=100.0).contains(percentile)));
        }
        Err(error) => names_it(&error, &properties),
    }
}

fn names_it(error: &YcsbError, properties: &Properties) {
    let message = error.to_string();
    match error {
        YcsbError::Value { name, found, .. } => {
            assert!(message.contains("expected ") && message.contains(name), "{message}");
            assert_eq!(properties.get(name), Some(found.as_str()), "{message}");
        }
        YcsbError::RefusedProperty { name, .. } => assert!(properties.get(name).is_some(), "{message}"),
        YcsbError::UnknownProperty { name, .. } => assert!(properties.get(name).is_some(), "{message}"),
        YcsbError::Proportions { .. } | YcsbError::TooLarge { .. } => assert!(message.contains("found "), "{message}"),
        error => panic!("{error:?}"),
    }
}

fn in_range(workload: &Workload, properties: &Properties) {
    let sum: f64 = Operation::ALL.iter().map(|operation| workload.proportion(*operation)).sum();
    assert!((sum - 1.0).abs() < 1e-5 && workload.proportions.iter().all(|part| (0.0..=1.0).contains(part)));
    let (shortest, longest) = workload.scan_lengths;
    assert!(shortest >= 1 && shortest <= longest && longest <= 1_000_000, "scans of {shortest} to {longest}");
    let constant = match workload.distribution {
        Distribution::ScrambledZipfian { constant }
        | Distribution::Zipfian { constant }
        | Distribution::Latest { constant } => constant,
        Distribution::Hotspot { data, operations } => {
            assert!((0.0..=1.0).contains(&data) && (0.0..=1.0).contains(&operations));
            1.0
        }
        Distribution::Exponential { percentile, fraction } => {
            assert!(percentile > 0.0 && percentile < 100.0 && fraction > 0.0 && fraction <= 1.0);
            1.0
        }
        _ => 1.0,
    };
    assert!(constant > 0.0 && constant <= 10.0, "{constant}");
    let layout = &workload.layout;
    assert!(layout.record_bytes() >= 1 && layout.record_bytes() <= 64 << 20, "{layout:?}");
    assert!((512..=1 << 20).contains(&layout.page_bytes()) && layout.check_asked(layout).is_ok());
    assert!(workload.record_count != Some(0) && workload.insert_count != Some(0));
    match workload.to_load() {
        Ok(range) => assert!(range.start == workload.insert_start && !range.is_empty()),
        Err(YcsbError::MissingProperty { .. }) => assert!(properties.get("recordcount").is_none()),
        Err(YcsbError::Value { name, .. }) => assert_eq!(name, "insertstart"),
        Err(error) => panic!("{error:?}"),
    }
}
