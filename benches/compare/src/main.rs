//! `mapfall::BlockCache` beside other caches of Rust, at the same work.
//!
//! ```text
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- hits|ratio|mixed|all [--quick] [contender...]
//! ```
//!
//! - `hits`: how many hits a second, when every block is there. Zipf 0.99 over 64 Ki blocks of 4 KiB, which lie in
//!   memory, and over 2 Ki, which a processor's cache may hold.
//! - `ratio`: how many lookups are hits, on generated traces, at equal numbers of blocks.
//! - `mixed`: how many lookups a second, where some are misses, which copy 4 KiB.
//!
//! The work is the same for all: a key of three words (file, offset, generation), and the block's bytes in the caller's
//! buffer. The others hold a block in an allocation of its own, as those who use them do: a hit takes a reference,
//! copies, and lets go of it. All hash with `foldhash`, count bytes against the same budget, and have the same number
//! of shards where that can be chosen (`moka` chooses for itself; a mutex has one). Keys are drawn before the clock
//! starts.
//!
//! Rates are measured in interleaved rounds, each of which begins with another contender, and compared within a round:
//! what else the machine does meets all alike. `--quick` is one short round on small sizes, to see that it runs. Names
//! of contenders, or beginnings of them, leave out all others.
//!
//! This is a package of its own, so that building mapfall builds none of the others.

mod contender;
mod hits;
mod mixed;
mod peers;
mod ratio;
mod table;
mod workload;

use std::env;

use contender::Kind;

/// The result of a step of a bench.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "usage: compare hits|ratio|mixed|all [--quick] [contender...]";

/// What was asked for on the command line.
struct Wanted {
    quick: bool,
    kinds: Vec<Kind>,
}

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    let mut words = args.iter().filter(|arg| !arg.starts_with("--"));
    let which = words.next().ok_or(USAGE)?;
    let names: Vec<&String> = words.collect();
    let is_named = |kind: &Kind| names.is_empty() || names.iter().any(|name| kind.name().starts_with(name.as_str()));
    let wanted = Wanted { quick, kinds: Kind::all().into_iter().filter(is_named).collect() };
    if wanted.kinds.is_empty() {
        return Err(format!("no contender of such a name: {names:?}").into());
    }
    match which.as_str() {
        "hits" => hits::run(&wanted),
        "ratio" => ratio::run(&wanted),
        "mixed" => mixed::run(&wanted),
        "all" => hits::run(&wanted).and_then(|()| mixed::run(&wanted)).and_then(|()| ratio::run(&wanted)),
        _ => Err(USAGE.into()),
    }
}
