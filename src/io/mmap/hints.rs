//! Hints, as the map takes them beside the descriptor.

use std::ops::Range;

use super::MmapFile;
use crate::error::Result;
use crate::io::BlockIo;
use crate::io::hint::{AccessHint, check_range};
use crate::map_options::{Advice, MapOptions};

pub(super) fn advise(file: &MmapFile, range: Range<u64>, hint: AccessHint) -> Result<()> {
    check_range(&range)?;
    let advice = match hint {
        AccessHint::Normal => Some(Advice::Normal),
        AccessHint::Sequential => Some(Advice::Sequential),
        AccessHint::Random => Some(Advice::Random),
        // The page cache keeps what is in a page table.
        AccessHint::DontNeed => {
            file.window.release(range.clone());
            None
        }
        AccessHint::WillNeed => None,
    };
    if let Some(advice) = advice {
        // Under the lock, so that a map that is made meanwhile has it too.
        let mut state = file.state.lock();
        state.advice = Some(advice);
        file.window.advise(MapOptions { advice, ..file.options }.kernel_advice_anew());
    }
    file.pread.advise(range, hint)
}
