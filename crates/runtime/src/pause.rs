//! The built-in pause: the sandbox of a pod whose first process is the shim's own program. No image, no pull, no snapshot.
//!
//! ```text
//!  <state>/io.containerd-rs.pause/rootfs/      0755, one for all pods, read-only in each of them
//!      pause                                   empty; the program is mounted here
//!      dev/ proc/ sys/ etc/ etc/resolv.conf    empty; for the mounts of a pod
//!  <state>/io.containerd-rs.pause/labelled/    with SELinux: the same rootfs/, and a copy of the program, pause
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
//!
//! With SELinux a process of a container begins in a file of containers only, and finds only such directories, and
//! `/usr/bin/containerd-shim-runc-v2` is one of the runtime's: a copy of it is mounted instead, in another root filesystem, all with
//! a label that all containers may read ([`Pause::labelled`]).

use std::ffi::CStr;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::XattrFlags;
use tokio::process::Command;
use types::mount::Mount;
use types::{Class, Error, Result, ResultExt};

use crate::launch;
use crate::runtime::{Runtime, blocking};

/// How long a program may take to say that it can pause.
const WORD: Duration = Duration::from_secs(5);
/// Below the daemon's state directory.
const DIRECTORY: &str = "io.containerd-rs.pause";
/// Where a file has its SELinux label.
const LABEL: &CStr = c"security.selinux";

/// What is in the root filesystem: places for mounts.
const CONTENT: [(Kind, &str); 6] = [
    (Kind::Directory, "dev"),
    (Kind::Directory, "proc"),
    (Kind::Directory, "sys"),
    (Kind::Directory, "etc"),
    (Kind::File, "etc/resolv.conf"),
    (Kind::File, "pause"),
];

#[derive(Clone, Copy)]
enum Kind {
    Directory,
    File,
}

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

    /// The same with a copy of the program and of the root filesystem that have an SELinux label; made as far as they are not there,
    /// or are another program's. It blocks.
    pub fn labelled(&self, label: &str) -> Result<Self> {
        /// Of the pods that are made at once one makes the copy.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.rootfs.with_file_name("labelled");
        let (copy, rootfs) = (dir.join("pause"), dir.join("rootfs"));
        make_dir(&dir, 0o711).context(|| format!("create {dir:?}"))?;
        fill_rootfs(&rootfs)?;
        for path in [rootfs.clone()].into_iter().chain(CONTENT.iter().map(|(_, name)| rootfs.join(name))) {
            set_label(&path, label).context(|| format!("label {path:?} with {label:?}"))?;
        }
        if !is_copy(&self.program, &copy, label)? {
            make_copy(&self.program, &copy, label)
                .context(|| format!("copy {:?} to {copy:?} with the label {label:?}", self.program))?;
        }
        Ok(Self { program: copy, rootfs })
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
    // Read by who is root in a user namespace, and nobody on the host.
    make_dir(&directory, 0o711).context(|| format!("create {directory:?}"))?;
    fill_rootfs(&rootfs)?;
    Ok(rootfs)
}

fn fill_rootfs(rootfs: &Path) -> Result<()> {
    make_dir(rootfs, 0o755).context(|| format!("create {rootfs:?}"))?;
    for (kind, name) in CONTENT {
        let path = rootfs.join(name);
        let made = match kind {
            Kind::Directory => make_dir(&path, 0o755),
            Kind::File => {
                let mut options = std::fs::OpenOptions::new();
                options.write(true).create(true).truncate(false).mode(0o444).open(&path).map(drop)
            }
        };
        made.context(|| format!("create {path:?}"))?;
    }
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// A copy has the time of what it was made of.
fn is_copy(program: &Path, copy: &Path, label: &str) -> Result<bool> {
    let about = program.metadata().context(|| format!("stat {program:?}"))?;
    let Ok(of_copy) = copy.metadata() else { return Ok(false) };
    let same = (about.len(), about.mtime(), about.mtime_nsec())
        == (of_copy.len(), of_copy.mtime(), of_copy.mtime_nsec());
    Ok(same && label_of(copy)?.is_some_and(|has| has == label.as_bytes()))
}

/// The SELinux label of a file, without the NUL that the kernel puts behind it.
fn label_of(file: &Path) -> Result<Option<Vec<u8>>> {
    let opened = std::fs::File::open(file).context(|| format!("open {file:?}"))?;
    let label = sys::fs::get_xattr(opened, LABEL)?;
    Ok(label.map(|label| label.strip_suffix(b"\0").map(<[u8]>::to_vec).unwrap_or(label)))
}

fn set_label(path: &Path, label: &str) -> std::io::Result<()> {
    Ok(rustix::fs::lsetxattr(path, LABEL, label.as_bytes(), XattrFlags::empty())?)
}

/// Pods that run go on to execute the copy that was there: it is replaced, not written.
fn make_copy(program: &Path, copy: &Path, label: &str) -> std::io::Result<()> {
    let new = copy.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::copy(program, &new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o555))?;
    std::fs::File::open(&new)?.set_modified(program.metadata()?.modified()?)?;
    set_label(&new, label)?;
    std::fs::rename(&new, copy)
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
    fn a_labelled_copy_is_made_once_for_each_program_and_label() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("shim");
        std::fs::write(&program, "one").unwrap();
        let pause = Pause { program: program.clone(), rootfs: make_rootfs(dir.path()).unwrap() };
        let label = "system_u:object_r:container_file_t:s0";
        if set_label(&program, label).is_err() {
            eprintln!("skipped: no label can be set here");
            return;
        }
        let copy = pause.labelled(label).unwrap();
        let inode = || copy.program.metadata().unwrap().ino();
        let first = inode();
        assert_eq!(std::fs::read_to_string(&copy.program).unwrap(), "one");
        assert_eq!(label_of(&copy.program).unwrap().unwrap(), label.as_bytes());
        assert_eq!((pause.labelled(label).unwrap(), inode()), (copy.clone(), first));
        for path in [copy.rootfs.clone(), copy.rootfs.join("dev"), copy.rootfs.join("etc/resolv.conf")] {
            assert_eq!(label_of(&path).unwrap().unwrap(), label.as_bytes(), "{path:?}");
        }
        assert_ne!(label_of(&pause.rootfs).unwrap().as_deref(), Some(label.as_bytes()));
        std::fs::write(&program, "two").unwrap();
        pause.labelled(label).unwrap();
        assert_eq!(std::fs::read_to_string(&copy.program).unwrap(), "two");
        let second = inode();
        let other = "system_u:object_r:container_ro_file_t:s0";
        pause.labelled(other).unwrap();
        assert_eq!(label_of(&copy.program).unwrap().unwrap(), other.as_bytes());
        assert!(first != second && second != inode(), "the file that pods execute was written");
    }

    #[test]
    fn the_program_is_mounted_so_that_it_cannot_be_written() {
        let pause = Pause { program: "/usr/bin/shim".into(), rootfs: "/r".into() };
        let mount = pause.mount();
        assert_eq!((mount.source.as_str(), mount.target.as_str()), ("/usr/bin/shim", "/pause"));
        assert!(["ro", "nosuid", "nodev"].iter().all(|option| mount.options.iter().any(|o| o == option)));
    }
}
