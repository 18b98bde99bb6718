#![no_main]
//! Image references, digests and platforms.

use libfuzzer_sys::fuzz_target;
use types::Digest;
use types::platform::Platform;
use types::reference::Reference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::normalize(text) {
        let normal = reference.to_string();
        let again = Reference::normalize(&normal).expect("what is normal is valid");
        assert_eq!(again.to_string(), normal);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.as_str(), text);
        assert!(!digest.hex().contains(['/', '.']));
    }
    let _ = text.parse::<Platform>();
});
