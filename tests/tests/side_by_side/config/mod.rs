//! `containerd config migrate` of the same file: what is printed must be the same, to the byte.

use std::path::{Path, PathBuf};
use std::process::Command;

use containerd_tests::binaries;

/// Files of distributions and tools, and one with whatever can be written.
fn files() -> Vec<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let generated = tests.join("../crates/containerd/tests/config");
    let mut files: Vec<PathBuf> = std::fs::read_dir(generated)
        .expect("the daemon's files")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.push(tests.join("tests/side_by_side/config/odd.toml"));
    files
}

/// The exit code, and what was printed for a program.
fn printed(daemon: &Path, words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(daemon).args(words).output().expect("start containerd");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn what_is_printed_is_the_same_to_the_byte() {
    let Some(theirs) = binaries::reference() else { return };
    let ours = binaries::tested();
    assert_eq!(
        printed(&ours.daemon, &["config", "default"]),
        printed(&theirs.daemon, &["config", "default"])
    );
    let files = files();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let name = file.to_str().expect("text");
        for command in ["dump", "migrate"] {
            let words = ["-c", name, "config", command];
            let (ours, theirs) = (printed(&ours.daemon, &words), printed(&theirs.daemon, &words));
            let differ = ours.1.lines().zip(theirs.1.lines()).find(|(a, b)| a != b);
            assert!(ours == theirs, "{command} {name}: ours {:?}, theirs {:?}, {differ:?}", ours.0, theirs.0);
        }
    }
}
