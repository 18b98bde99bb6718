//! Which programs the suite drives, from the environment.
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `SUITE` | `ours` or `upstream` | `ours` |
//! | `CONTAINERD_BIN` | the daemon | `target/dist/containerd` |
//! | `CTR_BIN` | the client | `ctr` beside the daemon |
//! | `CONTAINERD_SHIM_DIR` | where the shim is | the daemon's directory |
//! | `PEER_DIR` | upstream's `containerd`, `ctr` and shim, for tests that mix | none: those tests say so and pass |
//! | `REFERENCE_DIR` | upstream's 2.3, as `cargo xtask reference` builds it where Go is | none: those tests say so and pass |
//! | `SKOPEO_DIR` | where Debian's skopeo was unpacked, for tests that need another's tool | none: those tests say so and pass |
//! | `REGISTRY_DIR` | where Debian's docker-registry was unpacked | none: those tests say so and pass |
//! | `CNI_DIR` | where Debian's CNI plugins and iptables were unpacked | none: tests of the network say so and pass |
//! | `RUNTIME_DIR` | where `runc` is, if not on PATH | none |
//! | `CRIU_DIR` | where `criu` is | none: nothing is checkpointed |
//! | `TEST_SELINUX` | SELinux must be in force (`./x guest selinux`) | none: tests of it say so and pass where it is not |
//! | `TEST_PATIENCE` | how many times longer than elsewhere things may take | 1 |
//! | `BUSYBOX` | a statically linked busybox | `/bin/busybox` |

use std::env;
use std::path::{Path, PathBuf};

/// One containerd: its daemon, its client, and the directory of its shim.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The daemon.
    pub daemon: PathBuf,
    /// The client.
    pub ctr: PathBuf,
    /// Put first on the daemon's PATH.
    pub shim_dir: PathBuf,
}

/// Whose programs are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// This project's.
    Ours,
    /// containerd written in Go.
    Upstream,
}

/// Whose programs are tested in this run.
pub fn suite() -> Suite {
    match env::var("SUITE").as_deref() {
        Ok("upstream") => Suite::Upstream,
        Ok("ours") | Err(_) => Suite::Ours,
        Ok(other) => panic!("SUITE is {other:?}; it must be ours or upstream"),
    }
}

/// True where upstream's programs are tested: the calling test promises something that they do not.
#[must_use]
pub fn beyond_upstream(promise: &str) -> bool {
    let skip = suite() == Suite::Upstream;
    if skip {
        eprintln!("not run for upstream: {promise}");
    }
    skip
}

/// A command of skopeo; `None`, said aloud, where it is not at hand.
pub fn skopeo(arguments: &[&str]) -> Option<std::process::Command> {
    let Some(dir) = env::var_os("SKOPEO_DIR").map(PathBuf::from) else {
        eprintln!("skipped: SKOPEO_DIR does not name an unpacked skopeo");
        return None;
    };
    let mut command = std::process::Command::new(dir.join("usr/bin/skopeo"));
    let libraries: Vec<PathBuf> = ["usr/lib", "lib"]
        .iter()
        .flat_map(|lib| std::fs::read_dir(dir.join(lib)).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    let libraries = env::join_paths(libraries).unwrap_or_default();
    command.env("LD_LIBRARY_PATH", libraries).arg("--insecure-policy").args(arguments);
    Some(command)
}

/// A command of docker-registry, the distribution's own; `None`, said aloud, where it is not at hand.
pub fn docker_registry(arguments: &[&str]) -> Option<std::process::Command> {
    let Some(dir) = env::var_os("REGISTRY_DIR").map(PathBuf::from) else {
        eprintln!("skipped: REGISTRY_DIR does not name an unpacked docker-registry");
        return None;
    };
    let mut command = std::process::Command::new(dir.join("usr/bin/docker-registry"));
    command.args(arguments);
    Some(command)
}

/// The programs under test.
///
/// # Panics
/// If they are not there, with the command that builds them.
pub fn tested() -> Binaries {
    let daemon = env::var_os("CONTAINERD_BIN").map_or_else(default_daemon, PathBuf::from);
    let dir = daemon.parent().unwrap_or(Path::new("/")).to_path_buf();
    let ctr = env::var_os("CTR_BIN").map_or_else(|| dir.join("ctr"), PathBuf::from);
    let shim_dir = env::var_os("CONTAINERD_SHIM_DIR").map_or(dir, PathBuf::from);
    for path in [&daemon, &ctr, &shim_dir.join("containerd-shim-runc-v2")] {
        assert!(path.exists(), "{} does not exist; `./x test` builds it and runs this suite", path.display());
    }
    Binaries { daemon, ctr, shim_dir }
}

/// Our programs with debug assertions and crash points, as cargo built them beside this test program.
///
/// # Panics
/// If they are not there, with the command that builds them.
pub fn debug() -> Binaries {
    let test = env::current_exe().expect("the path of this program");
    let dir = test.ancestors().nth(2).expect("a directory of cargo's").to_path_buf();
    let binaries = Binaries { daemon: dir.join("containerd"), ctr: dir.join("ctr"), shim_dir: dir.clone() };
    for path in [&binaries.daemon, &binaries.ctr, &dir.join("containerd-shim-runc-v2")] {
        assert!(path.exists(), "{} does not exist; `cargo build --workspace` makes it", path.display());
    }
    binaries
}

/// Upstream's programs, for tests that mix them with ours; `None` (said aloud) where they are not at hand.
pub fn peer() -> Option<Binaries> {
    let Some(dir) = env::var_os("PEER_DIR").map(PathBuf::from) else {
        eprintln!("skipped: PEER_DIR does not name a directory with upstream's containerd");
        return None;
    };
    Some(Binaries { daemon: dir.join("containerd"), ctr: dir.join("ctr"), shim_dir: dir })
}

/// Today's containerd, written in Go; `None` (said aloud) where it was not built.
pub fn reference() -> Option<Binaries> {
    let Some(dir) = env::var_os("REFERENCE_DIR").map(PathBuf::from) else {
        eprintln!(
            "skipped: REFERENCE_DIR does not name containerd 2.3; `cargo xtask reference` builds it where Go is"
        );
        return None;
    };
    Some(Binaries { daemon: dir.join("containerd"), ctr: dir.join("ctr"), shim_dir: dir })
}

/// The PATH of daemons and clients: the shim's directory, the runtime's, then the caller's.
pub fn search_path(shim_dir: &Path) -> String {
    let inherited = env::var("PATH").unwrap_or_default();
    let runtime = env::var("RUNTIME_DIR").map(|dir| format!("{dir}:")).unwrap_or_default();
    let criu = env::var("CRIU_DIR").map(|dir| format!("{dir}:")).unwrap_or_default();
    format!("{}:{runtime}{criu}{inherited}:/usr/local/sbin:/usr/sbin:/sbin", shim_dir.display())
}

/// crun under its own name, where it is the runtime; there it is called runc too.
pub fn crun() -> Option<PathBuf> {
    env::var_os("RUNTIME_DIR").map(|dir| Path::new(&dir).join("crun")).filter(|crun| crun.exists())
}

/// Whether the tested shim is this project's, whoever's daemon it is tested with.
///
/// # Panics
/// If it cannot be asked.
pub fn shim_is_ours() -> bool {
    let shim = tested().shim_dir.join("containerd-shim-runc-v2");
    let said = std::process::Command::new(shim).arg("-v").output().expect("the shim's version");
    String::from_utf8_lossy(&said.stdout).contains("+rs.")
}

/// A statically linked busybox, the only program in the suite's images.
pub fn busybox() -> PathBuf {
    env::var_os("BUSYBOX").map_or_else(|| PathBuf::from("/bin/busybox"), PathBuf::from)
}

fn default_daemon() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("dist/containerd")
}
