//! Records: what their keys look like and what is in them.
//!
//! A key is YCSB's: a prefix and the decimal digits of the record's number, or of a hash of it, so that records that
//! are made one after another have keys far from each other.
//!
//! The content of a field is a sequence of words by the record's key and the field's number, another at each place. So
//! bytes of another record, another field or another place are told from those that should be there, also where a
//! scan comes upon a record without knowing its number. It is made and checked at the speed of memory, since that is
//! not what is measured.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::error::{Result, YcsbError};
use super::properties::Properties;

/// No key is longer.
pub(super) const KEY_BYTES_MAX: usize = 47;
/// The digits of the greatest number.
const DIGITS_MAX: usize = 20;
/// The fractional part of the golden ratio in 64 bits: its multiples spread evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD_BYTES: usize = 8;

/// What a store's records are. It is kept in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The table's name. A store has one.
    pub table: String,
    /// What every key begins with.
    pub key_prefix: String,
    /// Digits that a key has at least.
    pub zero_padding: u16,
    /// Whether keys are in the order of the records' numbers.
    pub ordered: bool,
    /// Fields of a record.
    pub field_count: u32,
    /// The length of a field, in bytes.
    pub field_bytes: u32,
    /// Whether what is in a record can be told from its key.
    pub data_integrity: bool,
}

impl Layout {
    pub(super) fn resolve(properties: &Properties) -> Result<Layout> {
        let count = |name, default| {
            let expected = "a number from 1 to 1048576";
            let found = properties.parse(name, expected, |count: &u32| (1..=1 << 20).contains(count))?;
            Ok::<u32, YcsbError>(found.unwrap_or(default))
        };
        let layout = Layout {
            table: properties.get("table").unwrap_or("usertable").to_owned(),
            key_prefix: properties.get("keyprefix").unwrap_or("user").to_owned(),
            zero_padding: properties.parse("zeropadding", "a number of digits", |_: &u16| true)?.unwrap_or(1),
            ordered: properties
                .one_of("insertorder", "hashed or ordered", &[("hashed", false), ("ordered", true)])?
                .unwrap_or(false),
            field_count: count("fieldcount", 10)?,
            field_bytes: count("fieldlength", 100)?,
            data_integrity: properties.flag("dataintegrity")?.unwrap_or(false),
        };
        let too_large = |what, max, found| Err(YcsbError::TooLarge { what, max, found });
        if layout.table.len() > 64 {
            return too_large("the name of the table, in bytes", 64, layout.table.len() as u64);
        }
        let key_bytes = layout.key_prefix.len() + DIGITS_MAX.max(layout.zero_padding.into());
        if key_bytes > KEY_BYTES_MAX {
            return too_large("a key (keyprefix, zeropadding), in bytes", KEY_BYTES_MAX as u64, key_bytes as u64);
        }
        if layout.record_bytes() > RECORD_BYTES_MAX {
            let what = "a record (fieldcount, fieldlength), in bytes";
            return too_large(what, RECORD_BYTES_MAX as u64, layout.record_bytes() as u64);
        }
        Ok(layout)
    }

    /// The length of a record, in bytes.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.field_count as usize * self.field_bytes as usize
    }

    /// The length of a page that a record fits well: the next power of two, from 512 bytes to 1 MiB.
    #[must_use]
    pub fn page_bytes(&self) -> u32 {
        (self.record_bytes() as u64).next_power_of_two().clamp(512, 1 << 20) as u32
    }

    /// Where a field is in its record.
    pub(super) fn field(&self, field: u32) -> std::ops::Range<usize> {
        let start = field as usize * self.field_bytes as usize;
        start..start + self.field_bytes as usize
    }

    /// That a store with these records has those that are asked for.
    ///
    /// # Errors
    ///
    /// [`YcsbError::OtherRecords`] with the first property that differs.
    pub fn check_asked(&self, asked: &Layout) -> Result<()> {
        let order = |ordered: bool| if ordered { "ordered" } else { "hashed" }.to_owned();
        let differing = [
            ("table", self.table.clone(), asked.table.clone()),
            ("keyprefix", self.key_prefix.clone(), asked.key_prefix.clone()),
            ("zeropadding", self.zero_padding.to_string(), asked.zero_padding.to_string()),
            ("insertorder", order(self.ordered), order(asked.ordered)),
            ("fieldcount", self.field_count.to_string(), asked.field_count.to_string()),
            ("fieldlength", self.field_bytes.to_string(), asked.field_bytes.to_string()),
            ("dataintegrity", self.data_integrity.to_string(), asked.data_integrity.to_string()),
        ];
        match differing.into_iter().find(|(_, store, asked)| store != asked) {
            Some((name, store, asked)) => Err(YcsbError::OtherRecords { name, store, asked }),
            None => Ok(()),
        }
    }
}

/// No record is longer.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// The key of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Zeros behind the key, which no key has in it: so shorter ones come first.
    bytes: [u8; KEY_BYTES_MAX],
    len: u8,
}

/// As their bytes are.
impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Key) -> Ordering {
        // Word by word, the last one overlapping: the first or the second decides as a rule.
        let word = |at| self.head(at).cmp(&other.head(at));
        let [first, rest @ ..] = [0, 8, 16, 24, 32, KEY_BYTES_MAX - WORD_BYTES];
        rest.into_iter().fold(word(first), |order, at| order.then_with(|| word(at))).then(self.len.cmp(&other.len))
    }
}

impl PartialOrd for Key {
    #[inline]
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        String::from_utf8_lossy(self.as_bytes()).fmt(f)
    }
}

impl Key {
    /// The key of the record with a number.
    #[must_use]
    pub fn of(layout: &Layout, number: u64) -> Key {
        let shown = if layout.ordered { number } else { fnv_hash(number) };
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(shown).as_bytes();
        let prefix = layout.key_prefix.as_bytes();
        let len = prefix.len() + digits.len().max(layout.zero_padding.into());
        let mut bytes = [0; KEY_BYTES_MAX];
        let (padded, behind) = bytes[prefix.len()..].split_at_mut(len - digits.len() - prefix.len());
        padded.fill(b'0');
        behind[..digits.len()].copy_from_slice(digits);
        bytes[..prefix.len()].copy_from_slice(prefix);
        Key { bytes, len: len as u8 }
    }

    /// From what a store has. Nothing where there is no such key.
    pub(super) fn from_bytes(key: &[u8]) -> Option<Key> {
        let mut bytes = [0; KEY_BYTES_MAX];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(Key { bytes, len: key.len() as u8 })
    }

    /// The word that begins at a byte, so that words are in the order of the bytes.
    #[inline]
    pub(super) fn head(&self, at: usize) -> u64 {
        match self.bytes.get(at..at + WORD_BYTES).and_then(|bytes| bytes.first_chunk()) {
            Some(word) => u64::from_be_bytes(*word),
            None => self.bytes[at.min(KEY_BYTES_MAX)..]
                .iter()
                .chain([&0; WORD_BYTES])
                .take(WORD_BYTES)
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
        }
    }

    /// How many bytes it and another begin with alike.
    pub(super) fn common_bytes(&self, other: &Key) -> usize {
        self.bytes.iter().zip(&other.bytes).take_while(|(one, other)| one == other).count()
    }

    /// How its first bytes stand to those of another.
    #[inline]
    pub(super) fn cmp_beginning(&self, other: &Key, len: usize) -> Ordering {
        self.bytes[..len].cmp(&other.bytes[..len])
    }

    /// From which the content of its record is made.
    #[must_use]
    pub fn content(&self) -> u64 {
        let (words, rest) = self.bytes.as_chunks::<WORD_BYTES>();
        let mut last = [0; WORD_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        words.iter().chain([&last]).fold(u64::from(self.len), |mixed, word| {
            (mixed ^ u64::from_le_bytes(*word)).wrapping_mul(GOLDEN).rotate_left(29)
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// YCSB's hash of a number: FNV-1a, 64 bits, over its bytes, the lowest first, without the sign.
#[inline]
#[must_use]
pub fn fnv_hash(number: u64) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 1_099_511_628_211;
    const HALF: usize = size_of::<u64>() / 2;
    let mix = |hash: u64, octets: &[u8]| {
        octets.iter().fold(hash, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(PRIME))
    };
    let octets = number.to_le_bytes();
    let hash = mix(OFFSET_BASIS, &octets[..HALF]);
    // Nearly all numbers have nothing in the upper half, and there each octet is but a product.
    let hash = match number >> (8 * HALF) {
        0 => hash.wrapping_mul(PRIME.wrapping_pow(HALF as u32)),
        _ => mix(hash, &octets[HALF..]),
    };
    (hash as i64).unsigned_abs()
}

/// From which the words of a field are made.
fn seed(content: u64, field: u32) -> u64 {
    // The finisher of MurmurHash3: every bit of the input changes half of those of the output.
    let mut mixed = content.wrapping_mul(GOLDEN) ^ (u64::from(field) << 40) ^ u64::from(field);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

fn word(seed: u64, index: u64) -> u64 {
    let stepped = seed.wrapping_add(index.wrapping_mul(GOLDEN));
    stepped ^ (stepped >> 29)
}

/// Fills a field with what a record with this content has in it.
pub(super) fn fill_field(content: u64, field: u32, bytes: &mut [u8]) {
    let seed = seed(content, field);
    let (words, rest) = bytes.as_chunks_mut::<WORD_BYTES>();
    let mut index = 0;
    for place in words {
        *place = word(seed, index).to_le_bytes();
        index += 1;
    }
    let len = rest.len();
    rest.copy_from_slice(&word(seed, index).to_le_bytes()[..len]);
}

/// Whether a field has in it what [`fill_field`] puts there.
pub(super) fn is_filled(content: u64, field: u32, bytes: &[u8]) -> bool {
    let seed = seed(content, field);
    let (words, rest) = bytes.as_chunks::<WORD_BYTES>();
    let mut differing = 0;
    let mut index = 0;
    for place in words {
        differing |= u64::from_le_bytes(*place) ^ word(seed, index);
        index += 1;
    }
    differing == 0 && rest == &word(seed, index).to_le_bytes()[..rest.len()]
}

/// Fills all fields of a record.
pub(super) fn fill(layout: &Layout, content: u64, record: &mut [u8]) {
    for field in 0..layout.field_count {
        fill_field(content, field, &mut record[layout.field(field)]);
    }
}

/// Whether a record has in it what [`fill`] puts there.
pub(super) fn is_whole(layout: &Layout, content: u64, record: &[u8]) -> bool {
    (0..layout.field_count).all(|field| is_filled(content, field, &record[layout.field(field)]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    pub(crate) fn layout(pairs: &[&str]) -> Result<Layout> {
        let mut properties = Properties::new();
        pairs.iter().for_each(|pair| properties.set_pair(pair).unwrap());
        Layout::resolve(&properties)
    }

    /// What YCSB's Java code gives, computed by hand with 64-bit signed arithmetic.
    #[test]
    fn keys_are_those_of_ycsb() {
        let hashed = layout(&[]).unwrap();
        let key = |layout: &Layout, number| String::from_utf8(Key::of(layout, number).as_bytes().to_vec()).unwrap();
        assert_eq!(key(&hashed, 0), "user6284781860667377211");
        assert_eq!(key(&hashed, 1), "user8517097267634966620");
        let ordered = layout(&["insertorder=ordered", "zeropadding=8", "keyprefix=k"]).unwrap();
        assert_eq!((key(&ordered, 0), key(&ordered, 1234)), ("k00000000".into(), "k00001234".into()));
        assert_eq!(key(&ordered, u64::MAX), "k18446744073709551615");
        assert!(Key::of(&ordered, 99) < Key::of(&ordered, 100));
        let unpadded = layout(&["insertorder=ordered"]).unwrap();
        assert!(Key::of(&unpadded, 99) > Key::of(&unpadded, 100) && Key::of(&unpadded, 9) < Key::of(&unpadded, 99));
    }

    #[test]
    fn keys_are_in_the_order_of_their_bytes() {
        for at in 0..KEY_BYTES_MAX {
            let mut bytes = [b'5'; KEY_BYTES_MAX];
            let one = Key::from_bytes(&bytes).unwrap();
            bytes[at] = b'6';
            let other = Key::from_bytes(&bytes).unwrap();
            bytes[KEY_BYTES_MAX - 1] = b'4';
            let third = Key::from_bytes(&bytes).unwrap();
            assert_eq!((one.cmp(&other), other.cmp(&one)), (Ordering::Less, Ordering::Greater), "{at}");
            assert_eq!(one.cmp(&Key::from_bytes(one.as_bytes()).unwrap()), Ordering::Equal);
            assert_eq!(one.cmp(&third), one.as_bytes().cmp(third.as_bytes()), "{at}");
            assert!(third < other && Key::from_bytes(&bytes[..at]).unwrap() < third, "{at}");
        }
    }

    #[test]
    fn hashes_are_those_of_every_octet_in_turn() {
        let in_turn = |number: u64| {
            let mut hash: i64 = 0xcbf2_9ce4_8422_2325_u64 as i64;
            let mut left = number;
            for _ in 0..8 {
                hash = (hash ^ (left & 0xff) as i64).wrapping_mul(1_099_511_628_211);
                left >>= 8;
            }
            hash.unsigned_abs()
        };
        let powers = (0..64).map(|bit| 1_u64 << bit);
        for number in powers.flat_map(|power| [power - 1, power, power + 1, power.wrapping_mul(GOLDEN)]) {
            assert_eq!(fnv_hash(number), in_turn(number), "{number}");
        }
    }

    #[test]
    fn every_byte_is_told_from_another() {
        for field_bytes in [1, 7, 8, 100, 333] {
            let layout = layout(&["fieldcount=3", &format!("fieldlength={field_bytes}")]).unwrap();
            let mut record = vec![0; layout.record_bytes()];
            fill(&layout, 42, &mut record);
            assert!(is_whole(&layout, 42, &record));
            assert!(!is_whole(&layout, 43, &record) || field_bytes == 1);
            for index in 0..record.len() {
                record[index] ^= 1;
                assert!(!is_whole(&layout, 42, &record), "{index} of {field_bytes}");
                record[index] ^= 1;
            }
        }
    }

    #[test]
    fn every_key_has_a_content_of_its_own() {
        let layout = layout(&["insertorder=ordered"]).unwrap();
        let contents: std::collections::BTreeSet<_> =
            (0..100_000).map(|number| Key::of(&layout, number).content()).collect();
        assert_eq!(contents.len(), 100_000);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        assert!(layout(&["fieldcount=1048576", "fieldlength=1048576"]).is_err());
        assert!(layout(&["fieldcount=0"]).is_err());
        assert!(layout(&["zeropadding=48"]).is_err());
        assert!(layout(&["keyprefix=abcdefghijklmnopqrstuvwxyzab"]).is_err());
        let page_bytes = |pairs: &[&str]| layout(pairs).unwrap().page_bytes();
        assert_eq!((page_bytes(&[]), page_bytes(&["fieldlength=1", "fieldcount=1"])), (1024, 512));
        assert_eq!(page_bytes(&["fieldlength=1048576"]), 1 << 20);
    }
}
