//! The built-in pause: the sandbox of a pod whose first process is the shim's own program. No image, no pull, no snapshot.
//!
//! ```text
//!  <state>/io.containerd-rs.pause/rootfs/      0755, one for all pods, read-only in each of them
//!      pause                                   empty; the program is mounted here
//!      dev/ proc/ sys/ etc/ etc/resolv.conf    empty; for the mounts of a pod
//! ```
//!
//! A sandbox's specification is as with an image, but for these (JSON of the runtime specification):
//!
//! ```json
//! { "root":    { "path": "<Pause::rootfs>", "readonly": true },
//!   "process": { "args": ["/pause"], "cwd": "/", "noNewPrivileges": true,
//!                "user": { "uid": 65535, "gid": 65535 }, "capabilities": {} },
//!   "mounts":  [ { "destination": "/pause", "type": "bind", "source": "<Pause::program>",
//!                  "options": ["bind", "ro", "nosuid", "nodev"] } ] }
//! ```
//!
//! and Create gets no mounts for the root filesystem. The container cannot write the program that it executes, by whichever
//! way it reaches it (`/pause`, `/proc/1/exe`): the mount is read-only, and the file is in use (CVE-2019-5736). A program that is
//! replaced by a rename, as packages do it, goes on to be what running pods execute.

use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use types::mount::Mount;
use types::{Class, Error, Result, ResultExt};

use crate::launch;
use crate::runtime::{Runtime, blocking};

/// How long a program may take to say that it can pause.
const WORD: Duration = Duration::from_secs(5);
/// Below the daemon's state directory.
const DIRECTORY: &str = "io.containerd-rs.pause";

/// What a sandbox without an image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The program, a shim of this project.
    pub program: PathBuf,
    /// The root filesystem.
    pub rootfs: PathBuf,
}

/// A program that was asked, as long as it is the same.
#[derive(Debug)]
pub(crate) struct Asked {
    file: (u64, u64, i64, i64),
    pause: Pause,
}

impl Pause {
    /// Where the program is in the container.
    pub const PATH: &'static str = "/pause";

    /// What the container executes.
    pub fn args() -> Vec<String> {
        vec![Self::PATH.to_owned()]
    }

    /// The mount of the program, for the runtime specification.
    pub fn mount(&self) -> Mount {
        let options = ["bind", "ro", "nosuid", "nodev"].map(str::to_owned).to_vec();
        let source = self.program.to_string_lossy().into_owned();
        Mount { kind: "bind".to_owned(), source, target: Self::PATH.to_owned(), options }
    }
}

impl Runtime {
    /// What a sandbox without an image is made of: the shim beside the daemon, else the one that `io.containerd.runc.v2` means, if
    /// that is one of this project. Its root filesystem is made if it is not there.
    pub async fn builtin_pause(&self) -> Result<Pause> {
        let daemon = &self.inner.launcher.binary;
        let beside =
            daemon.parent().map(|dir| dir.join("containerd-shim-runc-v2")).filter(|path| path.is_file());
        let resolved = crate::binary::resolve("io.containerd.runc.v2", daemon).ok();
        let mut last = Error::new(Class::NotFound, "no shim of this project is installed: not found");
        for program in beside.into_iter().chain(resolved) {
            match self.pause_of(program).await {
                Ok(pause) => return Ok(pause),
                Err(error) => last = error,
            }
        }
        Err(last.context("built-in pause"))
    }

    async fn pause_of(&self, program: PathBuf) -> Result<Pause> {
        let program = program.canonicalize().context(|| format!("find {}", program.display()))?;
        let about = program.metadata().context(|| format!("stat {}", program.display()))?;
        let file = (about.dev(), about.ino(), about.mtime(), about.mtime_nsec());
        let mut asked = self.inner.pause.lock().await;
        if let Some(asked) = asked.as_ref().filter(|a| a.file == file && a.pause.program == program)
            && asked.pause.rootfs.join("pause").exists()
        {
            return Ok(asked.pause.clone());
        }
        let mut command = Command::new(&program);
        command.args(["pause", "-v"]).process_group(0).kill_on_drop(true);
        let said = launch::run(command, &[], WORD).await?;
        if !said.status.success() || !said.stdout.starts_with(b"pause ") {
            let said = String::from_utf8_lossy(&said.stderr);
            let why = format!("{} cannot pause in a container: {}", program.display(), said.trim());
            return Err(Error::new(Class::NotFound, format!("{why}: not found")));
        }
        let state = self.inner.layout.state.parent().map(Path::to_owned).unwrap_or_default();
        let rootfs = blocking(move || make_rootfs(&state)).await?;
        let pause = Pause { program, rootfs };
        *asked = Some(Asked { file, pause: pause.clone() });
        Ok(pause)
    }
}

/// Makes the root filesystem of all sandboxes, as far as it is not there.
fn make_rootfs(state: &Path) -> Result<PathBuf> {
    let directory = state.join(DIRECTORY);
    let rootfs = directory.join("rootfs");
    let make = |path: &Path, mode: u32| {
        // Read by who is root in a user namespace, and nobody on the host.
        std::fs::create_dir_all(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    };
    make(&directory, 0o711).context(|| format!("create {directory:?}"))?;
    for path in
        [rootfs.clone()].into_iter().chain(["dev", "proc", "sys", "etc"].map(|name| rootfs.join(name)))
    {
        make(&path, 0o755).context(|| format!("create {path:?}"))?;
    }
    for path in [rootfs.join("pause"), rootfs.join("etc/resolv.conf")] {
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o444).open(&path);
        file.context(|| format!("create {path:?}"))?;
    }
    Ok(rootfs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_filesystem_is_made_once_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = make_rootfs(dir.path()).unwrap();
        std::fs::remove_dir(rootfs.join("proc")).unwrap();
        assert_eq!(make_rootfs(dir.path()).unwrap(), rootfs);
        for name in ["dev", "proc", "sys", "etc/resolv.conf", "pause"] {
            assert!(rootfs.join(name).exists(), "{name}");
        }
        assert_eq!(rootfs.join("pause").metadata().unwrap().len(), 0);
    }

    #[test]
    fn the_program_is_mounted_so_that_it_cannot_be_written() {
        let pause = Pause { program: "/usr/bin/shim".into(), rootfs: "/r".into() };
        let mount = pause.mount();
        assert_eq!((mount.source.as_str(), mount.target.as_str()), ("/usr/bin/shim", "/pause"));
        assert!(["ro", "nosuid", "nodev"].iter().all(|option| mount.options.iter().any(|o| o == option)));
    }
}
