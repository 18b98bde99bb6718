//! The project's own commands. `./x NAME` installs what is missing and calls `cargo xtask NAME`.
//!
//! ```text
//!   quickstart   build, then show a container run and survive a crash of its daemon
//!   test         every test that needs no Go: the crates' own, and the black-box suite against ours and Debian's
//!   build        release binaries in target/dist: containerd, ctr, the static containerd-shim-runc-v2
//!   dist-docs    completions and manual pages of the client, in target/dist/share
//!   check        what CI does: test, then check-static
//!   check-static formatting, lints, layering, documentation
//!   deps         who uses whom, compared with the law in deps/law.rs
//!   bench        side by side with containerd; `--peer DIR` for another than Debian's
//!   guest        suites in a virtual machine: kernel 6.1, cgroup v2, AppArmor or SELinux, systemd; `systemd`, `crash`,
//!                `blackbox`, `selinux` (its tests), `apparmor` (its specs of critest), `critest`
//!   power-cut    a pull whose machine loses power, and what is left of it; `--cuts N`, `--peer DIR`, `--undurable`
//!   interrupt    pulls that are interrupted at random, and what the next ones make of it; `--cuts N`, `--seed N`
//!   reference    today's containerd, CRI tools and CNI plugins in Go, built into .cache/reference; `--print` only says where
//!   peers        Debian's programs that tests use, fetched into .cache: containerd, runc, crun, busybox, dockerd, CRIU
//!   matrix       the suite of tasks with every daemon, shim and runtime; `--short` for ten tests and one cell of each,
//!                `--guest` for cells in that virtual machine
//!   soak         an hour of random operations while the daemon is killed every minute; `--minutes N`, `--kill-every S`,
//!                `--seed N`, `--points`; `leaks`: a thousand containers, a hundred pods, and what they leave; `pods`: the pods
//! ```

#![forbid(unsafe_code)]

mod benches;
mod check;
mod chroot;
mod critest;
mod cross;
mod deps;
mod dist;
mod docs;
mod guest;
mod interrupt;
mod kubelet;
mod machine;
mod map;
mod matrix;
mod paths;
mod peers;
mod power_cut;
mod program;
mod quickstart;
mod reference;
mod soak;
mod suites;
mod tally;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "usage: ./x quickstart | test | build | dist-docs | check | check-static | deps | bench [--peer DIR] [ROW...] | critest [suite|ws|bench] [--peer] | kubelet [--peer] [WORD...] | guest [SUITE...] | power-cut [--cuts N] | interrupt [--cuts N] [--seed N] | soak | peers | reference | matrix [--short] [--guest] [CELL...]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = arguments.split_first() else { bail!("{USAGE}") };
    if matches!(
        command.as_str(),
        "quickstart" | "test" | "check" | "bench" | "critest" | "kubelet" | "soak" | "interrupt" | "matrix"
    ) && let Some(code) = chroot::make_it_a_root()?
    {
        return Ok(code);
    }
    match (command.as_str(), rest) {
        ("quickstart", []) => quickstart::run(),
        ("test", []) => suites::run(),
        ("build", []) => dist::build().map(|_| ExitCode::SUCCESS),
        ("dist-docs", []) => docs::build().map(|_| ExitCode::SUCCESS),
        ("check", []) => check::run(),
        ("check-static", []) => check::without_containers(),
        ("deps", []) => deps::run(),
        ("bench", flags) => benches::run(flags),
        ("guest", suites) => guest::run(suites),
        ("power-cut", flags) => power_cut::run(flags),
        ("interrupt", flags) => interrupt::run(flags),
        ("reference", words) => reference::run(words),
        ("critest", words) => critest::run(words),
        ("kubelet", words) => kubelet::run(words),
        ("peers", []) => peers::run(),
        ("matrix", words) => matrix::run(words),
        ("soak", flags) => soak::run(flags),
        ("help" | "--help" | "-h", _) => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("{USAGE}"),
    }
}
