//! Sockets, FIFOs and files.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::shims::Shim;

use super::processes::open_files;
use super::{Row, Scene};
use crate::check::report::quoted;

/// Where shims put their sockets unless they are told otherwise.
const SOCKETS: &str = "/run/containerd/s";
/// Where clients make their FIFOs.
const FIFOS: &str = "/run/containerd/fifo";
/// A FIFO that is younger may be about to be used.
const FRESH: Duration = Duration::from_secs(60);

/// Sockets of shims where nobody listens.
pub fn sockets(scene: &Scene<'_>) -> Vec<Row> {
    let dir = match scene.config.shims.socket_dir.as_str() {
        "" => SOCKETS,
        dir => dir,
    };
    let listed = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let bound: HashSet<&str> = listed.lines().filter_map(|line| line.split_whitespace().nth(7)).collect();
    let stale = |path: &PathBuf| {
        let is_socket = path.symlink_metadata().is_ok_and(|m| m.file_type().is_socket());
        is_socket && !bound.contains(&*path.to_string_lossy()) && is_refused(path)
    };
    entries(Path::new(dir))
        .into_iter()
        .filter(stale)
        .map(|path| {
            let message = format!("{} is a shim's, and nobody listens", path.display());
            Row::new("socket", message, format!("rm {}", quoted(&path)))
        })
        .collect()
}

/// Not every socket is listed: one may belong to another network namespace.
fn is_refused(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// FIFOs of clients whose tasks nobody knows any more.
pub fn fifos(scene: &Scene<'_>, running: &[Shim]) -> Vec<Row> {
    let mut candidates: Vec<PathBuf> =
        entries(Path::new(FIFOS)).iter().flat_map(|dir| entries(dir)).collect();
    candidates.retain(|path| {
        let aged =
            |m: &std::fs::Metadata| m.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > FRESH));
        path.symlink_metadata().is_ok_and(|m| m.file_type().is_fifo() && aged(&m))
    });
    if candidates.is_empty() {
        return Vec::new();
    }
    let known: HashSet<String> = scene
        .inspection
        .bundles
        .iter()
        .map(|bundle| bundle.id.clone())
        .chain(running.iter().map(|shim| shim.id.clone()))
        .collect();
    let open = open_files();
    candidates
        .into_iter()
        .filter(|path| !open.contains(path) && !owner(path).is_some_and(|id| known.contains(id)))
        .map(|path| {
            let message = format!("{} belongs to no task, and nobody has it open", path.display());
            Row::new("fifo", message, format!("rm {}", quoted(&path)))
        })
        .collect()
}

/// The id in a FIFO's name.
fn owner(path: &Path) -> Option<&str> {
    let (id, stream) = path.file_name()?.to_str()?.rsplit_once('-')?;
    matches!(stream, "stdin" | "stdout" | "stderr").then_some(id)
}

/// Bundles without a shim, directories without a bundle, and temporary files of processes that are gone.
pub fn files(scene: &Scene<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for bundle in scene.dead() {
        let (path, name) = (quoted(&bundle.path), format!("{}/{}", bundle.namespace, bundle.id));
        let binary = bundle.binary.as_deref().unwrap_or(Path::new("containerd-shim-runc-v2"));
        let address = quoted(&scene.config.grpc.address);
        let work = bundle.path.join("work");
        let work = std::fs::read_link(&work).unwrap_or(work);
        rows.push(Row::new(
            "file",
            format!("{} is the bundle of task {name}, whose shim is gone; the daemon removes it when it starts", bundle.path.display()),
            format!(
                "(cd {path} && {} -namespace {} -address {address} -id {} -bundle {path} delete | base64) && rm -r {path} {}",
                quoted(binary),
                quoted(bundle.namespace.as_str()),
                quoted(&bundle.id),
                quoted(&work)
            ),
        ));
    }
    for path in scene.inspection.leftovers.iter().filter(|path| path.exists()) {
        let message = format!("{} belongs to no task; the daemon removes it when it starts", path.display());
        rows.push(Row::new("file", message, format!("rm -r --one-file-system {}", quoted(path))));
    }
    for dir in [&scene.config.root, &scene.config.state] {
        for path in entries(dir).into_iter().chain(entries(dir).iter().flat_map(|dir| entries(dir))) {
            if let Some(pid) = maker(&path).filter(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                let message = format!("{} was written by process {pid}, which is gone", path.display());
                rows.push(Row::new("file", message, format!("rm {}", quoted(&path))));
            }
        }
    }
    rows
}

/// The process in the name of a temporary file (`.NAME.PID-N.tmp`) or of a dump (`containerd.PID.stacks.log`) of ours.
fn maker(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    if let Some(rest) = name.strip_prefix("containerd.") {
        return rest.strip_suffix(".stacks.log")?.parse().ok();
    }
    let (_, last) = name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?;
    last.split_once('-')?.0.parse().ok()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_whose_they_are() {
        assert_eq!(maker(Path::new("/s/containerd.12.stacks.log")), Some(12));
        assert_eq!(maker(Path::new("/s/.format.34-5.tmp")), Some(34));
        for other in ["/s/containerd.sock", "/s/.x.tmp", "/s/a.34-5.tmp", "/s/containerd.x.stacks.log"] {
            assert_eq!(maker(Path::new(other)), None, "{other}");
        }
        assert_eq!(owner(Path::new("/f/1/c-1-stdout")), Some("c-1"));
        assert_eq!(owner(Path::new("/f/1/c-1-other")), None);
    }

    #[test]
    fn a_socket_without_a_listener_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(!is_refused(&path));
        drop(listener);
        assert!(is_refused(&path));
    }
}
