#![no_main]
//! Where a registry sends us.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for base in ["https://r.example/v2/x/blobs/uploads/", "http://127.0.0.1:5000/v2/"] {
        let Some(found) = registry::parsers::location(base, text) else { continue };
        assert!(found.starts_with("https://") || (base.starts_with("http://") && found.starts_with("http://")));
        let authority = found.split('/').nth(2).unwrap_or_default();
        assert!(!authority.is_empty() && !authority.contains('@'), "{found}");
    }
});
