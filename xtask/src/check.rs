//! `check`: what CI does after the tests, one line for each check.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;

use crate::tally::Tally;
use crate::{cross, deps, machine, map, program, suites};

/// Runs the tests, then formatting, lints, layering and documentation; goes on after a failure.
pub fn run() -> Result<ExitCode> {
    let tests = suites::run()?;
    let rest = without_containers()?;
    Ok(if tests == ExitCode::SUCCESS { rest } else { tests })
}

/// All that needs no container.
pub fn without_containers() -> Result<ExitCode> {
    let mut tally = Tally::default();
    if tool("fmt", "rustfmt", &["rustfmt-web", "rustfmt"]) {
        step(&mut tally, "formatting", &mut program::cargo(&["fmt", "--all", "--check"]));
    }
    if tool("clippy", "cargo-clippy", &["rust-web-clippy", "rust-clippy"]) {
        let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        step(&mut tally, "lints", &mut program::cargo(&clippy));
    }
    holds(&mut tally, "layering", deps::check);
    holds(&mut tally, "system calls by name", cross::numbers_by_hand);
    if let Some(mut check) = cross::check() {
        step(&mut tally, "aarch64", &mut check);
    }
    holds(&mut tally, "places named in the README", map::missing);
    let mut doc =
        program::cargo(&["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"]);
    step(&mut tally, "documentation", doc.env("RUSTDOCFLAGS", "-D warnings"));
    step(
        &mut tally,
        "examples in the documentation",
        &mut program::cargo(&["test", "--workspace", "--doc", "--locked"]),
    );
    Ok(tally.finish())
}

fn step(tally: &mut Tally, name: &str, command: &mut Command) {
    let started = Instant::now();
    let result = program::run(command);
    if let Err(error) = &result {
        println!("{error:#}");
    }
    tally.check(name, result.is_ok(), started.elapsed());
}

/// A check that lists what is wrong.
fn holds(tally: &mut Tally, name: &str, check: fn() -> Result<Vec<String>>) {
    let started = Instant::now();
    let wrong = check().unwrap_or_else(|error| vec![format!("{error:#}")]);
    wrong.iter().for_each(|line| println!("{name}: {line}"));
    tally.check(name, wrong.is_empty(), started.elapsed());
}

/// Whether a tool that belongs to cargo is there, after an attempt to install Debian's package of the same version.
fn tool(command: &str, file: &str, packages: &[&str]) -> bool {
    let works = || program::cargo(&[command, "--version"]).output().is_ok_and(|done| done.status.success());
    if works() {
        return true;
    }
    if machine::has_program("apt-get") {
        for package in packages {
            let mut install = Command::new("apt-get");
            install.args([
                "-q",
                "-y",
                "-o",
                "DPkg::Lock::Timeout=600",
                "install",
                "--no-install-recommends",
                package,
            ]);
            if program::run(install.env("DEBIAN_FRONTEND", "noninteractive")).is_ok() && works() {
                return true;
            }
        }
    }
    eprintln!("SKIPPED: {file} is not installed and could not be: cargo {command} does not run");
    false
}
