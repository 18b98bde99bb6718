//! `kubelet`: a kubelet in standalone mode on our daemon, with static pods; with `--peer` on containerd 2.3.4 afterwards. The
//! harness is `tests/kubelet/run.sh`; here are its programs.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, bail};

use crate::reference::{self, Set};
use crate::{dist, machine, paths, peers, program};

/// Builds what is needed and runs it; other words choose tests by a part of their names.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    machine::require_containers()?;
    if arguments.iter().any(|word| word.starts_with('-') && word != "--peer") {
        bail!("usage: ./x kubelet [--peer] [WORD...]");
    }
    let Some(kubelet) = reference::built(Set::Kubelet) else {
        println!("NOT RUN: a kubelet: `./x reference kubelet` builds it where Go is");
        println!("0 passed, 0 failed");
        return Ok(ExitCode::SUCCESS);
    };
    let words: Vec<&String> = arguments.iter().filter(|word| *word != "--peer").collect();
    let (_, succeeded) = program::tee(harness(&dist::build()?, &kubelet)?.args(&words))?;
    if arguments.iter().any(|word| word == "--peer") {
        let Some(theirs) = reference::built(Set::Containerd) else {
            bail!("`./x reference containerd` builds containerd 2.3.4 where Go is");
        };
        // It has no plugins of its own.
        let plugins = peers::fetch_cni()?.join("usr/lib/cni");
        program::tee(harness(&theirs, &kubelet)?.env("CNI_BIN_DIR", plugins).args(&words))?;
    }
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The harness with a daemon and shim of `programs`.
fn harness(programs: &Path, kubelet: &Path) -> Result<Command> {
    let first = [
        peers::fetch()?.sbin(),
        peers::fetch_registry()?.join("usr/bin"),
        peers::fetch_cni()?.join("bin"),
        peers::fetch_criu()?,
    ];
    let mut command = Command::new("bash");
    command
        .arg(paths::repository().join("tests/kubelet/run.sh"))
        .arg(programs)
        .env("KUBELET", kubelet.join("kubelet"))
        .env("PATH", machine::search_path(first))
        .stdin(Stdio::null());
    Ok(command)
}
