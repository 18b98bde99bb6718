//! `guest`: suites in a virtual machine with Debian 12's own kernel: 6.1, cgroup v2, AppArmor enforcing, and a real systemd.
//!
//! ```text
//!   blackbox   run, exec, kill, restart, garbage and all else of the black-box suite (about fifteen minutes)
//!   crash      the daemon killed at every step, and the runtime's tests with the real shim
//!   systemd    our unit under systemd: restart with twenty containers
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::peers::Peers;
use crate::suites::build_tests;
use crate::tally::{Suite, Tally, by_module};
use crate::{dist, machine, paths, peers, program, reference};

/// The suites, in the order in which they run.
const SUITES: [&str; 3] = ["systemd", "crash", "blackbox"];
/// What boots a guest, as Debian packages.
const PACKAGES: [&str; 5] = ["qemu-system-x86", "busybox-static", "cpio", "kmod", "debootstrap"];

/// Runs the suites that `arguments` name, or all.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    if let Some(word) = arguments.iter().find(|word| !SUITES.contains(&word.as_str())) {
        bail!("there is no guest suite {word}: {}", SUITES.join(", "));
    }
    install_missing()?;
    let peers = peers::fetch()?;
    let dist = dist::build()?;
    let out = paths::target().join("guest");
    let programs = gather(&dist, &peers, &out)?;
    let mut tally = Tally::default();
    for suite in
        SUITES.into_iter().filter(|suite| arguments.is_empty() || arguments.iter().any(|a| a == suite))
    {
        let started = Instant::now();
        let (output, success) = match suite {
            "systemd" => boot(
                &out,
                &["--systemd", "--root", &systemd_root()?.display().to_string()],
                &programs.systemd,
            )?,
            "crash" => boot(&out, &[], &programs.crash)?,
            _ => boot(&out, &[], &programs.black_box)?,
        };
        let mut suites = by_module(&format!("guest {suite}: "), &output);
        if !success && suites.iter().all(|suite| suite.failed == 0) {
            suites.push(Suite { name: format!("guest {suite}: crashed"), passed: 0, failed: 1 });
        }
        for suite in suites {
            tally.add(suite, started.elapsed());
        }
    }
    Ok(tally.finish())
}

/// The command lines of the suites, as the guest's shell reads them.
struct Programs {
    systemd: String,
    crash: String,
    black_box: String,
}

/// Copies all that the guest needs into the directory that it sees as `/out`.
fn gather(dist: &Path, peers: &Peers, out: &Path) -> Result<Programs> {
    // Tests find debug builds of our programs one directory above their own, as cargo puts them.
    let (bin, tests) = (out.join("bin"), out.join("debug/deps"));
    for dir in [&bin, &tests] {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    for test in build_tests()?.iter() {
        if ["blackbox", "systemd", "kill_points"].contains(&test.target.as_str()) {
            copy(&test.path, &tests.join(&test.target))?;
        }
    }
    for name in ["containerd", "ctr", "containerd-shim-runc-v2"] {
        copy(&dist.join(name), &bin.join(name))?;
        copy(&paths::target().join("debug").join(name), &out.join("debug").join(name))?;
    }
    copy(&peers.sbin().join("runc"), &bin.join("runc"))?;
    copy(&peers.busybox(), &bin.join("busybox"))?;
    copy(&paths::repository().join("dist/containerd.service"), &bin.join("containerd.service"))?;
    // The guest sees this machine's files: today's containerd is where it is here.
    let reference = reference::built(reference::Set::Containerd)
        .map(|dir| format!("export REFERENCE_DIR={}; ", dir.display()))
        .unwrap_or_default();
    let run = |suite: &str| {
        format!(
            "{reference}export SUITE=ours BUSYBOX=/out/bin/busybox RUNTIME_DIR=/out/bin CONTAINERD_BIN=/out/bin/containerd \
             TEST_SYSTEMD=/out/bin; cd /tmp; /out/debug/deps/{suite} --test-threads 2"
        )
    };
    Ok(Programs { systemd: run("systemd"), crash: run("kill_points"), black_box: run("blackbox") })
}

/// Copies a program.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Boots the guest and runs `script` in it; what it printed, and whether it ended well.
fn boot(out: &Path, options: &[&str], script: &str) -> Result<(String, bool)> {
    let mut guest = Command::new(paths::repository().join("tests/guest/guest.sh"));
    guest.env("GUEST_CACHE", paths::cache().join("guest-kernel"));
    guest.args(options).arg("--out").arg(out).args(["--", "bash", "-c", script]);
    program::tee(&mut guest)
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

/// Installs what boots a guest; none of it starts a service.
pub fn install_missing() -> Result<()> {
    machine::require_containers()?;
    if ["qemu-system-x86_64", "busybox", "cpio", "modprobe", "debootstrap"]
        .into_iter()
        .all(machine::has_program)
    {
        return Ok(());
    }
    eprintln!("installing {}", PACKAGES.join(" "));
    let mut apt = Command::new("apt-get");
    apt.args(["install", "-y", "-q", "--no-install-recommends"]).args(PACKAGES);
    program::run(&mut apt)
}
