//! Other people's signal handlers, faults that are not ours, and threads of every kind.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::process;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering::SeqCst};

use libc::{c_int, siginfo_t};

/// What the handlers below saw.
static CALLS: AtomicU32 = AtomicU32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static BUS_BLOCKED: AtomicBool = AtomicBool::new(false);
static USR1_BLOCKED: AtomicBool = AtomicBool::new(false);
/// The page that a handler mends.
static BROKEN: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
/// A page that a handler touches once, so that it faults itself.
static TOUCHED_INSIDE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
/// What a handler that passes on passes on to.
static UNDERNEATH: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct Calls {
    pub(crate) count: u32,
    /// `si_code` of the last, where the handler is told.
    pub(crate) code: i32,
    /// `si_addr` of the last, where the handler is told.
    pub(crate) address: usize,
    /// Whether `SIGBUS` was blocked while the last ran.
    pub(crate) bus_blocked: bool,
    /// Whether `SIGUSR1` was.
    pub(crate) usr1_blocked: bool,
}

pub(crate) fn calls() -> Calls {
    Calls {
        count: CALLS.load(SeqCst),
        code: CODE.load(SeqCst),
        address: ADDRESS.load(SeqCst),
        bus_blocked: BUS_BLOCKED.load(SeqCst),
        usr1_blocked: USR1_BLOCKED.load(SeqCst),
    }
}

/// An action as sigaction(2) takes it.
#[derive(Clone, Copy)]
pub(crate) struct Action(libc::sigaction);

impl PartialEq for Action {
    fn eq(&self, other: &Action) -> bool {
        self.0.sa_sigaction == other.0.sa_sigaction
    }
}

/// Which handler to install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    Default,
    Ignore,
    /// Puts memory under [`RawMap::breaks`] and lets the program go on. With or without `SA_SIGINFO` in the flags.
    Mends,
    /// Calls what was there before it.
    PassesOn,
}

fn page_bytes() -> usize {
    rustix::param::page_size()
}

fn is_blocked(signal: c_int) -> bool {
    // SAFETY: sigset_t is an integer mask, for which all-zero is valid.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: a null new set only asks, and `set` is live.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut set) };
    // SAFETY: `set` is initialised.
    unsafe { libc::sigismember(&set, signal) == 1 }
}

fn mend() {
    if CALLS.fetch_add(1, SeqCst) == 1000 {
        // The fault is not one that this mends: without an end the test would never have one.
        process::abort();
    }
    BUS_BLOCKED.store(is_blocked(libc::SIGBUS), SeqCst);
    USR1_BLOCKED.store(is_blocked(libc::SIGUSR1), SeqCst);
    let inside = TOUCHED_INSIDE.swap(ptr::null_mut(), SeqCst);
    let broken = BROKEN.load(SeqCst);
    if !inside.is_null() {
        BROKEN.store(inside.cast(), SeqCst);
        // SAFETY: a byte of a `RawMap` that lives; that it traps is what is wanted, and the nested handler mends it.
        unsafe { inside.read_volatile() };
    }
    if !broken.is_null() {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
        // SAFETY: the page is one of a `RawMap`'s, which nothing refers to but volatile reads and the test's own
        // buffer.
        unsafe { libc::mmap(broken, page_bytes(), protection, flags, -1, 0) };
    }
}

extern "C" fn plain(_signal: c_int) {
    mend();
}

extern "C" fn informed(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel, or who passes the signal on, gives a live siginfo_t.
    let info = unsafe { &*info };
    CODE.store(info.si_code, SeqCst);
    // SAFETY: whatever the code, the field is inside the structure; it is only looked at for faults.
    ADDRESS.store(unsafe { info.si_addr() }.addr(), SeqCst);
    mend();
}

extern "C" fn passes_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    CALLS.fetch_add(1, SeqCst);
    let underneath = UNDERNEATH.load(SeqCst);
    // SAFETY: `install` has stored the address of a handler that takes three arguments (it had SA_SIGINFO).
    let underneath: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = unsafe { mem::transmute(underneath) };
    underneath(signal, info, context);
}

/// Installs a handler with these flags and `SIGUSR1` in its mask, and returns what was there.
pub(crate) fn install(signal: c_int, handler: Handler, flags: c_int) -> Action {
    let before = action(signal);
    // SAFETY: sigaction is a C struct of integers, a mask and an optional function pointer: all-zero is valid.
    let mut new: libc::sigaction = unsafe { mem::zeroed() };
    new.sa_flags = flags;
    new.sa_sigaction = match handler {
        Handler::Default => libc::SIG_DFL,
        Handler::Ignore => libc::SIG_IGN,
        Handler::Mends if flags & libc::SA_SIGINFO != 0 => informed as *const () as usize,
        Handler::Mends => plain as *const () as usize,
        Handler::PassesOn => {
            assert!(before.0.sa_flags & flags & libc::SA_SIGINFO != 0);
            UNDERNEATH.store(before.0.sa_sigaction, SeqCst);
            passes_on as *const () as usize
        }
    };
    // SAFETY: the mask is initialised.
    unsafe { libc::sigaddset(&mut new.sa_mask, libc::SIGUSR1) };
    put(signal, Action(new));
    before
}

/// Installs an action as it is.
pub(crate) fn put(signal: c_int, action: Action) {
    // SAFETY: the action is one that `install` made or the system gave; its handler has the signature its flags say.
    assert_eq!(unsafe { libc::sigaction(signal, &action.0, ptr::null_mut()) }, 0);
}

/// The action as it is now.
pub(crate) fn action(signal: c_int) -> Action {
    // SAFETY: as in `install`.
    let mut now: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: a null new action only asks, and `now` is live.
    assert_eq!(unsafe { libc::sigaction(signal, ptr::null(), &mut now) }, 0);
    Action(now)
}

/// A plain shared map of a file, as anybody makes one: no recovery.
pub(crate) struct RawMap {
    base: NonNull<u8>,
    len: usize,
}

impl RawMap {
    /// `file` must be open for writing too.
    pub(crate) fn of(file: &File, len: usize) -> RawMap {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: no address is asked for, so nothing that is mapped is replaced.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(base, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        RawMap { base: NonNull::new(base.cast()).unwrap(), len }
    }

    pub(crate) fn address(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.len);
        self.base.as_ptr().wrapping_add(offset)
    }

    /// Reads a byte, which faults if the file does not have it.
    pub(crate) fn touch(&self, offset: usize) -> u8 {
        // SAFETY: the byte is inside the mapping; if it traps, that is what the test is about.
        unsafe { self.address(offset).read_volatile() }
    }

    /// The page at `offset` will fault: it is what [`Handler::Mends`] mends.
    pub(crate) fn breaks(&self, offset: usize) {
        BROKEN.store(self.address(offset).cast(), SeqCst);
    }

    /// A page that the next handler touches before it mends the other.
    pub(crate) fn breaks_inside(&self, offset: usize) {
        TOUCHED_INSIDE.store(self.address(offset), SeqCst);
    }

    /// The mapping as a buffer for others to fill. A store to it may trap.
    pub(crate) fn as_buffer(&mut self) -> &mut [u8] {
        // SAFETY: the range is mapped, writable and borrowed exclusively; nothing but the copy under test touches it.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl Drop for RawMap {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`; all borrows have ended.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// `raise(3)`.
pub(crate) fn raise(signal: c_int) {
    // SAFETY: sends a signal to this thread; what becomes of it is what the test is about.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

/// `kill(2)` on this process.
pub(crate) fn kill_self(signal: c_int) {
    let process = process::id().cast_signed();
    // SAFETY: as in `raise`, for the process.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0);
}

/// Blocks or unblocks `SIGBUS` in this thread.
pub(crate) fn block_bus(how: c_int) {
    // SAFETY: sigset_t is an integer mask, for which all-zero is valid.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is initialised.
    unsafe { libc::sigaddset(&mut set, libc::SIGBUS) };
    // SAFETY: `set` is live.
    assert_eq!(unsafe { libc::pthread_sigmask(how, &set, ptr::null_mut()) }, 0);
}

/// Reads through a null pointer.
pub(crate) fn read_null() -> u8 {
    let null = std::hint::black_box(ptr::without_provenance::<u8>(8));
    // SAFETY: none: nothing is ever mapped there, so the process gets the SIGSEGV that the test wants.
    unsafe { null.read_volatile() }
}

/// Takes away this thread's alternate signal stack.
pub(crate) fn without_alternate_stack() {
    let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: the thread does not run on that stack now, and handlers run on the ordinary one from now on.
    assert_eq!(unsafe { libc::sigaltstack(&none, ptr::null_mut()) }, 0);
}

/// Runs `work` on a thread that Rust knows nothing of.
pub(crate) fn on_foreign_thread(work: Box<dyn FnOnce() + Send>) {
    extern "C" fn run(work: *mut c_void) -> *mut c_void {
        // SAFETY: `on_foreign_thread` passes a box of this type, once.
        let work = unsafe { Box::from_raw(work.cast::<Box<dyn FnOnce() + Send>>()) };
        work();
        ptr::null_mut()
    }
    let work = Box::into_raw(Box::new(work));
    // SAFETY: pthread_t is an integer.
    let mut thread: libc::pthread_t = unsafe { mem::zeroed() };
    // SAFETY: `run` has the right signature and takes over the box.
    assert_eq!(unsafe { libc::pthread_create(&mut thread, ptr::null(), run, work.cast()) }, 0);
    // SAFETY: the thread was made above and is joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
}

/// Runs `work` in a child made by fork(2), without exec, and returns how that ended.
pub(crate) fn forked(work: impl FnOnce() -> bool) -> process::ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    // SAFETY: the child only runs `work`, which the caller keeps to what a forked child may do, and leaves by _exit(2).
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let code = i32::from(!work());
        // SAFETY: leaves without the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is live, and the child is this process's own.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    process::ExitStatus::from_raw(status)
}
