//! Files that someone made by hand: every checksum is right, and everything else may be what it likes. So what a store
//! believes of a file once its checksums are right is put to the test.
//!
//! Opening, reading, verifying, writing to and salvaging such a file must end, soon and in little memory, in a result or
//! in a typed error, whatever sizes the file claims.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use mapfall::fuzzing::{Forge, Numbers, Root};
use mapfall::{CheckpointOptions, Error, PageId, Pages, Result, Store, VerifyOptions};

use crate::file::MemoryFile;
use crate::heap;

const NODES_MAX: usize = 12;
const ITEMS_MAX: usize = 16;
/// Items that an iterator is asked for.
const ITEMS_ASKED: usize = 2000;
/// Beside what is in proportion to the file.
const HEAP_BYTES: usize = 24 << 20;
/// For each byte of the file.
const HEAP_FACTOR: usize = 16;

/// A number that a file claims.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Claim {
    /// What is true.
    Right,
    Few(u8),
    /// Near a power of two.
    Power {
        bits: u8,
        nudge: i8,
    },
    Any(u64),
}

impl Claim {
    fn of(self, right: u64) -> u64 {
        match self {
            Claim::Right => right,
            Claim::Few(number) => number.into(),
            Claim::Power { bits, nudge } => (1_u64 << (bits % 64)).wrapping_add_signed(nudge.into()),
            Claim::Any(number) => number,
        }
    }
}

/// Words of a node, from a place on.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Item {
    /// The address of a node that was made before.
    Child {
        which: u8,
        count: Claim,
        bent: bool,
    },
    /// A page that is there.
    Page {
        fill: u8,
    },
    /// One that was never written.
    Zeros,
    /// An extent of a held list.
    Held {
        start: Claim,
        len: Claim,
        birth: u8,
        death: u8,
    },
    Words(u64, u64),
    /// Units in use.
    Bits(u64),
}

/// A node of a tree.
#[derive(Arbitrary, Clone, Debug)]
struct Node {
    items: Vec<(u16, Item)>,
    /// Whether the items come again and again to the node's end.
    repeats: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Tree {
    /// None is an empty one.
    root: Option<u8>,
    height: u8,
    count: Claim,
}

/// A file.
#[derive(Arbitrary, Clone, Debug)]
pub struct Lists {
    unit_shift: u8,
    page_units: u8,
    nodes: Vec<Node>,
    pages: Tree,
    space: Tree,
    held: Tree,
    names: Option<Names>,
    end_units: Claim,
    raw_units: Claim,
    page_limit: Claim,
    sequence: Claim,
    generation: Claim,
    record_units: Claim,
    salvages: bool,
}

/// A list of kept checkpoints.
#[derive(Arbitrary, Clone, Debug)]
struct Names {
    kept: Vec<(u8, Tree, Claim)>,
    len: Claim,
}

/// A file to be tried.
#[derive(Debug)]
pub struct Forgery {
    bytes: Vec<u8>,
    page_bytes: usize,
    salvages: bool,
}

impl Forgery {
    pub fn of_lists(plan: &Lists) -> Self {
        let mut forge = Forge::new(plan.unit_shift, plan.page_units);
        let page_bytes = forge.page_bytes();
        let mut nodes: Vec<[u64; 4]> = Vec::new();
        for node in plan.nodes.iter().take(NODES_MAX) {
            let child = make_node(&mut forge, node, &nodes);
            nodes.push(child);
        }
        let root = |tree: &Tree| match tree.root.filter(|_| !nodes.is_empty()) {
            None => Root::default(),
            Some(which) => {
                let mut child = nodes[which as usize % nodes.len()];
                child[3] = tree.count.of(child[3]);
                Root { child, height: (tree.height % 10).into() }
            }
        };
        let (pages, space, held) = (root(&plan.pages), root(&plan.space), root(&plan.held));
        let names = plan.names.as_ref().map_or([0; 4], |names| {
            let kept: Vec<_> =
                names.kept.iter().take(8).map(|(name, tree, limit)| (*name, root(tree), *limit)).collect();
            let mut child = forge.block(&list_of(&kept));
            child[3] = names.len.of(child[3]);
            child
        });
        let end = forge.end_units();
        let generation = plan.generation.of(2);
        let numbers = Numbers {
            generation,
            sequence: plan.sequence.of(5),
            end_units: plan.end_units.of(end),
            raw_units: plan.raw_units.of(0),
            page_limit: plan.page_limit.of(512),
            pages,
            space,
            held,
            names,
            record_units: plan.record_units.of(0),
            cookie: Vec::new(),
        };
        Forgery { bytes: forge.file(numbers), page_bytes, salvages: plan.salvages }
    }

    /// Tries everything with it.
    pub fn check(&self) {
        heap::within(HEAP_BYTES + HEAP_FACTOR * self.bytes.len(), || {
            self.read();
            self.verify();
            self.write();
            if self.salvages {
                self.salvage();
            }
        });
    }

    fn read(&self) {
        let file = MemoryFile::new(self.bytes.clone());
        let Some(snapshot) = typed(Store::options().open_snapshot_io(file.boxed())) else { return };
        let mut buf = vec![0; self.page_bytes];
        for page in snapshot.iter().take(ITEMS_ASKED) {
            let Some(page) = typed(page) else { continue };
            typed(snapshot.read(page, &mut buf));
        }
        for page in [0, 1, 255, 256, 1 << 20, (1 << 40) - 1, 1 << 40, u64::MAX] {
            typed(snapshot.read(PageId(page), &mut buf));
        }
        let _ = (typed(snapshot.info()), typed(snapshot.layout()), typed(snapshot.held_bytes()));
    }

    fn verify(&self) {
        let file = MemoryFile::new(self.bytes.clone());
        let report = typed(Store::options().verify_io(file.boxed(), &VerifyOptions::new(), &mut |_| ()));
        // A store that is clean can be read, all of it.
        if report.is_some_and(|report| report.is_clean()) {
            let snapshot = Store::options().open_snapshot_io(file.boxed()).expect("a clean store");
            let mut buf = vec![0; self.page_bytes];
            for page in snapshot.iter().take(ITEMS_ASKED) {
                let page = page.expect("an entry of a clean store");
                snapshot.read(page, &mut buf).unwrap_or_else(|error| panic!("page {page} of a clean store: {error}"));
            }
        }
    }

    fn write(&self) {
        let file = MemoryFile::new(self.bytes.clone());
        let Some(store) = typed(Store::options().open_io(file.boxed())) else { return };
        let pages = store.pages();
        let bytes = vec![9; self.page_bytes];
        for page in pages.iter().take(ITEMS_ASKED / 100).collect::<Vec<_>>() {
            let Some(page) = typed(page) else { continue };
            typed(pages.write(page, &bytes));
        }
        for _ in 0..3 {
            let Some(page) = typed(pages.allocate()) else { break };
            if typed(pages.write(page, &bytes)).is_some() {
                is_as_written(&pages, page, &bytes);
            }
            typed(pages.free(page));
        }
        let written = typed(store.blocks().write(&[8; 3000]));
        let made = typed(store.checkpoint(CheckpointOptions::new().keep_as("own")));
        if let Some(block) = written {
            let found = store.blocks().read_vec(&block).unwrap_or_else(|error| panic!("a block just written: {error}"));
            assert!(found == [8; 3000]);
            typed(store.blocks().free(&block));
        }
        if made.is_some() {
            typed(store.checkpoint(CheckpointOptions::new().pack(true)));
        }
        let _ = store.validate();
    }

    fn salvage(&self) {
        static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
            let name = format!("mapfall-forged-{}", std::process::id());
            let directory = ["/dev/shm", "/tmp"].map(PathBuf::from).into_iter().find(|path| path.is_dir());
            let directory = directory.unwrap_or_else(std::env::temp_dir).join(name);
            fs::create_dir_all(&directory).expect("a directory");
            directory
        });
        let (source, target) = (DIRECTORY.join("source"), DIRECTORY.join("target"));
        fs::write(&source, &self.bytes).expect("a file");
        let report = typed(Store::options().salvage(&source, &target, &mut |_| ()));
        if let Some(report) = report {
            let len_bytes = fs::metadata(&target).expect("the new file").len();
            assert!(len_bytes <= 2 * self.bytes.len() as u64 + (8 << 20), "{len_bytes} bytes salvaged of a small file");
            let store = Store::options().verify(&target, &VerifyOptions::new(), &mut |_| ()).expect("a salvaged store");
            assert!(store.is_clean(), "{report:?}, {:?}", store.problems);
            assert_eq!(store.pages, report.pages_saved);
        }
        for path in [source, target] {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir(&*DIRECTORY);
        fs::create_dir_all(&*DIRECTORY).expect("a directory");
    }
}

fn is_as_written(pages: &Pages, page: PageId, bytes: &[u8]) {
    let mut buf = vec![0; bytes.len()];
    pages.read(page, &mut buf).unwrap_or_else(|error| panic!("page {page}, just written: {error}"));
    assert!(buf == bytes, "page {page} is not what was just written");
}

/// The value, if it is no error; an error must be one that says what is wrong with a file.
fn typed<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Batch { source, .. }) => typed(Err(*source)),
        Err(
            Error::Corrupt { .. }
            | Error::NotAStore { .. }
            | Error::Unsupported { .. }
            | Error::NoSuchPage { .. }
            | Error::OutOfMemory { .. }
            | Error::CheckpointExists { .. }
            | Error::Poisoned { .. },
        ) => None,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::FileTooLarge => None,
        Err(error) => panic!("not an error of a damaged file: {error:?}"),
    }
}

fn make_node(forge: &mut Forge, node: &Node, made: &[[u64; 4]]) -> [u64; 4] {
    let mut words = vec![0_u64; forge.node_bytes() / 8];
    let mut count = 0;
    let mut at = 0;
    let items = &node.items[..node.items.len().min(ITEMS_MAX)];
    let rounds = if node.repeats { usize::MAX } else { 1 };
    // A page that comes again is the same one.
    let mut pages = [None; ITEMS_MAX];
    'node: for _ in 0..rounds.min(words.len()) {
        for (index, (skip, item)) in items.iter().enumerate() {
            at += usize::from(*skip) % (words.len() + 1);
            let mut put = |new: &[u64]| {
                at = at.next_multiple_of(new.len());
                let Some(place) = words.get_mut(at..at + new.len()) else { return false };
                place.copy_from_slice(new);
                at += new.len();
                true
            };
            let whole = match *item {
                Item::Child { which, count: claim, bent } if !made.is_empty() => {
                    let mut child = made[which as usize % made.len()];
                    child[3] = claim.of(child[3]);
                    child[2] ^= u64::from(bent);
                    count += child[3] % (1 << 40);
                    put(&child)
                }
                Item::Child { .. } => put(&[0; 4]),
                Item::Page { fill } => {
                    let page = vec![fill; forge.page_bytes()];
                    let entry = *pages[index].get_or_insert_with(|| forge.page(&page));
                    count += 1;
                    put(&entry)
                }
                Item::Zeros => {
                    count += 1;
                    put(&[2, 0])
                }
                Item::Held { start, len, birth, death } => {
                    count += 1;
                    put(&[start.of(100), len.of(1), birth.into(), death.into()])
                }
                Item::Words(first, second) => put(&[first, second]),
                Item::Bits(word) => {
                    count += u64::from(word.count_ones());
                    put(&[word])
                }
            };
            if !whole {
                break 'node;
            }
        }
        if items.is_empty() {
            break;
        }
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut child = forge.block(&bytes);
    child[3] = count;
    child
}

fn list_of(kept: &[(u8, Root, Claim)]) -> Vec<u8> {
    let mut bytes = b"\x89MPFNAME".to_vec();
    bytes.extend_from_slice(&(kept.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for (name, root, limit) in kept {
        for number in [1, 5, limit.of(512)] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let [offset, generation, checksum, count] = root.child;
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&generation.to_le_bytes());
        bytes.extend_from_slice(&(checksum as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&root.height.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        bytes.push(b'a' + name % 26);
    }
    bytes
}
