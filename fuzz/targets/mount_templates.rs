#![no_main]
//! Templates in the options of mounts.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let active = |n: usize| mounts::Active {
        mount: types::mount::Mount::default(),
        mounted_at: std::time::UNIX_EPOCH,
        mount_point: format!("/t/{n}"),
    };
    let before: Vec<_> = (0..3).map(active).collect();
    if let Ok(expanded) = mounts::expand(text, &before) {
        // What a template makes is no template.
        assert!(text.contains("{{") || expanded == text);
    }
});
