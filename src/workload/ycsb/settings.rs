//! The properties that are about how a phase is done and shown, not about what is done.

use std::path::PathBuf;
use std::time::Duration;

use super::error::{Result, YcsbError};
use super::hlog::LogFiles;
use super::properties::Properties;
use super::workload::only;

/// No phase has more threads.
pub const THREADS_MAX: usize = 1024;
/// No clock need be set ahead by more.
const CENTURY_S: u64 = 100 * 365 * 24 * 3600;
const PERCENTILES_DEFAULT: [f64; 4] = [50.0, 95.0, 99.0, 99.9];

/// Which latencies the text shows: `measurement.interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// From when operations began: `op`.
    Measured,
    /// From when they should have begun: `intended`.
    Intended,
    /// `both`.
    Both,
}

/// How figures are written: `exporter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exporter {
    /// `[READ], Operations, 5`, a line each.
    Text,
    /// A JSON object each.
    Json,
    /// An array of JSON objects.
    JsonArray,
}

/// How a phase is done and shown, as far as properties say it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `threadcount`.
    pub threads: usize,
    /// `target`, in operations a second.
    pub target_per_s: Option<f64>,
    /// `maxexecutiontime`.
    pub time_max: Option<Duration>,
    /// `hdrhistogram.percentiles`.
    pub percentiles: Vec<f64>,
    /// `measurement.interval`; with a target both by default.
    pub shown: Shown,
    /// `status.interval`.
    pub status_every: Duration,
    /// `hdrhistogram.fileoutput` and `hdrhistogram.output.path`.
    pub logs: Option<LogFiles>,
    /// `exporter`.
    pub exporter: Exporter,
    /// `exportfile`.
    pub export_file: Option<PathBuf>,
    /// `label`.
    pub label: Option<String>,
}

impl Settings {
    /// From properties, for a load or for a run.
    ///
    /// # Errors
    ///
    /// [`YcsbError::Value`], [`YcsbError::RefusedProperty`].
    pub fn resolve(properties: &Properties, is_load: bool) -> Result<Settings> {
        let why = "latencies go into an HdrHistogram (measurementtype=hdrhistogram); --json has the time series";
        only(properties, "measurementtype", &["hdrhistogram"], why)?;
        let transactions = properties.flag("dotransactions")?;
        if let Some(found) = transactions.filter(|transactions| *transactions == is_load) {
            let reason = "load and run say which it is";
            let (name, origin) = ("dotransactions", properties.origin("dotransactions"));
            return Err(YcsbError::RefusedProperty { name, found: found.to_string(), origin, reason });
        }
        let threads = properties.parse("threadcount", "a number of threads from 1 to 1024", |threads: &usize| {
            (1..=THREADS_MAX).contains(threads)
        })?;
        let target_per_s = properties.parse("target", "a number of operations a second above 0", |target: &f64| {
            target.is_finite() && *target > 0.0
        })?;
        let seconds = |name| {
            let expected = "a number of seconds above 0 and up to a century";
            let found = properties.parse(name, expected, |seconds: &u64| (1..=CENTURY_S).contains(seconds))?;
            Ok::<_, YcsbError>(found.map(Duration::from_secs))
        };
        let (time_max, status_every) = (seconds("maxexecutiontime")?, seconds("status.interval")?);
        let shown = [("op", Shown::Measured), ("intended", Shown::Intended), ("both", Shown::Both)];
        let shown = properties.one_of("measurement.interval", "op, intended or both", &shown)?;
        let default = if target_per_s.is_some() { Shown::Both } else { Shown::Measured };
        let prefix = properties.get("hdrhistogram.output.path").unwrap_or_default().to_owned();
        let writes_logs = properties.flag("hdrhistogram.fileoutput")?.unwrap_or(false);
        Ok(Settings {
            threads: threads.unwrap_or(1),
            target_per_s,
            time_max,
            percentiles: percentiles(properties)?,
            shown: shown.unwrap_or(default),
            status_every: status_every.unwrap_or(Duration::from_secs(10)),
            logs: writes_logs.then_some(LogFiles::Each { prefix }),
            exporter: exporter(properties)?,
            export_file: properties.get("exportfile").map(PathBuf::from),
            label: properties.get("label").map(str::to_owned),
        })
    }
}

fn percentiles(properties: &Properties) -> Result<Vec<f64>> {
    const NAME: &str = "hdrhistogram.percentiles";
    let Some(found) = properties.get(NAME) else { return Ok(PERCENTILES_DEFAULT.to_vec()) };
    let parse = |text: &str| text.trim().parse().ok().filter(|percentile| (0.0..=100.0).contains(percentile));
    let percentiles: Option<Vec<f64>> = found.split(',').map(parse).collect();
    let expected = "percentiles from 0 to 100 with commas between them";
    let origin = properties.origin(NAME);
    percentiles.ok_or_else(|| YcsbError::Value { name: NAME, expected, found: found.to_owned(), origin })
}

fn exporter(properties: &Properties) -> Result<Exporter> {
    let class = |package: &str, name: &str| format!("{package}.measurements.exporter.{name}MeasurementsExporter");
    let kinds = [("Text", Exporter::Text), ("JSON", Exporter::Json), ("JSONArray", Exporter::JsonArray)];
    let both = |name: &str| [class("site.ycsb", name), class("com.yahoo.ycsb", name)];
    let words: Vec<_> = kinds.iter().flat_map(|(name, kind)| both(name).map(|class| (class, *kind))).collect();
    let words: Vec<_> = words.iter().map(|(class, kind)| (class.as_str(), *kind)).collect();
    let expected = "site.ycsb.measurements.exporter.TextMeasurementsExporter, or JSON or JSONArray for Text";
    Ok(properties.one_of("exporter", expected, &words)?.unwrap_or(Exporter::Text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    fn with(pairs: &[&str]) -> Result<Settings> {
        let mut properties = Properties::new();
        pairs.iter().for_each(|pair| properties.set_pair(pair).unwrap());
        Settings::resolve(&properties, false)
    }

    #[test]
    fn each_is_obeyed() {
        let plain = with(&[]).unwrap();
        assert_eq!((plain.threads, plain.target_per_s, plain.shown), (1, None, Shown::Measured));
        let full = with(&[
            "threadcount=4",
            "target=1000",
            "maxexecutiontime=5",
            "hdrhistogram.percentiles=50, 99.99",
            "hdrhistogram.fileoutput=true",
            "hdrhistogram.output.path=/tmp/x-",
            "status.interval=2",
            "exporter=com.yahoo.ycsb.measurements.exporter.JSONArrayMeasurementsExporter",
            "exportfile=out",
            "label=mine",
            "dotransactions=true",
        ])
        .unwrap();
        let logs = Some(LogFiles::Each { prefix: "/tmp/x-".to_owned() });
        assert_eq!((full.threads, full.target_per_s, full.shown, full.logs), (4, Some(1000.0), Shown::Both, logs));
        assert_eq!((full.time_max, full.status_every), (Some(Duration::from_secs(5)), Duration::from_secs(2)));
        assert_eq!((full.percentiles, full.exporter), (vec![50.0, 99.99], Exporter::JsonArray));
        assert_eq!((full.export_file, full.label.as_deref()), (Some("out".into()), Some("mine")));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (pair, expected) in [
            ("threadcount=0", "threadcount: expected a number of threads from 1 to 1024, found \"0\""),
            ("target=0", "target: expected a number of operations a second above 0, found \"0\""),
            ("target=-1", "target: expected"),
            ("maxexecutiontime=0", "maxexecutiontime: expected"),
            // A phase that is to end then would panic.
            ("maxexecutiontime=18446744073709551615", "maxexecutiontime: expected"),
            ("measurementtype=timeseries", "measurementtype=timeseries is not supported: latencies go into"),
            ("measurement.interval=all", "expected op, intended or both"),
            ("hdrhistogram.percentiles=50,x", "hdrhistogram.percentiles: expected"),
            ("exporter=Xml", "exporter: expected site.ycsb"),
            ("dotransactions=false", "load and run say which it is"),
        ] {
            let message = with(&[pair]).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
