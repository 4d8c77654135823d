//! The format, byte by byte: every structure is written as its table says and comes back as it was, and no decoder
//! panics or takes what was damaged for whole.

mod values;

use super::node::TREE_BYTES;
use super::slot::BODY_BYTES;
use super::superblock::HEAD_BYTES;
use super::*;
use crate::checksum::{ChecksumKind, crc32};
use crate::error::Error;

const UUID: [u8; 16] = [0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF];

fn example_superblock() -> Superblock {
    Superblock {
        geometry: Geometry::new(512, 1536).unwrap(),
        checksum: ChecksumKind::Xxh3,
        features_compatible: 0x0807_0605_0403_0201,
        features_read_compatible: 0x1817_1615_1413_1211,
        uuid: UUID,
    }
}

fn example_child(seed: u8) -> Child {
    let of = |add: u8| u64::from(seed) << 8 | u64::from(seed + add);
    Child { offset_units: of(1), generation: of(2), checksum: 0xC0DE_0000 | u32::from(seed), count: of(3) }
}

fn example_slot() -> Slot {
    Slot {
        uuid: UUID,
        generation: 0x0102,
        sequence: 0x0304,
        end_units: 0x0007_0809,
        raw_units: 0x0506,
        page_limit: 0x0607,
        pages: Tree { root: example_child(0x10), height: 2 },
        space: Tree { root: example_child(0x20), height: 1 },
        held: Tree::default(),
        names: example_child(0x40),
        record_units: 0x0708,
        cookie: b"cookie".to_vec(),
    }
}

/// Zeros, with bytes at places.
fn table(len: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (at, field) in fields {
        assert!(bytes[*at..*at + field.len()].iter().all(|byte| *byte == 0), "fields overlap at {at}");
        bytes[*at..*at + field.len()].copy_from_slice(field);
    }
    bytes
}

/// What [`example_child`] must be.
fn child_table(seed: u8) -> Vec<u8> {
    table(
        32,
        &[(0, &[seed + 1, seed]), (8, &[seed + 2, seed]), (16, &[seed, 0x00, 0xDE, 0xC0]), (24, &[seed + 3, seed])],
    )
}

fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32(&bytes).to_le_bytes();
    bytes.extend_from_slice(&sum);
    bytes
}

fn superblock_table() -> Vec<u8> {
    let fields: [(usize, &[u8]); 8] = [
        (0, &[0x89, 0x4D, 0x41, 0x50, 0x46, 0x41, 0x4C, 0x4C]),
        (8, &[1, 0, 0, 0]),
        (12, &[0x00, 0x02]),
        (16, &[0x00, 0x06]),
        (20, &[3]),
        (24, &[0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08]),
        (32, &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]),
        (48, &UUID),
    ];
    table(508, &fields)
}

fn slot_table() -> Vec<u8> {
    let (pages, space, names) = (child_table(0x10), child_table(0x20), child_table(0x40));
    let fields: [(usize, &[u8]); 15] = [
        (0, &[0x89, 0x4D, 0x50, 0x46, 0x43, 0x4B, 0x50, 0x54]),
        (8, &UUID),
        (24, &[0x02, 0x01]),
        (40, &[0x04, 0x03]),
        (48, &[0x09, 0x08, 0x07]),
        (56, &[0x06, 0x05]),
        (64, &[0x07, 0x06]),
        (72, &pages),
        (104, &[2]),
        (112, &space),
        (144, &[1]),
        (192, &names),
        (224, &[0x08, 0x07]),
        (232, &[6]),
        (240, b"cookie"),
    ];
    table(4092, &fields)
}

#[test]
fn constants_are_those_of_the_format() {
    assert_eq!((SUPERBLOCK_BYTES, HEAD_BYTES, SLOT_BYTES, BODY_BYTES, RECORD_BYTES), (512, 64, 4096, 1264, 1340));
    assert_eq!((SUPERBLOCK_OFFSETS, SLOT_OFFSETS, SLOT_COPIES, HEADER_BYTES), ([0, 4096], [8192, 16384], 2, 24576));
    assert_eq!((CHILD_BYTES, TREE_BYTES), (32, 40));
    assert_eq!((COOKIE_BYTES_MAX, NAME_BYTES_MAX, NAMES_MAX, PACKED_BYTES_MAX), (1024, 64, 1000, 25));
    assert_eq!((UNITS_MAX, SEQUENCE_MAX, PAGES_MAX), (1 << 40, 1 << 56, 1 << 40));
    assert_eq!(Names::BYTES_MAX, 16 + 1000 * (72 + 64 + 1024));
}

#[test]
fn a_superblock_is_what_its_table_says() {
    let expected = summed(superblock_table());
    assert_eq!(example_superblock().encode()[..], expected[..]);
    assert_eq!(example_superblock().encode_head()[..], expected[..64]);
}

#[test]
fn a_slot_is_what_its_table_says() {
    let expected = summed(slot_table());
    assert_eq!(example_slot().encode()[..], expected[..]);
    assert_eq!(example_slot().encode_body()[..], expected[..1264]);
}

#[test]
fn a_record_is_what_its_table_says() {
    let (superblock, slot) = (superblock_table(), slot_table());
    let magic = [0x89, 0x4D, 0x50, 0x46, 0x52, 0x45, 0x43, 0x44];
    let expected = summed(table(1336, &[(0, &magic), (8, &superblock[..64]), (72, &slot[..1264])]));
    let record = Record { superblock: example_superblock(), slot: example_slot() };
    assert_eq!(record.encode()[..], expected[..]);
}

#[test]
fn a_list_of_names_is_what_its_table_says() {
    let kept = |name: &str, cookie: &[u8]| Name {
        name: name.to_owned(),
        generation: 0x0102,
        sequence: 0x0203,
        page_limit: 0x0304,
        pages: Tree { root: example_child(0x10), height: 1 },
        cookie: cookie.to_vec(),
    };
    let first: [(usize, &[u8]); 9] = [
        (0, &[0x89, 0x4D, 0x50, 0x46, 0x4E, 0x41, 0x4D, 0x45]),
        (8, &[2]),
        (16, &[0x02, 0x01]),
        (24, &[0x03, 0x02]),
        (32, &[0x04, 0x03]),
        (40, &child_table(0x10)),
        (72, &[1]),
        (80, &[4, 0, 0, 0, 3]),
        (88, b"one\xC2cde"),
    ];
    // Four bytes of name, "on" and one letter of two bytes; then the cookie.
    let mut expected = table(88 + 4 + 3, &first[..8]);
    expected[88..].copy_from_slice(b"on\xC3\xA9\x01\x02\x03");
    let fields = [
        (0, &[0x02, 0x01][..]),
        (8, &[0x03, 0x02]),
        (16, &[0x04, 0x03]),
        (24, &child_table(0x10)),
        (56, &[1]),
        (64, &[1]),
        (72, b"b"),
    ];
    expected.extend(table(73, &fields));
    let names = Names(vec![kept("oné", &[1, 2, 3]), kept("b", &[])]);
    assert_eq!(names.encode(), expected);
    assert_eq!(Names::decode(&expected), Some(names));
    let none = table(16, &[(0, &[0x89, 0x4D, 0x50, 0x46, 0x4E, 0x41, 0x4D, 0x45])]);
    assert_eq!((Names::default().encode(), Names::decode(&none)), (none.clone(), Some(Names::default())));
}

#[test]
fn an_entry_is_what_its_table_says() {
    assert_eq!(Entry::ABSENT.to_disk(), [0, 0]);
    assert_eq!(Entry::ZEROS.to_disk(), [2, 0]);
    let entry = Entry::stored(0x12_3456_789A, 0xAB_CDEF_0123_4567, 0x89AB_CDEF);
    assert_eq!(entry.to_disk(), [0x1234_5678_9A23_4567, 0xABCD_EF01_89AB_CDEF]);
    assert_ne!(entry.0, NOT_LOADED);
}

#[test]
fn an_address_is_what_its_table_says() {
    let packed = |offset, len_bytes, generation, checksum| {
        let address = BlockAddr { offset, len_bytes, generation, checksum };
        let packed = address.pack();
        assert_eq!(BlockAddr::unpack(&packed).unwrap(), (address, &[][..]));
        packed
    };
    assert_eq!(packed(0, 1, 0, 0x0102_0304), [0, 0, 0, 4, 3, 2, 1]);
    assert_eq!(packed(127 * 512, 128, 128, 1), [0x7F, 0x7F, 0x80, 0x01, 1, 0, 0, 0]);
    assert_eq!(packed(300 * 512, 129, 16384, 0), [0xAC, 0x02, 0x80, 0x01, 0x80, 0x80, 0x01, 0, 0, 0, 0]);
    let longest = packed((UNITS_MAX << 11) * 512 - 512, u32::MAX, SEQUENCE_MAX - 1, u32::MAX);
    assert_eq!(longest[..13], [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x03, 0xFE, 0xFF, 0xFF, 0xFF, 0x0F]);
    assert_eq!(longest[13..], [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF]);
    assert_eq!(longest.len(), PACKED_BYTES_MAX);
}

#[test]
fn every_refusal_of_an_address() {
    let refused = |packed: &[u8], says: &str| match BlockAddr::unpack(packed) {
        Err(Error::InvalidAddress { problem }) => assert!(problem.contains(says), "{packed:x?}: {problem}"),
        other => panic!("{packed:x?}: {other:?}"),
    };
    refused(&[], "expected offset, found 0 bytes without its end");
    refused(&[0x80, 0x80], "expected offset, found 2 bytes without its end");
    refused(&[0x80; 30], "expected offset, found 8 bytes without its end");
    refused(&[0x81, 0x00, 0, 0, 0, 0, 0, 0], "expected offset below 2251799813685248 without needless bytes, found 1");
    // 2^51 sectors, and the most that 8 bytes have.
    refused(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x04, 0, 0, 0, 0, 0, 0], "found 2251799813685248");
    refused(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0], "expected offset below");
    refused(&[0], "expected length, found 0 bytes");
    refused(&[0, 0x80, 0x00, 0, 0, 0, 0, 0], "expected length below 4294967295 without needless bytes, found 0");
    // A length of 2^32.
    refused(&[0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0, 0, 0, 0, 0], "found 4294967295");
    refused(&[0, 0], "expected generation, found 0 bytes");
    refused(&[0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], "expected generation, found 8 bytes");
    refused(&[0, 0, 0x80, 0x80, 0x00, 1, 2, 3, 4], "expected generation below 72057594037927936 without needless");
    for len in 0..4 {
        refused(&[&[0, 0, 0][..], &[1; 3][..len]].concat(), &format!("expected 4 bytes of checksum, found {len}"));
    }
}

#[test]
fn every_refusal_of_a_superblock() {
    let refused = |at: usize, bytes: &[u8]| {
        let mut table = superblock_table();
        table[at..at + bytes.len()].copy_from_slice(bytes);
        Superblock::decode(&summed(table).try_into().unwrap()).unwrap_err()
    };
    let is_newer = |problem| matches!(problem, SuperblockProblem::Newer(_));
    let is_damaged = |problem| matches!(problem, SuperblockProblem::Damaged(_));
    assert_eq!(refused(0, &[0x88]), SuperblockProblem::Magic);
    assert!(is_newer(refused(8, &[2])) && is_newer(refused(8, &[0])) && is_newer(refused(11, &[1])));
    for byte in 40..48 {
        assert!(is_newer(refused(byte, &[0x80])), "incompatible feature in byte {byte}");
    }
    assert!((0..=u8::MAX).filter(|kind| ![1, 3].contains(kind)).all(|kind| is_newer(refused(20, &[kind]))));
    for (unit_bytes, page_bytes) in [(0, 512), (512, 0), (256, 512), (768, 1536), (1024, 1536), (1 << 21, 1 << 21)] {
        let sizes = [u32::to_le_bytes(unit_bytes), u32::to_le_bytes(page_bytes)].concat();
        assert!(is_damaged(refused(12, &sizes)), "{unit_bytes} {page_bytes}");
    }
    assert!(is_damaged(refused(16, &(u32::to_le_bytes((1 << 20) + 512)))));
}

#[test]
fn values_that_no_checkpoint_has_are_refused() {
    let base = example_slot();
    let refused = |change: &dyn Fn(&mut Slot)| {
        let mut slot = base.clone();
        change(&mut slot);
        let problem = Slot::decode(&slot.encode()).unwrap_err();
        assert_eq!(problem, "values that no checkpoint has");
        let record = Record { superblock: example_superblock(), slot };
        assert_eq!(Record::decode(&record.encode()), None);
    };
    assert_eq!(Slot::decode(&base.encode()), Ok(base.clone()));
    refused(&|slot| slot.generation = 0);
    refused(&|slot| slot.generation = SEQUENCE_MAX);
    refused(&|slot| slot.sequence = SEQUENCE_MAX);
    refused(&|slot| slot.end_units = UNITS_MAX + 1);
    refused(&|slot| slot.raw_units = slot.end_units + 1);
    refused(&|slot| slot.page_limit = PAGES_MAX + 1);
    refused(&|slot| slot.record_units = slot.end_units + 1);
    refused(&|slot| slot.pages.height = 8);
    refused(&|slot| slot.space.root.offset_units = UNITS_MAX);
    refused(&|slot| slot.held.root.count = 1);
    refused(&|slot| slot.names.generation = SEQUENCE_MAX);
    refused(&|slot| slot.names.count = UNITS_MAX + 1);

    for at in [0, 7, 108, 132, 235] {
        let mut bytes = slot_table();
        bytes[at] ^= 0x40;
        assert!(Slot::decode(&summed(bytes).try_into().unwrap()).is_err(), "byte {at}");
    }
    let other = Record { superblock: Superblock { uuid: [1; 16], ..example_superblock() }, slot: base };
    assert_eq!(Record::decode(&other.encode()), None, "a slot of another file");
}

#[test]
fn entries_on_disk_that_are_none() {
    // Without an offset there are two, and in memory's own numbers none.
    for words in [[1, 0], [2, 1], [0, 1], [3, 0], [(1 << 24) - 1, 0], [0, u64::MAX]] {
        assert_eq!(Entry::from_disk(words), None, "{words:?}");
    }
    assert_eq!(Entry::from_disk([0, 0]), Some(Entry::ABSENT));
    assert_eq!(Entry::from_disk([2, 0]), Some(Entry::ZEROS));
    assert!(!Entry::ABSENT.is_live() && Entry::ZEROS.is_live() && Entry::stored(1, 0, 0).is_live());
    assert_eq!(Entry(NOT_LOADED, 0).state(), PageState::Absent);
}

/// A node's checksum is in its parent: what a byte of a child address can be is little else.
#[test]
fn every_byte_of_a_child_address_is_looked_at() {
    let bytes = child_table(0x10);
    for at in 0..CHILD_BYTES {
        for change in 1..=255_u8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= change;
            if let Some(child) = Child::decode(&bytes) {
                let mut again = [0; CHILD_BYTES];
                child.encode(&mut again);
                assert_eq!(again[..], bytes[..]);
            }
        }
    }
}
