//! `soak`: an hour of random operations by four clients, with garbage being collected and the daemon killed every minute.
//!
//! Debug builds: they check what they assume, and can kill themselves between any two steps (`--points`). What it does is
//! told in tests/src/bin/soak.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::reference::{self, Set};
use crate::{machine, paths, peers, program, suites};

/// Builds and runs it. `leaks` is another one: a thousand containers one after another, a hundred pods, and what they leave;
/// `pods` are the pods alone.
pub fn run(flags: &[String]) -> Result<ExitCode> {
    machine::require_containers()?;
    match flags {
        [word] if word == "leaks" => return suites::soak(&[]),
        [word] if word == "pods" => return suites::soak(&["pod_faults::"]),
        _ => {}
    }
    let packages = ["containerd", "ctr", "containerd-shim-runc-v2", "containerd-tests"];
    let mut build = program::cargo(&["build", "--locked", "--bins"]);
    build.args(packages.iter().flat_map(|package| ["--package", package]));
    program::run(&mut build)?;
    let dir = paths::target().join("debug");
    let peers = peers::fetch().ok();
    let mut command = Command::new(dir.join("soak"));
    command.args(flags).env("CONTAINERD_BIN", dir.join("containerd")).stdin(Stdio::null());
    command.envs(suites::environment(peers.as_ref()));
    let go = reference::built(Set::Containerd).or_else(|| peers.map(|peers| peers.bin()));
    if let Some(go) = go.filter(|_| !flags.iter().any(|flag| flag == "--go-ctr")) {
        command.arg("--go-ctr").arg(go.join("ctr"));
    }
    eprintln!("$ {}", program::shown(&command));
    let status = command.status().context("run the soak")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
