//! The process-wide handler that turns a fault in the recoverable copy into a value.
//!
//! # Rules
//!
//! - A fault is taken only if [`copy::recover`] says that it is the copy's own, and the signal is synchronous: sent by
//!   the kernel (`si_code > 0`) and not `BUS_MCEERR_AO`, which reports a broken page that nobody touched.
//! - Everything else goes to the previous handler, with its own `SA_SIGINFO`, `SA_NODEFER`, `SA_RESETHAND` and mask
//!   honoured. (It runs on the stack that this handler runs on, which is the alternate one where there is one.)
//! - Where there was no handler, the default action is restored and the fault happens again: the process dies of the
//!   signal, at the instruction that faulted, as it would have. `SIG_IGN` is treated the same for a synchronous fault,
//!   as the kernel does.
//! - Installed once, with `SA_SIGINFO | SA_ONSTACK | SA_NODEFER`; never uninstalled. Whether it is still on top can be
//!   asked ([`on_top`]).
//! - In the handler: no lock, no allocation, no thread-local.
//! - The kernel gives a fault to no handler in a thread that blocks the signal, and ends the process. So a thread asks
//!   for its mask ([`may_fault`]) before its first copy, while it blocks the signal before each one, and now and then.
//!
//! # Safety
//!
//! The handler writes only the program counter of the interrupted context, and only to the landing pad of the routine
//! that the program counter is in. It reads the previous action through a pointer to memory that is never freed.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_int, c_void, sigaction, siginfo_t, ucontext_t};

use super::copy;

/// The actions that were there before ours, leaked on purpose: a handler may be reading them at any time.
static PREVIOUS_BUS: AtomicPtr<sigaction> = AtomicPtr::new(ptr::null_mut());
static PREVIOUS_SEGV: AtomicPtr<sigaction> = AtomicPtr::new(ptr::null_mut());

/// Installs the handler for `SIGBUS` and `SIGSEGV` if this process does not have it yet.
pub(crate) fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        let result = [(libc::SIGBUS, &PREVIOUS_BUS), (libc::SIGSEGV, &PREVIOUS_SEGV)]
            .into_iter()
            .try_for_each(|(signal, previous)| install_one(signal, previous));
        match &result {
            Ok(()) => tracing::debug!("fault handler installed"),
            Err(error) => tracing::warn!(%error, "fault handler could not be installed"),
        }
        result.map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))
    });
    installed.map_err(io::Error::from_raw_os_error)
}

/// Whether a `SIGBUS` would reach our handler first. One system call.
pub(crate) fn on_top() -> bool {
    current_action(libc::SIGBUS).is_ok_and(|action| action.sa_sigaction == handler_address())
}

thread_local! {
    /// Whether this thread was seen not to block `SIGBUS`.
    static SEEN_OPEN: Cell<bool> = const { Cell::new(false) };
}

/// Whether a `SIGBUS` of this thread would reach any handler, as far as is known: it costs a system call at first, and
/// as long as the answer is no.
#[inline]
pub(crate) fn may_fault() -> bool {
    SEEN_OPEN.get() || ask_mask()
}

/// Asks for this thread's mask. One system call.
#[cold]
pub(crate) fn ask_mask() -> bool {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: a null new set only asks; `mask` is writable memory of the right type.
    let status = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr()) };
    // SAFETY: pthread_sigmask(3) fills the old set when it returns 0, and only then it is looked at.
    let is_open = status == 0 && unsafe { libc::sigismember(mask.as_ptr(), libc::SIGBUS) } == 0;
    SEEN_OPEN.set(is_open);
    is_open
}

fn handler_address() -> usize {
    handle as *const () as usize
}

fn current_action(signal: c_int) -> io::Result<sigaction> {
    let mut action = MaybeUninit::<sigaction>::uninit();
    // SAFETY: a null new action only asks; `action` is writable memory of the right type.
    let status = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: sigaction(2) fills the old action when it returns 0.
    Ok(unsafe { action.assume_init() })
}

fn install_one(signal: c_int, previous: &AtomicPtr<sigaction>) -> io::Result<()> {
    // Known before ours can run, so that the handler never finds nothing to pass a signal on to.
    // Release: pairs with the Acquire load in `handle`.
    previous.store(Box::into_raw(Box::new(current_action(signal)?)), Ordering::Release);
    let mut replaced = MaybeUninit::<sigaction>::uninit();
    let mut ours = action_with(handler_address());
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: `handle` is an extern "C" function with the signature that SA_SIGINFO asks for, async-signal-safe as its
    // module's rules say; both pointers are to live memory of the right type.
    if unsafe { libc::sigaction(signal, &ours, replaced.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: sigaction(2) fills the old action when it returns 0.
    let replaced = unsafe { replaced.assume_init() };
    // Someone may have changed the action between the two calls: what was really replaced is what to chain to. The box
    // of the first answer stays, since a handler on another thread may be reading it.
    previous.store(Box::into_raw(Box::new(replaced)), Ordering::Release);
    Ok(())
}

/// An action with an empty mask and no flags.
fn action_with(handler: usize) -> sigaction {
    // SAFETY: sigaction is a C struct of integers, an integer mask and an optional function pointer: all-zero is valid.
    let mut action: sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action
}

/// The handler.
extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a siginfo_t that lives as long as the handler runs (SA_SIGINFO), and nobody writes it.
    let what = unsafe { &*info };
    let code = what.si_code;
    let synchronous = code > 0 && !(signal == libc::SIGBUS && code == libc::BUS_MCEERR_AO);
    if synchronous {
        // SAFETY: for these signals and codes the kernel fills si_addr.
        let fault_address = unsafe { what.si_addr() } as usize;
        // SAFETY: with SA_SIGINFO the third argument is the interrupted thread's ucontext_t, which the kernel reads
        // back when the handler returns; nothing else refers to it meanwhile.
        let context = unsafe { &mut *context.cast::<ucontext_t>() };
        if copy::recover(context, fault_address) {
            return;
        }
    }
    let previous = if signal == libc::SIGBUS { &PREVIOUS_BUS } else { &PREVIOUS_SEGV };
    pass_on(signal, info, context, synchronous, previous);
}

/// Gives a signal that is not ours to whoever had it before.
fn pass_on(
    signal: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
    synchronous: bool,
    previous: &AtomicPtr<sigaction>,
) {
    // Acquire: pairs with the Release stores in `install_one`, so the action behind the pointer is whole.
    // SAFETY: the pointer was stored before the handler was installed, and what it points to is never freed.
    let action = unsafe { &*previous.load(Ordering::Acquire) };
    match action.sa_sigaction {
        libc::SIG_IGN if !synchronous => return,
        libc::SIG_DFL | libc::SIG_IGN => return take_default_action(signal, synchronous),
        _ => {}
    }
    if action.sa_flags & libc::SA_RESETHAND != 0 {
        previous.store(default_action(), Ordering::Release);
    }
    let mut blocked = action.sa_mask;
    let defers = action.sa_flags & libc::SA_NODEFER == 0;
    #[cfg(mapfall_canary)] // a planted bug
    let defers = defers && !crate::canary::planted("signal_chain");
    if defers {
        // SAFETY: `blocked` is an initialised set and `signal` is a signal number the kernel gave us.
        unsafe { libc::sigaddset(&mut blocked, signal) };
    }
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are live; pthread_sigmask(3) is async-signal-safe and fills `before`.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, before.as_mut_ptr()) };
    if action.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: an action with SA_SIGINFO that is neither SIG_DFL nor SIG_IGN holds a function of this type.
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = unsafe { mem::transmute(action.sa_sigaction) };
        handler(signal, info, context);
    } else {
        // SAFETY: an action without SA_SIGINFO that is neither SIG_DFL nor SIG_IGN holds a function of this type.
        let handler: extern "C" fn(c_int) = unsafe { mem::transmute(action.sa_sigaction) };
        handler(signal);
    }
    // SAFETY: `before` was filled by the call above, which cannot fail with these arguments.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
}

/// What is left of an action with SA_RESETHAND once it has run.
fn default_action() -> *mut sigaction {
    struct Forever(sigaction);
    // SAFETY: the action is never written, whatever type the pointer to it has; it holds no thread's own data.
    unsafe impl Sync for Forever {}
    // SAFETY: as in `action_with`: all-zero is a valid sigaction, and SIG_DFL is 0.
    static DEFAULT: Forever = Forever(unsafe { mem::zeroed() });
    ptr::from_ref(&DEFAULT.0).cast_mut()
}

/// Dies of the signal as if nobody had ever handled it.
fn take_default_action(signal: c_int, synchronous: bool) {
    let default = action_with(libc::SIG_DFL);
    // SAFETY: SIG_DFL is a valid action and sigaction(2) is async-signal-safe.
    unsafe { libc::sigaction(signal, &default, ptr::null_mut()) };
    if !synchronous {
        // A synchronous fault happens again by itself when the handler returns; another signal must be sent again.
        // SAFETY: raise(3) is async-signal-safe.
        unsafe { libc::raise(signal) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_is_installing_once() {
        if !copy::CAN_RECOVER {
            return;
        }
        install().unwrap();
        let first = PREVIOUS_BUS.load(Ordering::Acquire);
        install().unwrap();
        assert_eq!(first, PREVIOUS_BUS.load(Ordering::Acquire));
        assert!(on_top());
        // SAFETY: set by `install` and never freed.
        let previous = unsafe { &*first };
        assert_ne!(previous.sa_sigaction, handler_address(), "chained to itself");
    }
}
