//! Processes that read a store, and what they say.
#![allow(dead_code, reason = "every test binary takes what it needs")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use mapfall::IoMode;

use crate::children::{child, tell, words};
use crate::life::{Rng, State, check_snapshot, name_of, number_of, options};

pub(crate) fn either_mode(rng: &mut Rng) -> IoMode {
    if rng.one_in(2) { IoMode::Mmap } else { IoMode::Pread }
}

pub(crate) fn mode_of(word: &str) -> IoMode {
    if word == "Mmap" { IoMode::Mmap } else { IoMode::Pread }
}

/// In a child: reads a checkpoint again and again, until its parent closes the pipe.
pub(crate) fn read() {
    let Some(words) = words() else { return };
    let [mode, seed, kept, path] = words.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{words}") };
    let options = options(mode_of(mode));
    let snapshot = match kept.parse() {
        Ok(number) => options.open_snapshot_of(path, &name_of(number)).unwrap(),
        Err(_) => options.open_snapshot(path).unwrap(),
    };
    let state = State::at(seed.parse().unwrap(), number_of(&snapshot).0);
    assert!(kept == "last" || kept == state.number.to_string());
    tell(&format!("at {}", state.number));
    let parent = thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()).unwrap());
    while !parent.is_finished() {
        check_snapshot(&snapshot, &state);
        thread::sleep(Duration::from_millis(1));
    }
    check_snapshot(&snapshot, &state);
    tell("all well");
}

/// A child, and what it says.
pub(crate) struct Told {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Told {
    /// A reader of the last checkpoint, or of a kept one.
    pub(crate) fn reader(mode: IoMode, seed: u64, kept: Option<u64>, path: &Path) -> Self {
        let kept = kept.map_or_else(|| "last".to_owned(), |number| number.to_string());
        Told::spawn(child("reader", &format!("{mode:?} {seed} {kept} {}", path.display())))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, stdin) = (BufReader::new(child.stdout.take().unwrap()), child.stdin.take());
        let (send, lines) = channel();
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Told { child, stdin, lines }
    }

    /// The number of the state that it says it is in; nothing when its pipe is closed.
    pub(crate) fn next(&self) -> Option<u64> {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60)).ok()?;
            if let Some((_, said)) = line.split_once("at ") {
                return said.split(' ').next().unwrap().parse().ok();
            }
        }
    }

    fn errors(&mut self) -> String {
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }

    /// Waits until it says that it is in this state.
    pub(crate) fn expect(&mut self, number: u64) {
        let said = self.next();
        if said.is_none() {
            let _ = self.child.kill();
            panic!("no word of state {number}: {}", self.errors());
        }
        assert_eq!(said, Some(number));
    }

    /// Kills it, and returns what it said last.
    pub(crate) fn kill(mut self) -> Option<u64> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}: {}", self.errors());
        let mut last = None;
        while let Some(number) = self.next() {
            last = Some(number);
        }
        last
    }

    /// Asks it to end, and hears whether all was well.
    pub(crate) fn end(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.errors());
        assert!(self.lines.iter().any(|line| line == "all well"));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
