#![no_main]
//! The filter language.

use libfuzzer_sys::fuzz_target;
use types::filters::Filters;

fuzz_target!(|text: &str| {
    let _ = Filters::parse(&[text]);
});
