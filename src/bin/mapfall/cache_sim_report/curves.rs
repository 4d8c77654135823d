//! Lines over a common axis as inline SVG. Colours come from the page's style, by the number of the line; each also has
//! marks of its own shape, so that it is told apart without them.

use std::fmt::Write;

use crate::report::escape;

/// Lengths in CSS pixels at the least size of a plot; it grows with its place.
const LEFT: f64 = 38.0;
const RIGHT_MARGIN: f64 = 14.0;
const TOP: f64 = 34.0;
const BOTTOM_MARGIN: f64 = 24.0;
/// Labels below are no closer.
const LABEL_GAP: f64 = 44.0;
/// So many characters have room on either side of their place everywhere.
const SHORT_LABEL: usize = 4;
/// About as many lines across, at most.
const TICKS_MAX: f64 = 6.0;
/// Colours and shapes of lines; more lines begin anew.
pub(crate) const LOOKS: usize = 8;

/// A plot.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    /// What the axis upwards is.
    pub(super) unit: &'static str,
    pub(super) width: f64,
    pub(super) height: f64,
    /// Where labels below stand, from 0 (left) to 1.
    pub(super) labels: Vec<(f64, String)>,
    pub(super) lines: Vec<Line>,
    /// What no line can get above, and what that is called.
    pub(super) limit: Option<(f64, &'static str)>,
    pub(super) has_marks: bool,
}

/// A line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// Which look it has.
    pub(super) look: usize,
    /// From 0 (left) to 1, and the ratio there, and what is said where one points at it.
    pub(super) points: Vec<(f64, f64, String)>,
}

impl Plot {
    /// The figure.
    pub(super) fn render(&self) -> String {
        let (width, height, title) = (self.width, self.height, escape(&self.title));
        let bottom = height - BOTTOM_MARGIN;
        let names: Vec<&str> = self.lines.iter().map(|line| line.name.as_str()).collect();
        let mut svg = format!(
            "<figure>\n<div class=\"scroll\"><svg viewBox=\"0 0 {width} {height}\" style=\"min-width: {}px\" \
             role=\"img\" aria-label=\"{title}: {}\">\n<text class=\"title\" x=\"0\" y=\"13\">{title}</text>\n\
             <text class=\"axis\" x=\"{width}\" y=\"13\" text-anchor=\"end\">{}</text>\n",
            width.min(560.0),
            escape(&names.join(", ")),
            self.unit
        );
        let values = self.lines.iter().flat_map(|line| &line.points).map(|(_, value, _)| *value);
        let top = top(values.chain(self.limit.map(|(value, _)| value)).fold(0.0, f64::max));
        let x = |at: f64| LEFT + (width - LEFT - RIGHT_MARGIN) * at;
        let y = |value: f64| bottom - (bottom - TOP) * value / top;
        svg += &ticks(top, width, y);
        let mut free_from = f64::NEG_INFINITY;
        for (at, label) in &self.labels {
            let x = x(*at);
            if x < free_from {
                continue;
            }
            free_from = x + LABEL_GAP;
            // A long one at the right end would be cut off.
            let anchor = if *at >= 1.0 && label.len() > SHORT_LABEL { "end" } else { "middle" };
            let _ = writeln!(
                svg,
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/><text class=\"axis\" \
                 x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                bottom + 4.0,
                bottom + 17.0,
                escape(label)
            );
        }
        if let Some((value, what)) = self.limit {
            let y = y(value);
            let _ = writeln!(
                svg,
                "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{width}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"axis\" \
                 x=\"{}\" y=\"{:.1}\">{what}</text>",
                LEFT + 4.0,
                y - 4.0
            );
        }
        // The first is drawn last, so that it is seen where lines lie on each other.
        for line in self.lines.iter().rev() {
            svg += &line.render(self.has_marks, x, y);
        }
        svg + "</svg></div>\n</figure>\n"
    }
}

impl Line {
    fn render(&self, has_marks: bool, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
        let look = self.look % LOOKS;
        let points: Vec<String> =
            self.points.iter().map(|(at, value, _)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let mut svg = format!("<g class=\"look-{look}\"><polyline points=\"{}\"/>", points.join(" "));
        if has_marks {
            for (at, value, said) in &self.points {
                let (path, said) = (mark(look, x(*at), y(*value)), escape(said));
                let _ = write!(svg, "<path class=\"mark\" d=\"{path}\"><title>{said}</title></path>");
            }
        }
        svg + "</g>\n"
    }
}

/// The sample of a line in the legend.
pub(crate) fn sample(look: usize) -> String {
    let look = look % LOOKS;
    format!(
        "<svg class=\"sample look-{look}\" viewBox=\"0 0 28 12\" width=\"28\" height=\"12\" aria-hidden=\"true\">\
         <polyline points=\"0,6 28,6\"/><path class=\"mark\" d=\"{}\"/></svg>",
        mark(look, 14.0, 6.0)
    )
}

/// A shape around a point: filled circle, square, diamond, two triangles, and bars across.
fn mark(look: usize, x: f64, y: f64) -> String {
    match look {
        0 => format!("M{:.1} {y:.1}a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0z", x - 3.6),
        1 => format!("M{:.1} {:.1}h6.4v6.4h-6.4z", x - 3.2, y - 3.2),
        2 => format!("M{x:.1} {:.1}l4.6 4.6l-4.6 4.6l-4.6 -4.6z", y - 4.6),
        3 => format!("M{x:.1} {:.1}l4.4 7.6h-8.8z", y - 4.6),
        4 => format!("M{x:.1} {:.1}l4.4 -7.6h-8.8z", y + 4.6),
        5 => format!("M{:.1} {:.1}h3v10h-3z", x - 1.5, y - 5.0),
        6 => format!("M{:.1} {:.1}h10v3h-10z", x - 5.0, y - 1.5),
        _ => format!("M{:.1} {:.1}h7l-7 7h7z", x - 3.5, y - 3.5),
    }
}

fn step(top: f64) -> f64 {
    let steps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2];
    steps.into_iter().find(|step| top / step <= TICKS_MAX).unwrap_or(0.2)
}

/// A round number that is not below any value, and at most 1.
fn top(value: f64) -> f64 {
    let step = step(value);
    // A little is allowed for what is no exact multiple in binary.
    (step * (value / step - 1e-9).ceil()).clamp(step, 1.0)
}

fn ticks(top: f64, width: f64, y: impl Fn(f64) -> f64) -> String {
    let step = step(top - 1e-9);
    let decimals = usize::from(step < 0.01);
    let mut svg = String::new();
    for index in 0..=(top / step).round() as u32 {
        let value = step * f64::from(index);
        let (at, label) = (y(value), 100.0 * value);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{width}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"axis\" \
             x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label:.decimals$}</text>",
            LEFT - 5.0,
            at + 3.5
        );
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_few_round_numbers_up_to_100() {
        for (value, expected) in
            [(0.0, 0.001), (0.0004, 0.001), (0.03, 0.03), (0.28, 0.3), (0.31, 0.4), (0.6, 0.6), (0.93, 1.0), (1.0, 1.0)]
        {
            assert!((top(value) - expected).abs() < 1e-9, "{value}: {}", top(value));
            let svg = ticks(top(value), 100.0, |value| value);
            assert!((2..=7).contains(&svg.matches("<line").count()), "{value}: {svg}");
        }
    }

    #[test]
    fn labels_that_would_touch_are_left_out() {
        let labels = [0.0, 0.01, 0.5, 1.0].map(|at| (at, format!("at {at}")));
        let (lines, has_marks) = (Vec::new(), true);
        let (width, height) = (400.0, 200.0);
        let plot = Plot {
            title: "<t>".into(),
            unit: "%",
            width,
            height,
            labels: labels.into(),
            lines,
            limit: None,
            has_marks,
        };
        let svg = plot.render();
        assert!(svg.contains("at 0<") && !svg.contains("at 0.01") && svg.contains("at 0.5") && svg.contains("at 1"));
        assert!(!svg.contains("<t>"));
    }
}
