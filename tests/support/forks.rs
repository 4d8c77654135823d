//! Forked children, and the page of memory by which they tell their parent what became of them: it takes no system
//! call and no allocation, so it works where either fails.
#![allow(unsafe_code)]
#![allow(dead_code, reason = "every test binary takes what it needs")]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU8, AtomicU64};

const WORDS: usize = 16;
const TEXT_BYTES: usize = 16 << 10;

struct Page {
    words: [AtomicU64; WORDS],
    text_len: AtomicU64,
    text: [AtomicU8; TEXT_BYTES],
}

/// Numbers and a text that this process shares with those that it forks.
pub(crate) struct Shared(NonNull<Page>);

// SAFETY: the page is a mapping that lives as long as the value, and it holds nothing but atomics.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new() -> Self {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: no address is asked for, so nothing that is mapped is replaced.
        let page = unsafe { libc::mmap(ptr::null_mut(), size_of::<Page>(), protection, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Shared(NonNull::new(page.cast()).unwrap())
    }

    fn page(&self) -> &Page {
        // SAFETY: the page is mapped and aligned; zeros are a valid value of it, and all who have it use atomics.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        &self.page().words[index]
    }

    /// Adds to the text as much as there is room for.
    pub(crate) fn tell(&self, text: &str) {
        let page = self.page();
        for byte in text.bytes() {
            let at = page.text_len.fetch_add(1, SeqCst) as usize;
            if let Some(place) = page.text.get(at) {
                place.store(byte, SeqCst);
            }
        }
    }

    pub(crate) fn told(&self) -> String {
        let page = self.page();
        let len = (page.text_len.load(SeqCst) as usize).min(TEXT_BYTES);
        let bytes: Vec<u8> = page.text[..len].iter().map(|byte| byte.load(SeqCst)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn clear(&self) {
        self.page().text_len.store(0, SeqCst);
        self.page().words.iter().for_each(|word| word.store(0, SeqCst));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no reference to it outlives the value.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Page>()) };
    }
}

/// How a child came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Exit(i32),
    Signal(i32),
}

impl Ended {
    pub(crate) const GOOD: Ended = Ended::Exit(0);
    pub(crate) const PANICKED: Ended = Ended::Exit(101);

    /// `None` if the process goes on.
    pub(crate) fn of(status: i32) -> Option<Self> {
        if libc::WIFEXITED(status) {
            Some(Ended::Exit(libc::WEXITSTATUS(status)))
        } else {
            libc::WIFSIGNALED(status).then(|| Ended::Signal(libc::WTERMSIG(status)))
        }
    }
}

/// A child that runs `body`, and ends: well if it says so, and by SIGALRM where it comes to no end in a minute. A panic
/// is told to `shared`. What the parent's other threads have locked stays locked in the child, but for the heap.
pub(crate) fn fork(shared: &Shared, body: impl FnOnce() -> bool) -> libc::pid_t {
    // SAFETY: the child uses memory of its own and `shared`, and ends by `_exit`. Its heap is usable, as glibc sees to
    // that at a fork; of other locks it takes only those of code that no other thread of the parent runs.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", io::Error::last_os_error());
    if child > 0 {
        return child;
    }
    // SAFETY: it takes no pointers.
    unsafe { libc::alarm(60) };
    let for_hook = Shared(shared.0);
    // It is never dropped: the process ends first.
    set_hook(Box::new(move |panic| for_hook.tell(&format!("panicked: {panic}\n"))));
    let good = catch_unwind(AssertUnwindSafe(body));
    let status = good.map_or(101, |good| i32::from(!good));
    // SAFETY: it ends the process, whatever state that is in.
    unsafe { libc::_exit(status) };
}

/// Waits for a child of this thread that is not traced.
pub(crate) fn wait(child: libc::pid_t) -> Ended {
    loop {
        let mut status = 0;
        // SAFETY: `status` lives as long as the call.
        let found = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert!(found == child || io::Error::last_os_error().raw_os_error() == Some(libc::EINTR));
        if let Some(ended) = Ended::of(status).filter(|_| found == child) {
            return ended;
        }
    }
}

/// From now on what this process writes to its standard error is lost, and no backtrace is made for it.
pub(crate) fn be_silent() {
    // SAFETY: the name ends with a zero, and a forked child has one thread, so nobody else looks at the environment.
    unsafe { libc::unsetenv(c"RUST_BACKTRACE".as_ptr()) };
    // SAFETY: the path ends with a zero.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY) };
    // SAFETY: it takes no pointers.
    assert_eq!(unsafe { libc::dup2(null, 2) }, 2);
    // SAFETY: it is ours, and used by nobody.
    unsafe { libc::close(null) };
}
