#![no_main]
//! Docker's `config.json`.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = registry::parsers::docker_config(body);
});
