//! What `auto` decided as inline SVG: a map of the file over time, coloured by what serves each part.

use std::fmt::Write;

use mapfall::workload::outcome::{CellKey, Outcome};
use mapfall::workload::pass::Explanation;
use mapfall::workload::size::ByteSize;

use super::escape;
use crate::explained;

const WIDTH: f64 = 480.0;
const PLOT_TOP: f64 = 24.0;
const PLOT_BOTTOM: f64 = 184.0;
const PLOT_LEFT: f64 = 40.0;
const PLOT_RIGHT: f64 = WIDTH - 8.0;
const HEIGHT: f64 = PLOT_BOTTOM + 26.0;
/// Marks below.
const TICKS: u32 = 4;

/// What a letter of a moment stands for, with its class.
const LETTERS: [(char, &str, &str); 4] = [
    ('M', "map", "served by the map"),
    ('L', "load", "being read whole"),
    ('p', "cold", "served by pread"),
    ('.', "unknown", "nothing yet"),
];

/// A map for each cell that was looked at.
pub(super) fn render(outcome: &Outcome) -> Option<String> {
    let maps: Vec<String> = explained::of(outcome).map(|(key, explanation)| map(key, explanation)).collect();
    if maps.is_empty() {
        return None;
    }
    let mut html = "<p>What would have served each part of the file, from its beginning (above) to its end, over the \
                    last pass of each cell.</p>\n<ul class=\"legend\">\n"
        .to_owned();
    for (_, class, what) in LETTERS {
        let _ = writeln!(html, "<li><span class=\"key heat-{class}\"></span><span>{what}</span></li>");
    }
    html += "</ul>\n<div class=\"charts\">\n";
    html += &maps.concat();
    Some(html + "</div>\n")
}

fn map(key: CellKey, explanation: &Explanation) -> String {
    let Explanation { part_bytes, moments } = explanation;
    let title = escape(&key.to_string());
    let part = ByteSize::new(*part_bytes);
    let mut svg = format!(
        "<figure>\n<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" style=\"min-width: 336px\" role=\"img\" \
         aria-label=\"{title}, what served each part of the file\">\n\
         <text class=\"title\" x=\"0\" y=\"13\">{title}</text>\n\
         <text class=\"axis\" x=\"{WIDTH}\" y=\"13\" text-anchor=\"end\">rows of {part}, by seconds</text>\n"
    );
    let end_s = moments.last().map_or(0.0, |last| last.at_s).max(1e-6);
    let parts = moments.first().map_or(1, |first| first.parts.chars().count()).max(1);
    let row_height = (PLOT_BOTTOM - PLOT_TOP) / parts as f64;
    let x = |s: f64| PLOT_LEFT + (PLOT_RIGHT - PLOT_LEFT) * s / end_s;
    let _ = writeln!(
        svg,
        "<rect class=\"heat-unknown\" x=\"{PLOT_LEFT}\" y=\"{PLOT_TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
        PLOT_RIGHT - PLOT_LEFT,
        PLOT_BOTTOM - PLOT_TOP
    );
    // One path a colour: a file of 64 parts over a hundred moments is a few thousand cells.
    for (letter, class, _) in LETTERS.iter().filter(|(letter, ..)| *letter != '.') {
        let mut path = String::new();
        for part in 0..parts {
            let y = PLOT_TOP + row_height * part as f64;
            for (from_s, to_s) in runs(explanation, part, *letter, end_s) {
                let (from, width) = (x(from_s), x(to_s) - x(from_s));
                let _ = write!(path, "M{from:.1} {y:.1}h{width:.1}v{row_height:.2}h-{width:.1}z");
            }
        }
        if !path.is_empty() {
            let _ = writeln!(svg, "<path class=\"heat-{class}\" d=\"{path}\"/>");
        }
    }
    for tick in 0..=TICKS {
        let s = end_s * f64::from(tick) / f64::from(TICKS);
        let anchor = if tick == TICKS { "end" } else { "middle" };
        let (at, y) = (x(s), PLOT_BOTTOM + 16.0);
        let _ = writeln!(svg, "<text class=\"axis\" x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{s:.2}</text>");
    }
    svg + "</svg></div>\n</figure>\n"
}

/// From when to when a part was in a state.
fn runs(explanation: &Explanation, part: usize, letter: char, end_s: f64) -> Vec<(f64, f64)> {
    let moments = &explanation.moments;
    let mut runs: Vec<(f64, f64)> = Vec::new();
    for (index, moment) in moments.iter().enumerate() {
        if moment.parts.chars().nth(part) != Some(letter) {
            continue;
        }
        let until_s = moments.get(index + 1).map_or(end_s, |next| next.at_s);
        match runs.last_mut() {
            Some((_, to_s)) if *to_s >= moment.at_s => *to_s = until_s,
            _ => runs.push((moment.at_s, until_s)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use mapfall::workload::pass::Moment;

    #[test]
    fn equal_moments_in_a_row_are_one_run() {
        let moment = |at_s, parts: &str| Moment { at_s, parts: parts.to_owned(), ..Moment::default() };
        let moments =
            vec![moment(0.0, "p."), moment(1.0, "p."), moment(2.0, "MM"), moment(3.0, "pM"), moment(4.0, "pM")];
        let explanation = Explanation { part_bytes: 1, moments };
        assert_eq!(runs(&explanation, 0, 'p', 4.0), [(0.0, 2.0), (3.0, 4.0)]);
        assert_eq!(runs(&explanation, 0, 'M', 4.0), [(2.0, 3.0)]);
        assert_eq!(runs(&explanation, 1, 'M', 4.0), [(2.0, 4.0)]);
        assert!(runs(&explanation, 1, 'p', 4.0).is_empty());
    }
}
