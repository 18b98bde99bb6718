//! `containerd check`: is this machine fit, is the daemon well, and has anything been left behind? Nothing is changed.
//!
//! ```text
//!  machine   kernel, control groups, LSM, OCI runtime, space      lint      the configuration and what it names
//!  daemon    who holds the state, what is under way               shims     which, of what version, alive?
//!  ledger    what belongs to nobody, and how to remove it         pack      all of it for whoever is asked for help
//! ```
//!
//! Exit 0: nothing to be said. 1: something to be looked at, containers work. 2: something does not work, or will not.
//! The daemon may run, hang or be gone: whatever is asked of it or of a shim has [`PATIENCE`].

mod daemon;
mod ledger;
mod lint;
mod machine;
mod pack;
mod report;
mod shims;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use types::Result;

use crate::cli::Flags;
use crate::config::Config;

use report::{Area, Report};

/// How long a daemon or a shim may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What to print, and where to pack it.
#[derive(Clone, Debug, Default, Args)]
pub struct Check {
    /// Print findings as JSON
    #[arg(long)]
    json: bool,
    /// Pack the findings with configuration (without credentials), recent log and stacks into a new tar.gz file
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// What is there to be looked at besides the findings.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The daemon's last log lines.
    pub log: String,
    /// What it is doing, by its own account.
    pub dump: String,
}

/// Checks, prints, packs. The exit code.
pub async fn run(flags: &Flags, check: &Check) -> Result<u8> {
    let mut report = Report::default();
    let mut evidence = Evidence::default();
    machine::kernel(&mut report);
    machine::cgroups(&mut report);
    machine::security(&mut report);
    match lint::load(flags, &mut report) {
        Some(config) => look(&config, &mut report, &mut evidence).await,
        // Where root and state are stands in the configuration.
        None => report.warning(Area::Daemon, "not looked at: the configuration does not tell where it is"),
    }
    if let Some(path) = &check.bundle {
        pack::pack(path, flags, &report, &evidence)?;
    }
    crate::print(&if check.json { report.json() } else { report.text() })?;
    Ok(report.exit())
}

async fn look(config: &Config, report: &mut Report, evidence: &mut Evidence) {
    machine::selinux(config, report);
    machine::runtime(report);
    machine::space(config, report);
    let daemon = daemon::look(config, report, evidence).await;
    let inspection = match runtime::inspect::inspect(&config.root, &config.state) {
        Ok(inspection) => inspection,
        Err(error) => return report.problem(Area::Ledger, format!("not looked at: {error}")),
    };
    let shims = shims::look(&inspection, report).await;
    let scene = ledger::Scene { config, inspection: &inspection, shims: &shims, daemon };
    ledger::look(&scene, report).await;
}
