//! The ledger of what containers leave behind: a row for each thing that belongs to nobody, with what removes it.
//!
//! ```text
//!  zombie   a child of the daemon or of a shim that nobody collects        processes
//!  mount    below a bundle without a shim; temporary ones of a dead daemon places
//!  netns    a bound network namespace below root or state                  places
//!  cgroup   named by a bundle without a shim; empty ones of our names      places
//!  socket   of a shim, and nobody listens                                  files
//!  fifo     of a task that nobody knows, and nobody has it open            files
//!  file     bundles without a shim, work directories without a bundle, temporary files of dead processes   files
//! ```
//!
//! Things come and go while one looks: only what is there at a second look is told. Blobs and snapshots are not here, as
//! the database alone knows whose they are; the daemon looks after them at its start.

mod files;
mod places;
mod processes;

use std::time::Duration;

use runtime::inspect::{Inspected, Inspection};

use crate::config::Config;

use super::report::{Area, Report};
use super::shims::Life;

/// How long what is on its way out may take.
const MOMENT: Duration = Duration::from_millis(500);

/// What is known when the ledger is read.
pub struct Scene<'a> {
    /// Where things are.
    pub config: &'a Config,
    /// The bundles.
    pub inspection: &'a Inspection,
    /// How it is with the shim of each.
    pub shims: &'a [Life],
    /// The daemon, if one runs.
    pub daemon: Option<u32>,
}

/// Something that belongs to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    kind: &'static str,
    message: String,
    command: String,
}

impl Row {
    fn new(kind: &'static str, message: impl Into<String>, command: impl Into<String>) -> Self {
        Self { kind, message: message.into(), command: command.into() }
    }
}

impl Scene<'_> {
    /// Bundles whose shim is gone.
    fn dead(&self) -> impl Iterator<Item = &Inspected> {
        self.with_life(|life| *life == Life::Gone)
    }

    /// Bundles that somebody looks after.
    fn alive(&self) -> impl Iterator<Item = &Inspected> {
        self.with_life(|life| *life != Life::Gone)
    }

    fn with_life(&self, wanted: impl Fn(&Life) -> bool) -> impl Iterator<Item = &Inspected> {
        let all = self.inspection.bundles.iter().zip(self.shims);
        all.filter(move |(_, life)| wanted(life)).map(|(bundle, _)| bundle)
    }

    fn rows(&self) -> Vec<Row> {
        // Where they cannot be seen there are none.
        let running = sys::shims::running().unwrap_or_default();
        let mut rows = processes::zombies(self, &running);
        rows.extend(places::mounts(self));
        rows.extend(places::cgroups(self, &running));
        rows.extend(files::sockets(self));
        rows.extend(files::fifos(self, &running));
        rows.extend(files::files(self));
        rows
    }
}

/// Reads the ledger, twice if there is anything in it.
pub async fn look(scene: &Scene<'_>, report: &mut Report) {
    let mut rows = scene.rows();
    if !rows.is_empty() {
        tokio::time::sleep(MOMENT).await;
        let again = scene.rows();
        rows.retain(|row| again.contains(row));
    }
    if rows.is_empty() {
        report.ok(Area::Ledger, "nothing is left behind");
    }
    for Row { kind, message, command } in rows {
        report.left(kind, format!("{kind}: {message}"), command);
    }
}
