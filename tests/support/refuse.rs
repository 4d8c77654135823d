//! System calls that fail: a filter for the calling thread and the threads it starts (`seccomp(2)`).
#![allow(unsafe_code)]

use std::io;

/// From now on these calls, by number, fail with `errno` in this thread and those it starts.
pub(crate) fn refuse(calls: &[libc::c_long], errno: i32) -> io::Result<()> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first word of what the filter is shown.
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in calls {
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *call as u32));
        filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
    }
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: it takes no pointers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the program and its filter live as long as the call, which copies them.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Becomes a user without rights, for good.
pub(crate) fn become_nobody() {
    const NOBODY: u32 = 65_534;
    // SAFETY: it takes no pointers.
    assert_eq!(unsafe { libc::setgid(NOBODY) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setuid(NOBODY) }, 0);
}

/// Runs `body` in a forked child, and says whether it came to its end there.
pub(crate) fn in_a_fork(body: impl FnOnce()) -> bool {
    // SAFETY: the child uses only memory of its own, and ends by `_exit`. What it takes of the heap is usable, as glibc
    // sees to that at a fork; no other lock is held by a thread that the child does not have.
    match unsafe { libc::fork() } {
        0 => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: it ends the process, whatever state that is in.
            unsafe { libc::_exit(i32::from(result.is_err())) };
        }
        child => {
            assert!(child > 0, "{}", io::Error::last_os_error());
            let mut status = 0;
            // SAFETY: `status` lives as long as the call.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }
}

/// Sends a thread of this process signals that do nothing, until told to stop: each interrupts the call it is in.
pub(crate) fn disturb(thread: libc::pthread_t, stop: &std::sync::atomic::AtomicBool) -> u64 {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: zeros are a valid action: no flags (so calls are not restarted), an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: the action is valid, its handler does nothing, and nobody else uses this signal.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) }, 0);
    let mut sent = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        // SAFETY: the caller joins the thread only after this function has returned.
        assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
        sent += 1;
        std::thread::sleep(std::time::Duration::from_micros(20));
    }
    sent
}

/// The calling thread, for [`disturb`].
pub(crate) fn this_thread() -> libc::pthread_t {
    // SAFETY: it takes no pointers and cannot fail.
    unsafe { libc::pthread_self() }
}
