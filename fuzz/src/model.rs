//! What a file must hold.

use std::collections::BTreeMap;

const CHUNK_BYTES: u64 = 64 << 10;

/// The bytes of a file, in memory; holes cost nothing.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// By the chunk's number. A chunk that is missing is all zeros, and so is every byte past `len_bytes`.
    chunks: BTreeMap<u64, Box<[u8]>>,
    len_bytes: u64,
}

impl Model {
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Whether the range is wholly inside the file.
    pub fn holds(&self, offset: u64, len: usize) -> bool {
        offset.checked_add(len as u64).is_some_and(|end| end <= self.len_bytes)
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.len_bytes = self.len_bytes.max(offset + bytes.len() as u64);
        for (number, within, part) in pieces(offset, bytes.len() as u64) {
            let chunk = self.chunks.entry(number).or_insert_with(|| vec![0; CHUNK_BYTES as usize].into());
            chunk[within].copy_from_slice(&bytes[part]);
        }
    }

    pub fn set_len(&mut self, len_bytes: u64) {
        if len_bytes < self.len_bytes {
            drop(self.chunks.split_off(&len_bytes.div_ceil(CHUNK_BYTES)));
            if let Some(chunk) = self.chunks.get_mut(&(len_bytes / CHUNK_BYTES)) {
                chunk[(len_bytes % CHUNK_BYTES) as usize..].fill(0);
            }
        }
        self.len_bytes = len_bytes;
    }

    /// Zeros in place; the length stays.
    pub fn punch(&mut self, offset: u64, len: u64) {
        // The chunks that are there: the range may be as long as a file system allows.
        let end = offset + len;
        for (number, chunk) in self.chunks.range_mut(offset / CHUNK_BYTES..end.div_ceil(CHUNK_BYTES)) {
            let start = number * CHUNK_BYTES;
            let within = offset.saturating_sub(start)..(end - start).min(CHUNK_BYTES);
            chunk[within.start as usize..within.end as usize].fill(0);
        }
    }

    /// Fills `buf` from `offset` on. The range must be inside.
    pub fn read(&self, offset: u64, buf: &mut [u8]) {
        assert!(self.holds(offset, buf.len()));
        for (number, within, part) in pieces(offset, buf.len() as u64) {
            match self.chunks.get(&number) {
                Some(chunk) => buf[part].copy_from_slice(&chunk[within]),
                None => buf[part].fill(0),
            }
        }
    }
}

/// The chunks of a range: number, place in the chunk, place in the range.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done;
        let within = at % CHUNK_BYTES;
        let bytes = (CHUNK_BYTES - within).min(len - done);
        let piece =
            (at / CHUNK_BYTES, within as usize..(within + bytes) as usize, done as usize..(done + bytes) as usize);
        done += bytes;
        (bytes > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_file() {
        let mut model = Model::default();
        model.write(CHUNK_BYTES - 2, &[1, 2, 3, 4]);
        assert_eq!(model.len_bytes(), CHUNK_BYTES + 2);
        model.set_len(CHUNK_BYTES + 1);
        model.set_len(CHUNK_BYTES + 9);
        model.punch(CHUNK_BYTES - 1, 1);
        model.punch(CHUNK_BYTES + 1, 1 << 60);
        model.punch(CHUNK_BYTES, 0);
        let mut buf = [9; 12];
        model.read(CHUNK_BYTES - 3, &mut buf);
        assert_eq!(buf, [0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!model.holds(CHUNK_BYTES, 10));
        assert!(!model.holds(u64::MAX, 2));
        model.set_len(1 << 40);
        model.read((1 << 40) - 12, &mut buf);
        assert_eq!(buf, [0; 12]);
    }
}
