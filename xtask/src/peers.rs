//! Debian's containerd, runc and busybox, downloaded and unpacked into `.cache/peers`: nothing is installed, no service
//! is started or replaced.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{machine, paths, program};

const PACKAGES: [&str; 3] = ["containerd", "runc", "busybox-static"];
/// dockerd, its client, and the library that a small installation lacks.
const DOCKER: [&str; 2] = ["docker.io", "libdevmapper1.02.1"];

/// Debian's programs, unpacked below one directory.
#[derive(Clone, Debug)]
pub struct Peers {
    root: PathBuf,
}

impl Peers {
    /// The directory that packages were unpacked into.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where `containerd`, `ctr` and the shims are.
    pub fn bin(&self) -> PathBuf {
        self.root.join("usr/bin")
    }

    /// Where `runc` is.
    pub fn sbin(&self) -> PathBuf {
        self.root.join("usr/sbin")
    }

    /// A statically linked busybox.
    pub fn busybox(&self) -> PathBuf {
        ["bin/busybox", "usr/bin/busybox"]
            .map(|path| self.root.join(path))
            .into_iter()
            .find(|path| path.exists())
            .unwrap_or_else(|| self.root.join("bin/busybox"))
    }
}

/// Takes Debian's programs from the cache, or fetches them first.
pub fn fetch() -> Result<Peers> {
    let peers = Peers { root: paths::cache().join("peers") };
    if peers.bin().join("containerd").exists()
        && peers.sbin().join("runc").exists()
        && peers.busybox().exists()
    {
        return Ok(peers);
    }
    unpack(&PACKAGES, &peers.root)?;
    Ok(peers)
}

/// The same for Debian's dockerd; gives the directory that it was unpacked into.
pub fn fetch_docker() -> Result<PathBuf> {
    let root = paths::cache().join("docker");
    if !root.join("usr/sbin/dockerd").exists() {
        unpack(&DOCKER, &root)?;
    }
    Ok(root)
}

/// Downloads `packages` and unpacks them into `root`, whole or not at all.
fn unpack(packages: &[&str], root: &Path) -> Result<()> {
    if !machine::has_program("apt-get") || !machine::has_program("dpkg-deb") {
        bail!("Debian's packages cannot be fetched: there is no apt-get and dpkg-deb here");
    }
    eprintln!("fetching Debian's {} (unpacked into {}, not installed)", packages.join(", "), root.display());
    let new = root.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("remove {}", new.display()))?;
    }
    fs::create_dir_all(&new).with_context(|| format!("create {}", new.display()))?;
    if download(packages, &new).is_err() {
        update_lists()?;
        download(packages, &new)?;
    }
    for entry in fs::read_dir(&new)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            program::run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&new))?;
            fs::remove_file(&path)?;
        }
    }
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    fs::rename(&new, root).with_context(|| format!("replace {}", root.display()))
}

fn download(packages: &[&str], dir: &Path) -> Result<()> {
    // The unprivileged user of apt cannot write into a checkout; the files are verified all the same.
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(dir);
    program::run(&mut apt)
}

/// Refreshes apt's lists; waits while another program holds their lock.
fn update_lists() -> Result<()> {
    for _ in 0..120 {
        eprintln!("$ apt-get update");
        let done = Command::new("apt-get")
            .args(["-q", "update"])
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .output()
            .context("run apt-get update")?;
        let errors = String::from_utf8_lossy(&done.stderr);
        if done.status.success() {
            return Ok(());
        }
        if !errors.contains("lock") {
            bail!("apt-get update failed: {}", errors.trim());
        }
        eprintln!("another program holds apt's lock; waiting for it");
        sleep(Duration::from_secs(5));
    }
    bail!("apt-get update: another program held the lock for ten minutes")
}
