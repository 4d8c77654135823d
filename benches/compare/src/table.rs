//! Rounds of contenders, and how their figures are shown.

use std::time::Duration;

use crate::contender::{Contender, Kind, Pass};

pub(crate) const THREADS: [usize; 3] = [1, 2, 4];

/// A contender that is made.
pub(crate) type Made = (Kind, Box<dyn Contender>);

/// How long and how often is measured.
pub(crate) fn rounds(quick: bool) -> (usize, Duration) {
    if quick { (1, Duration::from_millis(30)) } else { (5, Duration::from_millis(300)) }
}

/// One pass of every contender per round. Each round begins with another one, so that none always follows the same
/// neighbour. The passes by contender.
pub(crate) fn interleave(made: &[Made], rounds: usize, pass: impl Fn(&dyn Contender) -> Pass) -> Vec<Vec<Pass>> {
    let mut passes: Vec<Vec<Pass>> = vec![Vec::new(); made.len()];
    for round in 0..rounds {
        for turn in 0..made.len() {
            let at = (round + turn) % made.len();
            passes[at].push(pass(&*made[at].1));
        }
    }
    passes
}

/// Median, least and greatest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn shown(values: Vec<f64>) -> String {
    let (median, least, greatest) = spread(values);
    format!("{median:.2} ({least:.2}-{greatest:.2})")
}

/// The rates of contenders, and to each what mapfall's policies did in the same round.
#[allow(clippy::print_stdout, reason = "a bench's result is what it prints")]
pub(crate) fn print(made: &[Made], threads: usize, passes: &[Vec<Pass>]) {
    let rates: Vec<Vec<f64>> = passes.iter().map(|passes| passes.iter().map(Pass::rate).collect()).collect();
    for ((kind, _), (rates_of_kind, passes)) in made.iter().zip(rates.iter().zip(passes)) {
        let hits: u64 = passes.iter().map(|pass| pass.hits).sum();
        let lookups: u64 = passes.iter().map(|pass| pass.lookups).sum();
        let hit_percent = hits as f64 / lookups as f64 * 100.0;
        print!("{threads:>7}  {:<18}{:>22}{hit_percent:>9.2}", kind.name(), shown(rates_of_kind.clone()));
        for ((_, _), mapfall) in made.iter().zip(&rates).filter(|((kind, _), _)| kind.is_mapfall()) {
            let ratios = mapfall.iter().zip(rates_of_kind).map(|(mapfall, rate)| mapfall / rate);
            print!("{:>20}", shown(ratios.collect()));
        }
        println!();
    }
    println!();
}

/// The line above the rates.
#[allow(clippy::print_stdout, reason = "a bench's result is what it prints")]
pub(crate) fn print_head(made: &[Made], unit: &str) {
    println!("median (least-greatest) over the rounds; the columns of mapfall are its rate for that of the contender,");
    println!("in the same round: above 1, mapfall is faster");
    print!("{:>7}  {:<18}{unit:>22}{:>9}", "threads", "contender", "hits, %");
    for (kind, _) in made.iter().filter(|(kind, _)| kind.is_mapfall()) {
        print!("{:>20}", kind.name());
    }
    println!();
}
