//! `mapfall dump`: where everything in a store is, or the bytes of a page or a block. For debugging.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mapfall::{BlockAddr, Error, PageId, Part, Snapshot, Store, StoreOptions, Verification};

use crate::fail::{self, Failure};
use crate::json::JsonArg;
use crate::store_text::{count, hex_dump};
use crate::{console, interrupt, listing};

/// What was typed after `mapfall dump`.
#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// The store
    file: PathBuf,

    /// Show the bytes of this page
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["block", "json"])]
    page: Option<u64>,

    /// Show the bytes of a block, by its packed address in hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = parse_block, conflicts_with = "json")]
    block: Option<BlockAddr>,

    /// Look at the checkpoint that is kept under this name instead of the last one
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<String>,

    /// Write the bytes as they are
    #[arg(long)]
    raw: bool,

    #[command(flatten)]
    json: JsonArg,
}

pub(crate) fn run(args: &DumpArgs) -> Result<ExitCode, Failure> {
    if args.raw && args.page.is_none() && args.block.is_none() {
        return Err(Failure::usage("--raw: expected --page or --block beside it"));
    }
    let stop = interrupt::flag()?;
    let json = args.json.reserve(&[&args.file])?;
    let snapshot = open(args, &Store::options())?;
    match (args.page, &args.block) {
        (Some(page), _) => dump_page(args, &snapshot, PageId(page)),
        (_, Some(block)) => dump_block(args, &snapshot, block),
        _ => listing::run(&args.file, &snapshot, json, &stop),
    }
}

fn open(args: &DumpArgs, options: &StoreOptions) -> Result<Snapshot, Error> {
    match &args.checkpoint {
        Some(name) => options.open_snapshot_of(&args.file, name),
        None => options.open_snapshot(&args.file),
    }
}

fn dump_page(args: &DumpArgs, snapshot: &Snapshot, page: PageId) -> Result<ExitCode, Failure> {
    let place = match snapshot.page_location(page)? {
        Some(address) => format!("at {}", at(&address)),
        None => "never written".to_owned(),
    };
    let head = format!("page {page} of generation {}, {place}\n", snapshot.generation());
    let mut buf = vec![0; snapshot.page_bytes()];
    let proven = snapshot.read(page, &mut buf);
    show(args, &head, proven, &mut buf, Part::Page(page.0), |unproven, buf| unproven.read(page, buf))
}

fn dump_block(args: &DumpArgs, snapshot: &Snapshot, block: &BlockAddr) -> Result<ExitCode, Failure> {
    let (end, file_bytes) = (block.offset() + u64::from(block.len_bytes()), snapshot.info()?.file_bytes);
    if end > file_bytes {
        let problem = format!("--block: expected an end of at most {file_bytes}, where the file ends, found {end}");
        return Err(Failure::usage(problem));
    }
    let head = format!("block at {}\n", at(block));
    let mut buf = vec![0; block.len_bytes() as usize];
    let proven = snapshot.read_block(block, &mut buf);
    show(args, &head, proven, &mut buf, Part::Block, |unproven, buf| unproven.read_block(block, buf))
}

/// Shows bytes. Damaged ones too, since that is what one wants to see here, with an error behind them.
fn show(
    args: &DumpArgs,
    head: &str,
    proven: Result<(), Error>,
    buf: &mut [u8],
    shown_part: Part,
    read: impl Fn(&Snapshot, &mut [u8]) -> Result<(), Error>,
) -> Result<ExitCode, Failure> {
    let damage = match proven {
        Ok(()) => None,
        Err(error @ Error::Corrupt { part, .. }) if part == shown_part => {
            read(&open(args, &Store::options().verification(Verification::Off))?, buf)?;
            Some(error)
        }
        Err(error) => return Err(error.into()),
    };
    if args.raw {
        console::write(buf)?;
    } else {
        console::write((head.to_owned() + &hex_dump(buf)).as_bytes())?;
    }
    let Some(error) = damage else { return Ok(ExitCode::SUCCESS) };
    console::error(&error.to_string());
    Ok(fail::damaged())
}

fn at(address: &BlockAddr) -> String {
    let (offset, len_bytes, generation) = (address.offset(), address.len_bytes(), address.generation());
    format!("offset {offset} ({}), written as number {generation}", count(len_bytes.into(), "byte"))
}

/// A packed address, as hexadecimal digits.
fn parse_block(text: &str) -> Result<BlockAddr, String> {
    let expected = || format!("expected pairs of hexadecimal digits, found {text:?}");
    let pair = |pair: &[u8]| {
        let digits = std::str::from_utf8(pair).ok().filter(|_| pair.iter().all(u8::is_ascii_hexdigit))?;
        u8::from_str_radix(digits, 16).ok().filter(|_| pair.len() == 2)
    };
    let packed: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
    let packed = packed.ok_or_else(expected)?;
    let (address, rest) = BlockAddr::unpack(&packed).map_err(|error| error.to_string())?;
    if rest.is_empty() { Ok(address) } else { Err(format!("{} follow the address", count(rest.len() as u64, "byte"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_named_by_their_packed_address() {
        let packed = "308f4e0578563412".to_owned();
        let address = parse_block(&packed).unwrap();
        assert_eq!((address.offset(), address.len_bytes(), address.generation()), (48 * 512, 10_000, 5));
        for text in ["", "3", "+1", "zz", "30", "é", &(packed.clone() + "00"), &(packed + "0")] {
            assert!(parse_block(text).is_err(), "{text}");
        }
    }
}
