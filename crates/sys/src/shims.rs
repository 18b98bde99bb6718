//! The shims of this machine as `/proc` shows them: by their command lines, whoever started them, and the sockets that they listen on.

use std::collections::HashMap;
use std::path::Path;

use types::{Result, ResultExt};

use crate::process;

/// The flag of `/proc/net/unix` for a socket that is listened on.
const LISTENS: &str = "00010000";

/// A shim's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shim {
    /// Its number.
    pub pid: u32,
    /// Of the container that it was started for.
    pub namespace: String,
    /// Of the container that it was started for.
    pub id: String,
    /// Its daemon's.
    pub address: String,
    /// Where it listens, first where it serves: a shim opens the socket for debuggers after its own. A leading NUL makes an abstract one.
    pub sockets: Vec<String>,
}

/// All of them, by namespace and id. A fork of a shim, which has its command line and for a moment its descriptors, is none.
pub fn running() -> Result<Vec<Shim>> {
    let listening = listening()?;
    let mut shims: Vec<Shim> = process::all()?
        .filter_map(|pid| shim(pid, &listening))
        .filter(|shim| !shim.sockets.is_empty())
        .collect();
    let pids: Vec<u32> = shims.iter().map(|shim| shim.pid).collect();
    shims.retain(|shim| parent(shim.pid).is_none_or(|parent| !pids.contains(&parent)));
    shims.sort_by(|a, b| (&a.namespace, &a.id).cmp(&(&b.namespace, &b.id)));
    Ok(shims)
}

fn shim(pid: u32, listening: &HashMap<String, String>) -> Option<Shim> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let (namespace, id, address) = words(&line)?;
    Some(Shim { pid, namespace, id, address, sockets: sockets(pid, listening) })
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

/// Whose child a process is.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it, in parentheses, may have any character.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
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
    let inode = |link: &Path| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned);
    let socket = |entry: std::fs::DirEntry| {
        let descriptor: u32 = entry.file_name().to_str()?.parse().ok()?;
        let path = listening.get(&inode(&std::fs::read_link(entry.path()).ok()?)?)?;
        let path = path.strip_prefix('@').map_or(path.clone(), |name| format!("\0{name}"));
        Some((descriptor, path))
    };
    let mut sockets: Vec<_> = entries.filter_map(socket).collect();
    sockets.sort();
    sockets.dedup_by(|a, b| a.1 == b.1);
    sockets.into_iter().map(|(_, path)| path).collect()
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

    #[test]
    fn sockets_that_a_process_listens_on_are_found_in_the_order_of_their_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["z", "a"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
        let mut listeners = [0, 1].map(|n: usize| {
            let listener = std::os::unix::net::UnixListener::bind(&paths[n]).unwrap();
            (std::os::fd::AsRawFd::as_raw_fd(&listener), listener, paths[n].clone())
        });
        // Other tests of this process close descriptors meanwhile: the second one's may be the smaller.
        listeners.sort_by_key(|(descriptor, ..)| *descriptor);
        let paths = listeners.each_ref().map(|(_, _, path)| path.clone());
        let found = sockets(std::process::id(), &listening().unwrap());
        let ours: Vec<_> = found.into_iter().filter(|path| paths.contains(path)).collect();
        assert_eq!(ours, paths);
        assert!(parent(std::process::id()).is_some());
    }
}
