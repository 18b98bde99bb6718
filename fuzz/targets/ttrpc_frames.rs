#![no_main]
//! The ten bytes in front of a ttrpc message.

use api::ttrpc::{HEADER, Header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: [u8; HEADER]| {
    let header = Header::decode(&data);
    assert_eq!(Header::decode(&header.encode()), header);
});
