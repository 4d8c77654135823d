//! Children whose system calls are stopped one by one (`seccomp(2)` and `ptrace(2)`), to be counted or to fail. The
//! code that makes them is what it always is.
//!
//! # Safety
//!
//! The tracer reads and writes the registers of a child that is stopped, into and from structures of its own. Of the
//! child's memory it touches nothing.
#![allow(unsafe_code)]

use std::io;
use std::ptr;

use libc::{c_int, c_long, pid_t};

use crate::forks::{Ended, Shared, fork};

/// The first argument of the `prctl(2)` that ends what is watched. The kernel knows none of this number.
const END: u64 = 0x6d66_656e;
/// And of the one that begins it.
const BEGIN: u64 = 0x6d66_6265;

/// Which calls are stopped.
pub(crate) enum Watch<'a> {
    Only(&'a [c_long]),
    AllBut(&'a [c_long]),
}

/// A call that is about to be made.
pub(crate) struct Call {
    pub(crate) number: c_long,
    pub(crate) arguments: [u64; 6],
    /// Where the code is that makes it.
    pub(crate) at: u64,
}

/// What becomes of a call.
pub(crate) enum Action {
    Go,
    Fail(i32),
    /// It goes on with another argument.
    Argument(usize, u64),
}

/// Says that from here on calls are watched.
pub(crate) fn begin_of_watch() {
    // SAFETY: it takes no pointers, and the kernel knows no such option.
    unsafe { libc::prctl(BEGIN as c_int, 0, 0, 0, 0) };
}

/// Says that from here on nothing is watched.
pub(crate) fn end_of_watch() {
    // SAFETY: it takes no pointers, and the kernel knows no such option.
    unsafe { libc::prctl(END as c_int, 0, 0, 0, 0) };
}

/// Runs `body` in a forked child. Each call that is watched is shown to `on_call`, from [`begin_of_watch`] to
/// [`end_of_watch`].
///
/// # Errors
///
/// Where this system does not let a process trace its children.
pub(crate) fn trace(
    shared: &Shared,
    watch: &Watch<'_>,
    mut on_call: impl FnMut(&Call) -> Action,
    body: impl FnOnce() -> bool,
) -> io::Result<Ended> {
    let filter = filter(watch);
    let child = fork(shared, || {
        // SAFETY: it takes no pointers.
        if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } != 0 {
            return false;
        }
        // SAFETY: it takes no pointers. The tracer lets the process go on.
        unsafe { libc::raise(libc::SIGSTOP) };
        install(&filter);
        body()
    });
    let mut status = 0;
    // SAFETY: `status` lives as long as the call.
    unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) };
    if let Some(ended) = Ended::of(status) {
        assert_eq!(ended, Ended::Exit(1), "before anything was done: {}", shared.told());
        return Err(io::Error::other("no process can be traced"));
    }
    let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACESECCOMP | libc::PTRACE_O_EXITKILL;
    // SAFETY: it takes no pointers.
    if unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, child, 0, options) } != 0 {
        return Err(io::Error::last_os_error());
    }
    go_on(child, 0);
    let mut watched = false;
    loop {
        // Children of other threads are not ours to wait for.
        // SAFETY: `status` lives as long as the call.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if thread < 0 {
            return Err(io::Error::last_os_error());
        }
        match Ended::of(status) {
            Some(ended) if thread == child => return Ok(ended),
            Some(_) => continue,
            None => {}
        }
        match (status >> 16, libc::WSTOPSIG(status)) {
            (libc::PTRACE_EVENT_SECCOMP, _) => {
                stopped_call(thread, &mut watched, &mut on_call);
                go_on(thread, 0);
            }
            // A new thread begins so.
            (0, libc::SIGSTOP) => go_on(thread, 0),
            (0, signal) => go_on(thread, signal),
            _ => go_on(thread, 0),
        }
    }
}

fn go_on(thread: pid_t, signal: c_int) {
    // Where the thread is gone, so is what was to be done.
    // SAFETY: it takes no pointers.
    unsafe { libc::ptrace(libc::PTRACE_CONT, thread, 0, signal) };
}

fn stopped_call(thread: pid_t, watched: &mut bool, on_call: &mut impl FnMut(&Call) -> Action) {
    // SAFETY: zeros are valid registers.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is what the call fills, and lives as long as it.
    if unsafe { libc::ptrace(libc::PTRACE_GETREGS, thread, 0, &raw mut registers) } != 0 {
        return;
    }
    let r = &mut registers;
    let arguments = [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9];
    let call = Call { number: r.orig_rax as c_long, arguments, at: r.rip };
    // Its other use is to name threads.
    if call.number == libc::SYS_prctl {
        *watched = arguments[0] == BEGIN || *watched && arguments[0] != END;
        return;
    }
    if !*watched {
        return;
    }
    match on_call(&call) {
        Action::Go => return,
        // No such call: it is passed over, and what is in the register is its result.
        Action::Fail(errno) => (r.orig_rax, r.rax) = (u64::MAX, -i64::from(errno) as u64),
        Action::Argument(index, value) => {
            *[&mut r.rdi, &mut r.rsi, &mut r.rdx, &mut r.r10, &mut r.r8, &mut r.r9][index] = value;
        }
    }
    // SAFETY: they are the registers that the thread had, but for what was changed.
    unsafe { libc::ptrace(libc::PTRACE_SETREGS, thread, 0, &raw const registers) };
}

fn filter(watch: &Watch<'_>) -> Vec<libc::sock_filter> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let (named, calls, other) = match watch {
        Watch::Only(calls) => (libc::SECCOMP_RET_TRACE, *calls, libc::SECCOMP_RET_ALLOW),
        Watch::AllBut(calls) => (libc::SECCOMP_RET_ALLOW, *calls, libc::SECCOMP_RET_TRACE),
    };
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    let rules = calls.iter().map(|call| (*call, named)).chain([(libc::SYS_prctl, libc::SECCOMP_RET_TRACE)]);
    for (call, verdict) in rules {
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32));
        filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, verdict));
    }
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, other));
    filter
}

fn install(filter: &[libc::sock_filter]) {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: it takes no pointers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program and its filter live as long as the call, which only reads them.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, ptr::null::<u8>()) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}
