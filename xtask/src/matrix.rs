//! `matrix`: the black-box suite of tasks with every daemon, every shim and every runtime.
//!
//! ```text
//!   daemon    ours     Debian's 1.6      2.3 (where Go is)      with the client beside it
//!   shim      ours     the daemon's own; beside our daemon that of 2.3, or else Debian's
//!   runtime   runc     crun
//! ```
//!
//! A cell is named `daemon/shim/runtime`, and prints its own `N passed, N failed`. `--short` takes ten tests and one cell
//! for each daemon, shim and runtime; words choose cells that contain them. With `--guest` each cell is a virtual machine
//! with Debian's kernel, cgroup v2 and AppArmor.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::peers::Peers;
use crate::suites::{Side, black_box_as_one, build_tests, environment};
use crate::tally::Tally;
use crate::{dist, guest, machine, paths, peers, reference};

/// The modules of the suite that are about tasks.
const MODULES: [&str; 7] = ["control::", "events::", "exec::", "exit::", "pipes::", "run::", "terminal::"];

/// What a cell has to do in any case.
const TEN: [&str; 10] = [
    "control::a_paused_container_stands_still_and_then_goes_on",
    "control::figures_and_limits_are_those_of_the_cgroup",
    "control::memory_that_ran_out_is_told_before_the_exit",
    "events::the_life_of_a_container_is_told_in_order",
    "exec::a_second_process_has_its_own_output_and_exit_code",
    "exec::a_second_process_reads_standard_input_to_its_end",
    "exit::a_missing_program_is_named_and_leaves_nothing",
    "exit::a_process_that_a_signal_ended_counts_from_128",
    "exit::the_callers_exit_code_is_the_containers",
    "run::the_process_reads_the_callers_standard_input_to_its_end",
];

/// Each daemon, shim and runtime once.
const DIAGONAL: [&str; 4] = ["ours/ours/crun", "1.6/ours/runc", "2.3/ours/runc", "ours/theirs/runc"];

/// Of a cell in the guest, in seconds.
const TIMEOUT: u32 = 3600;

/// A daemon with its client, and a shim.
struct Cell {
    name: String,
    daemon: PathBuf,
    shims: PathBuf,
    runtime: Runtime,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Runtime {
    Runc,
    Crun,
}

/// Runs the cells that the arguments choose.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    machine::require_containers()?;
    let (flags, words): (Vec<_>, Vec<_>) = arguments.iter().partition(|word| word.starts_with('-'));
    if flags.iter().any(|flag| !["--short", "--guest"].contains(&flag.as_str())) {
        bail!("usage: ./x matrix [--short] [--guest] [WORD...]");
    }
    let [short, in_guest] = ["--short", "--guest"].map(|name| flags.iter().any(|flag| *flag == name));
    if in_guest && let Some(why) = guest::unbootable() {
        println!("NOT RUN: the guest: {why}");
        println!("0 passed, 0 failed");
        return Ok(ExitCode::SUCCESS);
    }
    let peers = peers::fetch()?;
    let dist = dist::build()?;
    let programs = build_tests()?;
    let Some(test) = programs.iter().find(|test| test.is_called("blackbox")) else {
        bail!("cargo built no black-box suite");
    };
    let chosen = |name: &str| {
        let wanted = words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
        wanted && (!short || !words.is_empty() || DIAGONAL.contains(&name))
    };
    let cells: Vec<Cell> = cells(&dist, &peers).into_iter().filter(|cell| chosen(&cell.name)).collect();
    let crun = if cells.iter().any(|cell| cell.runtime == Runtime::Crun) {
        Some(peers::fetch_crun()?)
    } else {
        None
    };
    let mut flags: Vec<&str> = if short { TEN.to_vec() } else { MODULES.to_vec() };
    flags.extend(short.then_some("--exact"));
    let mut tally = Tally::default();
    for cell in cells {
        let mut side = cell.side(&peers, crun.as_deref());
        if in_guest {
            side = side.in_guest(&paths::target().join("guest"), TIMEOUT, "apparmor")?;
        }
        black_box_as_one(&mut tally, test, side, &flags)?;
    }
    Ok(tally.finish())
}

fn cells(dist: &Path, peers: &Peers) -> Vec<Cell> {
    let today = reference::built(reference::Set::Containerd);
    if today.is_none() {
        eprintln!("SKIPPED: nothing is tried with containerd 2.3; `./x reference` builds it where Go is");
    }
    let theirs = today.clone().unwrap_or_else(|| peers.bin());
    let mut daemons = vec![("ours", dist.to_owned(), theirs), ("1.6", peers.bin(), peers.bin())];
    daemons.extend(today.map(|dir| ("2.3", dir.clone(), dir)));
    let mut cells = Vec::new();
    // crun comes last: what is left in the trees that it needs keeps upstream's shim from finding cgroups.
    for (name, runtime) in [("runc", Runtime::Runc), ("crun", Runtime::Crun)] {
        for (daemon, dir, theirs) in &daemons {
            for (shim, shims) in [("ours", dist), ("theirs", theirs.as_path())] {
                let name = format!("{daemon}/{shim}/{name}");
                cells.push(Cell { name, daemon: dir.join("containerd"), shims: shims.to_owned(), runtime });
            }
        }
    }
    cells
}

impl Cell {
    fn side(&self, peers: &Peers, crun: Option<&Path>) -> Side {
        // What promises more than upstream needs both of ours.
        let suite = if self.name.starts_with("ours/ours") { "ours" } else { "upstream" };
        let mut side =
            Side { name: self.name.clone(), variables: environment(Some(peers)), wrapper: Vec::new() };
        side.variables.extend([
            ("SUITE", PathBuf::from(suite)),
            ("CONTAINERD_BIN", self.daemon.clone()),
            ("CONTAINERD_SHIM_DIR", self.shims.clone()),
        ]);
        if let (Runtime::Crun, Some(crun)) = (self.runtime, crun) {
            // There crun is called runc.
            side.variables.retain(|(name, _)| *name != "RUNTIME_DIR");
            side.variables.push(("RUNTIME_DIR", crun.to_owned()));
            side.wrapper = machine::is_hybrid()
                .then(|| paths::repository().join("tests/hybrid.sh").into())
                .into_iter()
                .collect();
        }
        side
    }
}
