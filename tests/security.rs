//! What SECURITY.md promises of the files that are made: who may read them, that none is made where a link leads, and
//! what is in them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/common.rs"]
mod common;
#[path = "support/poison.rs"]
mod poison;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use mapfall::{
    CacheOptions, CheckpointOptions, Error, FileKind, IoMode, IoOptions, Part, Result, Store, StoreCache, StoreOptions,
    VerifyOptions,
};
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::umask;

use common::scratch;
use poison::{POISON, Poisoned};

#[global_allocator]
static HEAP: Poisoned = Poisoned;

fn cached() -> StoreOptions {
    let cache = CacheOptions::new(1 << 20).budget_max_bytes(2 << 20).build().unwrap();
    Store::options().cache(StoreCache::new(Arc::new(cache)))
}

/// A store with a page and a block that was freed.
fn make(path: &Path) -> Store {
    let store = cached().create(path).unwrap();
    let page = store.pages().allocate().unwrap();
    store.pages().write(page, &[1; 4096]).unwrap();
    let block = store.blocks().write(&[2; 100]).unwrap();
    store.checkpoint(CheckpointOptions::new().cookie(b"cookie").keep_as("kept")).unwrap();
    store.blocks().free(&block).unwrap();
    store.checkpoint(CheckpointOptions::new()).unwrap();
    store
}

/// Makes a file at a path, in each way in which the library makes one.
type Maker = (&'static str, fn(&Path) -> Result<()>);

const MAKERS: [Maker; 4] = [
    ("a file", |path| IoOptions::new().write(true).create_new(true).open(path).map(drop)),
    ("a store", |path| Store::options().create(path).map(drop)),
    ("what is salvaged", |path| {
        let source = path.with_extension("source");
        drop(make(&source));
        Store::options().salvage(&source, path, &mut |_| ()).map(drop)
    }),
    ("a warm set", |path| {
        let source = path.with_extension("cached");
        make(&source).save_warm_set(path).map(drop)
    }),
];

#[test]
fn what_is_made_is_its_owners_alone() {
    // Nothing is taken off what is asked for. It holds for the whole process; no other test minds.
    umask(Mode::empty());
    for (what, make) in MAKERS {
        let dir = scratch();
        make(&dir.path().join("made")).unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, 0o600, "{what}: {:?} has {mode:o}", entry.file_name());
        }
    }
}

#[test]
fn nothing_is_made_where_a_link_leads() {
    for (what, make) in MAKERS {
        for dangling in [false, true] {
            let dir = scratch();
            let (victim, path) = (dir.path().join("victim"), dir.path().join("made"));
            if !dangling {
                fs::write(&victim, "precious").unwrap();
            }
            symlink(&victim, &path).unwrap();
            symlink(&victim, dir.path().join("made.new")).unwrap();
            let made = make(&path);
            // A warm set replaces the link; everything else is refused.
            let replaced = fs::symlink_metadata(&path).unwrap().is_file();
            assert_eq!(made.is_ok(), replaced, "{what}: {made:?}");
            assert_eq!(replaced, what == "a warm set", "{what}");
            match dangling {
                true => assert!(!victim.exists(), "{what}: it was made where the link leads"),
                false => assert_eq!(fs::read(&victim).unwrap(), b"precious", "{what}"),
            }
        }
    }
}

#[test]
fn a_fifo_is_refused_and_not_waited_for() {
    let dir = scratch();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let refused = |result: Result<()>| {
        assert!(matches!(result, Err(Error::NotARegularFile { found: FileKind::Fifo, .. })), "{result:?}");
    };
    for mode in IoMode::ALL {
        let io = IoOptions::new().mode(mode);
        refused(io.open(&fifo).map(drop));
        refused(Store::options().io(io.clone()).open(&fifo).map(drop));
        refused(Store::options().io(io.clone()).open_snapshot(&fifo).map(drop));
        refused(Store::options().io(io.clone()).salvage(&fifo, dir.path().join("target"), &mut |_| ()).map(drop));
        refused(Store::options().io(io).verify(&fifo, &VerifyOptions::new(), &mut |_| ()).map(drop));
    }
    refused(make(&dir.path().join("store")).load_warm_set(&fifo).map(drop));
}

#[test]
fn a_socket_and_a_device_are_refused() {
    let dir = scratch();
    let socket = dir.path().join("socket");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for mode in IoMode::ALL {
        for (path, kind) in [(socket.as_path(), FileKind::Socket), (Path::new("/dev/null"), FileKind::CharacterDevice)]
        {
            let result = Store::options().io(IoOptions::new().mode(mode)).open(path);
            // The system may refuse it before we can.
            let is_refused = match &result {
                Err(Error::NotARegularFile { found, .. }) => *found == kind,
                Err(error) => kind == FileKind::Socket && error.raw_os_error() == Some(libc::ENXIO),
                Ok(_) => false,
            };
            assert!(is_refused, "{kind} by {mode:?}: {result:?}");
        }
    }
}

#[test]
fn a_warm_set_of_a_tebibyte_is_refused_at_once() {
    let dir = scratch();
    let path = dir.path().join("warm");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let loaded = make(&dir.path().join("store")).load_warm_set(&path);
    assert!(matches!(loaded, Err(Error::Corrupt { part: Part::WarmSet, .. })), "{loaded:?}");
}

#[test]
fn a_second_writer_is_kept_out() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = make(&path);
    assert!(matches!(Store::options().open(&path), Err(Error::Locked { .. })));
    drop(store);
    Store::options().open(&path).unwrap();
}

/// Whether the poison stands in there, more of it than chance would have.
fn is_poisoned(bytes: &[u8]) -> bool {
    bytes.windows(8).any(|window| window == [POISON; 8])
}

#[test]
fn no_memory_that_was_not_written_comes_into_a_file() {
    // What is allocated has the poison, so that a file with none of it has nothing but what was put there.
    assert!(is_poisoned(&poison::fresh()));
    for mode in IoMode::ALL {
        let dir = scratch();
        let path = dir.path().join("store");
        let options = Store::options().io(IoOptions::new().mode(mode).direct_fallback(true)).unit_bytes(512);
        let store = options.page_bytes(512).create(&path).unwrap();
        for round in 0..4 {
            let pages: Vec<_> = (0..20).map(|_| store.pages().allocate().unwrap()).collect();
            pages.iter().for_each(|page| store.pages().write(*page, &[1; 512]).unwrap());
            // Lengths that leave the end of a unit over.
            let blocks: Vec<_> = (1..40).map(|n| store.blocks().write(&vec![2; n * 37]).unwrap()).collect();
            store.checkpoint(CheckpointOptions::new().cookie(b"c").keep_as(&format!("kept {round}"))).unwrap();
            blocks.iter().step_by(2).for_each(|block| store.blocks().free(block).unwrap());
            pages.iter().step_by(2).for_each(|page| store.pages().free(*page).unwrap());
        }
        store.checkpoint(CheckpointOptions::new()).unwrap();
        drop(store);
        assert!(!is_poisoned(&fs::read(&path).unwrap()), "{}", mode.name());
        let target = dir.path().join("target");
        Store::options().salvage(&path, &target, &mut |_| ()).unwrap();
        assert!(!is_poisoned(&fs::read(&target).unwrap()), "salvaged");
    }
    let dir = scratch();
    make(&dir.path().join("store")).save_warm_set(dir.path().join("warm")).unwrap();
    for name in ["store", "warm"] {
        assert!(!is_poisoned(&fs::read(dir.path().join(name)).unwrap()), "{name}");
    }
}

#[test]
fn a_read_that_fails_puts_nothing_into_the_buffer_but_the_files_bytes() {
    let dir = scratch();
    let path = dir.path().join("file");
    fs::File::create(&path).unwrap().write_all(&[1; 5000]).unwrap();
    for mode in IoMode::ALL {
        let file = IoOptions::new().mode(mode).direct_fallback(true).open(&path).unwrap();
        let mut buf = vec![3; 8192];
        assert!(matches!(file.read_at(0, &mut buf), Err(Error::PastEnd { file_len_bytes: 5000, .. })));
        // What was in the buffer, the file's bytes, or the zeros behind its end.
        assert!(buf.iter().all(|byte| [0, 1, 3].contains(byte)), "{}", mode.name());
    }
    assert_eq!(fs::metadata(&path).unwrap().size(), 5000);
}
