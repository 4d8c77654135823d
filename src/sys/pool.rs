//! A few threads that help with a list of work, for where there is no ring.
//!
//! # Safety
//!
//! Work is borrowed, and threads of the pool outlive the borrow. They get at it by a [`Ticket`], a pointer to a
//! [`Task`] on the stack of the thread that wants it done, only so:
//!
//! 1. A helper takes a ticket out of the queue and counts itself in `Task::helpers` under one hold of the lock, and
//!    counts itself out under the lock when it does not use the pointer any more.
//! 2. [`Lent::drop`] takes the task's tickets out of the queue under the lock, and waits there until nobody is counted.
//!    It runs before the task's memory is given up, on return and on unwinding: the task is declared before it, and it
//!    is never leaked, as it does not leave [`run`].
#![allow(unsafe_code)]

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The threads of the pool. Whoever brings work does some of it as well.
pub(crate) const THREADS_MAX: usize = 8;
/// A thread that has had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(10);
const STACK_BYTES: usize = 256 << 10;

static QUEUE: Mutex<Queue> = Mutex::new(Queue { tickets: VecDeque::new(), threads: 0, idle: 0 });
/// There are tickets.
static WORK: Condvar = Condvar::new();
/// Some task has no helper any more.
static DONE: Condvar = Condvar::new();

struct Queue {
    tickets: VecDeque<Ticket>,
    threads: usize,
    /// Those of them that wait.
    idle: usize,
}

/// The right to help with a task once.
#[derive(Clone, Copy)]
struct Ticket(*const Task<'static>);

// SAFETY: the task is `Sync`, and whoever has the ticket may use it as said above.
unsafe impl Send for Ticket {}

/// A list of work.
struct Task<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    count: usize,
    /// The first item that nobody has taken. Relaxed: each item is one thread's, and the lock orders what comes of it.
    next: AtomicUsize,
    /// Changed only under the lock of the queue.
    helpers: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Task<'_> {
    /// Takes items until there are none.
    fn help(&self) {
        loop {
            let item = self.next.fetch_add(1, Relaxed);
            if item >= self.count {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.work)(item))) {
                self.panic.lock().get_or_insert(panic);
            }
        }
    }
}

/// A task whose tickets are, or may be, with the pool.
struct Lent(*const Task<'static>);

impl Drop for Lent {
    fn drop(&mut self) {
        let mut queue = QUEUE.lock();
        queue.tickets.retain(|ticket| !ptr::addr_eq(ticket.0, self.0));
        // SAFETY: the task outlives `self`, which is declared after it in `run`.
        while unsafe { &*self.0 }.helpers.load(Relaxed) > 0 {
            DONE.wait(&mut queue);
        }
    }
}

/// Calls `work` with each number below `count` once, on this thread and at most `helpers` of the pool's, in any order.
///
/// When it returns or unwinds, no other thread is in `work`, or will be. Where no thread can be had, this one does it
/// all.
///
/// # Panics
///
/// Where `work` does, with what the first of them said, after all of it was tried.
pub(crate) fn run(count: usize, helpers: usize, work: &(dyn Fn(usize) + Sync)) {
    let task = Task { work, count, next: AtomicUsize::new(0), helpers: AtomicUsize::new(0), panic: Mutex::new(None) };
    let helpers = helpers.min(THREADS_MAX).min(count.saturating_sub(1));
    if helpers > 0 {
        let lent = Lent(ptr::from_ref(&task).cast());
        call_helpers(Ticket(lent.0), helpers);
        task.help();
        drop(lent);
    } else {
        task.help();
    }
    if let Some(panic) = task.panic.into_inner() {
        resume_unwind(panic);
    }
}

/// Queues tickets, and starts threads as far as there are none that wait for them.
fn call_helpers(ticket: Ticket, helpers: usize) {
    let mut queue = QUEUE.lock();
    queue.tickets.extend(std::iter::repeat_n(ticket, helpers));
    let missing = queue.tickets.len().saturating_sub(queue.idle).min(THREADS_MAX - queue.threads);
    for _ in 0..missing {
        let builder = thread::Builder::new().name("mapfall-pool".to_owned()).stack_size(STACK_BYTES);
        match builder.spawn(serve) {
            Ok(_) => queue.threads += 1,
            Err(error) => {
                tracing::debug!(%error, "the pool gets no more threads");
                break;
            }
        }
    }
    for _ in 0..helpers {
        WORK.notify_one();
    }
}

/// What a thread of the pool does.
fn serve() {
    block_signals();
    let mut queue = QUEUE.lock();
    loop {
        if let Some(ticket) = queue.tickets.pop_front() {
            // SAFETY: the ticket was in the queue, so `Lent` has not been dropped, and it cannot be while we hold the
            // lock, nor after it before we count ourselves out (facts 1 and 2).
            let task = unsafe { &*ticket.0 };
            task.helpers.fetch_add(1, Relaxed);
            drop(queue);
            task.help();
            queue = QUEUE.lock();
            if task.helpers.fetch_sub(1, Relaxed) == 1 {
                DONE.notify_all();
            }
            continue;
        }
        queue.idle += 1;
        let timed_out = WORK.wait_for(&mut queue, IDLE).timed_out();
        queue.idle -= 1;
        if timed_out && queue.tickets.is_empty() {
            queue.threads -= 1;
            return;
        }
    }
}

/// Signals sent to the process are for its own threads. Those that a thread brings upon itself are not blocked.
fn block_signals() {
    let mut signals = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it fills in the set that it is given.
    unsafe { libc::sigfillset(signals.as_mut_ptr()) };
    for signal in [libc::SIGBUS, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS, libc::SIGABRT]
    {
        // SAFETY: the set was filled in above, and the number is a signal's.
        unsafe { libc::sigdelset(signals.as_mut_ptr(), signal) };
    }
    // SAFETY: it reads the set, which was filled in, and does not want to tell the old one.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_done_once_and_before_it_returns() {
        let places: Vec<_> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
        for round in 1..=50 {
            let count = round * 20;
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let own: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                        run(count, round % 12, &|item| {
                            own[item].fetch_add(1, Relaxed);
                            places[item].fetch_add(1, Relaxed);
                        });
                        assert!(own.iter().all(|place| place.load(Relaxed) == 1));
                    });
                }
            });
        }
        assert_eq!(places.iter().map(|place| place.load(Relaxed)).sum::<usize>(), (1..=50).sum::<usize>() * 60);
        assert!(QUEUE.lock().threads <= THREADS_MAX);
        run(0, 8, &|_| panic!("there is nothing to do"));
    }

    #[test]
    fn a_panic_comes_back_after_everything_was_tried() {
        let done = AtomicUsize::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            run(100, 8, &|item| {
                done.fetch_add(1, Relaxed);
                assert!(item % 10 != 3, "item {item}");
            });
        }));
        assert!(caught.unwrap_err().downcast_ref::<String>().unwrap().starts_with("item "));
        assert_eq!(done.load(Relaxed), 100);
    }

    #[test]
    fn several_threads_help() {
        // Each waits for another: alone, none of them would come to an end.
        let barrier = std::sync::Barrier::new(4);
        run(4, 3, &|_| {
            barrier.wait();
        });
    }
}
