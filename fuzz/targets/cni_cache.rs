#![no_main]
//! Entries of libcni's cache, which any program may have written.

use cni::{Entry, Key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let key = Key { network: "n".into(), container: "c".into(), interface: "eth0".into() };
    let Ok(entry) = Entry::parse(data, &key) else { return };
    let written = serde_json::to_vec(&entry).expect("an entry is an object");
    assert_eq!(Entry::parse(&written, &key).expect("what is written is read"), entry);
});
