//! What was asked for on the command line, and rounds of contenders.

use std::env;

use mapfall::workload::summary::Spread;

/// The result of a step of a bench.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Whether criterion only tests that the benches run: asked for it, or not started by `cargo bench`. Then everything
/// is small.
pub(crate) fn is_quick() -> bool {
    let has = |wanted: &str| env::args().any(|arg| arg == wanted);
    has("--test") || !has("--bench")
}

/// Whether the interleaved table is wanted: by its name, `table`, or where nothing is named. What else there is among
/// the arguments is a filter or an option for criterion alone.
pub(crate) fn wants_table() -> bool {
    let mut args = env::args().skip(1);
    args.all(|arg| arg == "--bench" || arg == "--test") || env::args().any(|arg| arg == "table")
}

/// Rounds of an interleaved table: enough for a median, and one where it is only tested.
pub(crate) fn rounds() -> usize {
    if is_quick() { 1 } else { 7 }
}

/// A contender, to be run once a round.
pub(crate) type Contender<'a, T> = Box<dyn FnMut() -> Result<T> + 'a>;

/// Runs every contender once a round, and returns what each gave in each round. What slows the machine down for a while
/// so meets all of them alike; and each round begins with another one, so that none always follows the same neighbour.
pub(crate) fn interleave<T>(rounds: usize, contenders: &mut [Contender<'_, T>]) -> Result<Vec<Vec<T>>> {
    let mut given: Vec<Vec<T>> = contenders.iter().map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let place = (round + turn) % contenders.len();
            given[place].push(contenders[place]()?);
        }
    }
    Ok(given)
}

/// What one contender gave for what another gave in the same round.
pub(crate) fn ratio(of: &[f64], to: &[f64]) -> Spread {
    spread(of.iter().zip(to).map(|(of, to)| of / to))
}

/// The spread of what a contender gave.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
    Spread::of(values).expect("there is at least one round")
}

/// A ratio as the tables have it: the median, the least and the greatest.
pub(crate) fn shown(ratio: Spread) -> String {
    format!("{:.2} ({:.2}-{:.2})", ratio.median, ratio.min, ratio.max)
}
