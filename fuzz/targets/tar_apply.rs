#![no_main]
//! A forged layer onto a directory next to a canary. Run it as nobody, in a place where nothing else is.

use std::sync::atomic::AtomicBool;

use diff::extract::{Target, extract};
use diff::tar::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = containerd_fuzz::seal(data);
    let top = tempfile::tempdir().expect("a temporary directory");
    let (root, canary) = (top.path().join("root"), top.path().join("canary"));
    std::fs::create_dir(&root).expect("a directory");
    std::fs::write(&canary, "alive").expect("a file");
    let before = std::fs::metadata(&canary).expect("the canary");
    let _ = extract(&mut Reader::new(&bytes[..]), Target::View(root), &AtomicBool::new(false));
    let after = std::fs::metadata(&canary).expect("the canary");
    assert_eq!(before.permissions(), after.permissions());
    assert_eq!(before.modified().ok(), after.modified().ok());
    assert_eq!(std::fs::read(&canary).expect("the canary"), b"alive");
    assert_eq!(std::fs::read_dir(top.path()).expect("the directory").count(), 2);
});
