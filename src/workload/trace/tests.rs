//! Each format as it is written in the wild, what is wrong with it when it is, and bytes that are nothing.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// The beginning of Financial1.spc of the UMass repository, and a request that begins within a page.
const SPC: &str =
    "0,20941264,8192,W,0.551706\n0,20939840,8192,w,0.554041\n1,20939840,512,r,0.6,surplus\n0,9,8192,R,1\n";
/// Two lines as in P6.lis.
const ARC: &str = "110765 64 0 0\n64 2 0 1\n";

fn file(name: &str, content: &[u8]) -> (TempDir, TraceFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    (dir, TraceFile { path, name: name.to_owned() })
}

fn source(file: &TraceFile, format: Option<Format>, blocks: Option<Blocks>) -> Source {
    Source::Files { files: vec![file.clone()], format, blocks }
}

fn all(requests: &mut Requests) -> Result<Vec<Request>> {
    let mut found = Vec::new();
    while let Some(request) = requests.next()? {
        found.push(request);
    }
    Ok(found)
}

fn decode(name: &str, content: &[u8], format: Option<Format>, blocks: Option<Blocks>) -> Result<Vec<Request>> {
    let (_dir, file) = file(name, content);
    all(&mut source(&file, format, blocks).requests())
}

fn sizes(requests: &[Request]) -> Vec<u64> {
    requests.iter().map(|request| request.size_bytes).collect()
}

/// Keys by the number of their first request: what is the same is told, hashes are not.
fn numbers(requests: &[Request]) -> Vec<usize> {
    let first = |request: &Request| requests.iter().position(|other| other.key == request.key).unwrap();
    requests.iter().map(first).collect()
}

fn each(bytes: u64) -> Option<Blocks> {
    NonZeroU64::new(bytes).map(|bytes| Blocks::Each { bytes })
}

fn oracle(records: &[(u32, u64, u32, i64)]) -> Vec<u8> {
    let record = |(time, object, size, next): &(u32, u64, u32, i64)| {
        [&time.to_le_bytes()[..], &object.to_le_bytes(), &size.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    records.iter().flat_map(record).collect()
}

#[test]
fn plain_keys_are_numbers_or_names() {
    let requests = decode("t", b"# a comment\n17\n\n  user:4 \r\n17\n018", None, None).unwrap();
    assert_eq!((numbers(&requests), sizes(&requests)), (vec![0, 1, 0, 3], vec![1, 1, 1, 1]));
    let requests = decode("t", b"17,4096\na,b,10\n17 , 4096\n", None, None).unwrap();
    assert_eq!((numbers(&requests), sizes(&requests)), (vec![0, 1, 0], vec![4096, 10, 4096]));
    assert_eq!(decode("t", b"", None, None).unwrap(), []);
}

#[test]
fn spc_requests_are_taken_apart_into_pages() {
    let requests = decode("Financial1.spc", SPC.as_bytes(), None, None).unwrap();
    assert_eq!(sizes(&requests), [4096; 8]);
    // The third is on another device, the last touches three pages of its own.
    assert_eq!(numbers(&requests), [0, 1, 2, 3, 4, 5, 6, 7]);
    let whole = decode("f", SPC.as_bytes(), None, Some(Blocks::Whole)).unwrap();
    assert_eq!((sizes(&whole), numbers(&whole)), (vec![8192, 8192, 512, 8192], vec![0, 1, 2, 3]));
    assert_eq!(decode("f", SPC.as_bytes(), None, each(8192)).unwrap().len(), 5);
}

#[test]
fn arc_requests_are_sectors_unless_asked_otherwise() {
    let requests = decode("anything", ARC.as_bytes(), None, None).unwrap();
    assert_eq!((requests.len(), sizes(&requests)), (66, vec![512; 66]));
    // 64 sectors from 110765 on touch nine pages of 4 KiB, since that is no multiple of 8.
    assert_eq!(decode("P6.lis", ARC.as_bytes(), None, each(4096)).unwrap().len(), 10);
    let again = decode("P6.lis", b"8 8 0 0\n15 1 0 1\n16 1 0 2\n", None, each(4096)).unwrap();
    assert_eq!(numbers(&again), [0, 0, 2]);
}

#[test]
fn oracle_general_records() {
    let records = [(0, 5, 100, 2), (0, u64::MAX, u32::MAX, -1), (9, 5, 100, i64::MAX)];
    let requests = decode("w.oracleGeneral.bin", &oracle(&records), None, None).unwrap();
    assert_eq!(requests[0], Request { key: 5, size_bytes: 100 });
    assert_eq!(requests[1], Request { key: u64::MAX, size_bytes: u64::from(u32::MAX) });
    assert_eq!(requests, decode("w", &oracle(&records), None, None).unwrap(), "by content");
}

#[test]
fn the_format_is_told_by_name_or_content() {
    for (name, content, format) in [
        ("t", "5\n6\n", Format::Keys),
        ("t", "5,6\n", Format::Keys),
        ("t", "", Format::Keys),
        ("t", "# 1 2 3 4\n\n1 2 3 4\n", Format::Arc),
        ("t", "1 2 3 x\n", Format::Keys),
        ("t", SPC, Format::Spc),
        ("t", "0,1,512,Q,0.1\n", Format::Keys),
        ("F.SPC.gz", "nonsense", Format::Spc),
        ("P1.lis", "nonsense", Format::Arc),
        ("loop.lis", "1,2", Format::Keys),
        ("x.oracleGeneral.zst", "text", Format::Oracle),
        ("t", "\0\x01", Format::Oracle),
    ] {
        assert_eq!(Format::detect(name, content.as_bytes()), format, "{name} {content}");
    }
}

#[test]
fn compressed_files_are_unpacked_and_may_have_several_parts() {
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |text: &str| {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(text.as_bytes(), level)
    };
    // A skippable frame of 3 bytes.
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    for content in [
        [gzip("1\n2\n"), gzip("1\n3\n")].concat(),
        [zstd("1\n2\n"), skippable.to_vec(), zstd(""), zstd("1\n3\n")].concat(),
    ] {
        assert_eq!(numbers(&decode("t", &content, None, None).unwrap()), [0, 1, 0, 3]);
        // Cut anywhere, it is an error or less, and never a panic.
        for len in 0..content.len() {
            let cut = decode("t", &content[..len], None, None);
            assert!(cut.is_err() || cut.unwrap().len() <= 4, "{len}");
        }
        let error = decode("t", &content[..content.len() - 3], None, None).unwrap_err().to_string();
        assert!(error.starts_with("cannot read t after ") && error.contains("(unpacked)"), "{error}");
    }
    let mut damaged = zstd(&"0123456789\n".repeat(20));
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let error = decode("t", &damaged, None, None).unwrap_err().to_string();
    assert!(error.contains("checksum"), "{error}");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let long = [b'x'; 70_000];
    let huge = format!("{} 1 0 0\n", u64::MAX / 512 + 1);
    for (name, content, expected) in [
        ("t", &b"a,1\nb\n"[..], "t, line 2: expected a key and its size (KEY,SIZE) as in the first line, found \"b\""),
        ("t", b"a\n\nb,1\n", "t, line 3: expected a key without a size as in the first line, found \"b,1\""),
        ("t", b"a,b\n", "t, line 1: expected a size in bytes behind the last comma, found \"b\""),
        ("t", b"a,18446744073709551616\n", "found \"18446744073709551616\""),
        ("t", b",1\n", "expected a key before the comma, found \",1\""),
        ("t", &long, "t, line 1: expected lines of at most 65536 bytes, found \"xxx"),
        ("t.lis", b"1 2 0 0\n1 2 0\n", "t.lis, line 2: expected START COUNT IGNORED NUMBER (four numbers, "),
        ("t.lis", b"1 2 0 0\n1 -2 0 1\n", "t.lis, line 2: expected START"),
        ("t.lis", b"1 2097153 0 0\n", "t.lis, line 1: expected a request of at most 1 GiB"),
        ("t.lis", b"1 18446744073709551615 0 0\n", "expected a request of at most 1 GiB"),
        ("t.lis", huge.as_bytes(), "expected an address in sectors below 2^55"),
        ("t.spc", b"0,1,2\n", "t.spc, line 1: expected ASU,LBA,SIZE,OPCODE,TIMESTAMP, found \"0,1,2\""),
        ("t.spc", b"x,1,2,r,0\n", "expected the ASU as a number in the first field, found \"x\""),
        ("t.spc", b"0,x,2,r,0\n", "expected the address in sectors of 512 bytes in the second field, found \"x\""),
        ("t.spc", b"0,1,-2,r,0\n", "expected the size in bytes in the third field, found \"-2\""),
        ("t.spc", b"0,1,2,read,0\n", "expected the opcode R or W in the fourth field, found \"read\""),
        ("t.spc", b"0,1,2,r,NaN\n", "expected the time in seconds in the fifth field, found \"NaN\""),
        ("t.oracleGeneral", &[0; 49], "t.oracleGeneral, record 3 at byte 48: expected 24 bytes, found the end after 1"),
    ] {
        let error = decode(name, content, None, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.len() < 300, "{error}");
    }
    let missing = TraceFile::new(Path::new("/nonexistent"));
    let error = all(&mut source(&missing, None, None).requests()).unwrap_err().to_string();
    assert!(error.starts_with("cannot open /nonexistent: No such file"), "{error}");
    let folder = TraceFile::new(Path::new("/"));
    let error = all(&mut source(&folder, None, None).requests()).unwrap_err().to_string();
    assert!(error.starts_with("cannot open /: is a directory"), "{error}");
}

#[test]
fn several_files_are_one_trace() {
    let ((_one, keys), (_two, arc)) = (file("one", b"1\n2\n"), file("two", b"1 1 0 0\n"));
    let files = vec![keys.clone(), keys, arc];
    let mut requests = Source::Files { files, format: None, blocks: None }.requests();
    let found = all(&mut requests).unwrap();
    assert_eq!((numbers(&found), sizes(&found)), (vec![0, 1, 0, 1, 4], vec![1, 1, 1, 1, 512]));
    assert_eq!((requests.formats(), requests.all_sized()), (&[Format::Keys, Format::Arc][..], false));
    assert_eq!(requests.read_bytes(), 16);
}

fn generated(text: &str, seed: u64) -> Vec<u64> {
    let generator = text.parse().unwrap();
    let requests = all(&mut Source::Generated { generator, seed }.requests()).unwrap();
    requests.iter().map(|request| request.key).collect()
}

#[test]
fn generators_do_what_their_names_say() {
    assert_eq!(generated("loop:3:7", 1), [0, 1, 2, 0, 1, 2, 0]);

    let zipf = generated("zipf:1:100:100000", 1);
    assert_eq!(zipf, generated("zipf:1:100:100000", 1));
    assert_ne!(zipf, generated("zipf:1:100:100000", 2));
    let harmonic: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
    for rank in [1, 2, 10, 100] {
        let (found, share) = (zipf.iter().filter(|key| **key == rank - 1).count(), 1.0 / (rank as f64 * harmonic));
        let expected = 1e5 * share;
        assert!((found as f64 - expected).abs() < 5.0 * expected.sqrt(), "{rank}: {found}, expected {expected}");
    }
    assert!(zipf.iter().all(|key| *key < 100));

    let scans = generated("scan-zipf:1:100:10000:0.2", 1);
    let scanned: Vec<u64> = scans.iter().copied().filter(|key| *key >= 100).collect();
    assert!(scanned.is_sorted_by(|one, next| one < next), "each once");
    assert!((1900..=2000).contains(&scanned.len()), "{}", scanned.len());
    let first = scans.iter().position(|key| *key >= 100).unwrap();
    assert!(scans[first..first + 10].iter().all(|key| *key >= 100), "a scan is not broken");

    let drift = generated("drift:1000:10000:10", 1);
    for (at, key) in (0..).zip(&drift) {
        let begin = at * 991 / 10_000;
        assert!((begin..begin + 10).contains(key), "{at}: {key}");
    }
    assert!(drift.iter().any(|key| *key > 990));
}

#[test]
fn what_is_no_generator() {
    for text in ["zipf:0.99:10:100", "loop:10:100", "scan-zipf:1:10:100:0.5", "drift:1000:100:10"] {
        assert_eq!(text.parse::<Generator>().unwrap().to_string(), text);
    }
    assert_eq!("drift:1000:10".parse::<Generator>().unwrap().to_string(), "drift:1000:10:10");
    for (text, expected) in [
        ("", "found \"\""),
        ("zipf", "expected zipf:SKEW:OBJECTS:REQUESTS, loop:"),
        ("loop:1:2:3", "found \"loop:1:2:3\""),
        ("zipf:x:10:10", "expected a skew from 0 to 10, found \"x\""),
        ("zipf:NaN:10:10", "a skew from 0 to 10"),
        ("zipf:11:10:10", "a skew from 0 to 10"),
        ("loop:0:10", "expected a number of objects from 1 to 4294967295, found \"0\""),
        ("loop:4294967296:10", "a number of objects"),
        ("loop:10:0", "expected a number of requests above 0"),
        ("scan-zipf:1:10:10:1", "expected a share of scans above 0 and below 1"),
        ("drift:10:10:11", "expected a window of 1 to all objects, found \"11\""),
    ] {
        let error = text.parse::<Generator>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            "([0-9]{1,21}[ ,]){1,6}[rRwWx#]?[,.0-9]{0,9}\n{0,2}([0-9 ,]|\n){0,60}".prop_map(String::into_bytes),
        ],
        packed in 0..3usize,
    ) {
        let magic = [&[][..], &bytes::GZIP_MAGIC, &bytes::ZSTD_MAGIC][packed];
        let content = [magic, &bytes].concat();
        // Whatever it is, it ends: with requests or with an error.
        for format in Format::ALL.map(Some).into_iter().chain([None]) {
            let (_dir, file) = file("t", &content);
            let mut requests = source(&file, format, Some(Blocks::Whole)).requests();
            let _ = all(&mut requests);
            let mut in_pages = source(&file, format, each(4096)).requests();
            // A request may be of many pages.
            for _ in 0..1000 {
                if !matches!(in_pages.next(), Ok(Some(_))) {
                    break;
                }
            }
        }
    }
}
