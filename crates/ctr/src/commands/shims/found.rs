//! Shims as `/proc` shows them: by their command lines, whoever started them.

use std::collections::HashMap;
use std::time::Duration;

use types::{Result, ResultExt};

use crate::commands::shim::connection::Connection;

/// The flag of `/proc/net/unix` for a socket that is listened on.
const LISTENS: &str = "00010000";

/// A shim's process.
#[derive(Clone, Debug)]
pub struct Found {
    /// Of the container that it was started for.
    pub namespace: String,
    /// Of the container that it was started for.
    pub id: String,
    /// Its number.
    pub pid: u32,
    /// Where it listens.
    sockets: Vec<String>,
}

/// The shims of the daemon at `address`, or of all daemons, by namespace and id.
pub fn all(address: Option<&str>) -> Result<Vec<Found>> {
    let listening = listening()?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context(|| "read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some((namespace, id, of)) =
            std::fs::read(entry.path().join("cmdline")).ok().and_then(|line| words(&line))
        else {
            continue;
        };
        if address.is_some_and(|address| address != of) {
            continue;
        }
        let sockets = sockets(pid, &listening);
        // A fork of a shim that has its name and not its socket is none.
        if !sockets.is_empty() {
            found.push(Found { namespace, id, pid, sockets });
        }
    }
    // A fork has its shim's descriptors for a moment, too.
    let pids: Vec<u32> = found.iter().map(|shim| shim.pid).collect();
    found.retain(|shim| parent(shim.pid).is_none_or(|parent| !pids.contains(&parent)));
    found.sort_by(|a, b| (&a.namespace, &a.id).cmp(&(&b.namespace, &b.id)));
    Ok(found)
}

/// Whose child a process is.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it, in parentheses, may have any character.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Namespace, id and daemon of a shim's command line.
fn words(line: &[u8]) -> Option<(String, String, String)> {
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    words.first().filter(|name| name.contains("containerd-shim"))?;
    let value = |flag: &str| {
        let place =
            words.iter().position(|word| word.starts_with('-') && word.trim_start_matches('-') == flag)?;
        words.get(place + 1).map(|word| word.clone().into_owned())
    };
    Some((value("namespace")?, value("id")?, value("address")?))
}

/// The paths of sockets that somebody listens on, by inode.
fn listening() -> Result<HashMap<String, String>> {
    let text = std::fs::read_to_string("/proc/net/unix").context(|| "read /proc/net/unix")?;
    let line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields.get(3) == Some(&LISTENS)).then_some(())?;
        Some((fields.get(6)?.to_string(), fields.get(7)?.to_string()))
    };
    Ok(text.lines().filter_map(line).collect())
}

fn sockets(pid: u32, listening: &HashMap<String, String>) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inode = |link: &std::path::Path| {
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
    };
    let mut paths: Vec<_> =
        links.filter_map(|link| listening.get(&inode(&link)?)).map(|path| path.replace('@', "\0")).collect();
    paths.sort();
    paths.dedup();
    paths
}

impl Found {
    /// Speaks to it; each call has `limit`.
    pub fn connect(&self, limit: Duration) -> Result<Connection> {
        // Upstream's shim listens for a debugger, too: its main socket has a name of 64 letters.
        let (main, rest): (Vec<_>, Vec<_>) = self
            .sockets
            .iter()
            .cloned()
            .partition(|path| path.rsplit('/').next().is_some_and(|n| n.len() == 64));
        let connection = Connection::open(&[main, rest].concat(), &self.namespace)?;
        connection.limit(limit)?;
        Ok(connection)
    }

    /// The file that it was started from; another may have taken its name.
    pub fn binary(&self) -> String {
        let link = std::fs::read_link(format!("/proc/{}/exe", self.pid)).unwrap_or_default();
        let text = link.to_string_lossy().into_owned();
        text.strip_suffix(" (deleted)").map_or(text.clone(), str::to_owned)
    }

    /// Proportional and private memory, in kilobytes.
    pub fn memory(&self) -> (u64, u64) {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap_or_default();
        let of = |key: &str| -> u64 {
            let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB"));
            lines.filter_map(|number| number.trim().parse::<u64>().ok()).sum()
        };
        (of("Pss:"), of("Private_Clean:") + of("Private_Dirty:"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_known_by_its_command_line() {
        let line = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0ns\0-id\0c1\0-address\0/run/c.sock\0";
        assert_eq!(words(line), Some(("ns".into(), "c1".into(), "/run/c.sock".into())));
        for other in [
            &b"containerd-shim-runc-v2\0-namespace\0ns\0"[..],
            b"sleep\0-namespace\0n\0-id\0x\0-address\0a\0",
            b"",
        ] {
            assert_eq!(words(other), None);
        }
    }
}
