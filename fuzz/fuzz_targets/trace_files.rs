//! Any bytes as a trace, in each of its formats and in the one that is found out, packed or not: requests that another
//! reader of the same bytes finds too, or an error that says where.

#![no_main]

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::{fs::File, io::Write, os::fd::AsRawFd};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapfall::workload::trace::{Blocks, Format, Request, Source, TraceError, TraceFile};
use mapfall::workload::ycsb::{Recording, YcsbError};
use mapfall_fuzz::heap;
use rustix::fs::{MemfdFlags, memfd_create};

/// A reader has a few buffers of 256 KiB.
const HEAP_BYTES: usize = 16 << 20;
/// The largest window of a zstd frame that is taken, by its own tool too. It is kept as soon as a frame says that it
/// needs it.
const WINDOW_BYTES_MAX: usize = 128 << 20;
/// A line of a block trace may ask for two million blocks.
const REQUESTS_MAX: usize = 2000;

#[derive(Arbitrary, Debug)]
struct Plan<'a> {
    format: Option<u8>,
    blocks: Option<u16>,
    name: u8,
    pack: u8,
    bytes: &'a [u8],
}

fuzz_target!(|plan: Plan| {
    let bytes = packed(plan.pack, plan.bytes);
    let (_file, path) = memory_file(&bytes);
    let format = plan.format.map(|number| Format::ALL[number as usize % 4]);
    let blocks = plan.blocks.map(|bytes| match NonZeroU64::new(bytes.into()) {
        Some(bytes) => Blocks::Each { bytes },
        None => Blocks::Whole,
    });
    let name = ["trace", "a.lis", "b.spc", "c.oracleGeneral.zst", "d.csv.gz"][plan.name as usize % 5].to_owned();
    let is_zstd = bytes.starts_with(HEADS[1]);
    heap::within(HEAP_BYTES + if is_zstd { WINDOW_BYTES_MAX } else { 0 }, || {
        let files = vec![TraceFile { path: path.clone(), name: name.clone() }];
        let (requests, end) = read(&Source::Files { files: files.clone(), format, blocks });
        let (again, _) = read(&Source::Files { files, format, blocks });
        assert_eq!(requests, again, "another time");
        check_end(&end, &name);
        let is_plain = !HEADS.iter().any(|head| bytes.starts_with(&head[..head.len().min(3)]));
        if is_plain && format == Some(Format::Oracle) {
            let records: Vec<_> = plan.bytes.as_chunks::<24>().0.iter().take(REQUESTS_MAX).map(record).collect();
            assert_eq!(requests, records);
        }
        if is_plain && format == Some(Format::Arc) && blocks == Some(Blocks::Whole) && end.is_none() {
            let text = String::from_utf8_lossy(plan.bytes);
            let lines = text.split('\n').map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let sizes: Vec<u64> = lines
                .map(|line| {
                    line.split_ascii_whitespace().nth(1).expect("a count").parse::<u64>().expect("a number") * 512
                })
                .collect();
            assert_eq!(requests.iter().map(|request| request.size_bytes).collect::<Vec<_>>(), sizes);
        }
        match Recording::read(&path) {
            Ok(recording) => assert!(recording.len() <= bytes.len()),
            Err(YcsbError::TraceLine { line, .. }) => assert!(line > 0),
            Err(YcsbError::System { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    });
});

fn record(bytes: &[u8; 24]) -> Request {
    let size_bytes = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")).into();
    Request { key: u64::from_le_bytes(bytes[4..12].try_into().expect("eight bytes")), size_bytes }
}

fn read(source: &Source) -> (Vec<Request>, Option<TraceError>) {
    let (mut requests, mut found) = (source.requests(), Vec::new());
    while found.len() < REQUESTS_MAX {
        match requests.next() {
            Ok(Some(request)) => found.push(request),
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
    (found, None)
}

fn check_end(end: &Option<TraceError>, name: &str) {
    match end {
        None => {}
        Some(error @ (TraceError::Line { trace, .. } | TraceError::Record { trace, .. })) => {
            let message = error.to_string();
            assert!(trace == name && message.contains("expected ") && message.contains("found "), "{message}");
        }
        Some(TraceError::Read { trace, .. }) => assert_eq!(trace, name),
        Some(error) => panic!("{error:?}"),
    }
}

/// The beginnings of the packed formats.
const HEADS: [&[u8]; 3] = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], &[0x28, 0xb5, 0x2f, 0xfd], &[0x50, 0x2a, 0x4d, 0x18]];

/// Behind the beginnings of the packed formats, which are not found by chance.
fn packed(how: u8, bytes: &[u8]) -> Vec<u8> {
    let head = HEADS.get(usize::from(how % 4).wrapping_sub(1)).copied().unwrap_or_default();
    [head, bytes].concat()
}

fn memory_file(bytes: &[u8]) -> (File, PathBuf) {
    let mut file = File::from(memfd_create("trace", MemfdFlags::CLOEXEC).expect("a file in memory"));
    file.write_all(bytes).expect("bytes of it");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    (file, path)
}
