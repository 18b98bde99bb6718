#![no_main]
//! `/proc/self/mountinfo`: mount points are named by others.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = sys::mount::table::parse(data);
});
