//! Signal handlers of other people installed before ours, over it and taken away again, and faults of both: each fault
//! and each signal goes to whom it belongs, with the mask that was asked for, and what has no handler is fatal.
//!
//! Each run is a child's, since it may die, and since ours stays. The handlers are those of `tests/signals.rs`.

#![no_main]

#[path = "../../tests/support/signals.rs"]
#[allow(dead_code, reason = "not every handler is needed here")]
mod signals;

use arbitrary::Arbitrary;
use libc::{SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_SIGINFO, SIGBUS, c_int};
use libfuzzer_sys::fuzz_target;
use mapfall::{BlockIo, Error, IoOptions, MmapFile};
use mapfall_fuzz::children::{End, forked, tell_coverage};
use mapfall_fuzz::exhaustive;
use mapfall_fuzz::hand::Hand;
use signals::{Action, Handler, RawMap, calls, install, put, raise};

const STEPS_MAX: usize = 24;
const PAGES: usize = 8;
/// Of a handler over ours a thread's reads learn within so many.
const READS_TO_NOTICE: usize = 20_000;
/// What a child's exit says if it lives on behind what must be fatal.
const LIVES_ON: i32 = 99;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    /// Puts a handler over what is there.
    Install {
        handler: u8,
        flags: u8,
    },
    /// Takes away what was installed last.
    Remove,
    /// A map of ours; the first installs our handler.
    Open,
    /// A file of ours is cut, and read through the map.
    OursFaults,
    /// The same in a thread of its own.
    OursFaultsInThread,
    /// Someone else's map faults.
    TheirsFaults {
        page: u8,
    },
    /// A signal that nobody's fault is.
    Sent,
    /// Enough reads to see that another handler is over ours.
    Notice,
    Works,
}

const ALPHABET: [Step; 13] = [
    Step::Install { handler: 0, flags: 0 },
    Step::Install { handler: 1, flags: 0 },
    Step::Install { handler: 2, flags: 0 },
    Step::Install { handler: 2, flags: 1 },
    Step::Install { handler: 2, flags: 3 },
    Step::Install { handler: 2, flags: 5 },
    Step::Install { handler: 3, flags: 0 },
    Step::Remove,
    Step::Open,
    Step::OursFaults,
    Step::TheirsFaults { page: 1 },
    Step::Sent,
    Step::Works,
];

fuzz_target!(init: exhaustive::if_wanted(&ALPHABET, check), |steps: Vec<Step>| {
    check(&steps[..steps.len().min(STEPS_MAX)]);
});

fn check(steps: &[Step]) {
    // Known before, so that a child that dies has died where it must.
    let mut chain = Chain::default();
    let dies = steps.iter().any(|step| chain.step(*step) == Effect::Dies);
    let end = forked(|| {
        let mut run = Run::new();
        for step in steps {
            tell_coverage();
            run.step(*step);
        }
    });
    assert_eq!(end, if dies { End::Signal(SIGBUS) } else { End::Exit(0) }, "{steps:?}");
}

/// A handler as it was installed.
#[derive(Clone, Copy, Debug)]
struct Installed {
    handler: Handler,
    flags: c_int,
}

/// Who gets a signal, from the last installed to the first.
#[derive(Debug, Default)]
struct Chain {
    /// The default action is under all of them. Nothing is ours.
    handlers: Vec<Option<Installed>>,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing that a handler sees.
    Quiet,
    /// The step cannot be taken here.
    Skipped,
    /// Handlers run so often; the last of them, if it tells, with `SIGBUS` blocked or not.
    Calls {
        count: u32,
        blocked: Option<bool>,
    },
    Dies,
}

impl Chain {
    fn has_ours(&self) -> bool {
        self.handlers.iter().any(Option::is_none)
    }

    fn ours_is_on_top(&self) -> bool {
        matches!(self.handlers.last(), Some(None))
    }

    /// What a step that installs something would install.
    fn new_handler(&self, handler: u8, flags: u8) -> Option<Installed> {
        let handler = [Handler::Default, Handler::Ignore, Handler::Mends, Handler::PassesOn][handler as usize % 4];
        let known = [SA_SIGINFO, SA_NODEFER, SA_RESETHAND, SA_ONSTACK];
        let chosen = (0..4).filter(|bit| flags >> bit & 1 == 1).map(|bit| known[bit]).sum::<c_int>();
        match handler {
            // It can call only what takes three arguments, and knows of one such.
            Handler::PassesOn if !self.ours_is_on_top() => None,
            Handler::PassesOn => Some(Installed { handler, flags: SA_SIGINFO | SA_NODEFER }),
            _ => Some(Installed { handler, flags: chosen }),
        }
    }

    /// Whether a fault of ours comes to our handler.
    fn reaches_ours(&self) -> bool {
        let passes = |installed: &Option<Installed>| installed.is_none_or(|it| it.handler == Handler::PassesOn);
        self.has_ours() && self.handlers.iter().rev().take_while(|it| it.is_some()).all(passes)
    }

    fn signal(&mut self, fault: bool) -> Effect {
        let mut count = 0;
        for place in (0..self.handlers.len()).rev() {
            let Some(Installed { handler, flags }) = self.handlers[place] else { continue };
            match handler {
                Handler::Ignore if !fault => {
                    return if count == 0 { Effect::Quiet } else { Effect::Calls { count, blocked: None } };
                }
                Handler::Default | Handler::Ignore => return Effect::Dies,
                Handler::PassesOn => count += 1,
                Handler::Mends => {
                    if flags & SA_RESETHAND != 0 {
                        self.handlers[place] = Some(Installed { handler: Handler::Default, flags: 0 });
                    }
                    return Effect::Calls { count: count + 1, blocked: Some(flags & SA_NODEFER == 0) };
                }
            }
        }
        Effect::Dies
    }

    fn step(&mut self, step: Step) -> Effect {
        match step {
            Step::Install { handler, flags } => match self.new_handler(handler, flags) {
                None => Effect::Skipped,
                some => {
                    self.handlers.push(some);
                    Effect::Quiet
                }
            },
            Step::Remove => match self.handlers.last() {
                Some(Some(_)) => {
                    self.handlers.pop();
                    Effect::Quiet
                }
                _ => Effect::Skipped,
            },
            Step::Open => {
                if !self.has_ours() {
                    self.handlers.push(None);
                }
                Effect::Quiet
            }
            Step::TheirsFaults { .. } => self.signal(true),
            Step::Sent => self.signal(false),
            Step::OursFaults | Step::OursFaultsInThread | Step::Notice | Step::Works => Effect::Quiet,
        }
    }
}

/// A file of ours, if one was opened, with the descriptor that cuts it.
type Ours = Option<(MmapFile, Hand)>;

fn works(ours: &Ours) {
    let Some((map, _)) = ours else { return };
    let mut bytes = vec![0; page_bytes() + 1];
    map.read_at(page_bytes() as u64, &mut bytes).expect("a read inside the file");
    assert!(bytes == content()[page_bytes()..2 * page_bytes() + 1]);
}

/// Whether our files are read without the map now.
fn is_down(ours: &Ours) -> bool {
    ours.as_ref().is_none_or(|(map, _)| map.stats().map.is_some_and(|map| map.readable_bytes == 0))
}

fn ours_faults(ours: &Ours, chain: &Chain) {
    let Some((map, other)) = ours else { return };
    let down = is_down(ours);
    if !chain.reaches_ours() && !down {
        // The process may die of it, as is said.
        return;
    }
    let faults = map.stats().map.expect("a map").faults_recovered;
    assert!(other.set_len(page_bytes() as u64));
    let error = map.read_at(page_bytes() as u64, &mut vec![0; page_bytes()]).expect_err("nothing is there");
    assert!(matches!(error, Error::PastEnd { .. }), "{error}");
    let stats = map.stats().map.expect("a map");
    assert!(down || stats.faults_recovered == faults + 1, "{stats:?}");
    other.write(0, &content());
    works(ours);
}

/// The process that does it.
struct Run {
    chain: Chain,
    /// What was there before each that was installed.
    before: Vec<Action>,
    ours: Ours,
    theirs: RawMap,
}

fn page_bytes() -> usize {
    rustix::param::page_size()
}

fn content() -> Vec<u8> {
    (0..PAGES * page_bytes()).map(|index| (index / 512 + index) as u8 | 1).collect()
}

impl Run {
    fn new() -> Self {
        // libFuzzer's own handler is not part of it.
        install(SIGBUS, Handler::Default, 0);
        let (file, _) = mapfall_fuzz::nameless_file();
        file.set_len((PAGES * page_bytes()) as u64).expect("a length");
        let theirs = RawMap::of(&file, PAGES * page_bytes());
        file.set_len(0).expect("a length");
        Run { chain: Chain::default(), before: Vec::new(), ours: None, theirs }
    }

    fn step(&mut self, step: Step) {
        let new = match step {
            Step::Install { handler, flags } => self.chain.new_handler(handler, flags),
            _ => None,
        };
        let before = calls().count;
        let effect = self.chain.step(step);
        match step {
            _ if effect == Effect::Skipped => return,
            Step::Install { .. } => {
                let Some(Installed { handler, flags }) = new else { return };
                self.before.push(install(SIGBUS, handler, flags));
            }
            Step::Remove => put(SIGBUS, self.before.pop().expect("what was there before")),
            Step::Open => self.open(),
            Step::OursFaults => ours_faults(&self.ours, &self.chain),
            Step::OursFaultsInThread => {
                let (ours, chain) = (&self.ours, &self.chain);
                std::thread::scope(|scope| scope.spawn(|| ours_faults(ours, chain)).join()).expect("a thread");
            }
            Step::TheirsFaults { page } => {
                // Each is mended once, and then a page of zeros.
                let place = page as usize % PAGES * page_bytes();
                let (file, _) = mapfall_fuzz::nameless_file();
                file.set_len((PAGES * page_bytes()) as u64).expect("a length");
                self.theirs = RawMap::of(&file, PAGES * page_bytes());
                file.set_len(0).expect("a length");
                self.theirs.breaks(place);
                assert_eq!(self.theirs.touch(place), 0);
            }
            Step::Sent => raise(SIGBUS),
            Step::Notice => self.notice(),
            Step::Works => works(&self.ours),
        }
        match effect {
            Effect::Dies => {
                // SAFETY: leaves at once, as `forked` does.
                unsafe { libc::_exit(LIVES_ON) }
            }
            Effect::Calls { count, blocked } => {
                let calls = calls();
                assert_eq!(calls.count, before + count, "{step:?}");
                if let Some(blocked) = blocked {
                    assert_eq!(calls.bus_blocked, blocked, "{step:?}: blocked");
                    assert!(calls.usr1_blocked, "{step:?}: the mask of the action");
                }
            }
            Effect::Quiet if matches!(step, Step::Sent) => assert_eq!(calls().count, before, "{step:?}"),
            _ => {}
        }
    }

    fn open(&mut self) {
        let (file, path) = mapfall_fuzz::nameless_file();
        let other = Hand(file);
        other.write(0, &content());
        let map = IoOptions::new().open_mmap(&path).expect("a map");
        self.ours = Some((map, other));
        works(&self.ours);
    }

    fn notice(&self) {
        let Some((map, _)) = &self.ours else { return };
        let mut byte = [0; 100];
        for _ in 0..READS_TO_NOTICE / 1000 {
            (0..1000).for_each(|_| map.read_at(page_bytes() as u64, &mut byte).expect("a read"));
            if is_down(&self.ours) != self.chain.ours_is_on_top() {
                return;
            }
        }
        assert!(self.chain.ours_is_on_top() || is_down(&self.ours), "a handler over ours was not noticed");
    }
}
