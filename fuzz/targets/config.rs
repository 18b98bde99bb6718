#![no_main]
//! Configuration files: parsed, migrated, completed and printed. Files that they import are not read.

#[allow(dead_code, unused_imports, reason = "the daemon's own module, of which a part is used")]
#[path = "../../crates/containerd/src/config/tree/mod.rs"]
mod tree;

use libfuzzer_sys::fuzz_target;
use tree::{Findings, Host, Written};

/// What a text means, printed; `None` if it is refused.
fn printed(text: &str) -> Option<String> {
    let mut findings = Findings::default();
    let (_, table) = tree::files::parse(text, &mut findings).ok()?;
    let host = Host { uid: 0, gid: 0, platform: "linux/amd64".into() };
    let complete = tree::complete(Written { table, findings }, &host).expect("the embedded files are right");
    complete.findings.mistakes.is_empty().then(|| tree::print(&complete.table).expect("what was read can be printed"))
}

fuzz_target!(|text: &str| {
    let Some(first) = printed(text) else { return };
    let second = printed(&first).expect("what was printed is read");
    assert_eq!(first, second);
});
