//! Any value, and any bytes: what was encoded comes back, and decoders are total.

use proptest::prelude::*;
use proptest::sample::Index;

use super::{slot_table, summed, superblock_table};
use crate::checksum::ChecksumKind;
use crate::format::node::TREE_BYTES;
use crate::format::superblock::HEAD_BYTES;
use crate::format::*;

fn geometries() -> impl Strategy<Value = Geometry> {
    (9..=20_u32).prop_flat_map(|bits| {
        let unit_bytes = 1 << bits;
        (1..=(1 << 20) / unit_bytes).prop_map(move |units| Geometry::new(unit_bytes, unit_bytes * units).unwrap())
    })
}

fn superblocks() -> impl Strategy<Value = Superblock> {
    let kind = prop::sample::select(ChecksumKind::ALL.to_vec());
    (geometries(), kind, any::<u64>(), any::<u64>(), any::<[u8; 16]>()).prop_map(
        |(geometry, checksum, features_compatible, features_read_compatible, uuid)| Superblock {
            geometry,
            checksum,
            features_compatible,
            features_read_compatible,
            uuid,
        },
    )
}

/// Small numbers, large ones, and the largest.
fn below(limit: u64) -> impl Strategy<Value = u64> {
    prop_oneof![0..limit, 0..limit.min(1000), Just(limit - 1)]
}

fn children() -> impl Strategy<Value = Child> {
    let some = (below(UNITS_MAX - 1), below(SEQUENCE_MAX), any::<u32>(), below(UNITS_MAX + 1)).prop_map(
        |(offset, generation, checksum, count)| Child { offset_units: offset + 1, generation, checksum, count },
    );
    prop_oneof![4 => some, 1 => Just(Child::NONE)]
}

fn trees() -> impl Strategy<Value = Tree> {
    (children(), 0..=7_u32).prop_map(|(root, height)| Tree { root, height })
}

fn cookies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 1020..=1024)]
}

fn slots() -> impl Strategy<Value = Slot> {
    let end = below(UNITS_MAX + 1).prop_flat_map(|end| (Just(end), 0..=end, 0..=end));
    let numbers = (1..SEQUENCE_MAX, below(SEQUENCE_MAX), end, below(PAGES_MAX + 1));
    (any::<[u8; 16]>(), numbers, [trees(), trees(), trees()], children(), cookies()).prop_map(
        |(uuid, (generation, sequence, (end_units, raw_units, record_units), page_limit), trees, names, cookie)| {
            let [pages, space, held] = trees;
            Slot {
                uuid,
                generation,
                sequence,
                end_units,
                raw_units,
                page_limit,
                pages,
                space,
                held,
                names,
                record_units,
                cookie,
            }
        },
    )
}

fn name_lists() -> impl Strategy<Value = Names> {
    let numbers = (below(SEQUENCE_MAX), below(SEQUENCE_MAX), below(PAGES_MAX + 1));
    let kept = ("[a-z]{0,58}|\\PC{0,12}", numbers, trees(), cookies());
    prop::collection::vec(kept, 0..6).prop_map(|list| {
        let name = |(index, (name, (generation, sequence, page_limit), pages, cookie))| {
            let mut name = format!("{index}{name}");
            while name.len() > NAME_BYTES_MAX {
                name.pop();
            }
            Name { name, generation, sequence, page_limit, pages, cookie }
        };
        Names(list.into_iter().enumerate().map(name).collect())
    })
}

fn addresses() -> impl Strategy<Value = BlockAddr> {
    (below(UNITS_MAX << 11), below(u64::from(u32::MAX)), below(SEQUENCE_MAX), any::<u32>()).prop_map(
        |(sectors, len_less_1, generation, checksum)| BlockAddr {
            offset: sectors * 512,
            len_bytes: u32::try_from(len_less_1).unwrap() + 1,
            generation,
            checksum,
        },
    )
}

/// Another byte at some place.
fn damaged(bytes: &[u8], at: &Index, change: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = at.index(bytes.len());
    bytes[at] ^= change;
    bytes
}

fn resummed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 4);
    summed(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn superblocks_come_back(superblock in superblocks(), at in any::<Index>(), change in 1..=255_u8) {
        let bytes = superblock.encode();
        prop_assert_eq!(Superblock::decode(&bytes), Ok(superblock));
        prop_assert_eq!(Superblock::decode_head(&bytes[..HEAD_BYTES]), Ok(superblock));
        let damaged = damaged(&bytes, &at, change);
        prop_assert!(Superblock::decode(damaged[..].try_into().unwrap()).is_err());
        // What is there in a sound superblock is what it says, or it is refused.
        if let Ok(other) = Superblock::decode(resummed(damaged.clone())[..].try_into().unwrap()) {
            prop_assert_eq!(&other.encode_head()[..20], &damaged[..20]);
        }
    }

    #[test]
    fn slots_come_back(slot in slots(), at in any::<Index>(), change in 1..=255_u8) {
        let bytes = slot.encode();
        prop_assert_eq!(Slot::decode(&bytes), Ok(slot.clone()));
        let damaged = damaged(&bytes, &at, change);
        prop_assert!(Slot::decode(damaged[..].try_into().unwrap()).is_err());
        if let Ok(other) = Slot::decode(resummed(damaged.clone())[..].try_into().unwrap()) {
            let again = other.encode();
            prop_assert_eq!((&again[..32], &again[40..236]), (&damaged[..32], &damaged[40..236]));
        }
    }

    #[test]
    fn records_come_back(superblock in superblocks(), slot in slots(), at in any::<Index>(), change in 1..=255_u8,
            behind in prop::collection::vec(any::<u8>(), 0..40)) {
        let record = Record { superblock, slot: Slot { uuid: superblock.uuid, ..slot } };
        let bytes = record.encode();
        prop_assert_eq!(Record::decode(&[&bytes[..], &behind].concat()), Some(record));
        prop_assert_eq!(Record::decode(&bytes[..at.index(RECORD_BYTES)]), None);
        let damaged = damaged(&bytes, &at, change);
        prop_assert_eq!(Record::decode(&damaged), None);
        let _ = Record::decode(&resummed(damaged));
    }

    #[test]
    fn lists_of_names_come_back(names in name_lists(), at in any::<Index>(), change in 1..=255_u8) {
        let bytes = names.encode();
        prop_assert!(bytes.len() as u64 <= Names::BYTES_MAX);
        prop_assert_eq!(Names::decode(&bytes), Some(names.clone()));
        prop_assert_eq!(Names::decode(&bytes[..at.index(bytes.len())]), None);
        prop_assert_eq!(Names::decode(&[&bytes[..], &[0]].concat()), None);
        if let Some(first) = names.0.first() {
            prop_assert_eq!(names.find(&first.name), Some(first));
            let twice = Names([&names.0[..], std::slice::from_ref(first)].concat());
            prop_assert_eq!(Names::decode(&twice.encode()), None);
        }
        // No checksum of its own: the address of the list has it.
        let _ = Names::decode(&damaged(&bytes, &at, change));
    }

    #[test]
    fn nodes_and_entries_come_back(tree in trees(), offset in 1..UNITS_MAX, sequence in below(SEQUENCE_MAX),
            checksum in any::<u32>()) {
        let mut bytes = [0xEE; TREE_BYTES];
        tree.encode(&mut bytes);
        prop_assert_eq!(Tree::decode(&bytes), Some(tree));
        prop_assert_eq!(Child::decode(&bytes), Some(tree.root));

        let entry = Entry::stored(offset, sequence, checksum);
        prop_assert_eq!(entry.state(), PageState::Stored { offset_units: offset, sequence, checksum });
        prop_assert_eq!(Entry::from_disk(entry.to_disk()), Some(entry));
    }

    #[test]
    fn addresses_come_back(address in addresses(), behind in prop::collection::vec(any::<u8>(), 0..9),
            at in any::<Index>(), change in 1..=255_u8) {
        let packed = address.pack();
        prop_assert!(packed.len() <= PACKED_BYTES_MAX);
        let followed = [&packed[..], &behind].concat();
        prop_assert_eq!(BlockAddr::unpack(&followed).unwrap(), (address, &behind[..]));
        prop_assert!(BlockAddr::unpack(&packed[..at.index(packed.len())]).is_err());
        if let Ok((other, rest)) = BlockAddr::unpack(&damaged(&packed, &at, change)) {
            prop_assert!(other != address || !rest.is_empty());
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
        // What was decoded is packed as it was: no address has two forms.
        if let Ok((address, rest)) = BlockAddr::unpack(&bytes) {
            prop_assert_eq!(&address.pack()[..], &bytes[..bytes.len() - rest.len()]);
        }
        prop_assert_eq!((Record::decode(&bytes), Names::decode(&bytes)), (None, None));
        bytes.resize(SLOT_BYTES, 0xA5);
        prop_assert!(Slot::decode(bytes[..].try_into().unwrap()).is_err());
        prop_assert!(Slot::decode_body(&bytes).is_none());
        prop_assert!(Superblock::decode(bytes[..SUPERBLOCK_BYTES].try_into().unwrap()).is_err());
        let words = [bytes::get_u64(&bytes, 0), bytes::get_u64(&bytes, 8)];
        prop_assert!(Entry::from_disk(words).is_none_or(|entry| entry.to_disk() == words));
        if let Some(tree) = Tree::decode(&bytes) {
            let mut again = [0; TREE_BYTES];
            tree.encode(&mut again);
            prop_assert_eq!(&again[..], &bytes[..TREE_BYTES]);
        }
    }

    /// Bytes that are nearly right get further into a decoder.
    #[test]
    fn no_values_behind_the_right_beginning_make_a_decoder_panic(
            mut slot in prop::collection::vec(any::<u8>(), 4092), heads in any::<[u64; 8]>(), few in 0..4_u8,
            names in prop::collection::vec(prop_oneof![3 => 0..3_u8, 1 => any::<u8>()], 0..3000)) {
        let original = slot_table();
        slot[..24].copy_from_slice(&original[..24]);
        if few > 0 {
            slot[32..240].copy_from_slice(&original[32..240]);
            bytes::put_u32(&mut slot, 232, u32::from(few) * 400);
        }
        let _ = Slot::decode(&summed(slot).try_into().unwrap());
        let mut superblock = superblock_table();
        for (index, head) in heads.iter().enumerate().skip(2) {
            bytes::put_u64(&mut superblock, index * 8, *head);
        }
        let _ = Superblock::decode(&summed(superblock).try_into().unwrap());
        let mut list = Names::default().encode();
        list[8] = few;
        list.extend_from_slice(&names);
        let _ = Names::decode(&list);
        for words in names.chunks_exact(16).map(|chunk| [bytes::get_u64(chunk, 0), bytes::get_u64(chunk, 8)]) {
            prop_assert!(Entry::from_disk(words).is_none_or(|entry| entry.to_disk() == words));
        }
    }
}
