#![no_main]
//! Entries of a forged archive.

use diff::tar::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = containerd_fuzz::seal(data);
    let mut reader = Reader::new(&bytes[..]);
    while let Ok(Some(entry)) = reader.next_entry() {
        if let Some(regions) = &entry.sparse {
            let sum: u64 = regions.iter().map(|region| region.length).sum();
            assert_eq!(sum, reader.remaining());
        }
        while let Ok(body) = reader.body() {
            if body.is_empty() {
                break;
            }
            let count = body.len();
            reader.consume(count);
        }
    }
});
