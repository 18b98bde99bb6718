//! A host's network that is nobody else's, with Debian's CNI plugins.
//!
//! ```text
//!  unshare --net --mount   a process that holds both and sleeps
//!    network               empty: own links, own rules
//!    /opt/cni/bin          the plugins                                   clients of upstream's have
//!    /etc/cni/net.d        networks of the test                          these three places
//!    /var/lib/cni          addresses, results                            built in
//! ```
//!
//! Clients run inside, the daemon and its containers do not notice. Everything is gone when the process is.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::binaries::{self, Binaries};
use crate::{Daemon, Invocation, deadline};

/// The address of the host in the network of [`HostNetwork::bridge`].
pub const GATEWAY: &str = "10.99.7.1";

/// Replaces what clients have built in; says when it is done.
const PLACES: &str = r#"set -e
busybox=$1 plugins=$2 ready=$3 copy=$(mktemp -d)
for file in hosts resolv.conf passwd group; do [ ! -e /etc/$file ] || cp -L /etc/$file "$copy"; done
for place in /etc /opt /var/lib; do mount -t tmpfs -o mode=755 tmpfs $place; done
cp "$copy"/* /etc; rm -r "$copy"
mkdir -p /opt/cni/bin /etc/cni/net.d /var/lib/cni
mount --bind "$plugins" /opt/cni/bin
"$busybox" ip link set lo up
touch "$ready"
exec "$busybox" sleep 100000"#;

/// A host's network.
#[derive(Debug)]
pub struct HostNetwork {
    holder: Child,
    programs: PathBuf,
}

impl HostNetwork {
    /// An empty one; `None`, said aloud, where there are no plugins.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new() -> Option<Self> {
        let Some(dir) = std::env::var_os("CNI_DIR").map(PathBuf::from) else {
            eprintln!("skipped: CNI_DIR does not name unpacked CNI plugins");
            return None;
        };
        let scratch = tempfile::tempdir().expect("temporary directory");
        let ready = scratch.path().join("ready");
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private", "sh", "-c", PLACES, "sh"]);
        command.arg(binaries::busybox()).arg(dir.join("usr/lib/cni")).arg(&ready).stdin(Stdio::null());
        let mut network = Self { holder: command.spawn().expect("start unshare"), programs: dir.join("bin") };
        deadline::eventually("a network of our own", || {
            let ended = network.holder.try_wait().expect("waiting for a child");
            assert!(ended.is_none(), "it could not be made: {ended:?}");
            ready.exists()
        });
        Some(network)
    }

    /// Puts a network there that bridges to the host, with more plugins behind the first one.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn bridge(&self, masquerade: bool, more: &[&str]) {
        let bridge = serde_json::json!({
            "type": "bridge", "bridge": "test0", "isGateway": true, "ipMasq": masquerade,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.7.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
        });
        let more = more.iter().map(|kind| serde_json::json!({"type": kind}));
        let plugins: Vec<_> = std::iter::once(bridge).chain(more).collect();
        let list = serde_json::json!({"cniVersion": "1.0.0", "name": "bridged", "plugins": plugins});
        fs::write(self.place("/etc/cni/net.d/10-bridged.conflist"), list.to_string())
            .expect("write the network");
    }

    /// Takes all networks away.
    ///
    /// # Panics
    /// If that does not work.
    pub fn without_networks(&self) {
        fs::remove_dir_all(self.place("/etc/cni")).expect("remove the networks");
    }

    /// Where a path of this host is for us.
    pub fn place(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.holder.id()))
    }

    /// A command inside.
    pub fn inside(&self, command: &Command) -> Invocation {
        let mut entering = Command::new("nsenter");
        entering.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--"]);
        entering.arg(command.get_program()).args(command.get_args());
        let mut path = std::env::var("PATH").unwrap_or_default();
        for (key, value) in command.get_envs() {
            match value {
                Some(value) if key == "PATH" => path = value.to_string_lossy().into_owned(),
                Some(value) => drop(entering.env(key, value)),
                None => drop(entering.env_remove(key)),
            }
        }
        entering.env("PATH", format!("{}:{path}", self.programs.display()));
        Invocation::new(entering)
    }

    /// The client under test, inside.
    pub fn ctr(&self, daemon: &Daemon, arguments: &[&str]) -> Invocation {
        self.inside(&daemon.client(daemon.ctr_binary(), arguments))
    }

    /// Another client, inside.
    pub fn ctr_of(&self, daemon: &Daemon, other: &Binaries, arguments: &[&str]) -> Invocation {
        self.inside(&daemon.client(&other.ctr, arguments))
    }

    /// An applet of busybox, inside.
    pub fn busybox(&self, arguments: &[&str]) -> Invocation {
        let mut command = Command::new(binaries::busybox());
        command.args(arguments);
        self.inside(&command)
    }

    /// The address of a container, from what its client has written down.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn address_of(&self, daemon: &Daemon, id: &str) -> String {
        let entry = self.place(&format!("/var/lib/cni/results/bridged-{}-{id}-eth0", daemon.namespace()));
        let entry = fs::read(entry).expect("an entry of libcni's cache");
        let entry: serde_json::Value = serde_json::from_slice(&entry).expect("JSON");
        let address = entry["result"]["ips"][0]["address"].as_str().expect("an address");
        address.split('/').next().unwrap_or_default().to_owned()
    }

    /// All that a container can leave here: rules, links, addresses, results. What the first container makes for all (the
    /// bridge, tables, base chains, the lock of the addresses) is there, too.
    #[track_caller]
    pub fn state(&self) -> Vec<String> {
        let rules = self.inside(Command::new("nft").args(["list", "ruleset"])).ok();
        // Counters count, and hide nothing.
        let rules = rules.lines().map(|line| match line.find("counter packets") {
            Some(at) => line[..at].to_owned(),
            None => line.to_owned(),
        });
        let links = self.busybox(&["ip", "-o", "link"]).ok();
        let names = links.lines().filter_map(|line| line.split(": ").nth(1).map(str::to_owned));
        let mut state: Vec<String> = rules.chain(names).collect();
        for dir in ["/var/lib/cni/results", "/var/lib/cni/networks/bridged"] {
            let mut files: Vec<String> = fs::read_dir(self.place(dir))
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name != "lock" && !name.starts_with("last_reserved_ip"))
                .collect();
            files.sort();
            state.extend(files.into_iter().map(|name| format!("{dir}/{name}")));
        }
        state
    }
}

impl Drop for HostNetwork {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
