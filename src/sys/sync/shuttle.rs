//! Atomics for `shuttle`: sequentially consistent.

use std::sync::atomic::{self, Ordering};

// Of these nobody asks anything in its model.
pub(crate) use std::sync::atomic::{AtomicPtr, AtomicUsize};

/// Another thread may run here.
pub(crate) fn step() {
    // An access of an atomic is that, and no more: to yield would tell the scheduler to prefer others.
    shuttle::sync::atomic::AtomicBool::new(false).load(Ordering::SeqCst);
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
