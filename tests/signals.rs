//! The fault handler among others: faults that are not ours stay theirs, and a process without a handler dies as it
//! would have. Each test plays in a process of its own, since actions belong to the process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "signals/blocked.rs"]
mod blocked;
#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;
#[path = "support/signals.rs"]
mod signals;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::thread;
use std::time::Duration;

use libc::{SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_SIGINFO, SIGABRT, SIGBUS, SIGSEGV, SIGUSR1, c_int};
use mapfall::{BlockIo, Error, FallbackReason, IoOptions, IoStats, MmapFile};
use tempfile::TempDir;

use children::{child, maps_files, tell, told, words};
use common::scratch;
use signals::{Handler, RawMap, action, calls, install};

type Scene = fn();

/// What children play, by name.
const SCENES: &[(&str, Scene)] = &[
    ("their_fault", their_fault),
    ("their_nested_fault", their_nested_fault),
    ("their_second_fault", their_second_fault),
    ("nobodys_fault", nobodys_fault),
    ("sent", sent),
    ("after_ours", after_ours),
    ("after_ours_and_passing_on", after_ours_and_passing_on),
    ("any_thread", any_thread),
    blocked::SCENES[0],
    blocked::SCENES[1],
    ("destination", destination),
    ("null", null),
    ("overflow", overflow),
    ("forked", forked),
    ("declined", declined),
];

#[test]
#[ignore = "the process that the tests below make"]
fn scene() {
    let Some(words) = words() else { return };
    let name = words.split(' ').next().unwrap();
    SCENES.iter().find(|(each, _)| *each == name).unwrap().1();
    tell("came to its end");
}

/// The number that follows the scene's name.
fn number(place: usize) -> c_int {
    words().unwrap().split(' ').nth(place).unwrap().parse().unwrap()
}

fn handler() -> Handler {
    [Handler::Default, Handler::Ignore, Handler::Mends][number(1) as usize]
}

fn play(scene: &str, numbers: &[c_int]) -> Output {
    let numbers: String = numbers.iter().map(|number| format!(" {number}")).collect();
    child("scene", &format!("{scene}{numbers}")).env_remove("RUST_BACKTRACE").output().unwrap()
}

/// The scene comes to its end, and all that it asserts holds.
fn ends_well(scene: &str, numbers: &[c_int]) {
    if !maps_files(scene) {
        return;
    }
    let output = play(scene, numbers);
    let end = String::from_utf8_lossy(&output.stdout).contains("came to its end");
    assert!(output.status.success() && end, "{scene} {numbers:?}: {}", told(&output));
}

/// The scene's process dies of the signal, and not before it said so.
fn dies_of(signal: c_int, scene: &str, numbers: &[c_int]) -> String {
    if !maps_files(scene) {
        return String::new();
    }
    let output = play(scene, numbers);
    assert_eq!(output.status.signal(), Some(signal), "{scene} {numbers:?}: {}", told(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("about to die"), "{}", told(&output));
    String::from_utf8(output.stderr).unwrap()
}

fn about_to_die() {
    tell("about to die");
}

const PAGES: usize = 8;

fn page() -> usize {
    rustix::param::page_size()
}

/// A file of ours, with the descriptor that cuts it.
struct Ours {
    _dir: TempDir,
    other: File,
    file: MmapFile,
}

fn whole() -> Vec<u8> {
    (0..PAGES * page()).map(|index| (index / 512 + index) as u8 | 1).collect()
}

fn ours() -> Ours {
    let dir = scratch();
    let path = dir.path().join("data");
    fs::write(&path, whole()).unwrap();
    let other = File::options().write(true).open(&path).unwrap();
    let file = IoOptions::new().open_mmap(&path).unwrap();
    let ours = Ours { _dir: dir, other, file };
    ours.works(page(), page());
    ours
}

impl Ours {
    fn works(&self, offset: usize, len: usize) {
        let mut found = vec![0; len];
        self.file.read_at(offset as u64, &mut found).unwrap();
        assert!(found == whole()[offset..offset + len]);
    }

    fn stats(&self) -> IoStats {
        let stats = self.file.stats();
        assert!(stats.paths_add_up());
        stats
    }

    fn faults(&self) -> u64 {
        self.stats().map.unwrap().faults_recovered
    }

    /// The file is cut and a read of ours faults; then the file is whole again.
    fn recovers(&self) {
        let before = self.faults();
        self.other.set_len(page() as u64).unwrap();
        let error = self.file.read_at(page() as u64, &mut vec![0; page()]).unwrap_err();
        assert!(matches!(error, Error::PastEnd { .. }), "{error}");
        assert_eq!(self.faults(), before + 1);
        self.restore();
        self.works(page(), page());
    }

    fn restore(&self) {
        io::Seek::rewind(&mut &self.other).unwrap();
        (&self.other).write_all(&whole()).unwrap();
    }
}

/// Someone else's map of a file that is cut to nothing: every page of it faults.
fn theirs() -> RawMap {
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.set_len((PAGES * page()) as u64).unwrap();
    let map = RawMap::of(&file, PAGES * page());
    file.set_len(0).unwrap();
    map
}

// ---- A handler installed before ours ----

fn their_fault() {
    let flags = number(1);
    let ours_first = number(2) == 1;
    if !ours_first {
        install(SIGBUS, Handler::Mends, flags);
    }
    let ours = ours();
    if ours_first {
        install(SIGBUS, Handler::Mends, flags);
    }
    let map = theirs();
    for (count, place) in (1..).zip([0, 3 * page() + 5]) {
        map.breaks(place / page() * page());
        assert_eq!(map.touch(place), 0);
        let calls = calls();
        assert_eq!(calls.count, count, "theirs, once");
        assert_eq!(calls.bus_blocked, flags & SA_NODEFER == 0);
        assert!(calls.usr1_blocked, "the mask of the action");
        if flags & SA_SIGINFO != 0 {
            assert_eq!(calls.code, libc::BUS_ADRERR);
            assert_eq!(calls.address / page(), map.address(place).addr() / page());
        }
        if !ours_first {
            ours.recovers();
            assert_eq!(signals::calls().count, count, "ours is not theirs");
        }
    }
    // The mask is as it was.
    signals::raise(SIGBUS);
    assert_eq!(calls().count, 3);
    assert_eq!(ours.faults(), if ours_first { 0 } else { 2 });
}

#[test]
fn their_faults_are_theirs() {
    for flags in [0, SA_SIGINFO, SA_NODEFER, SA_SIGINFO | SA_NODEFER, SA_SIGINFO | SA_ONSTACK] {
        for ours_first in [0, 1] {
            ends_well("their_fault", &[flags, ours_first]);
        }
    }
}

fn their_nested_fault() {
    let flags = number(1);
    install(SIGBUS, Handler::Mends, flags);
    let _ours = ours();
    let map = theirs();
    map.breaks(0);
    map.breaks_inside(page());
    about_to_die();
    assert_eq!(map.touch(0), 0);
    assert_eq!(calls().count, 2);
}

#[test]
fn a_fault_inside_their_handler_is_theirs_if_they_asked_for_that() {
    ends_well("their_nested_fault", &[SA_NODEFER]);
    ends_well("their_nested_fault", &[SA_NODEFER | SA_SIGINFO]);
    dies_of(SIGBUS, "their_nested_fault", &[0]);
    dies_of(SIGBUS, "their_nested_fault", &[SA_SIGINFO]);
}

fn their_second_fault() {
    install(SIGBUS, Handler::Mends, number(1));
    let ours = ours();
    let map = theirs();
    map.breaks(0);
    assert_eq!(map.touch(0), 0);
    assert_eq!(calls().count, 1);
    ours.recovers();
    about_to_die();
    map.touch(page());
}

#[test]
fn a_handler_that_is_to_run_once_runs_once() {
    dies_of(SIGBUS, "their_second_fault", &[SA_RESETHAND]);
    dies_of(SIGBUS, "their_second_fault", &[SA_RESETHAND | SA_SIGINFO]);
}

// ---- No handler ----

fn nobodys_fault() {
    match number(1) {
        // Rust's own, for stack overflows, which lets other faults be fatal.
        -1 => {}
        _ => drop(install(SIGBUS, handler(), 0)),
    }
    let ours = ours();
    ours.recovers();
    let map = theirs();
    about_to_die();
    map.touch(0);
}

#[test]
fn without_a_handler_their_fault_is_fatal() {
    for before in [-1, 0, 1] {
        dies_of(SIGBUS, "nobodys_fault", &[before]);
    }
}

// ---- Signals that are sent ----

fn sent() {
    let handler = handler();
    install(SIGBUS, handler, SA_SIGINFO);
    let ours = ours();
    about_to_die();
    let (send, code): (fn(c_int), _) =
        if number(2) == 0 { (signals::raise, libc::SI_TKILL) } else { (signals::kill_self, libc::SI_USER) };
    send(SIGBUS);
    // Any thread may get what is sent to the process.
    for _ in 0..1000 {
        if handler == Handler::Mends && calls().count == 1 {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    if handler == Handler::Default {
        // Not reached. Nothing may fault now, or it would die after all.
        return;
    }
    assert_eq!((calls().count, calls().code), if handler == Handler::Mends { (1, code) } else { (0, 0) });
    ours.recovers();
}

#[test]
fn signals_that_are_sent_reach_whom_they_would_have() {
    for sender in [0, 1] {
        ends_well("sent", &[2, sender]);
        ends_well("sent", &[1, sender]);
        dies_of(SIGBUS, "sent", &[0, sender]);
    }
}

// ---- A handler installed over ours ----

/// Reads until the statistics say so.
fn reads_until(ours: &Ours, wanted: impl Fn(&IoStats) -> bool) -> IoStats {
    for _ in 0..100 {
        (0..1000).for_each(|_| ours.works(page(), 100));
        let stats = ours.stats();
        if wanted(&stats) {
            return stats;
        }
    }
    panic!("{:?}", ours.stats());
}

fn after_ours() {
    let ours = ours();
    let before = install(SIGBUS, Handler::Mends, SA_SIGINFO);
    reads_until(&ours, |stats| stats.map.as_ref().unwrap().step_downs == 1);
    let stats = reads_until(&ours, |stats| stats.fallbacks.get(FallbackReason::HandlerReplaced) > 5_000);
    assert_eq!(stats.map.as_ref().unwrap().readable_bytes, 0);
    // Now that nothing is read through the map, nothing faults either.
    ours.other.set_len(page() as u64).unwrap();
    assert!(matches!(ours.file.read_at(page() as u64, &mut [0]), Err(Error::PastEnd { .. })));
    ours.restore();
    ours.works(page(), page());
    assert_eq!((calls().count, ours.faults()), (0, 0));
    // A file that is opened meanwhile is not read through a map either.
    let late = self::ours();
    assert_eq!((late.stats().mmap.reads, late.stats().fallbacks.get(FallbackReason::HandlerReplaced)), (0, 1));

    signals::put(SIGBUS, before);
    let stats = reads_until(&ours, |stats| stats.map.as_ref().unwrap().returns == 1);
    let again = reads_until(&ours, |_| true);
    assert_eq!(again.mmap.reads, stats.mmap.reads + 1000);
    assert_eq!(again.map.unwrap().step_downs, 1);
    ours.recovers();
    reads_until(&late, |stats| stats.map.as_ref().unwrap().returns == 1);
}

#[test]
fn a_handler_over_ours_is_noticed() {
    ends_well("after_ours", &[]);
}

fn after_ours_and_passing_on() {
    let ours = ours();
    install(SIGBUS, Handler::PassesOn, SA_SIGINFO | SA_NODEFER);
    ours.recovers();
    assert_eq!(calls().count, 1);
    let map = ours.stats().map.unwrap();
    assert_eq!((map.step_downs, map.faults_recovered), (1, 1), "noticed at the fault");
}

#[test]
fn a_handler_over_ours_may_pass_on() {
    ends_well("after_ours_and_passing_on", &[]);
}

// ---- Threads ----

fn any_thread() {
    let ours = std::sync::Arc::new(ours());
    let work = |alternate_stack: bool| {
        let ours = ours.clone();
        move || {
            if !alternate_stack {
                signals::without_alternate_stack();
            }
            (0..10).for_each(|_| ours.recovers());
        }
    };
    thread::spawn(work(true)).join().unwrap();
    thread::spawn(work(false)).join().unwrap();
    signals::on_foreign_thread(Box::new(work(true)));
    assert_eq!(ours.faults(), 30);
}

#[test]
fn faults_are_recovered_on_any_thread() {
    ends_well("any_thread", &[]);
}

fn forked() {
    let ours = ours();
    ours.recovers();
    let status = signals::forked(|| {
        ours.recovers();
        ours.works(0, PAGES * page());
        true
    });
    assert!(status.success(), "{status}");
    ours.recovers();
}

#[test]
fn a_forked_child_recovers_too() {
    ends_well("forked", &[]);
}

// ---- Faults in our copy that are not ours, and other signals ----

fn destination() {
    let mends = number(1) == 2;
    if mends {
        install(SIGBUS, Handler::Mends, SA_SIGINFO);
    }
    let ours = ours();
    let mut buffer = theirs();
    buffer.breaks(0);
    let len = page();
    about_to_die();
    ours.file.read_at(0, &mut buffer.as_buffer()[..len]).unwrap();
    // Theirs, mended by them, and the copy went on.
    assert!(mends);
    assert_eq!((calls().count, ours.faults()), (1, 0));
    assert!(buffer.as_buffer()[..len] == whole()[..len]);
}

#[test]
fn a_fault_in_the_callers_buffer_is_the_callers() {
    ends_well("destination", &[2]);
    dies_of(SIGBUS, "destination", &[0]);
}

fn null() {
    if number(1) == 0 {
        install(SIGSEGV, Handler::Default, 0);
    }
    let ours = ours();
    ours.recovers();
    about_to_die();
    signals::read_null();
}

#[test]
fn a_null_pointer_is_fatal() {
    dies_of(SIGSEGV, "null", &[0]);
    dies_of(SIGSEGV, "null", &[1]);
}

#[allow(unconditional_recursion, reason = "it is to overflow")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + black_box(frame)[7]
}

fn overflow() {
    let ours = ours();
    ours.recovers();
    about_to_die();
    let _ = thread::Builder::new().name("deep".to_owned()).spawn(|| recurse(0)).unwrap().join();
}

#[test]
fn a_stack_overflow_is_told_as_ever() {
    if maps_files("a stack overflow") {
        let stderr = dies_of(SIGABRT, "overflow", &[]);
        assert!(stderr.contains("thread 'deep'") && stderr.contains("has overflowed its stack"), "{stderr}");
    }
}

fn declined() {
    let before = [SIGBUS, SIGSEGV, SIGUSR1].map(action);
    let dir = scratch();
    let path = dir.path().join("data");
    fs::write(&path, whole()).unwrap();
    let file = IoOptions::new().fault_handler(false).open_mmap(&path).unwrap();
    file.read_at(0, &mut [0; 100]).unwrap();
    assert_eq!(file.stats().fallbacks.get(FallbackReason::HandlerDeclined), 1);
    assert!(before == [SIGBUS, SIGSEGV, SIGUSR1].map(action), "a handler was installed all the same");
    let _ours = ours();
    assert!(before[0] != action(SIGBUS) && before[1] != action(SIGSEGV));
}

#[test]
fn no_handler_is_installed_for_those_who_decline_it() {
    ends_well("declined", &[]);
}
