//! Atomics for `loom`, any one of which may be weakened where it is used.
//!
//! `MAPFALL_MUTANT=FILE:LINE:WHAT` names the line: `weaker` makes the operations there relaxed and leaves fences out,
//! `omitted` leaves stores out too.

use std::panic::Location;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use loom::sync::atomic;

/// What became of the line.
#[derive(Clone, Copy, PartialEq)]
enum Change {
    Weaker,
    Omitted,
}

struct Mutant {
    file: String,
    line: u32,
    change: Change,
}

fn mutant() -> Option<&'static Mutant> {
    static MUTANT: OnceLock<Option<Mutant>> = OnceLock::new();
    let parse = |text: String| {
        let mut parts = text.rsplitn(3, ':');
        let change = match parts.next()? {
            "weaker" => Change::Weaker,
            "omitted" => Change::Omitted,
            _ => return None,
        };
        let line = parts.next()?.parse().ok()?;
        Some(Mutant { file: parts.next()?.to_owned(), line, change })
    };
    let named = |text| parse(text).expect("MAPFALL_MUTANT is FILE:LINE:weaker or FILE:LINE:omitted");
    MUTANT.get_or_init(|| std::env::var("MAPFALL_MUTANT").ok().map(named)).as_ref()
}

#[track_caller]
fn change() -> Option<Change> {
    let here = Location::caller();
    mutant()
        .filter(|mutant| mutant.line == here.line() && here.file().ends_with(&mutant.file))
        .map(|found| found.change)
}

#[track_caller]
fn ordering(order: Ordering) -> Ordering {
    change().map_or(order, |_| Ordering::Relaxed)
}

#[track_caller]
pub(crate) fn fence(order: Ordering) {
    if change().is_none() {
        atomic::fence(order);
    }
}

/// Makes two accesses of an atomic, loads too, such that `loom` tries both orders of them. By itself it remembers only
/// the last access of an atomic: that of a thread that loads before it stores hides those of the others.
#[derive(Debug)]
struct Order(atomic::AtomicBool);

impl Order {
    fn note(&self) {
        // Relaxed: it orders nothing in the model's memory.
        self.0.fetch_or(false, Ordering::Relaxed);
    }
}

macro_rules! atomic {
    ($name:ident$(<$type:ident>)?, $value:ty, $($call:ident($($arg:ident),*);)*) => {
        #[derive(Debug)]
        pub(crate) struct $name$(<$type>)?(atomic::$name$(<$type>)?, Order);

        #[allow(dead_code, reason = "not every one is used of each")]
        impl$(<$type>)? $name$(<$type>)? {
            pub(crate) fn new(value: $value) -> Self {
                $name(atomic::$name::new(value), Order(atomic::AtomicBool::new(false)))
            }

            #[track_caller]
            pub(crate) fn load(&self, order: Ordering) -> $value {
                self.1.note();
                self.0.load(ordering(order))
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                if change() != Some(Change::Omitted) {
                    self.1.note();
                    self.0.store(value, ordering(order));
                }
            }

            #[track_caller]
            pub(crate) fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                order: Ordering,
                failed: Ordering,
            ) -> Result<$value, $value> {
                self.1.note();
                self.0.compare_exchange(old, new, ordering(order), ordering(failed))
            }

            /// It does not fail without need here.
            #[track_caller]
            pub(crate) fn compare_exchange_weak(
                &self,
                old: $value,
                new: $value,
                order: Ordering,
                failed: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(old, new, order, failed)
            }

            $(
                #[track_caller]
                pub(crate) fn $call(&self, $($arg: $value),*, order: Ordering) -> $value {
                    self.1.note();
                    self.0.$call($($arg),*, ordering(order))
                }
            )*
        }
    };
}

atomic!(AtomicBool, bool,);
atomic!(AtomicPtr<T>, *mut T,);
atomic!(AtomicU32, u32, fetch_add(value); fetch_sub(value););
atomic!(AtomicU64, u64, fetch_add(value); fetch_sub(value); fetch_and(value); fetch_or(value););
atomic!(AtomicUsize, usize, fetch_add(value); fetch_sub(value););
