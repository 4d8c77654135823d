//! Grouped bars as inline SVG. Colours come from the page's style, by class.

use std::fmt::Write;

use super::escape;
use crate::numbers::gib_per_s;

/// Lengths in CSS pixels at the least size of a chart; it grows with its place. One of usual size is as wide as a
/// phone, a wider one scrolls.
const WIDTH_MIN: f64 = 336.0;
const HEIGHT: f64 = 230.0;
const PLOT_TOP: f64 = 34.0;
const PLOT_BOTTOM: f64 = HEIGHT - 24.0;
const PLOT_LEFT: f64 = 32.0;
const BAR_PITCH: f64 = 17.5;
const BAR_WIDTH: f64 = 15.0;
const GROUP_GAP: f64 = 12.0;
/// Nothing is drawn lower, so that a bar next to nothing is still seen.
const BAR_HEIGHT_MIN: f64 = 1.0;
/// About as many lines across.
const TICKS: f64 = 5.0;

/// Groups of bars side by side.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) unit: &'static str,
    pub(super) groups: Vec<Group>,
}

/// Bars that belong together. Without any it says that there was nothing.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) label: String,
    pub(super) bars: Vec<Bar>,
}

/// A bar.
#[derive(Debug)]
pub(super) struct Bar {
    /// Its colour: the contender's name.
    pub(super) class: &'static str,
    pub(super) value: f64,
    /// How much of it, from below, is in full colour. The rest is pale.
    pub(super) solid: f64,
    /// A line from the least to the greatest value.
    pub(super) whisker: Option<(f64, f64)>,
    pub(super) is_partial: bool,
}

impl Bar {
    fn top(&self) -> f64 {
        self.whisker.map_or(self.value, |(_, max)| max)
    }
}

impl Chart {
    /// The figure with its title.
    pub(super) fn render(&self) -> String {
        let slots = self.groups.iter().map(|group| group.bars.len()).max().unwrap_or(0).max(3) as f64;
        let natural_width = slots * BAR_PITCH + GROUP_GAP;
        let width = (PLOT_LEFT + natural_width * self.groups.len() as f64).max(WIDTH_MIN);
        let group_width = (width - PLOT_LEFT) / self.groups.len() as f64;
        let top = self.groups.iter().flat_map(|group| &group.bars).map(Bar::top).fold(0.0, f64::max);
        let scale = Scale::for_values_up_to(top);
        let title = escape(&self.title);
        let mut svg = format!(
            "<figure>\n<div class=\"scroll\"><svg viewBox=\"0 0 {width} {HEIGHT}\" style=\"min-width: {width}px\" \
             role=\"img\" aria-label=\"{title}, {unit} by block size\">\n\
             <text class=\"title\" x=\"0\" y=\"13\">{title}</text>\n\
             <text class=\"axis\" x=\"{width}\" y=\"13\" text-anchor=\"end\">{unit}</text>\n",
            unit = self.unit
        );
        for tick in scale.ticks() {
            let y = scale.y(tick);
            let _ =
                writeln!(svg, "<line class=\"grid\" x1=\"{PLOT_LEFT}\" x2=\"{width}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
            let (x, y, label) = (PLOT_LEFT - 5.0, y + 3.5, scale.label(tick));
            let _ = writeln!(svg, "<text class=\"axis\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>");
        }
        for (index, group) in self.groups.iter().enumerate() {
            let centre = PLOT_LEFT + group_width * (index as f64 + 0.5);
            svg += &group.render(centre, &scale);
        }
        svg + "</svg></div>\n</figure>\n"
    }
}

impl Group {
    fn render(&self, centre: f64, scale: &Scale) -> String {
        let (y, label) = (PLOT_BOTTOM + 16.0, escape(&self.label));
        let mut svg =
            format!("<text class=\"axis\" x=\"{centre:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}</text>\n");
        if self.bars.is_empty() {
            let y = PLOT_BOTTOM - 6.0;
            let _ = writeln!(
                svg,
                "<text class=\"axis\" x=\"{centre:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">skipped</text>"
            );
        }
        let first = centre - BAR_PITCH * self.bars.len() as f64 / 2.0;
        for (index, bar) in self.bars.iter().enumerate() {
            svg += &bar.render(first + BAR_PITCH * (index as f64 + 0.5), scale);
        }
        svg
    }
}

impl Bar {
    fn render(&self, centre: f64, scale: &Scale) -> String {
        let (class, x) = (self.class, centre - BAR_WIDTH / 2.0);
        let top = scale.y(self.value).min(PLOT_BOTTOM - BAR_HEIGHT_MIN);
        let solid_top = scale.y(self.solid.min(self.value)).max(top);
        let value = gib_per_s(self.value);
        let mut svg = format!("<g class=\"bar-{class}\"><title>{class}: {value}</title>");
        if self.solid < self.value {
            let height = solid_top - top;
            let _ = write!(
                svg,
                "<rect class=\"pale\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{BAR_WIDTH}\" height=\"{height:.1}\"/>"
            );
        }
        let height = PLOT_BOTTOM - if self.solid < self.value { solid_top } else { top };
        let y = PLOT_BOTTOM - height;
        let _ = write!(svg, "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{BAR_WIDTH}\" height=\"{height:.1}\"/></g>");
        if let Some((min, max)) = self.whisker {
            let (low, high, left, right) = (scale.y(min), scale.y(max), centre - 3.0, centre + 3.0);
            let _ = write!(
                svg,
                "<path class=\"whisker\" d=\"M{centre:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}H{right:.1}\
                 M{left:.1} {high:.1}H{right:.1}\"/>"
            );
        }
        let (y, mark) = (scale.y(self.top()).min(top) - 4.0, if self.is_partial { "~" } else { "" });
        let label = short(self.value);
        let _ = writeln!(
            svg,
            "<text class=\"value\" x=\"{centre:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{mark}{label}</text>"
        );
        svg
    }
}

/// As much of a number as has room above a bar.
fn short(value: f64) -> String {
    match value {
        9.95.. => format!("{value:.0}"),
        0.995.. => format!("{value:.1}"),
        _ => format!("{value:.2}").trim_start_matches('0').to_owned(),
    }
}

/// From values to heights, with round numbers on the axis.
#[derive(Debug)]
struct Scale {
    step: f64,
    top: f64,
}

impl Scale {
    fn for_values_up_to(value: f64) -> Scale {
        let value = if value > 0.0 { value } else { 1.0 };
        let rough = value / TICKS;
        let magnitude = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0].into_iter().map(|digit| digit * magnitude).find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * magnitude);
        Scale { step, top: step * (value / step).ceil().max(1.0) }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let step = self.step;
        let count = (self.top / step).round() as u32;
        (0..=count).map(move |index| f64::from(index) * step)
    }

    fn label(&self, tick: f64) -> String {
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        format!("{tick:.decimals$}")
    }

    fn y(&self, value: f64) -> f64 {
        PLOT_BOTTOM - (PLOT_BOTTOM - PLOT_TOP) * value / self.top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_few_round_numbers() {
        for (value, step, top) in
            [(14.0, 5.0, 15.0), (0.73, 0.2, 0.8), (1.0, 0.2, 1.0), (0.0, 0.2, 1.0), (9.9, 2.0, 10.0)]
        {
            let scale = Scale::for_values_up_to(value);
            assert!((scale.step - step).abs() < 1e-9 && (scale.top - top).abs() < 1e-9, "{value}: {scale:?}");
            assert!((3..=7).contains(&scale.ticks().count()));
        }
        assert_eq!(Scale::for_values_up_to(0.73).label(0.2), "0.2");
        assert_eq!(Scale::for_values_up_to(14.0).label(5.0), "5");
    }

    #[test]
    fn labels_have_room() {
        assert_eq!([13.44, 9.96, 2.68, 0.997, 0.048, 0.0].map(short), ["13", "10", "2.7", "1.0", ".05", ".00"]);
    }
}
