//! `guest`: suites in a virtual machine with Debian 12's own kernel: 6.1, cgroup v2, AppArmor or SELinux enforcing, and a real systemd.
//!
//! ```text
//!   systemd    our unit under systemd: restart with twenty containers, and pods whose groups systemd keeps
//!   crash      the daemon killed at every step, and the runtime's tests with the real shim
//!   blackbox   run, exec, kill, restart, garbage, pods and all else of the black-box suite
//!   selinux    the tests of SELinux, with a policy of their own in force (tests/guest/selinux)
//!   apparmor   Kubernetes' suite for runtimes: its specs of AppArmor
//!   critest    all of Kubernetes' suite
//! ```
//!
//! Nothing there is fast: a processor is emulated where there is no KVM. `matrix --guest` tries other daemons, shims and
//! runtimes in it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::peers::Peers;
use crate::suites::{Side, TestProgram, black_box, build_tests, environment};
use crate::tally::{Suite, Tally, by_module};
use crate::{critest, dist, machine, paths, peers, program};

/// The suites, in the order in which they run.
const SUITES: [&str; 6] = ["systemd", "crash", "blackbox", "selinux", "apparmor", "critest"];
/// What boots a guest, as Debian packages.
const PACKAGES: [&str; 6] = ["qemu-system-x86", "busybox-static", "cpio", "kmod", "debootstrap", "secilc"];
/// The programs of these that are called.
const PROGRAMS: [&str; 6] = ["qemu-system-x86_64", "busybox", "cpio", "modprobe", "debootstrap", "secilc"];
/// How long the black-box suite may take, in seconds.
const TIMEOUT: u32 = 3 * 3600;

/// How many times slower the guest may be than other machines, for those that wait for something there.
pub const PATIENCE: &str = "10";

/// Runs the suites that `arguments` name, or all.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    if let Some(word) = arguments.iter().find(|word| !SUITES.contains(&word.as_str())) {
        bail!("there is no guest suite {word}: {}", SUITES.join(", "));
    }
    install_missing()?;
    let peers = peers::fetch()?;
    let dist = dist::build()?;
    let out = paths::target().join("guest");
    let programs = build_tests()?;
    let mut tally = Tally::default();
    for suite in
        SUITES.into_iter().filter(|suite| arguments.is_empty() || arguments.iter().any(|a| a == suite))
    {
        let named = |name: &str| {
            programs.iter().find(|test| test.is_called(name)).context("cargo built no such test")
        };
        let side = |lsm| Side::ours(&dist, environment(Some(&peers))).in_guest(&out, TIMEOUT, lsm);
        match suite {
            "systemd" => systemd(&mut tally, &dist, &peers, named("systemd")?)?,
            "crash" => {
                black_box(&mut tally, named("kill_points")?, side("apparmor")?, &["--test-threads=2"])?
            }
            "blackbox" => {
                black_box(&mut tally, named("blackbox")?, side("apparmor")?, &["--test-threads=2"])?
            }
            "selinux" => {
                let mut side = side("selinux")?;
                side.variables.push(("TEST_SELINUX", "1".into()));
                black_box(&mut tally, named("blackbox")?, side, &["--test-threads=2", "pod_selinux::"])?;
            }
            _ => critest::in_guest(&mut tally, &dist, &out, suite)?,
        }
    }
    Ok(tally.finish())
}

/// The command line before another that runs that in the guest, which writes into `out`, sees the checkout where it is, and
/// has these options of `tests/guest/guest.sh`.
pub fn wrapper(out: &Path, options: &[&str]) -> Result<Vec<OsString>> {
    let mut cache = OsString::from("GUEST_CACHE=");
    cache.push(paths::cache().join("guest-kernel"));
    let mut words: Vec<OsString> = vec!["env".into(), cache, script().into()];
    words.extend(["--show".into(), paths::repository().into(), "--out".into(), out.into()]);
    words.extend(["--apparmor".into(), peers::fetch_apparmor()?.into()]);
    words.extend(options.iter().map(OsString::from));
    words.push("--".into());
    Ok(words)
}

fn script() -> PathBuf {
    paths::repository().join("tests/guest/guest.sh")
}

/// The test of systemd, in a tree that has one. It sees nothing of this machine but what lies in `/out`.
fn systemd(tally: &mut Tally, dist: &Path, peers: &Peers, test: &TestProgram) -> Result<()> {
    let started = Instant::now();
    let out = paths::target().join("guest");
    let bin = out.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
    for name in ["containerd", "ctr", "containerd-shim-runc-v2"] {
        copy(&dist.join(name), &bin.join(name))?;
    }
    copy(&test.path, &bin.join("systemd"))?;
    copy(&peers.sbin().join("runc"), &bin.join("runc"))?;
    copy(&peers.busybox(), &bin.join("busybox"))?;
    copy(&paths::repository().join("dist/containerd.service"), &bin.join("containerd.service"))?;
    let (plugins, from) = (out.join("cni/usr/lib/cni"), peers::fetch_cni()?.join("usr/lib/cni"));
    fs::create_dir_all(&plugins).with_context(|| format!("create {}", plugins.display()))?;
    for name in ["bridge", "host-local", "loopback"] {
        copy(&from.join(name), &plugins.join(name))?;
    }
    // Roots of daemons are below /tmp, and no overlay can lie on the guest's own.
    let command = "export SUITE=ours BUSYBOX=/out/bin/busybox RUNTIME_DIR=/out/bin CONTAINERD_BIN=/out/bin/containerd \
                   CONTAINERD_SHIM_DIR=/out/bin CNI_DIR=/out/cni TEST_SYSTEMD=/out/bin TEST_PATIENCE=10; \
                   mount -t tmpfs tmpfs /tmp && cd /tmp && /out/bin/systemd --test-threads 2";
    let root = systemd_root()?;
    let mut guest = Command::new(script());
    guest.env("GUEST_CACHE", paths::cache().join("guest-kernel"));
    guest.arg("--systemd").arg("--root").arg(root).arg("--out").arg(&out).args(["--", "bash", "-c", command]);
    let (output, success) = program::tee(&mut guest)?;
    let mut suites = by_module("guest systemd: ", &output);
    if !success && suites.iter().all(|suite| suite.failed == 0) {
        suites.push(Suite { name: "guest systemd: crashed".into(), passed: 0, failed: 1 });
    }
    for suite in suites {
        tally.add(suite, started.elapsed());
    }
    Ok(())
}

/// Copies a program.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A Debian 12 with systemd and nothing else, made once.
fn systemd_root() -> Result<PathBuf> {
    let root = paths::cache().join("guest-debian");
    if root.join("lib/systemd/systemd").exists() {
        return Ok(root);
    }
    let new = paths::cache().join("guest-debian.new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("remove {}", new.display()))?;
    }
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args([
        "--variant=minbase",
        "--include=systemd,systemd-sysv,dbus,kmod,iproute2,apparmor",
        "bookworm",
    ]);
    program::run(debootstrap.arg(&new))?;
    fs::rename(&new, &root).with_context(|| format!("replace {}", root.display()))?;
    Ok(root)
}

/// Why no guest can be booted here, after all that can be installed is.
pub fn unbootable() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("its processor is x86_64".into());
    }
    let mut fetch = Command::new(script());
    fetch.arg("--fetch").env("GUEST_CACHE", paths::cache().join("guest-kernel"));
    let ready = install_missing().and_then(|()| program::run(&mut fetch));
    ready.err().map(|error| format!("{error:#}"))
}

/// Installs what boots a guest; none of it starts a service.
pub fn install_missing() -> Result<()> {
    machine::require_containers()?;
    if PROGRAMS.into_iter().all(machine::has_program) {
        return Ok(());
    }
    eprintln!("installing {}", PACKAGES.join(" "));
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args(["install", "-y", "-q", "--no-install-recommends"]).args(PACKAGES);
        program::run(&mut apt)
    };
    install().or_else(|_| peers::refresh().and_then(|()| install()))
}
