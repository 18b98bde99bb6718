#![no_main]
//! The file that says which hosts stand for a registry.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = registry::parsers::hosts_toml(text);
});
