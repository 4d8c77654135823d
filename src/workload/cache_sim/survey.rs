//! The first pass over a trace: which objects there are, and how large.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::Event;
use crate::workload::error::{Error, Result};
use crate::workload::trace::{Format, Source, TraceError};

/// How many requests are gone through between two looks at the flag.
const LOOK_EVERY: u64 = 1 << 16;

/// What a trace has. All but the numbers of its objects fits anywhere.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The number of each key's object, in the order of first requests.
    numbers: HashMap<u64, u32, foldhash::fast::FixedState>,
    pub(super) formats: Vec<Format>,
    pub(super) has_sizes: bool,
    pub(super) requests: u64,
    /// Requests for 0 bytes, which are none.
    pub(super) left_out: u64,
    pub(super) objects: u64,
    /// Of each object's first request.
    pub(super) footprint_bytes: u64,
    pub(super) requested_bytes: u64,
    pub(super) min_bytes: u64,
    pub(super) max_bytes: u64,
}

impl Survey {
    pub(super) fn of(source: &Source, stop: &AtomicBool, hear: &mut dyn FnMut(Event)) -> Result<Survey> {
        let mut survey = Survey { min_bytes: u64::MAX, ..Survey::default() };
        let mut requests = source.requests();
        while let Some(request) = requests.next()? {
            if request.size_bytes == 0 {
                survey.left_out += 1;
                continue;
            }
            survey.requests += 1;
            survey.requested_bytes = survey.requested_bytes.saturating_add(request.size_bytes);
            survey.min_bytes = survey.min_bytes.min(request.size_bytes);
            survey.max_bytes = survey.max_bytes.max(request.size_bytes);
            if let Entry::Vacant(entry) = survey.numbers.entry(request.key) {
                // The last number stands for "none" in tables of policies.
                let number = u32::try_from(survey.objects).ok().filter(|number| *number < u32::MAX);
                entry.insert(number.ok_or_else(|| TraceError::TooManyObjects { trace: source.name() })?);
                survey.objects += 1;
                survey.footprint_bytes = survey.footprint_bytes.saturating_add(request.size_bytes);
            }
            if survey.requests.is_multiple_of(LOOK_EVERY) {
                if stop.load(Relaxed) {
                    return Err(Error::Interrupted);
                }
                hear(Event::Surveying { read_bytes: requests.read_bytes(), requests: survey.requests });
            }
        }
        if survey.requests == 0 {
            return Err(TraceError::Empty { trace: source.name(), left_out: survey.left_out }.into());
        }
        survey.formats = requests.formats().to_vec();
        survey.has_sizes = requests.all_sized();
        Ok(survey)
    }

    pub(super) fn number(&self, key: u64) -> Option<u32> {
        self.numbers.get(&key).copied()
    }
}
