//! A processor without bindings to `io_uring`.

use std::fs::File;
use std::io;

use super::RingRead;

/// There is none.
#[derive(Debug)]
pub(super) enum Ring {}

impl Ring {
    pub(super) fn new(_: u32) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this build has no io_uring for this processor"))
    }

    pub(super) fn read(&mut self, _: &File, _: usize, _: &mut [RingRead<'_>], _: &mut u64) -> io::Result<()> {
        match *self {}
    }
}
