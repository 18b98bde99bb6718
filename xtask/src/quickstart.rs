//! `quickstart`: from a checkout to a running container, in one command.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{dist, machine, peers};

/// Builds, fetches Debian's programs for the comparison, and runs the demonstration.
pub fn run() -> Result<ExitCode> {
    machine::require_containers()?;
    let peers = match peers::fetch() {
        Ok(peers) => Some(peers),
        Err(error) => {
            eprintln!("no comparison with Debian's containerd: {error:#}");
            None
        }
    };
    let dist = dist::build()?;
    let mut demo = Command::new(dist.join("ctr"));
    demo.arg("demo");
    if let Some(peers) = &peers {
        demo.env("CONTAINERD_RS_PEERS", peers.root());
    }
    let status = demo.status().context("run ctr demo")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
