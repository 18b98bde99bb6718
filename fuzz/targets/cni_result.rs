#![no_main]
//! What a plugin prints, in every version.

use cni::AddResult;
use cni::version::SUPPORTED;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(result) = AddResult::parse(data, "1.0.0") else { return };
    let kept = result.to_json().expect("a result is an object");
    for interface in result.current().interfaces {
        assert!(!interface.name.contains(char::is_control), "a line break");
    }
    assert_eq!(AddResult::kept(kept).expect("what is kept is read"), result);
    for version in SUPPORTED {
        // A result without addresses has no early form.
        if let Ok(converted) = result.to(version) {
            let kept = converted.to_json().expect("a result is an object");
            assert_eq!(AddResult::kept(kept).expect("what is kept is read"), converted);
        }
    }
});
