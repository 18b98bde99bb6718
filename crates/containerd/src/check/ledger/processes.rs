//! Processes: what `/proc` says of them.

use std::collections::HashSet;
use std::path::PathBuf;

use sys::shims::Shim;

use super::{Row, Scene};

/// A process's parent and state.
struct Stat {
    pid: u32,
    name: String,
    state: char,
    parent: u32,
}

/// Children of the daemon and of its shims that have ended and that nobody collects.
pub fn zombies(scene: &Scene<'_>, running: &[Shim]) -> Vec<Row> {
    let address = scene.config.grpc.address.to_string_lossy();
    let shims = running.iter().filter(|shim| shim.address == address).map(|shim| shim.pid);
    let parents: HashSet<u32> = shims.chain(scene.daemon).collect();
    let ended = all().filter_map(stat).filter(|stat| stat.state == 'Z' && parents.contains(&stat.parent));
    ended
        .map(|Stat { pid, name, parent, .. }| {
            let stopped = stat(parent).is_some_and(|parent| matches!(parent.state, 'T' | 't'));
            let (why, signal) =
                if stopped { ("is stopped", "CONT") } else { ("does not collect it", "CHLD") };
            let message = format!("{name} ({pid}) has ended, and process {parent} {why}");
            Row::new("zombie", message, format!("kill -s {signal} {parent}"))
        })
        .collect()
}

fn all() -> impl Iterator<Item = u32> {
    sys::process::all().into_iter().flatten()
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = text.rsplit_once(") ")?;
    let name = before.split_once('(')?.1.to_owned();
    let mut fields = after.split(' ');
    let state = fields.next()?.chars().next()?;
    Some(Stat { pid, name, state, parent: fields.next()?.parse().ok()? })
}

/// What the processes of this machine have open, by path.
pub fn open_files() -> HashSet<PathBuf> {
    all()
        .flat_map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten())
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|path| path.is_absolute())
        .collect()
}
