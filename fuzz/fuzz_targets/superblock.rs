//! Any bytes as a superblock, as they are and with a right checksum: a value that is written back the same, or a typed
//! error. And any bytes as a whole file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mapfall::{Error, Store, VerifyOptions};
use mapfall_fuzz::file::MemoryFile;
use mapfall_fuzz::heap;

/// The heap that a file may take to be refused, or opened: a store's tables, and what it has itself.
const HEAP_BYTES: usize = 4 << 20;

fuzz_target!(|data: &[u8]| {
    heap::within(HEAP_BYTES, || {
        mapfall::fuzzing::superblock(data);
        let file = MemoryFile::new(data.to_vec());
        let opened = Store::options().open_snapshot_io(file.boxed());
        let verified = Store::options().verify_io(file.boxed(), &VerifyOptions::new(), &mut |_| ());
        // It is shorter than a header.
        for error in [opened.map(|_| ()).unwrap_err(), Store::options().open_io(file.boxed()).map(|_| ()).unwrap_err()]
        {
            let typed = matches!(error, Error::NotAStore { .. } | Error::Corrupt { .. } | Error::Unsupported { .. });
            assert!(typed, "{error:?}");
        }
        assert!(
            verified.is_err() || verified.is_ok_and(|report| !report.is_clean()),
            "a clean store of {} bytes",
            data.len()
        );
    });
});
