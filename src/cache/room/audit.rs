//! Whether what a room has counted is what is there.

use super::super::CacheKey;
use super::super::index::Index;
use super::Room;
use crate::extent::Extent;
use crate::sys::frames::Frames;

impl Room {
    /// Recomputes what is there, and says what does not add up. `filling` slots are being filled.
    pub(in crate::cache) fn validate(&self, frames: &Frames, index: &Index, filling: u64) -> Result<(), String> {
        self.free.validate()?;
        let mut slots: Vec<u32> = index.iter().map(|(_, slot)| slot).collect();
        let mut ranked = self.policy.validate(frames)?;
        slots.sort_unstable();
        ranked.sort_unstable();
        if slots != ranked {
            return Err(format!("the table has {} blocks, the policy {}", slots.len(), ranked.len()));
        }
        let (mut block_bytes, mut units) = (0, 0);
        for slot in &slots {
            let (key, place) = (frames.key(*slot), frames.place(*slot));
            let hash = CacheKey::from_words(key).hash64();
            if !frames.is(*slot, &key) || frames.hash(*slot) != hash || index.find(hash, |s| s == *slot).is_none() {
                return Err(format!("slot {slot} of {key:?} is not as the table has it"));
            }
            let ends = [place.start, place.end - 1].map(|unit| self.owner(unit));
            let whole = Extent { start: place.start, len: place.end - place.start };
            if ends != [Some(*slot); 2] || self.free.overlaps(whole) || place.end > self.end_units {
                return Err(format!("slot {slot} at units {place:?} is not as the room has it"));
            }
            block_bytes += u64::from(frames.len_bytes(*slot));
            units += whole.len;
        }
        let counts = &self.counts;
        let out_of_table = counts.doomed + filling;
        let known = slots.len() as u64 + self.free_slots.len() as u64 + out_of_table;
        let checks = [
            ("blocks", counts.blocks, slots.len() as u64),
            ("bytes", counts.block_bytes, block_bytes),
            ("slots", u64::from(self.slots_end), known),
            ("admissions", counts.admissions, counts.blocks + counts.evictions + counts.invalidations),
        ];
        for (what, counted, found) in checks {
            if counted != found {
                return Err(format!("{what}: {counted} counted, {found} found"));
            }
        }
        let (used, free) = (units + self.free.total_units(), self.end_units);
        if used > free || out_of_table == 0 && used != free {
            return Err(format!("{units} units of blocks and {} free are not {free}", self.free.total_units()));
        }
        Ok(())
    }
}
