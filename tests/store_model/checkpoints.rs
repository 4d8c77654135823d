//! The model's checkpoints, snapshots and crashes.

use std::rc::Rc;

use mapfall::{CheckpointOptions, Error, IoMode, Store, VerifyOptions};

use crate::model::{Dirty, Model, name};
use crate::snapshots::{Open, State};
use crate::steps::{Ask, Opening, Step};

/// A checkpoint that is not made yet.
struct Cut {
    state: State,
    dirty: Dirty,
    name: Option<String>,
    changed: bool,
}

impl Model {
    pub(crate) fn checkpoint(&mut self, store: &Store, ask: &Ask, steps: &[Step], commit: bool) {
        let mut options = CheckpointOptions::new().pack(ask.pack);
        let cookie = ask.cookie.clone().unwrap_or_else(|| self.committed.cookie.clone());
        if let Some(cookie) = &ask.cookie {
            options = options.cookie(cookie);
        }
        let kept_as = ask.name.map(name);
        if let Some(name) = &kept_as {
            options = options.keep_as(name);
        }
        let begun = store.begin_checkpoint(options);
        let is_kept =
            |name: &String| self.kept.iter().any(|kept| kept.0 == *name) && !self.dirty.dropped.contains(name);
        if let Some(taken) = kept_as.as_ref().filter(|name| is_kept(name)) {
            assert!(matches!(begun, Err(Error::CheckpointExists { name }) if name == *taken));
            return;
        }
        let pending = begun.unwrap();
        self.now.cookie.clone_from(&cookie);
        let dirty = std::mem::take(&mut self.dirty);
        let changed = !(dirty.pages.is_empty() && dirty.blocks.is_empty() && dirty.dropped.is_empty())
            || dirty.moved > 0
            || ask.pack
            || kept_as.is_some()
            || cookie != self.committed.cookie;
        let cut = Cut { state: self.now.clone(), dirty, name: kept_as, changed };
        self.pending = true;
        self.dropping.clone_from(&cut.dirty.dropped);
        steps.iter().for_each(|step| self.step(step));
        self.pending = false;
        self.dropping.clear();
        if !commit {
            drop(pending);
            self.undo(cut);
            return;
        }
        let report = pending.commit().unwrap();
        self.generation += u64::from(cut.changed);
        assert_eq!(report.generation, self.generation);
        let pages_changed = cut.dirty.pages.len() as u64;
        assert!((pages_changed..=pages_changed + cut.dirty.moved).contains(&report.pages_changed), "{report:?}");
        self.kept.retain(|kept| !cut.dirty.dropped.contains(&kept.0));
        if let Some(name) = cut.name {
            self.kept.push((name, self.generation, cut.state.clone()));
        }
        self.committed = cut.state;
    }

    fn undo(&mut self, cut: Cut) {
        self.dirty.pages.extend(cut.dirty.pages);
        for (block, live) in cut.dirty.blocks {
            // Written before the cut and freed behind it: as if it had never been.
            if self.dirty.blocks.remove(&block).is_none() {
                self.dirty.blocks.insert(block, live);
            }
        }
        self.dirty.dropped.extend(cut.dirty.dropped);
        self.dirty.moved += cut.dirty.moved;
        self.now.cookie.clone_from(&self.committed.cookie);
    }

    pub(crate) fn checkpoint_refused(&self, store: &Store, what: usize) {
        let options = match what {
            0 => CheckpointOptions::new().cookie(&[1; 1025]),
            1 => CheckpointOptions::new().keep_as(""),
            2 => CheckpointOptions::new().keep_as(&"n".repeat(65)),
            _ => CheckpointOptions::new().keep_as(&"é".repeat(33)),
        };
        let result = store.checkpoint(options);
        let expected = if what == 0 { "cookie" } else { "keep_as" };
        assert!(matches!(result, Err(Error::InvalidOption { option, .. }) if option == expected), "{result:?}");
    }

    pub(crate) fn drop_checkpoint(&mut self, store: &Store, name: &str) {
        let dropped = self.dirty.dropped.iter().chain(&self.dropping).any(|it| it == name);
        let is_kept = self.kept.iter().any(|kept| kept.0 == name) && !dropped;
        match store.drop_checkpoint(name) {
            Ok(()) if is_kept => self.dirty.dropped.push(name.to_owned()),
            Err(Error::NoSuchCheckpoint { name: found }) if !is_kept && found == name => {}
            other => panic!("{name}: {other:?}"),
        }
    }

    pub(crate) fn second_writer(&self) {
        for mode in [IoMode::Pread, IoMode::Mmap] {
            match Self::options(self.opening, mode).open(&self.path) {
                Err(Error::Locked { path }) => assert_eq!(*path, *self.path),
                other => panic!("{other:?}"),
            }
        }
        match Store::options().create(&self.path) {
            Err(error @ Error::Io { .. }) => assert_eq!(error.raw_os_error(), Some(libc::EEXIST)),
            other => panic!("{other:?}"),
        }
    }

    /// By the store, and from outside.
    pub(crate) fn verify(&self, store: &Store) {
        let blocks = self.committed.blocks.iter().map(|block| self.blocks[*block].address);
        let options = VerifyOptions::new().blocks(blocks);
        let by_path = Store::options().verify(&self.path, &options, &mut |_| ());
        for report in [store.verify(&options, &mut |_| ()), by_path].map(Result::unwrap) {
            assert!(report.is_clean() && report.notices.is_empty(), "{report:#?}");
            assert_eq!((report.generation, report.pages), (self.generation, self.committed.pages.len() as u64));
            assert_eq!(report.blocks, self.committed.blocks.len() as u64);
        }
    }

    pub(crate) fn open_snapshot(&mut self, store: &Store, name: Option<String>, by_path: Option<IoMode>, eager: bool) {
        let options = by_path.map(|mode| Self::options(self.opening, mode));
        let result = match (&options, &name) {
            (None, None) => Ok(store.snapshot()),
            (None, Some(name)) => store.snapshot_of(name),
            (Some(options), None) => options.open_snapshot(&self.path),
            (Some(options), Some(name)) => options.open_snapshot_of(&self.path, name),
        };
        let (generation, state) = match &name {
            None => (self.generation, self.committed.clone()),
            Some(name) => match self.kept.iter().find(|kept| kept.0 == *name) {
                Some((_, generation, state)) => (*generation, state.clone()),
                None => {
                    assert!(matches!(&result, Err(Error::NoSuchCheckpoint { name: found }) if found == name));
                    return;
                }
            },
        };
        let snapshot = result.unwrap();
        self.snapshots.push(Open { snapshot, state, generation, name, of_store: by_path.is_none(), eager });
    }

    /// The store is closed without a checkpoint, and opened again.
    pub(crate) fn crash(&mut self, opening: Opening) {
        self.store = None;
        if self.snapshots.iter().any(|open| open.of_store) {
            self.second_writer();
        }
        // Those of the store have it open.
        for open in self.snapshots.extract_if(.., |open| open.of_store) {
            open.check(&self.blocks);
        }
        self.opening = opening;
        self.store = Some(Rc::new(Self::options(opening, self.mode).open(&self.path).unwrap()));
        self.now = self.committed.clone();
        self.dirty = Dirty::default();
    }
}
