//! Debian's containerd, runc, busybox, CRIU and CNI plugins, downloaded and unpacked into `.cache/peers`: nothing is installed, no service
//! is started or replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{machine, paths, program};

const PACKAGES: [&str; 3] = ["containerd", "runc", "busybox-static"];
/// dockerd, its client, and the library that a small installation lacks.
const DOCKER: [&str; 2] = ["docker.io", "libdevmapper1.02.1"];

/// skopeo, which reads and writes what we push and export, and the libraries that a small installation lacks.
const SKOPEO: [&str; 4] = ["skopeo", "libgpgme11", "libassuan0", "libdevmapper1.02.1"];

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

/// Fetches all that is missing, and says where it is.
pub fn run() -> Result<ExitCode> {
    println!("{}", fetch()?.root().display());
    for fetch in [fetch_docker, fetch_crun, fetch_criu, fetch_cni] {
        println!("{}", fetch()?.display());
    }
    Ok(ExitCode::SUCCESS)
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

/// The same for Debian's skopeo.
pub fn fetch_skopeo() -> Result<PathBuf> {
    let root = paths::cache().join("skopeo");
    if !root.join("usr/bin/skopeo").exists() {
        unpack(&SKOPEO, &root)?;
    }
    Ok(root)
}

/// The same for Debian's docker-registry, the distribution's own.
pub fn fetch_registry() -> Result<PathBuf> {
    let root = paths::cache().join("registry");
    if !root.join("usr/bin/docker-registry").exists() {
        unpack(&["docker-registry"], &root)?;
    }
    Ok(root)
}

/// CRIU and what it links: Debian 12's is too old for kernels of today, so it comes from the next release, with that
/// release's C library.
const CRIU: [&str; 24] = [
    "criu",
    "libbsd0",
    "libc6",
    "libcompel1",
    "libffi8",
    "libgmp10",
    "libgnutls30t64",
    "libhogweed6t64",
    "libidn2-0",
    "libjansson4",
    "libmd0",
    "libmnl0",
    "libnet1",
    "libnettle8t64",
    "libnftables1",
    "libnftnl11",
    "libnl-3-200",
    "libp11-kit0",
    "libprotobuf-c1",
    "libtasn1-6",
    "libunistring5",
    "libuuid1",
    "libxtables12",
    "libcap2",
];
/// The release.
const NEWER: &str = "trixie";
/// Runs it with its own libraries. Without iptables on the machine CRIU locks the network with nftables.
const CRIU_SCRIPT: &str = "#!/bin/sh
root=$(dirname \"$(dirname \"$(readlink -f \"$0\")\")\")
set -- \"$root/usr/sbin/criu\" \"$@\"
CRIU_CONFIG_FILE=$root/criu.conf
export CRIU_CONFIG_FILE
for libraries in \"$root\"/usr/lib/*-linux-gnu; do
    exec \"$libraries\"/ld-linux-*.so.* --library-path \"$libraries\" \"$@\"
done
";

/// The same for CRIU; gives the directory of a `criu` for PATH.
pub fn fetch_criu() -> Result<PathBuf> {
    let root = paths::cache().join("criu");
    let script = root.join("bin/criu");
    if !script.exists() {
        let apt = Apt::newer()?;
        unpack_from(&apt, &CRIU, &root)?;
        fs::write(root.join("criu.conf"), "network-lock nftables\n").context("write CRIU's configuration")?;
        fs::create_dir_all(root.join("bin"))?;
        fs::write(&script, CRIU_SCRIPT).with_context(|| format!("write {}", script.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    }
    Ok(root.join("bin"))
}

/// crun and what it links, from there too: Debian 12's does not know the specification of today.
const CRUN: [&str; 13] = [
    "crun",
    "libc6",
    "libcap2",
    "libcriu2",
    "libgcrypt20",
    "libgpg-error0",
    "liblz4-1",
    "liblzma5",
    "libprotobuf-c1",
    "libseccomp2",
    "libsystemd0",
    "libyajl2",
    "libzstd1",
];
/// Runs it with its own libraries.
const CRUN_SCRIPT: &str = "#!/bin/sh
root=$(dirname \"$(dirname \"$(readlink -f \"$0\")\")\")
for libraries in \"$root\"/usr/lib/*-linux-gnu; do
    exec \"$libraries\"/ld-linux-*.so.* --library-path \"$libraries\" \"$root/usr/bin/crun\" \"$@\"
done
";

/// The same for crun; gives the directory in which it is, under the name `runc` too.
pub fn fetch_crun() -> Result<PathBuf> {
    let root = paths::cache().join("crun");
    let bin = root.join("bin");
    if !bin.join("runc").exists() {
        unpack_from(&Apt::newer()?, &CRUN, &root)?;
        fs::create_dir_all(&bin)?;
        for name in ["crun", "runc"] {
            let script = bin.join(name);
            fs::write(&script, CRUN_SCRIPT).with_context(|| format!("write {}", script.display()))?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(bin)
}

/// CNI plugins, and iptables and nft, which they and those who look after them run.
const CNI: [&str; 16] = [
    "containernetworking-plugins",
    "iptables",
    "libbsd0",
    "libedit2",
    "libgmp10",
    "libip4tc2",
    "libip6tc2",
    "libjansson4",
    "libmd0",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftables1",
    "libnftnl11",
    "libxtables12",
    "nftables",
];
/// Each program under its name, and what it is run as.
const FILTERS: [(&str, &str); 5] = [
    ("iptables", "xtables-nft-multi\" iptables"),
    ("ip6tables", "xtables-nft-multi\" ip6tables"),
    ("iptables-save", "xtables-nft-multi\" iptables-save"),
    ("ip6tables-save", "xtables-nft-multi\" ip6tables-save"),
    ("nft", "nft\""),
];
/// Runs one with its own libraries.
const FILTER_SCRIPT: &str = "#!/bin/sh
root=$(dirname \"$(dirname \"$(readlink -f \"$0\")\")\")
for libraries in \"$root\"/usr/lib/*-linux-gnu; do
    export LD_LIBRARY_PATH=\"$libraries\" XTABLES_LIBDIR=\"$libraries/xtables\"
    exec \"$root/usr/sbin/";

/// The same for CNI plugins; gives the directory, in which `bin` has the programs for PATH.
pub fn fetch_cni() -> Result<PathBuf> {
    let root = paths::cache().join("cni");
    let bin = root.join("bin");
    if !bin.join("nft").exists() {
        unpack(&CNI, &root)?;
        fs::create_dir_all(&bin)?;
        for (name, program) in FILTERS {
            let script = bin.join(name);
            let text = format!("{FILTER_SCRIPT}{program} \"$@\"\ndone\n");
            fs::write(&script, text).with_context(|| format!("write {}", script.display()))?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(root)
}

/// The same for AppArmor's parser and what profiles include.
pub fn fetch_apparmor() -> Result<PathBuf> {
    let root = paths::cache().join("apparmor");
    if !root.join("etc/apparmor.d/abstractions/base").exists() {
        unpack(&["apparmor"], &root)?;
    }
    Ok(root)
}

/// apt, as the machine has it or with lists of its own.
#[derive(Default)]
struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// With the packages of Debian's next release, from the same place as the machine's.
    fn newer() -> Result<Self> {
        let mut command = Command::new("apt-get");
        command.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
        let places = program::output(&mut command)?;
        let place = places.lines().find(|line| line.ends_with("/debian/") || line.ends_with("/debian"));
        let place = place.context("apt's lists name no archive of Debian")?;
        let dir = paths::cache().join(format!("apt-{NEWER}"));
        fs::create_dir_all(dir.join("lists/partial")).with_context(|| format!("create {}", dir.display()))?;
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let source =
            format!("Types: deb\nURIs: {place}\nSuites: {NEWER}\nComponents: main\nSigned-By: {keys}\n");
        fs::write(dir.join("debian.sources"), source)?;
        let set = |name: &str, value: String| format!("-o{name}={value}");
        let options = vec![
            set("Dir::Etc::sourcelist", dir.join("debian.sources").display().to_string()),
            set("Dir::Etc::sourceparts", "-".into()),
            set("Dir::State::lists", dir.join("lists").display().to_string()),
            set("Dir::Cache::pkgcache", String::new()),
            set("Dir::Cache::srcpkgcache", String::new()),
            set("Acquire::Languages", "none".into()),
        ];
        Ok(Self { options })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        // The unprivileged user of apt cannot write into a checkout; the files are verified all the same.
        command.args(["-q", "-o", "APT::Sandbox::User=root"]).args(&self.options);
        command
    }
}

/// Downloads `packages` and unpacks them into `root`, whole or not at all.
fn unpack(packages: &[&str], root: &Path) -> Result<()> {
    unpack_from(&Apt::default(), packages, root)
}

/// The same from where `apt` takes them.
fn unpack_from(apt: &Apt, packages: &[&str], root: &Path) -> Result<()> {
    if !machine::has_program("apt-get") || !machine::has_program("dpkg-deb") {
        bail!("Debian's packages cannot be fetched: there is no apt-get and dpkg-deb here");
    }
    eprintln!("fetching Debian's {} (unpacked into {}, not installed)", packages.join(", "), root.display());
    let new = root.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("remove {}", new.display()))?;
    }
    fs::create_dir_all(&new).with_context(|| format!("create {}", new.display()))?;
    if download(apt, packages, &new).is_err() {
        update_lists(apt)?;
        download(apt, packages, &new)?;
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

fn download(apt: &Apt, packages: &[&str], dir: &Path) -> Result<()> {
    program::run(apt.command().arg("download").args(packages).current_dir(dir))
}

/// Refreshes the machine's lists of packages.
pub fn refresh() -> Result<()> {
    update_lists(&Apt::default())
}

/// Refreshes apt's lists; waits while another program holds their lock.
fn update_lists(apt: &Apt) -> Result<()> {
    for _ in 0..120 {
        eprintln!("$ apt-get update");
        let done = apt
            .command()
            .arg("update")
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
