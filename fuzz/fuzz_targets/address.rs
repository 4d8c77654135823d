//! Any bytes as packed addresses: each that is one is packed again to the bytes that it came from. A store that gets
//! such an address reads what was written under it, or returns a typed error.

#![no_main]

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use mapfall::{BlockAddr, BlockIo, Error, PACKED_BYTES_MAX, Store};
use mapfall_fuzz::file::MemoryFile;
use mapfall_fuzz::heap;

/// An address may claim 4 GiB.
const HEAP_BYTES: usize = 4 << 20;

thread_local! {
    static STORE: OnceCell<(Store, BlockAddr, MemoryFile)> = const { OnceCell::new() };
}

fn store() -> (Store, BlockAddr, MemoryFile) {
    let file = MemoryFile::new(Vec::new());
    let options = Store::options().unit_bytes(512).page_bytes(512).uuid([7; 16]);
    let store = options.create_io(file.boxed()).expect("a store");
    let address = store.blocks().write(&[7; 700]).expect("a block");
    (store, address, file)
}

fuzz_target!(|data: &[u8]| {
    STORE.with(|once| {
        let (store, own, file) = once.get_or_init(store);
        file.rewind();
        heap::within(HEAP_BYTES, || each(data, store, own, file));
    });
});

fn stands_at(file: &MemoryFile, address: &BlockAddr, found: &[u8]) -> bool {
    let mut bytes = vec![0; found.len()];
    file.read_at(address.offset(), &mut bytes).is_ok() && bytes == found
}

fn each(data: &[u8], store: &Store, own: &BlockAddr, file: &MemoryFile) {
    let mut rest = data;
    while !rest.is_empty() {
        let (address, behind) = match BlockAddr::unpack(rest) {
            Ok(unpacked) => unpacked,
            Err(Error::InvalidAddress { problem }) => {
                assert!(problem.starts_with("expected "), "{problem}");
                return;
            }
            Err(error) => panic!("{error:?}"),
        };
        let packed = address.pack();
        assert_eq!(packed, rest[..rest.len() - behind.len()], "{address}");
        assert!(packed.len() <= PACKED_BYTES_MAX && address.len_bytes() > 0, "{address}");
        rest = behind;

        let mut buf = vec![0; address.len_bytes().min(4096) as usize];
        match store.blocks().read(&address, &mut buf) {
            // A checksum can be made to fit: then it is what stands there.
            Ok(()) if address != *own => assert!(stands_at(file, &address, &buf), "{address}"),
            Ok(()) => assert_eq!(buf, [7; 700]),
            Err(Error::InvalidAddress { .. } | Error::WrongLength { .. } | Error::Corrupt { .. }) => {}
            Err(error) => panic!("{address}: {error:?}"),
        }
        match store.blocks().read_vec(&address) {
            Ok(bytes) if address != *own => assert!(stands_at(file, &address, &bytes), "{address}"),
            Ok(bytes) => assert_eq!(bytes, [7; 700]),
            Err(Error::InvalidAddress { .. } | Error::Corrupt { .. }) => {}
            Err(error) => panic!("{address}: {error:?}"),
        }
    }
}
