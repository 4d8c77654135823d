//! Lines over axes that are linear or logarithmic, as inline SVG. Colours and marks are those of the other reports.

use std::fmt::Write;

use crate::report::escape;

const LEFT: f64 = 52.0;
const RIGHT_MARGIN: f64 = 12.0;
const TOP: f64 = 34.0;
const BOTTOM_MARGIN: f64 = 26.0;
const WIDTH: f64 = 500.0;
const HEIGHT: f64 = 240.0;
/// Labels below are no closer.
const LABEL_GAP: f64 = 40.0;
/// About as many lines across, at most.
const TICKS_MAX: f64 = 5.0;

/// A plot.
pub(super) struct Plot {
    pub(super) title: &'static str,
    /// What the axis upwards is.
    pub(super) unit: &'static str,
    /// Whether it is logarithmic.
    pub(super) is_logarithmic: bool,
    /// Labels below: where, from 0 to 1, and what.
    pub(super) labels: Vec<(f64, String)>,
    /// Lines from top to bottom: where, from 0 to 1.
    pub(super) marks: Vec<f64>,
    pub(super) lines: Vec<Line>,
}

/// A line: which look it has, and its points, from 0 to 1 across, and their values.
pub(super) struct Line {
    pub(super) look: usize,
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

impl Plot {
    pub(super) fn render(&self) -> String {
        let bottom = HEIGHT - BOTTOM_MARGIN;
        let values = || self.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
        let scale = Scale::new(self.is_logarithmic, values());
        let x = |at: f64| LEFT + (WIDTH - LEFT - RIGHT_MARGIN) * at;
        let y = |value: f64| bottom - (bottom - TOP) * scale.place(value);
        let names: Vec<_> = self.lines.iter().map(|line| line.name.as_str()).collect();
        let mut svg = format!(
            "<figure>\n<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" style=\"min-width: 320px\" \
             role=\"img\" aria-label=\"{title}: {}\">\n<text class=\"title\" x=\"0\" y=\"13\">{title}</text>\n\
             <text class=\"axis\" x=\"{WIDTH}\" y=\"13\" text-anchor=\"end\">{}</text>\n",
            escape(&names.join(", ")),
            self.unit,
            title = self.title
        );
        for tick in scale.ticks() {
            let at = y(tick);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"axis\" \
                 x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 5.0,
                at + 3.5,
                short(tick)
            );
        }
        let mut free_from = f64::NEG_INFINITY;
        for (at, label) in &self.labels {
            let x = x(*at);
            if x < free_from {
                continue;
            }
            free_from = x + LABEL_GAP;
            let anchor = if *at > 0.95 { "end" } else { "middle" };
            let _ = writeln!(
                svg,
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/><text class=\"axis\" \
                 x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                bottom + 4.0,
                bottom + 17.0,
                escape(label)
            );
        }
        for at in &self.marks {
            let x = x(*at);
            let _ =
                writeln!(svg, "<line class=\"mark-line\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>");
        }
        // The first is drawn last, so that it is seen where lines lie on each other.
        for line in self.lines.iter().rev() {
            let points = line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)));
            let points: Vec<_> = points.collect();
            let _ = writeln!(
                svg,
                "<g class=\"look-{}\"><title>{}</title><polyline points=\"{}\"/></g>",
                line.look % crate::cache_sim_report::curves::LOOKS,
                escape(&line.name),
                points.join(" ")
            );
        }
        svg + "</svg></div>\n</figure>\n"
    }
}

/// From values to heights from 0 to 1.
#[derive(Debug)]
struct Scale {
    is_logarithmic: bool,
    low: f64,
    high: f64,
    step: f64,
}

impl Scale {
    fn new(is_logarithmic: bool, values: impl Iterator<Item = f64>) -> Scale {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        values.for_each(|value| (least, most) = (least.min(value), most.max(value)));
        if is_logarithmic {
            let low = least.max(1e-3).min(most.max(1e-3)).log10().floor();
            let high = most.max(1e-3).log10().ceil().max(low + 1.0);
            return Scale { is_logarithmic, low, high, step: ((high - low) / TICKS_MAX).ceil() };
        }
        let most = if most > 0.0 { most } else { 1.0 };
        let magnitude = 10f64.powf((most / TICKS_MAX).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * magnitude);
        let step = steps.into_iter().find(|step| most / step <= TICKS_MAX).unwrap_or(10.0 * magnitude);
        Scale { is_logarithmic, low: 0.0, high: step * (most / step).ceil(), step }
    }

    fn place(&self, value: f64) -> f64 {
        let value = if self.is_logarithmic { value.max(1e-3).log10() } else { value };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        let count = ((self.high - self.low) / self.step + 1e-9).floor() as u32;
        let at = |index: u32| self.low + self.step * f64::from(index);
        (0..=count).map(at).map(|at| if self.is_logarithmic { 10f64.powf(at) } else { at }).collect()
    }
}

/// `1.5k`, `20`, `0.01`.
fn short(value: f64) -> String {
    let digits = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value {
        1e6.. => digits(value / 1e6) + "M",
        1e3.. => digits(value / 1e3) + "k",
        _ => digits(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_few_round_numbers() {
        let ticks = |is_logarithmic, values: &[f64]| {
            let scale = Scale::new(is_logarithmic, values.iter().copied());
            scale.ticks().into_iter().map(short).collect::<Vec<_>>()
        };
        assert_eq!(ticks(false, &[0.0, 1234.0]), ["0", "500", "1k", "1.5k"]);
        assert_eq!(ticks(false, &[]), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(ticks(true, &[0.5, 900.0]), ["0.1", "1", "10", "100", "1k"]);
        assert_eq!(ticks(true, &[0.5, 2e7]), ["0.1", "10", "1k", "100k", "10M"]);
        assert_eq!(ticks(true, &[0.0, 0.0]).len(), 2);
    }
}
