//! From the bytes of each slice of a pass to what they say: when something changed, and how soon all was as before.

use crate::workload::outcome::{Change, SeriesFigures};
use crate::workload::pass::Series;
use crate::workload::summary::Spread;

const GIB: f64 = (1u64 << 30) as f64;
/// The share of the steady throughput at which a change counts as over.
const RECOVERED: f64 = 0.9;
/// Slices that are taken together, so that one of them alone decides nothing.
const SMOOTH_SLICES: usize = 3;

/// The figures of a series. `changes` are moments in seconds, ascending, with what happened then.
pub(super) fn figures(series: &Series, changes: &[(f64, String)]) -> SeriesFigures {
    let slice_s = Series::SLICE.as_secs_f64();
    let gib_per_s: Vec<f64> = series.slice_bytes.iter().map(|bytes| *bytes as f64 / GIB / slice_s).collect();
    let slice_of = |at_s: f64| ((at_s / slice_s).round() as usize).min(gib_per_s.len());
    let mut found = Vec::new();
    for (index, (at_s, what)) in changes.iter().enumerate() {
        let start = slice_of(*at_s);
        let end = changes.get(index + 1).map_or(gib_per_s.len(), |(next_s, _)| slice_of(*next_s));
        let Some(phase) = gib_per_s.get(start..end).filter(|phase| !phase.is_empty()) else { continue };
        let steady = steady(phase);
        let recovery_s = recovery_slices(phase, steady).map(|slices| slices as f64 * slice_s);
        found.push(Change { at_s: *at_s, what: what.clone(), steady_gib_per_s: steady, recovery_s });
    }
    SeriesFigures { slice_ms: Series::SLICE.as_millis() as u64, gib_per_s, changes: found }
}

/// The median of the last quarter.
fn steady(phase: &[f64]) -> f64 {
    let last = &phase[phase.len() - phase.len().div_ceil(4)..];
    Spread::of(last.iter().copied()).map_or(0.0, |spread| spread.median)
}

/// How many slices go by before those that are at the steady throughput begin.
fn recovery_slices(phase: &[f64], steady: f64) -> Option<usize> {
    let width = SMOOTH_SLICES.min(phase.len()).max(1);
    phase.windows(width).position(|slices| slices.iter().sum::<f64>() / width as f64 >= RECOVERED * steady)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(slices_gib_per_s: &[f64]) -> Series {
        Series { slice_bytes: slices_gib_per_s.iter().map(|rate| (rate * GIB / 10.0) as u64).collect() }
    }

    #[test]
    fn a_dip_lasts_until_the_throughput_is_back() {
        let mut slices = vec![2.0; 20];
        slices[10..14].fill(0.5);
        let figures = figures(&series(&slices), &[(1.0, "shift".to_owned())]);
        assert_eq!((figures.slice_ms, figures.gib_per_s.len()), (100, 20));
        let change = &figures.changes[0];
        assert!((change.steady_gib_per_s - 2.0).abs() < 1e-6 && change.what == "shift");
        assert!((change.recovery_s.unwrap() - 0.4).abs() < 1e-9, "{change:?}");
    }

    #[test]
    fn each_change_is_judged_by_the_time_up_to_the_next() {
        let mut slices = vec![4.0; 10];
        slices.extend([1.0; 10]);
        slices.extend([3.0, 3.5, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]);
        let changes = [(1.0, "25%".to_owned()), (2.0, "50%".to_owned()), (3.0, "never".to_owned())];
        let found = figures(&series(&slices), &changes).changes;
        assert_eq!(found.len(), 2, "nothing comes after the end");
        assert!((found[0].steady_gib_per_s - 1.0).abs() < 1e-6 && found[0].recovery_s == Some(0.0));
        assert!((found[1].steady_gib_per_s - 4.0).abs() < 1e-6);
        assert!(found[1].recovery_s.unwrap() > 0.0 && found[1].recovery_s.unwrap() < 0.3);
    }

    #[test]
    fn a_pass_that_stands_still_has_nothing_to_come_back_to() {
        let found = figures(&series(&[1.0, 1.0, 0.0, 0.0]), &[(0.2, "25%".to_owned())]).changes;
        assert_eq!((found[0].steady_gib_per_s, found[0].recovery_s), (0.0, Some(0.0)));
        assert!(figures(&series(&[]), &[(0.0, "shift".to_owned())]).changes.is_empty());
    }
}
