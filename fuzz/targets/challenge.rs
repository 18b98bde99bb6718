#![no_main]
//! What a registry and its token server say about who may come in.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(text) = std::str::from_utf8(body) {
        assert!(registry::parsers::challenge(text) <= text.len());
    }
    let _ = registry::parsers::token(body);
});
