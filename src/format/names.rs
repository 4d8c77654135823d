//! The list of kept checkpoints, a block of its own: 8 bytes `89 4D 50 46 4E 41 4D 45`, 4 bytes of their number, 4
//! bytes of 0, and then for each, in the order in which they were made:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | generation |
//! | 8 | 8 | sequence: the first number that nothing of this checkpoint has |
//! | 16 | 8 | page limit |
//! | 24 | 40 | root of the page table |
//! | 64 | 4 | length of the name, bytes, 1 to 64 |
//! | 68 | 4 | length of the root cookie, bytes |
//! | 72 | | name, UTF-8; root cookie |

use super::bytes::{get_u32, get_u64};
use super::node::TREE_BYTES;
use super::{COOKIE_BYTES_MAX, PAGES_MAX, SEQUENCE_MAX, Tree};

pub(crate) const NAME_BYTES_MAX: usize = 64;
pub(crate) const NAMES_MAX: usize = 1000;

const MAGIC: [u8; 8] = *b"\x89MPFNAME";
const HEAD_BYTES: usize = 16;
const FIXED_BYTES: usize = 72;

/// A checkpoint that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) name: String,
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    pub(crate) page_limit: u64,
    pub(crate) pages: Tree,
    pub(crate) cookie: Vec<u8>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(pub(crate) Vec<Name>);

impl Names {
    /// No list has more bytes.
    pub(crate) const BYTES_MAX: u64 =
        (HEAD_BYTES + NAMES_MAX * (FIXED_BYTES + NAME_BYTES_MAX + COOKIE_BYTES_MAX)) as u64;

    pub(crate) fn find(&self, name: &str) -> Option<&Name> {
        self.0.iter().find(|kept| kept.name == name)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(self.0.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for kept in &self.0 {
            for number in [kept.generation, kept.sequence, kept.page_limit] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            let mut tree = [0; TREE_BYTES];
            kept.pages.encode(&mut tree);
            bytes.extend_from_slice(&tree);
            bytes.extend_from_slice(&(kept.name.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&(kept.cookie.len() as u32).to_le_bytes());
            bytes.extend_from_slice(kept.name.as_bytes());
            bytes.extend_from_slice(&kept.cookie);
        }
        bytes
    }

    /// Nothing where the bytes are no such list.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEAD_BYTES || bytes[..8] != MAGIC || get_u32(bytes, 8) as usize > NAMES_MAX {
            return None;
        }
        let mut rest = &bytes[HEAD_BYTES..];
        let mut names = Names::default();
        for _ in 0..get_u32(bytes, 8) {
            let (fixed, behind) = rest.split_at_checked(FIXED_BYTES)?;
            let (name_bytes, cookie_bytes) = (get_u32(fixed, 64) as usize, get_u32(fixed, 68) as usize);
            if !(1..=NAME_BYTES_MAX).contains(&name_bytes) || cookie_bytes > COOKIE_BYTES_MAX {
                return None;
            }
            let (name, behind) = behind.split_at_checked(name_bytes)?;
            let (cookie, behind) = behind.split_at_checked(cookie_bytes)?;
            let kept = Name {
                name: std::str::from_utf8(name).ok()?.to_owned(),
                generation: get_u64(fixed, 0),
                sequence: get_u64(fixed, 8),
                page_limit: get_u64(fixed, 16),
                pages: Tree::decode(&fixed[24..])?,
                cookie: cookie.to_vec(),
            };
            let fits = kept.generation < SEQUENCE_MAX && kept.sequence < SEQUENCE_MAX && kept.page_limit <= PAGES_MAX;
            if !fits || names.find(&kept.name).is_some() {
                return None;
            }
            names.0.push(kept);
            rest = behind;
        }
        rest.is_empty().then_some(names)
    }
}
