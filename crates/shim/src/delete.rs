//! `delete`: the shim of a container is gone; whatever it left is removed, and the daemon told how the container ended: as
//! its shim still wrote down, or killed.

use std::io::Write;
use std::path::{Path, PathBuf};

use api::containerd::task::v3::DeleteResponse;
use prost::Message;
use sys::mount::UnmountFlags;
use types::{Result, ResultExt};

use crate::address;
use crate::call::Exit;
use crate::exit_file;
use crate::flags::Flags;
use crate::message::exited_at;
use crate::options;
use crate::runtime::{Runtime, Task};
use crate::spec::Facts;

/// 128 + SIGKILL.
const KILLED: u32 = 137;

/// Performs `delete`. What cannot be removed is told on standard error; the answer comes all the same.
pub fn delete(flags: &Flags) -> Result<()> {
    let cwd = std::env::current_dir().context(|| "working directory")?;
    let bundle = cwd.parent().map_or_else(|| cwd.clone(), |dir| dir.join(&flags.id));
    let options = options::load(&bundle)?;
    let runtime = Runtime::new(options, &flags.namespace, &flags.id, &bundle);
    let warn = |what: &str, error: &dyn std::fmt::Display| {
        eprintln!("level=warning msg=\"{what}\" error=\"{error}\"")
    };
    if let Err(error) = remove(&runtime) {
        warn("failed to remove runc container", &error);
    }
    if let Err(error) = sys::mount::unmount_recursive(&bundle.join("rootfs"), UnmountFlags::empty()) {
        warn("failed to cleanup rootfs mount", &error);
    }
    remove_sockets(flags, &bundle);
    let pid = runtime.read_pid("").unwrap_or_else(|error| {
        warn("failed to read init pid file", &error);
        0
    });
    // It may have ended before its shim.
    let exit = exit_file::load(&bundle).unwrap_or_else(|| Exit::now(KILLED));
    let response = DeleteResponse { pid, exit_status: exit.status, exited_at: exited_at(exit) };
    let mut stdout = std::io::stdout();
    stdout.write_all(&response.encode_to_vec()).and_then(|()| stdout.flush()).context(|| "answer")
}

fn remove(runtime: &Runtime) -> Result<()> {
    let (child, run) = runtime.delete_by_force(Task::Delete)?;
    let ended = child.collect_blocking().context(|| "wait for the runtime")?;
    match run.outcome(ended) {
        Err(failure) if !failure.is_absence() => Err(failure.into_error(&run.task)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A shim that was killed leaves its sockets; one that serves others of its group keeps them.
fn remove_sockets(flags: &Flags, bundle: &Path) {
    let directory =
        std::fs::read_link(bundle.join("s")).unwrap_or_else(|_| PathBuf::from(address::DIRECTORY));
    let group = Facts::read(bundle).ok().and_then(|facts| facts.group).unwrap_or_else(|| flags.id.clone());
    for path in [address::path, address::debug_path] {
        let path = path(&directory, &flags.address, &flags.namespace, &group);
        if path.exists() && !address::is_served(&path) {
            let _ = std::fs::remove_file(path);
        }
    }
}
