//! How a reader holds a checkpoint that another process may be about to replace.
//!
//! Readers lock a byte of the file that stands for the checkpoint's generation. A writer that makes a checkpoint looks
//! at these locks after its slot is on the device, and before it uses any space again. So whoever has a lock, and finds
//! the slot unchanged then, has been seen or will be.

use super::options::lock_error;
use super::volume::{READERS_BYTE, Volume};
use crate::error::{Error, Result};
use crate::format::Slot;
use crate::sys::lock::LockFile;

/// What a reader asks of the file.
pub(super) trait Checkpoints {
    /// The last checkpoint.
    fn newest(&self) -> Result<Slot>;
    /// Locks a checkpoint's byte, among other readers.
    fn lock(&self, generation: u64) -> Result<()>;
    fn unlock(&self, generation: u64) -> Result<()>;
}

/// Holds the checkpoint whose generation `choose` finds by way of the last one, which is held, too.
pub(super) fn hold<T>(file: &impl Checkpoints, choose: impl Fn(&Slot) -> Result<(u64, T)>) -> Result<(Slot, T)> {
    loop {
        let slot = file.newest()?;
        file.lock(slot.generation)?;
        let mut locked = vec![slot.generation];
        // What the slot leads to is only to be trusted if it was not replaced before the lock.
        if is_still(file, &slot)? {
            let (generation, chosen) = choose(&slot)?;
            file.lock(generation)?;
            if is_still(file, &slot)? {
                return Ok((slot, chosen));
            }
            locked.push(generation);
        }
        for generation in locked {
            file.unlock(generation)?;
        }
    }
}

fn is_still(file: &impl Checkpoints, slot: &Slot) -> Result<bool> {
    let is_still = file.newest()? == *slot;
    #[cfg(mapfall_canary)]
    let is_still = is_still || crate::canary::planted("reader_looks_once");
    Ok(is_still)
}

/// A file, and locks of our own on it.
pub(super) struct LockedFile<'a> {
    pub(super) volume: &'a Volume,
    pub(super) lock: &'a LockFile,
}

impl Checkpoints for LockedFile<'_> {
    fn newest(&self) -> Result<Slot> {
        self.volume.newest_slot()
    }

    fn lock(&self, generation: u64) -> Result<()> {
        let path = &*self.volume.path;
        match self.lock.try_shared(READERS_BYTE + generation) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Locked { path: path.into() }),
            Err(source) => Err(lock_error(path, source)),
        }
    }

    fn unlock(&self, generation: u64) -> Result<()> {
        self.lock.unlock(READERS_BYTE + generation).map_err(|source| lock_error(&self.volume.path, source))
    }
}

#[cfg(all(test, mapfall_model))]
mod model;
