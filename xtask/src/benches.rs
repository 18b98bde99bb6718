//! `bench`: builds, then hands over to the crate `bench`, which measures ours and a peer in turn.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{dist, machine, paths, peers, program, reference};

/// Runs the benchmark; `--peer DIR` names another containerd than the reference (or Debian's, where that was not built),
/// other words name rows.
pub fn run(flags: &[String]) -> Result<ExitCode> {
    machine::require_containers()?;
    let (peer, rows) = match flags.split_first() {
        Some((flag, rest)) if flag == "--peer" => {
            let (dir, rows) = rest.split_first().context("--peer needs a directory")?;
            (Some(PathBuf::from(dir)), rows)
        }
        _ => (None, flags),
    };
    if let Some(word) = rows.iter().find(|word| word.starts_with('-')) {
        bail!("unknown flag {word}");
    }
    let debian = peers::fetch()?;
    // Today's containerd, where it was built.
    let reference = reference::built(reference::Set::Containerd);
    let peer = peer.or(reference).unwrap_or_else(|| debian.bin());
    let dist = dist::build()?;
    let mut bench =
        program::cargo(&["run", "--release", "--locked", "--quiet", "--package", "containerd-bench", "--"]);
    bench.arg("--ours").arg(dist).arg("--peer").arg(std::path::absolute(peer)?);
    bench.arg("--json").arg(paths::target().join("bench.json")).args(rows);
    bench.env("BUSYBOX", debian.busybox());
    match peers::fetch_cni() {
        Ok(cni) => drop(bench.env("CNI_DIR", cni)),
        Err(error) => eprintln!("SKIPPED: rows of CRI: there are no CNI plugins: {error:#}"),
    }
    if !machine::has_program("runc") {
        bench.env("RUNTIME_DIR", debian.sbin());
    }
    program::run(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
