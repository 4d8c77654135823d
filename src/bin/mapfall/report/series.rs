//! Throughput over time as inline SVG: a line for each contender, on a scale by powers of ten, since what can be had
//! from memory and what from a device are far apart.

use std::fmt::Write;

use mapfall::workload::contender::Io;
use mapfall::workload::outcome::{Cell, CellKey, Outcome};
use mapfall::workload::summary::Spread;

use super::escape;
use crate::table;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 240.0;
const PLOT_TOP: f64 = 40.0;
const PLOT_BOTTOM: f64 = HEIGHT - 26.0;
const PLOT_LEFT: f64 = 40.0;
const PLOT_RIGHT: f64 = WIDTH - 8.0;
/// Less than this, in GiB/s, is drawn as this: about one block of 4 KiB in each slice.
const FLOOR: f64 = 4e-5;
/// About as many marks below.
const TICKS: f64 = 6.0;

/// A contender over time: the median of its passes, slice by slice.
struct Line {
    io: Io,
    gib_per_s: Vec<f64>,
}

/// A chart for each cell that was measured over time, and what happened in them.
pub(super) fn render(outcome: &Outcome) -> Option<String> {
    let mut html = "<p>GiB/s in each tenth of a second, the median of the passes. The scale goes by powers of ten. \
                    Dashed: when the working set moved or the limit was changed.</p>\n<div class=\"charts\">\n"
        .to_owned();
    let mut rows = String::new();
    let mut is_empty = true;
    for key in table::keys(outcome) {
        let cells: Vec<&Cell> = outcome.cells.iter().filter(|cell| cell.key == key).collect();
        let lines: Vec<Line> = cells.iter().filter_map(|cell| line(cell)).collect();
        let first = cells.iter().flat_map(|cell| &cell.passes).find_map(|pass| pass.series.as_ref());
        let Some(first) = first.filter(|_| !lines.is_empty()) else { continue };
        is_empty = false;
        let changes: Vec<(f64, &str)> = first.changes.iter().map(|change| (change.at_s, &change.what[..])).collect();
        html += &chart(&key, &lines, first.slice_ms as f64 / 1000.0, &changes);
        for cell in cells {
            for (what, at_s, recovery) in table::recoveries(cell) {
                let what = escape(&what);
                let _ = writeln!(
                    rows,
                    "<tr><td>{key}</td><td>{}</td><td>{what}</td><td class=\"number\">{at_s} s</td>\
                     <td>{recovery}</td></tr>",
                    cell.io
                );
            }
        }
    }
    html += "</div>\n";
    if !rows.is_empty() {
        let _ = writeln!(
            html,
            "<div class=\"scroll\"><table>\n<tr><th>cell</th><th>io</th><th>change</th><th class=\"number\">at</th>\
             <th>throughput</th></tr>\n{rows}</table></div>\n<p class=\"small\">Back is when the mean of three tenths \
             of a second was at 90 % of what the throughput came to: its median in the last quarter of the time up \
             to the next change.</p>"
        );
    }
    (!is_empty).then_some(html)
}

fn line(cell: &Cell) -> Option<Line> {
    let passes: Vec<&[f64]> =
        cell.passes.iter().filter_map(|pass| Some(&pass.series.as_ref()?.gib_per_s[..])).collect();
    let slices = passes.iter().map(|pass| pass.len()).max().filter(|slices| *slices > 0)?;
    let median = |slice: usize| Spread::of(passes.iter().filter_map(|pass| pass.get(slice).copied()));
    let gib_per_s = (0..slices).map(|slice| median(slice).map_or(0.0, |spread| spread.median)).collect();
    Some(Line { io: cell.io, gib_per_s })
}

fn chart(key: &CellKey, lines: &[Line], slice_s: f64, changes: &[(f64, &str)]) -> String {
    let values = || lines.iter().flat_map(|line| &line.gib_per_s).map(|rate| rate.max(FLOOR));
    let axis = Decades::around(values().fold(f64::INFINITY, f64::min), values().fold(FLOOR, f64::max));
    let slices = lines.iter().map(|line| line.gib_per_s.len()).max().unwrap_or(1) as f64;
    let x = |s: f64| PLOT_LEFT + (PLOT_RIGHT - PLOT_LEFT) * s / (slices * slice_s);
    let title = escape(&key.to_string());
    let mut svg = format!(
        "<figure>\n<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" style=\"min-width: 336px\" role=\"img\" \
         aria-label=\"{title}, GiB/s over time\">\n<text class=\"title\" x=\"0\" y=\"13\">{title}</text>\n\
         <text class=\"axis\" x=\"{WIDTH}\" y=\"13\" text-anchor=\"end\">GiB/s by seconds</text>\n"
    );
    for (value, label) in axis.ticks() {
        let y = axis.y(value);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{PLOT_LEFT}\" x2=\"{PLOT_RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"axis\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            PLOT_LEFT - 5.0,
            y + 3.5
        );
    }
    let step = tick_step(slices * slice_s);
    for tick in 0..=((slices * slice_s / step) as u32) {
        let s = f64::from(tick) * step;
        let _ = writeln!(
            svg,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{s}</text>",
            x(s),
            PLOT_BOTTOM + 16.0
        );
    }
    for (at_s, what) in changes {
        let (at, what) = (x(*at_s), escape(what));
        let _ = writeln!(
            svg,
            "<path class=\"change\" d=\"M{at:.1} {PLOT_TOP}V{PLOT_BOTTOM}\"/>\
             <text class=\"axis\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{what}</text>",
            PLOT_TOP - 5.0
        );
    }
    for line in lines {
        let points = line.gib_per_s.iter().enumerate().map(|(slice, rate)| {
            let middle_s = (slice as f64 + 0.5) * slice_s;
            format!("{:.1},{:.1}", x(middle_s), axis.y(rate.max(FLOOR)))
        });
        let points: Vec<String> = points.collect();
        let name = line.io.name();
        let _ = writeln!(
            svg,
            "<polyline class=\"line bar-{name}\" points=\"{}\"><title>{name}</title></polyline>",
            points.join(" ")
        );
    }
    svg + "</svg></div>\n</figure>\n"
}

/// A round number of seconds.
fn tick_step(span_s: f64) -> f64 {
    let rough = span_s / TICKS;
    let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0];
    steps.into_iter().find(|step| *step >= rough).unwrap_or(86_400.0)
}

/// A scale by powers of ten.
#[derive(Debug, PartialEq, Eq)]
struct Decades {
    low: i32,
    high: i32,
}

impl Decades {
    fn around(least: f64, greatest: f64) -> Decades {
        let low = least.log10().floor() as i32;
        Decades { low, high: (greatest.log10().ceil() as i32).max(low + 1) }
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        (self.low..=self.high).map(|power| {
            let decimals = usize::try_from(-power).unwrap_or(0);
            let value = 10f64.powi(power);
            (value, format!("{value:.decimals$}"))
        })
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        PLOT_BOTTOM - (PLOT_BOTTOM - PLOT_TOP) * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_has_whole_powers_of_ten() {
        assert_eq!(Decades::around(0.03, 14.0), Decades { low: -2, high: 2 });
        assert_eq!(Decades::around(1.0, 1.0), Decades { low: 0, high: 1 });
        let labels: Vec<String> = Decades { low: -2, high: 1 }.ticks().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0.01", "0.1", "1", "10"]);
        let axis = Decades { low: -1, high: 1 };
        assert_eq!((axis.y(0.1), axis.y(10.0)), (PLOT_BOTTOM, PLOT_TOP));
    }

    #[test]
    fn time_has_round_marks() {
        assert_eq!([1.0, 12.0, 20.0, 200.0].map(tick_step), [0.2, 2.0, 5.0, 60.0]);
    }
}
