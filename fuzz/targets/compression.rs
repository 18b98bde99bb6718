#![no_main]
//! Compressed streams.

use std::io::Read as _;

use diff::compression::{Decoder, Wrapping};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(decoder) = Decoder::new(data, Wrapping::Detect) {
        // A bomb is no error: whoever reads decides how much.
        let _ = std::io::copy(&mut decoder.take(64 << 20), &mut std::io::sink());
    }
});
