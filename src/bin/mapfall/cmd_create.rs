//! `mapfall create`: an empty store.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use mapfall::workload::size::ByteSize;
use mapfall::{ChecksumKind, Error, Store};

use crate::fail::Failure;
use crate::json::JsonArg;
use crate::{store_json, store_text};

/// What was typed after `mapfall create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The store to make; nothing may be there
    file: PathBuf,

    /// Length of a page: a multiple of the unit, 512 B to 1 MiB
    #[arg(long, value_name = "SIZE", default_value = "4KiB")]
    page: ByteSize,

    /// Allocation unit: a power of two, 512 B to 1 MiB [default: 4KiB, or the page where that is shorter]
    #[arg(long, value_name = "SIZE")]
    unit: Option<ByteSize>,

    /// What proves pages, blocks and the store's own structures
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Checksum::Crc32)]
    checksum: Checksum,

    #[command(flatten)]
    json: JsonArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Checksum {
    Crc32,
    Xxh3,
}

pub(crate) fn run(args: &CreateArgs) -> Result<ExitCode, Failure> {
    let mut options = Store::options().page_bytes(size("--page", args.page)?).checksum(match args.checksum {
        Checksum::Crc32 => ChecksumKind::Crc32,
        Checksum::Xxh3 => ChecksumKind::Xxh3,
    });
    if let Some(unit) = args.unit {
        options = options.unit_bytes(size("--unit", unit)?);
    }
    let json = args.json.reserve(&[&args.file])?;
    drop(options.create(&args.file).map_err(|error| match error {
        Error::InvalidOption { expected, found, .. } => {
            Failure::usage(format!("--page, --unit: expected {expected}, found {found}"))
        }
        error => error.into(),
    })?);
    let info = Store::options().open_snapshot(&args.file)?.info()?;
    let text = format!(
        "made {}: pages of {}, units of {}, {}, UUID {}\n",
        args.file.display(),
        store_text::size(info.page_bytes.into()),
        store_text::size(info.unit_bytes.into()),
        info.checksum,
        store_text::uuid(info.uuid)
    );
    json.show(&text, &store_json::Info::new(&args.file, &info, Some(0)))?;
    Ok(ExitCode::SUCCESS)
}

/// The library says which sizes can be; here it is made a number that it takes.
fn size(option: &str, size: ByteSize) -> Result<u32, Failure> {
    u32::try_from(size.bytes()).map_err(|_| Failure::usage(format!("{option}: expected 512 B to 1 MiB, found {size}")))
}
