//! What `auto` decided, as text: a line for each of some moments, a letter for each part of the file.

use std::fmt::Write;

use mapfall::workload::outcome::{Cell, CellKey, Outcome};
use mapfall::workload::pass::{Explanation, Moment};
use mapfall::workload::size::ByteSize;

/// Lines of a pass.
const LINES_MAX: usize = 12;

/// The last pass of each cell that was looked at.
pub(crate) fn of(outcome: &Outcome) -> impl Iterator<Item = (CellKey, &Explanation)> {
    let last = |cell: &Cell| cell.passes.iter().rposition(|pass| pass.explanation.is_some());
    outcome.cells.iter().filter_map(move |cell| Some((cell.key, cell.passes[last(cell)?].explanation.as_ref()?)))
}

/// Nothing where nothing was looked at.
pub(crate) fn render(outcome: &Outcome) -> String {
    let mut text = String::new();
    for (key, explanation) in of(outcome) {
        if text.is_empty() {
            text += "\nwhat auto decided, in a cell's last pass: M the map, p pread, L being read whole, . unknown\n";
        }
        let part = ByteSize::new(explanation.part_bytes);
        let _ = writeln!(text, "  {key}, {part} of the file a letter");
        for moment in some_of(&explanation.moments) {
            let Moment { at_s, parts, loads, cold_reads, given_back, .. } = moment;
            let fits = if moment.fits { "" } else { ", does not fit" };
            let _ = writeln!(
                text,
                "  {at_s:>7.3} s  {parts}\n             {cold_reads} by pread, {loads} loads, {given_back} given \
                 back{fits}"
            );
        }
    }
    text
}

/// Evenly chosen moments, the last one among them.
fn some_of(moments: &[Moment]) -> impl Iterator<Item = &Moment> {
    let step = moments.len().div_ceil(LINES_MAX).max(1);
    let offset = moments.len().saturating_sub(1) % step;
    moments.iter().skip(offset).step_by(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_moments_are_chosen_and_the_last_is_one_of_them() {
        for count in 0..100 {
            let moments: Vec<Moment> =
                (0..count).map(|at| Moment { at_s: f64::from(at), ..Moment::default() }).collect();
            let some: Vec<&Moment> = some_of(&moments).collect();
            assert!(some.len() <= LINES_MAX && some.is_empty() == moments.is_empty());
            assert_eq!(some.last().map(|last| last.at_s), moments.last().map(|last| last.at_s));
        }
    }
}
