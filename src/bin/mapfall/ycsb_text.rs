//! Figures as YCSB writes them, with its labels, and its status lines.

use std::fmt::Write;

use mapfall::workload::ycsb::{Exporter, Latency, PhaseOutcome, Settings, Shown, Status};
use serde_json::{Value, json};

/// One figure.
struct Measurement {
    metric: String,
    name: String,
    value: Value,
}

/// All figures of a phase, as the exporter has them.
pub(crate) fn render(outcome: &PhaseOutcome, settings: &Settings) -> String {
    let measurements = measurements(outcome, settings);
    let object =
        |m: &Measurement| json!({ "metric": m.metric, "measurement": m.name, "value": m.value }).to_string() + "\n";
    match settings.exporter {
        Exporter::Text => measurements.iter().fold(String::new(), |mut text, m| {
            let value = match &m.value {
                Value::String(value) => value.clone(),
                value => value.to_string(),
            };
            let _ = writeln!(text, "[{}], {}, {value}", m.metric, m.name);
            text
        }),
        Exporter::Json => measurements.iter().map(object).collect(),
        Exporter::JsonArray => {
            let objects: Vec<_> = measurements.iter().map(|m| object(m).trim_end().to_owned()).collect();
            format!("[{}]\n", objects.join(",\n"))
        }
    }
}

fn measurements(outcome: &PhaseOutcome, settings: &Settings) -> Vec<Measurement> {
    let mut list = List(Vec::new());
    list.add("OVERALL", "RunTime(ms)", json!((outcome.run_time_s * 1e3).round() as u64));
    list.add("OVERALL", "Throughput(ops/sec)", json!(rounded(outcome.throughput_per_s, 1e2)));
    for series in &outcome.series {
        let name = &series.name;
        if !series.is_operation || settings.shown != Shown::Intended {
            list.latency(name, &series.measured, settings);
            for (end, count) in &series.returns {
                list.add(name, &format!("Return={end}"), json!(count));
            }
        }
        for (kind, count) in &series.errors {
            list.add(name, &format!("Error={kind}"), json!(count));
        }
        if settings.shown == Shown::Measured {
            continue;
        }
        if let Some(intended) = &series.intended {
            list.latency(&format!("Intended-{name}"), intended, settings);
        }
        if let Some(corrected) = &series.corrected {
            list.latency(&format!("Corrected-{name}"), corrected, settings);
        }
    }
    if outcome.warm_up_operations > 0 {
        list.add("WARM-UP", "Operations", json!(outcome.warm_up_operations));
    }
    resources(&mut list, outcome);
    for (path, (reads, bytes)) in &outcome.io.paths {
        list.add("IO", &format!("Reads({path})"), json!(reads));
        list.add("IO", &format!("ReadBytes({path})"), json!(bytes));
    }
    for (reason, count) in &outcome.io.fallbacks {
        list.add("IO", &format!("Fallbacks({reason})"), json!(count));
    }
    if outcome.io.writes > 0 {
        list.add("IO", "Writes", json!(outcome.io.writes));
        list.add("IO", "WriteBytes", json!(outcome.io.write_bytes));
        list.add("IO", "Syncs", json!(outcome.io.syncs));
    }
    if let Some(cache) = &outcome.cache {
        list.add("CACHE", "Hits", json!(cache.hits));
        list.add("CACHE", "Misses", json!(cache.misses));
        list.add("CACHE", "HitRatio", cache.hit_ratio.map_or(Value::Null, |ratio| json!(rounded(ratio, 1e4))));
        list.add("CACHE", "BypassedReads", json!(cache.bypassed_reads));
        list.add("CACHE", "Evictions", json!(cache.evictions));
    }
    if let Some(index) = &outcome.index {
        list.add("INDEX", "Pages", json!(index.pages));
        list.add("INDEX", "MemoryBytes", json!(index.memory_bytes));
    }
    list.0
}

fn resources(list: &mut List, outcome: &PhaseOutcome) {
    let Some(resources) = &outcome.resources else { return };
    let mut add = |name: &str, value: Value| list.add("RESOURCES", name, value);
    add("CPUUser(s)", json!(rounded(resources.cpu_user_s, 1e2)));
    add("CPUSystem(s)", json!(rounded(resources.cpu_system_s, 1e2)));
    add("MinorFaults", json!(resources.minor_faults));
    add("MajorFaults", json!(resources.major_faults));
    if let Some(bytes) = resources.device_read_bytes {
        add("DeviceReadBytes", json!(bytes));
    }
    if let Some(bytes) = resources.device_write_bytes {
        add("DeviceWriteBytes", json!(bytes));
    }
    add("VoluntarySwitches", json!(resources.voluntary_switches));
    add("InvoluntarySwitches", json!(resources.involuntary_switches));
}

struct List(Vec<Measurement>);

impl List {
    fn add(&mut self, metric: &str, name: &str, value: Value) {
        self.0.push(Measurement { metric: metric.to_owned(), name: name.to_owned(), value });
    }

    fn latency(&mut self, metric: &str, latency: &Latency, settings: &Settings) {
        let us = |ns: f64| json!(rounded(ns / 1e3, 1e3));
        self.add(metric, "Operations", json!(latency.count));
        self.add(metric, "AverageLatency(us)", us(latency.mean_ns));
        self.add(metric, "MinLatency(us)", us(latency.min_ns as f64));
        self.add(metric, "MaxLatency(us)", us(latency.max_ns as f64));
        for percentile in &settings.percentiles {
            if let Some(value) = latency.percentile_ns(*percentile) {
                self.add(metric, &format!("{}PercentileLatency(us)", ordinal(*percentile)), us(value as f64));
            }
        }
    }
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

/// `95th`, `1st`; of what is no whole number just that, as YCSB has it.
fn ordinal(percentile: f64) -> String {
    if percentile.fract() != 0.0 {
        return percentile.to_string();
    }
    let whole = percentile as u64;
    let suffix = match (whole % 100, whole % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{whole}{suffix}")
}

/// How a phase stands, in a line.
pub(crate) fn status(status: &Status) -> String {
    let Status { elapsed, operations, .. } = status;
    let mut line =
        format!("{} sec: {operations} operations; {:.1} current ops/sec;", elapsed.as_secs(), status.current_per_s);
    if let Some(all) = status.operations_all.filter(|all| all > operations && *operations > 0) {
        let left_s = elapsed.as_secs_f64() * (all - operations) as f64 / *operations as f64;
        let _ = match left_s {
            120.0.. => write!(line, " est completion in {:.0} minutes", left_s / 60.0),
            _ => write!(line, " est completion in {left_s:.0} seconds"),
        };
    }
    for (name, latency) in &status.series {
        let us = |ns: f64| rounded(ns / 1e3, 1e2);
        let percentile = |percentile| us(latency.percentile_ns(percentile).unwrap_or(0) as f64);
        let _ = write!(
            line,
            " [{name}: Count={}, Max={}, Min={}, Avg={}, 90={}, 99={}, 99.9={}, 99.99={}]",
            latency.count,
            us(latency.max_ns as f64),
            us(latency.min_ns as f64),
            us(latency.mean_ns),
            percentile(90.0),
            percentile(99.0),
            percentile(99.9),
            percentile(99.99)
        );
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_called_as_ycsb_calls_them() {
        let names = [1.0, 2.0, 3.0, 11.0, 12.0, 50.0, 95.0, 99.0, 99.9, 100.0].map(ordinal);
        assert_eq!(names, ["1st", "2nd", "3rd", "11th", "12th", "50th", "95th", "99th", "99.9", "100th"]);
    }
}
