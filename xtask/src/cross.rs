//! aarch64: the programs are checked for it where its standard library is installed, and no system call is written as a
//! number, which would be another call there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{paths, program};

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// `cargo check` of the programs for aarch64; `None`, said aloud, where its standard library is not installed.
pub fn check() -> Option<Command> {
    if !is_installed() {
        println!(
            "NOT RUN: {TARGET} is not checked: its standard library is not installed (rustup target add {TARGET})"
        );
        return None;
    }
    let mut check = program::cargo(&["check", "--locked", "--target", TARGET]);
    for package in ["containerd", "ctr", "containerd-shim-runc-v2"] {
        check.args(["--package", package]);
    }
    // What is written in C is compiled all the same; nothing is linked, so that the compiler at hand will do.
    check.env("CC_aarch64_unknown_linux_gnu", "cc").env("AR_aarch64_unknown_linux_gnu", "ar");
    Some(check)
}

fn is_installed() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut ask = Command::new(rustc);
    ask.args(["--print", "target-libdir", "--target", TARGET]).current_dir(paths::repository());
    let Ok(done) = ask.output() else { return false };
    let dir = PathBuf::from(String::from_utf8_lossy(&done.stdout).trim());
    let is_std = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("libstd");
    done.status.success() && fs::read_dir(dir).into_iter().flatten().flatten().any(is_std)
}

/// System calls whose number is written by hand.
pub fn numbers_by_hand() -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut dirs = vec![paths::repository().join("crates")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                wrong.extend(in_file(&path)?);
            }
        }
    }
    Ok(wrong)
}

fn in_file(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let calls = text.match_indices("syscall(").filter(|(at, found)| !is_named(&text[at + found.len()..]));
    let line = |at: usize| text[..at].lines().count();
    Ok(calls.map(|(at, _)| format!("{}:{}: a system call by number", path.display(), line(at))).collect())
}

fn is_named(argument: &str) -> bool {
    argument.trim_start().starts_with("libc::SYS_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_by_number_is_told_from_one_by_name() {
        assert!(is_named("libc::SYS_clone, 0)"));
        assert!(is_named("\n    libc::SYS_mount_setattr,"));
        assert!(!is_named("435, 0)"));
    }
}
