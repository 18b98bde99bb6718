//! `interrupt`: two hundred pulls that are interrupted at random, through the daemon and by the client itself, each followed
//! by one that is not. What is done, and what must come of it, is told in tests/tests/blackbox/interrupted.rs.

use std::process::{ExitCode, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::{machine, paths, peers, program, suites};

const USAGE: &str = "usage: ./x interrupt [--cuts N] [--seed N]";

/// Builds and runs it.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    machine::require_containers()?;
    let mut cuts = 200;
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut words = arguments.iter();
    while let Some(flag) = words.next() {
        let value = words.next().context(USAGE)?.parse().context(USAGE)?;
        match flag.as_str() {
            "--cuts" => cuts = value,
            "--seed" => seed = value,
            _ => bail!(USAGE),
        }
    }
    let mut build = program::cargo(&["build", "--locked", "--bins"]);
    let packages = ["containerd", "ctr", "containerd-shim-runc-v2"];
    build.args(packages.iter().flat_map(|package| ["--package", package]));
    program::run(&mut build)?;
    let mut test =
        program::cargo(&["test", "--locked", "--package", "containerd-tests", "--test", "blackbox"]);
    test.args(["--", "--nocapture", "interrupted::"]).stdin(Stdio::null());
    test.env("CONTAINERD_BIN", paths::target().join("debug/containerd")).env("SUITE", "ours");
    test.env("PULL_CUTS", cuts.to_string()).env("PULL_SEED", seed.to_string());
    test.envs(suites::environment(peers::fetch().ok().as_ref()));
    eprintln!("$ {}", program::shown(&test));
    let status = test.status().context("run the test")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
