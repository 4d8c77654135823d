//! The B+tree of `examples/btree`: held against a map in memory, through crashes, failing writes and damaged pages.
//!
//! It is an embedder as others will be, so this is a test of the store's API and of the store under it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../examples/btree/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mapfall::{
    BlockIo, Error as StoreError, IoMode, IoOptions, IoStats, Operation, PageId, Store, StoreOptions, SyncKind,
};
use proptest::prelude::*;
use proptest::sample::Index;

use tree::{Error, Tree, TreeSnapshot};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Keys = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn options(page_bytes: u32, mode: IoMode) -> StoreOptions {
    Store::options().page_bytes(page_bytes).io(IoOptions::new().mode(mode))
}

fn small_pages() -> StoreOptions {
    options(512, IoMode::Pread)
}

/// Few enough to meet again, of lengths from none to the longest in a page of 512 bytes, with common beginnings.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    (0..200_u8, prop_oneof![4 => Just(0), 2 => 1..40_usize, 1 => Just(92)]).prop_map(|(number, more)| {
        let mut key = if number == 0 { Vec::new() } else { vec![b'k', number % 7, number] };
        key.resize(key.len() + more * usize::from(number % 3 == 0), number);
        key
    })
}

/// Some in their leaf, some in blocks.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let len_bytes = prop_oneof![4 => 0..30_usize, 4 => 30..120_usize, 1 => 120..4000_usize];
    (any::<u8>(), len_bytes).prop_map(|(first, len)| (0..len).map(|at| first.wrapping_add(at as u8)).collect())
}

fn bounds() -> impl Strategy<Value = Keys> {
    let bound = || {
        prop_oneof![
            1 => Just(Bound::Unbounded),
            2 => keys().prop_map(Bound::Included),
            2 => keys().prop_map(Bound::Excluded),
        ]
    };
    (bound(), bound())
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    /// One of those that are there.
    RemoveOne(Index),
    RemoveMany(Keys),
    Get(Vec<u8>),
    Range(Keys),
    Checkpoint,
    Keep,
    LetGo(Index),
    Crash,
    Snapshot,
    SnapshotElsewhere,
    CloseSnapshot(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        40 => (keys(), values()).prop_map(|(key, value)| Step::Insert(key, value)),
        5 => keys().prop_map(Step::Remove),
        12 => any::<Index>().prop_map(Step::RemoveOne),
        1 => bounds().prop_map(Step::RemoveMany),
        8 => keys().prop_map(Step::Get),
        5 => bounds().prop_map(Step::Range),
        4 => Just(Step::Checkpoint),
        1 => Just(Step::Keep),
        1 => any::<Index>().prop_map(Step::LetGo),
        1 => Just(Step::Crash),
        1 => Just(Step::Snapshot),
        1 => Just(Step::SnapshotElsewhere),
        2 => any::<Index>().prop_map(Step::CloseSnapshot),
    ];
    prop::collection::vec(step, 1..500)
}

/// What is within bounds; a `BTreeMap` panics where they are the wrong way round.
fn within(model: &Model, keys: &Keys) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entries = model.iter().filter(|(key, _)| keys.contains(*key));
    entries.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn assert_snapshot(snapshot: &TreeSnapshot, model: &Model) {
    assert_eq!((snapshot.check().unwrap(), snapshot.root().entries), (snapshot.root(), model.len() as u64));
    let entries: Vec<_> = snapshot.range(..).map(Result::unwrap).collect();
    assert_eq!(entries, within(model, &(Bound::Unbounded, Bound::Unbounded)));
    if let Some((key, value)) = entries.first() {
        assert_eq!(snapshot.get(key).unwrap().as_ref(), Some(value));
    }
}

/// That the tree has what the map has, and that the store has no page besides.
fn assert_tree(tree: &Tree, model: &Model) {
    assert_eq!(tree.check().unwrap().entries, tree.root().entries);
    let entries: Vec<_> = tree.range(..).map(Result::unwrap).collect();
    assert_eq!(entries, within(model, &(Bound::Unbounded, Bound::Unbounded)));
}

/// A tree and what it should have, also after a crash.
struct Pair {
    path: PathBuf,
    options: StoreOptions,
    tree: Option<Tree>,
    model: Model,
    durable: Model,
    kept: BTreeMap<String, Model>,
    let_go: Vec<String>,
    kept_so_far: u32,
    snapshots: Vec<(TreeSnapshot, Model)>,
    elsewhere: Vec<(TreeSnapshot, Model)>,
}

impl Pair {
    fn new(path: &Path, options: StoreOptions) -> Self {
        let tree = Tree::open(options.create(path).unwrap()).unwrap();
        tree.checkpoint(None).unwrap();
        let (model, durable, kept) = Default::default();
        let (path, tree) = (path.to_owned(), Some(tree));
        let (let_go, snapshots, elsewhere) = Default::default();
        Pair { path, options, tree, model, durable, kept, let_go, kept_so_far: 0, snapshots, elsewhere }
    }

    fn tree(&self) -> &Tree {
        self.tree.as_ref().unwrap()
    }

    fn remove(&mut self, key: &[u8]) {
        assert_eq!(self.tree().remove(key).unwrap(), self.model.remove(key).is_some());
    }

    fn checkpoint(&mut self, name: Option<String>) {
        self.tree().checkpoint(name.as_deref()).unwrap();
        self.durable = self.model.clone();
        for gone in self.let_go.drain(..) {
            self.kept.remove(&gone);
        }
        self.kept.extend(name.map(|name| (name, self.model.clone())));
    }

    fn crash(&mut self) {
        self.snapshots.clear();
        self.tree = None;
        self.tree = Some(Tree::open(self.options.open(&self.path).unwrap()).unwrap());
        self.model = self.durable.clone();
        self.let_go.clear();
        assert_tree(self.tree(), &self.model);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Insert(key, value) => {
                assert_eq!(self.tree().insert(&key, &value).unwrap(), self.model.insert(key, value).is_some());
            }
            Step::Remove(key) => self.remove(&key),
            Step::RemoveOne(index) if !self.model.is_empty() => {
                let key = self.model.keys().nth(index.index(self.model.len())).cloned().unwrap();
                self.remove(&key);
            }
            Step::RemoveMany(keys) => {
                for (key, _) in within(&self.model, &keys) {
                    self.remove(&key);
                }
                assert_tree(self.tree(), &self.model);
            }
            Step::Get(key) => assert_eq!(self.tree().get(&key).unwrap().as_ref(), self.model.get(&key)),
            Step::Range(keys) => {
                let found: Vec<_> = self.tree().range(keys.clone()).map(Result::unwrap).collect();
                assert_eq!(found, within(&self.model, &keys));
            }
            Step::Checkpoint => self.checkpoint(None),
            Step::Keep => {
                self.kept_so_far += 1;
                self.checkpoint(Some(format!("kept {}", self.kept_so_far)));
            }
            Step::LetGo(index) if self.kept.len() > self.let_go.len() => {
                let names: Vec<_> = self.kept.keys().filter(|name| !self.let_go.contains(name)).cloned().collect();
                let name = index.get(&names);
                self.tree().store().drop_checkpoint(name).unwrap();
                self.let_go.push(name.clone());
            }
            Step::Crash => self.crash(),
            Step::Snapshot => self.snapshots.push((self.tree().snapshot().unwrap(), self.durable.clone())),
            Step::SnapshotElsewhere => {
                let snapshot = TreeSnapshot::new(self.options.open_snapshot(&self.path).unwrap()).unwrap();
                self.elsewhere.push((snapshot, self.durable.clone()));
            }
            Step::CloseSnapshot(index) => {
                let snapshots = if self.elsewhere.is_empty() { &mut self.snapshots } else { &mut self.elsewhere };
                if !snapshots.is_empty() {
                    let (snapshot, model) = snapshots.swap_remove(index.index(snapshots.len()));
                    assert_snapshot(&snapshot, &model);
                }
            }
            Step::RemoveOne(_) | Step::LetGo(_) => {}
        }
    }

    fn end(mut self) {
        assert_tree(self.tree(), &self.model);
        for (snapshot, model) in self.snapshots.iter().chain(&self.elsewhere) {
            assert_snapshot(snapshot, model);
        }
        for (name, model) in &self.kept {
            assert_snapshot(&self.tree().snapshot_of(name).unwrap(), model);
        }
        self.crash();
        for (key, _) in within(&self.model, &(Bound::Unbounded, Bound::Unbounded)) {
            self.remove(&key);
        }
        self.checkpoint(None);
        assert_empty(self.tree());
    }
}

/// One leaf with nothing in it, and nothing else.
fn assert_empty(tree: &Tree) {
    let root = tree.check().unwrap();
    assert_eq!((root.entries, root.value_blocks, tree.store().pages().count()), (0, 0, 1));
    assert_eq!(tree.store().snapshot().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_has_what_a_map_has(
        steps in steps(),
        page_bytes in prop_oneof![3 => Just(512_u32), 1 => Just(1024_u32)],
        mode in prop_oneof![Just(IoMode::Pread), Just(IoMode::Mmap)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut pair = Pair::new(&dir.path().join("tree"), options(page_bytes, mode));
        for step in steps {
            pair.take(step);
        }
        pair.end();
    }

    #[test]
    fn damaged_nodes_are_errors_or_other_entries(
        page in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..20),
        header_only in any::<bool>(),
        steps in prop::collection::vec((keys(), prop::option::of(values())), 1..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let tree = filled(Tree::open(small_pages().create(dir.path().join("tree")).unwrap()).unwrap(), 300);
        let pages = tree.store().pages();
        let ids: Vec<PageId> = pages.iter().map(Result::unwrap).collect();
        let mut bytes = vec![0; 512];
        pages.read(*page.get(&ids), &mut bytes).unwrap();
        for (at, byte) in changes {
            bytes[at.index(if header_only { 24 } else { 512 })] = byte;
        }
        pages.write(*page.get(&ids), &bytes).unwrap();
        // Whatever these say, they return.
        let _ = tree.check();
        for (key, value) in steps {
            let _ = tree.get(&key);
            let _ = tree.range(key.clone()..).take(1000).count();
            let _ = match value {
                Some(value) => tree.insert(&key, &value),
                None => tree.remove(&key),
            };
        }
        let _ = tree.checkpoint(None);
    }
}

fn number(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Some of the values are in blocks.
fn numbered_value(number: u32) -> Vec<u8> {
    vec![number as u8; if number.is_multiple_of(10) { 700 } else { 30 }]
}

fn filled(tree: Tree, count: u32) -> Tree {
    for key in 0..count {
        tree.insert(&number(key.wrapping_mul(0x9e37_79b1)), &numbered_value(key)).unwrap();
    }
    tree
}

#[test]
fn what_is_emptied_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree");
    let mut tree = Tree::open(small_pages().create(&path).unwrap()).unwrap();
    let mut lengths = Vec::new();
    for _ in 0..6 {
        tree = filled(tree, 5000);
        tree.checkpoint(None).unwrap();
        assert_eq!(tree.check().unwrap().value_blocks, 500);
        lengths.push(std::fs::metadata(&path).unwrap().len());
        let keys: Vec<_> = tree.range(..).map(|entry| entry.unwrap().0).collect();
        for key in keys {
            assert!(tree.remove(&key).unwrap());
        }
        tree.checkpoint(None).unwrap();
        assert_empty(&tree);
    }
    // Blocks have no count in the store. But if any was left, the file would grow from round to round.
    assert!(lengths[5] <= lengths[1], "{lengths:?}");
}

#[test]
fn limits_and_strangers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree");
    let tree = Tree::open(small_pages().create(&path).unwrap()).unwrap();
    assert!(matches!(tree.snapshot(), Err(Error::NotATree { .. })), "there was no checkpoint");
    let longest = vec![1; tree.key_bytes_max()];
    for len_bytes in 0..200 {
        tree.insert(&longest, &vec![7; len_bytes]).unwrap();
        assert_eq!(tree.get(&longest).unwrap(), Some(vec![7; len_bytes]));
    }
    let too_long = Error::KeyTooLong { found_bytes: longest.len() + 1, max_bytes: longest.len() };
    assert_eq!(tree.insert(&[longest, vec![0]].concat(), b"").unwrap_err().to_string(), too_long.to_string());
    assert!(matches!(tree.snapshot_of("never"), Err(Error::Store(StoreError::NoSuchCheckpoint { .. }))));
    tree.checkpoint(Some("once")).unwrap();
    assert!(matches!(tree.checkpoint(Some("once")), Err(Error::Store(StoreError::CheckpointExists { .. }))));

    let stranger = small_pages().create(dir.path().join("other")).unwrap();
    stranger.pages().allocate().unwrap();
    assert!(matches!(Tree::open(stranger), Err(Error::NotATree { .. })));
    let long = options(1 << 17, IoMode::Pread).create(dir.path().join("long")).unwrap();
    assert!(matches!(Tree::open(long), Err(Error::NotATree { .. })));
}

/// A file whose next write or sync can be made to fail.
#[derive(Debug)]
struct Failing {
    file: Box<dyn BlockIo>,
    switches: Arc<Switches>,
}

#[derive(Debug, Default)]
struct Switches {
    next_write: AtomicBool,
    next_sync: AtomicBool,
}

fn fail(switch: &AtomicBool, operation: Operation) -> mapfall::Result<()> {
    match switch.swap(false, Ordering::Relaxed) {
        false => Ok(()),
        true => {
            let source = io::ErrorKind::StorageFull.into();
            Err(StoreError::Io { operation, path: Path::new("failing").into(), offset: 0, len_bytes: 0, source })
        }
    }
}

impl BlockIo for Failing {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> mapfall::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> mapfall::Result<()> {
        fail(&self.switches.next_write, Operation::Write)?;
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> mapfall::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len_bytes: u64) -> mapfall::Result<()> {
        self.file.set_len(len_bytes)
    }

    fn sync(&self, kind: SyncKind) -> mapfall::Result<()> {
        fail(&self.switches.next_sync, Operation::Sync)?;
        self.file.sync(kind)
    }

    fn stats(&self) -> IoStats {
        self.file.stats()
    }
}

#[test]
fn a_failed_write_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree");
    let switches = Arc::new(Switches::default());
    let io = || {
        let file = IoOptions::new().write(true).create(true).open(&path).unwrap();
        Box::new(Failing { file, switches: switches.clone() })
    };
    let tree = Tree::open(small_pages().create_io(io()).unwrap()).unwrap();
    let mut model = Model::new();
    let mut random = 1_u32;
    for round in 0..3000_u32 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = number(random >> 22);
        let fails = random % 4 == 1;
        switches.next_write.store(fails, Ordering::Relaxed);
        let value = (!random.is_multiple_of(3)).then(|| [numbered_value(round), number(round)].concat());
        let result = match &value {
            Some(value) => tree.insert(&key, value),
            None => tree.remove(&key),
        };
        let found = model.contains_key(&key);
        // To remove what is not there writes nothing.
        let writes = value.is_some() || found;
        assert_eq!(result.is_err(), fails && writes, "{result:?}");
        switches.next_write.store(false, Ordering::Relaxed);
        if let Ok(was_there) = result {
            assert_eq!(was_there, found);
            match value {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
        if round.is_multiple_of(50) {
            // What fails before the slot is written is undone.
            switches.next_write.store(round % 100 == 0, Ordering::Relaxed);
            assert_eq!(tree.checkpoint(None).is_err(), round % 100 == 0);
            assert_tree(&tree, &model);
        }
    }
    tree.checkpoint(None).unwrap();

    tree.insert(b"never durable", b"").unwrap();
    switches.next_sync.store(true, Ordering::Relaxed);
    assert!(matches!(tree.checkpoint(None), Err(Error::Store(StoreError::Io { .. }))));
    assert!(matches!(tree.insert(b"later", b""), Err(Error::Store(StoreError::Poisoned { .. }))));
    assert_eq!(tree.get(b"never durable").unwrap(), Some(Vec::new()));
    drop(tree);
    assert_tree(&Tree::open(small_pages().open_io(io()).unwrap()).unwrap(), &model);
}

#[test]
fn readers_see_whole_changes_while_it_is_written() {
    const KEYS: u32 = 400;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree");
    let tree = Tree::open(options(512, IoMode::Mmap).create(&path).unwrap()).unwrap();
    // All keys have the value of one round, at each checkpoint; their lengths make leaves come and go.
    let write_round = |round: u32| {
        for key in 0..KEYS {
            let times = if (key + round).is_multiple_of(5) { 100 } else { round as usize % 20 + 1 };
            let value = number(round).repeat(times);
            tree.insert(&number(key), &value).unwrap();
        }
        tree.checkpoint(None).unwrap();
    };
    write_round(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (1..40).for_each(&write_round);
            done.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let snapshot = tree.snapshot().unwrap();
                let rounds: Vec<_> = snapshot.range(..).map(|entry| entry.unwrap().1[..4].to_vec()).collect();
                assert_eq!(rounds, vec![rounds[0].clone(); KEYS as usize]);
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let snapshot = TreeSnapshot::new(small_pages().open_snapshot(&path).unwrap()).unwrap();
                assert_eq!(snapshot.check().unwrap().entries, u64::from(KEYS));
                let keys: Vec<_> = tree.range(..).map(|entry| entry.unwrap().0).collect();
                assert_eq!(keys, (0..KEYS).map(number).collect::<Vec<_>>());
                let value = tree.get(&keys[7]).unwrap().unwrap();
                assert!(value.chunks(4).all(|round| *round == value[..4]));
            }
        });
    });
    assert_eq!(tree.check().unwrap().entries, u64::from(KEYS));
}
