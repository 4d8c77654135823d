//! The locks and atomics of the cache: the usual ones, but in a build with `--cfg mapfall_model`.
//!
//! There every operation on one of them is a place where the scheduler of `shuttle` may go on with another thread, so
//! that `tests/cache_model.rs` can run the cache's own code under thousands of schedules that it chooses. All atomics
//! are sequentially consistent then: what weaker orderings allow is not seen.

#[cfg(not(mapfall_model))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};

#[cfg(not(mapfall_model))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(mapfall_model)]
pub(crate) use model::{AtomicBool, AtomicU32, AtomicU64, Condvar, Mutex, MutexGuard, fence, step};

#[cfg(mapfall_model)]
mod model {
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::sync::atomic::{self, Ordering};

    use shuttle::sync;

    /// Another thread may run here.
    pub(crate) fn step() {
        // An access of an atomic is that, and no more: to yield would tell the scheduler to prefer others.
        sync::atomic::AtomicBool::new(false).load(Ordering::SeqCst);
    }

    /// As the model's atomics are one thread's, it orders nothing.
    pub(crate) fn fence(_: Ordering) {}

    /// Atomics of the standard library, so that memory may be used as such. Zero is a value of each.
    macro_rules! atomic {
        ($name:ident, $value:ty, $($call:ident($($arg:ident: $arg_type:ty),*) -> $result:ty;)*) => {
            #[derive(Debug)]
            #[repr(transparent)]
            pub(crate) struct $name(atomic::$name);

            #[allow(dead_code, reason = "not every one is used of each")]
            impl $name {
                pub(crate) const fn new(value: $value) -> Self {
                    $name(atomic::$name::new(value))
                }

                $(pub(crate) fn $call(&self, $($arg: $arg_type),*) -> $result {
                    step();
                    self.0.$call($($arg),*)
                })*
            }
        };
    }

    atomic!(AtomicBool, bool, load(order: Ordering) -> bool; store(value: bool, order: Ordering) -> (););
    atomic!(AtomicU32, u32, load(order: Ordering) -> u32; store(value: u32, order: Ordering) -> (););
    atomic!(AtomicU64, u64,
        load(order: Ordering) -> u64;
        store(value: u64, order: Ordering) -> ();
        fetch_add(value: u64, order: Ordering) -> u64;
        fetch_sub(value: u64, order: Ordering) -> u64;
        fetch_and(value: u64, order: Ordering) -> u64;
        fetch_or(value: u64, order: Ordering) -> u64;
        compare_exchange(old: u64, new: u64, order: Ordering, failed: Ordering) -> Result<u64, u64>;
        compare_exchange_weak(old: u64, new: u64, order: Ordering, failed: Ordering) -> Result<u64, u64>;
    );

    /// As `parking_lot`'s: a panic with the lock held does not poison it.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    /// The guard is taken out while a condition is waited for.
    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("nobody sees a guard that waits")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("nobody sees a guard that waits")
        }
    }

    #[derive(Debug)]
    pub(crate) struct Condvar(sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Condvar(sync::Condvar::new())
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            guard.0 = guard.0.take().map(|held| self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
