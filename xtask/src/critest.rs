//! `critest`: Kubernetes' own suite for runtimes against our daemon, offline: every image comes from a registry on this machine.
//! The harness is `tests/conformance/critest.sh`; here are its programs and its sum.
//!
//! ```text
//!   suite   all specs; one that containerd 2.3.4 passes must pass        ws      streaming over WebSockets (upstream fails it)
//!   bench   latencies; with `--peer` containerd 2.3.4's beside ours
//! ```
//!
//! In the guest (`./x guest apparmor`, `./x guest critest`) the same runs on cgroup v2 with AppArmor, whose specs are skipped
//! elsewhere: `tests/guest/critest.sh`.

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::reference::{self, Set};
use crate::tally::{Suite, Tally};
use crate::{dist, guest, machine, paths, peers, program};

const USAGE: &str = "usage: ./x critest [suite|ws|bench] [--peer] [ARGUMENT OF critest.sh...]";

/// Where containerd 2.3.4 has its root: neither daemon takes one that the other has used.
const PEER_DIR: &str = "/var/tmp/cri-conformance-peer";

/// Programs that the harness calls, besides those of `reference` and `peers`.
const TOOLS: [(&str, &str); 4] =
    [("python3", "python3"), ("gcc", "gcc libc6-dev"), ("ip", "iproute2"), ("ipcmk", "util-linux")];

/// Builds what is needed and runs it.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    machine::require_containers()?;
    let (mode, rest) = match arguments.split_first() {
        Some((mode, rest)) if ["suite", "ws", "bench"].contains(&mode.as_str()) => (mode.as_str(), rest),
        _ if arguments.iter().any(|word| word == "--help") => bail!(USAGE),
        _ => ("suite", arguments),
    };
    if let Some((_, package)) = TOOLS.iter().find(|(tool, _)| !machine::has_program(tool)) {
        return Ok(not_run(&format!("it needs Debian's {package}")));
    }
    let Some(tools) = reference::built(Set::CriTools) else {
        return Ok(not_run("`./x reference cri-tools` builds it where Go is"));
    };
    let dist = dist::build()?;
    let mut command = harness(&dist, &tools, mode)?;
    command.args(rest.iter().filter(|word| *word != "--peer"));
    if mode == "suite" {
        let expected = expected(&command, Place::Here)?;
        command.arg("--patch-digest").arg("--expect").arg(expected);
    }
    let (output, succeeded) = program::tee(&mut command)?;
    if rest.iter().any(|word| word == "--peer") {
        peer(&tools, mode)?;
    }
    Ok(sum(&output, succeeded))
}

/// The same for containerd 2.3.4, for people to compare.
fn peer(tools: &Path, mode: &str) -> Result<()> {
    let Some(theirs) = reference::built(Set::Containerd) else {
        bail!("`./x reference containerd` builds containerd 2.3.4 where Go is");
    };
    program::tee(harness(&theirs, tools, mode)?.args(["--label", "peer", "--dir", PEER_DIR])).map(drop)
}

/// Where the suite runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Here,
    Guest,
}

/// How long the suite may take in the guest, in seconds.
const GUEST_TIMEOUT: &str = "14400";

/// The suite, or what it has about AppArmor, in the guest that writes into `out`.
pub fn in_guest(tally: &mut Tally, programs: &Path, out: &Path, which: &str) -> Result<()> {
    let started = Instant::now();
    let Some(tools) = reference::built(Set::CriTools) else {
        println!("NOT RUN: guest {which}: `./x reference cri-tools` builds it where Go is");
        return Ok(());
    };
    let harness = harness(programs, &tools, "suite")?;
    fill(programs, &tools, &out.join("critest"))?;
    let mut words = guest::wrapper(out, &["--timeout", GUEST_TIMEOUT])?;
    words.push("env".into());
    for (name, value) in harness.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        let mut word = OsString::from(name);
        word.push("=");
        word.push(value);
        words.push(word);
    }
    words.extend(["bash".into(), paths::repository().join("tests/guest/critest.sh").into()]);
    // What follows the interpreter and the script.
    words.extend(harness.get_args().skip(1).map(OsString::from));
    words.extend(["--patch-digest".into(), "--expect".into(), expected(&harness, Place::Guest)?.into()]);
    if which == "apparmor" {
        words.extend(["--focus".into(), "AppArmor".into()]);
    }
    let (program, arguments) = words.split_first().context("there is a wrapper")?;
    let (output, succeeded) = program::tee(Command::new(program).args(arguments))?;
    let (passed, failed) = counted(&output, succeeded);
    tally.add(Suite { name: format!("guest {which}"), passed, failed }, started.elapsed());
    Ok(())
}

/// Fills a registry in `dir`, which takes the guest too long.
fn fill(programs: &Path, tools: &Path, dir: &Path) -> Result<()> {
    let mark = dir.join("filled");
    if mark.exists() {
        return Ok(());
    }
    // The port is free again when the registry is started.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let mut prepare = harness(programs, tools, "suite")?;
    program::run(prepare.arg("--dir").arg(dir).args(["--port", &port, "prepare"]))?;
    fs::write(&mark, "").with_context(|| format!("write {}", mark.display()))
}

/// What containerd 2.3.4 passes here. Without idmapped mounts (runc before 1.2) pods have no user namespaces, and the suite leaves
/// their specs out. The table is of a machine without AppArmor; in the guest containerd 2.3.4 passes those specs, too.
fn expected(harness: &Command, place: Place) -> Result<PathBuf> {
    let mut features = Command::new("runc");
    features.arg("features").envs(harness.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let told: serde_json::Value = serde_json::from_str(&program::output(&mut features)?)?;
    let has_ids = told["linux"]["mountExtensions"]["idmap"]["enabled"] == true;
    if !has_ids {
        println!(
            "NOT RUN: critest's user namespaces: this machine's runc cannot mount with other ids (it needs 1.2)"
        );
    }
    let text = fs::read_to_string(conformance().join("expected-containerd-2.3.4.tsv"))?;
    let rows = text.lines().filter(|row| has_ids || !row.contains("UserNamespaces"));
    let rows = rows.map(|row| match row.strip_prefix("skipped") {
        Some(rest) if place == Place::Guest && row.contains(" AppArmor ") => format!("passed{rest}\n"),
        _ => format!("{row}\n"),
    });
    let table = paths::target().join("critest-expected.tsv");
    fs::write(&table, rows.collect::<String>())?;
    Ok(table)
}

/// The harness with a daemon and shim of `programs`.
fn harness(programs: &Path, tools: &Path, mode: &str) -> Result<Command> {
    let peers = peers::fetch()?;
    let cni = peers::fetch_cni()?;
    let registry = peers::fetch_registry()?;
    let first =
        [programs.to_owned(), tools.to_owned(), peers.sbin(), registry.join("usr/bin"), cni.join("bin")];
    let mut command = Command::new("bash");
    command
        .arg(conformance().join("critest.sh"))
        .args(["--mode", mode, "--daemon"])
        .arg(programs.join("containerd"));
    command
        .env("PATH", machine::search_path(first))
        .env("CNI_BIN_DIR", cni.join("usr/lib/cni"))
        .stdin(Stdio::null());
    Ok(command)
}

fn conformance() -> PathBuf {
    paths::repository().join("tests/conformance")
}

fn not_run(why: &str) -> ExitCode {
    println!("NOT RUN: critest: {why}");
    println!("0 passed, 0 failed");
    ExitCode::SUCCESS
}

/// The harness's own count as ours. What the daemon has left behind counts as one more that failed.
fn sum(output: &str, succeeded: bool) -> ExitCode {
    let (passed, failed) = counted(output, succeeded);
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn counted(output: &str, succeeded: bool) -> (usize, usize) {
    let specs = last(output, "specs: ");
    let (passed, mut failed) = (before(specs, "passed"), before(specs, "failed"));
    let left = last(output, "left over: ");
    let is_clean = !left.is_empty() && !left.chars().any(|c| ('1'..='9').contains(&c));
    failed += usize::from(!is_clean);
    if !succeeded && failed == 0 {
        failed = 1;
    }
    (passed, failed)
}

/// What follows `start` on the last line that begins so.
fn last<'a>(output: &'a str, start: &str) -> &'a str {
    output.lines().rev().find_map(|line| line.strip_prefix(start)).unwrap_or_default()
}

/// The number before a word.
fn before(line: &str, word: &str) -> usize {
    let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let number = words.iter().position(|found| *found == word).and_then(|at| at.checked_sub(1));
    number.and_then(|at| words[at].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_before_their_words() {
        let output = "specs: 130 in the binary, 117 selected: 107 passed, 1 failed, 9 skipped\nleft over: 0 pods, 10 mounts";
        let specs = last(output, "specs: ");
        assert_eq!((before(specs, "passed"), before(specs, "failed")), (107, 1));
        assert_eq!(before(last(output, "left over: "), "mounts"), 10);
        assert_eq!(before(last(output, "nothing: "), "passed"), 0);
    }
}
