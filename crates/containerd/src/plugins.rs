//! The parts of the daemon under the names that tools know: one table, which feeds `ctr plugins ls`, `disabled_plugins`
//! and `required_plugins`. It lists what exists here and nothing else; how the parts are put together is `wiring`.

mod choose;

use std::collections::BTreeMap;
use std::path::Path;

use api::containerd::services::introspection::v1::Plugin as Wire;
use types::platform::Platform;
use types::{Error, Result};

use crate::config::{Config, Proxy, ProxyKind};

const CRI: &str = "io.containerd.cri.v1";
const CONTENT: &str = "io.containerd.content.v1";
const DIFFER: &str = "io.containerd.differ.v1";
const EVENT: &str = "io.containerd.event.v1";
const GC: &str = "io.containerd.gc.v1";
const IMAGE_VERIFIER: &str = "io.containerd.image-verifier.v1";
const GRPC: &str = "io.containerd.grpc.v1";
const LEASE: &str = "io.containerd.lease.v1";
const MOUNT_MANAGER: &str = "io.containerd.mount-manager.v1";
const METADATA: &str = "io.containerd.metadata.v1";
const MONITOR: &str = "io.containerd.monitor.container.v1";
const NRI: &str = "io.containerd.nri.v1";
const PODSANDBOX: &str = "io.containerd.podsandbox.controller.v1";
const RUNTIME: &str = "io.containerd.runtime.v2";
const SERVER: &str = "io.containerd.server.v1";
const SHIM: &str = "io.containerd.shim.v1";
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1";
const STREAMING: &str = "io.containerd.streaming.v1";
const TRANSFER: &str = "io.containerd.transfer.v1";

/// A part of the daemon.
#[derive(Debug)]
pub struct Plugin {
    /// Its type.
    pub kind: &'static str,
    /// Its id within the type.
    pub id: &'static str,
    /// The types it is built on.
    requires: &'static [&'static str],
    /// Whether it depends on the platform.
    platform: bool,
    /// What it can do besides what its type can.
    capabilities: &'static [&'static str],
    /// Whether the daemon can do without it: whether it can be disabled.
    optional: bool,
}

const fn core(kind: &'static str, id: &'static str, requires: &'static [&'static str]) -> Plugin {
    Plugin { kind, id, requires, platform: false, capabilities: &[], optional: false }
}

const fn optional(kind: &'static str, id: &'static str, requires: &'static [&'static str]) -> Plugin {
    Plugin { optional: true, ..core(kind, id, requires) }
}

const fn snapshotter(id: &'static str, capabilities: &'static [&'static str]) -> Plugin {
    Plugin { kind: SNAPSHOTTER, id, requires: &[], platform: true, capabilities, optional: true }
}

const fn service(id: &'static str, requires: &'static [&'static str]) -> Plugin {
    optional(GRPC, id, requires)
}

/// All parts, in the order in which they are started.
const TABLE: &[Plugin] = &[
    core(CONTENT, "content", &[]),
    core(EVENT, "exchange", &[]),
    snapshotter("native", &[]),
    snapshotter("overlayfs", &["rebase"]),
    core(METADATA, "bolt", &[CONTENT, EVENT, SNAPSHOTTER]),
    core(GC, "scheduler", &[METADATA]),
    optional(LEASE, "manager", &[METADATA]),
    Plugin { platform: true, ..optional(DIFFER, "walking", &[METADATA]) },
    core(MOUNT_MANAGER, "bolt", &[METADATA]),
    optional(STREAMING, "manager", &[METADATA]),
    optional(IMAGE_VERIFIER, "bindir", &[]),
    optional(TRANSFER, "local", &[LEASE, METADATA, DIFFER, IMAGE_VERIFIER, SNAPSHOTTER]),
    core(SHIM, "manager", &[EVENT, METADATA]),
    Plugin { platform: true, ..core(RUNTIME, "task", &[SHIM, MOUNT_MANAGER]) },
    Plugin {
        capabilities: &["no", "always", "on-failure", "unless-stopped"],
        ..optional(MONITOR, "restart", &[EVENT, METADATA, RUNTIME])
    },
    optional(CRI, "images", &[METADATA, SNAPSHOTTER, TRANSFER]),
    optional(CRI, "runtime", &[RUNTIME]),
    optional(PODSANDBOX, "podsandbox", &[EVENT, LEASE, CRI]),
    service("containers", &[METADATA, EVENT]),
    service("content", &[METADATA, EVENT]),
    service("diagnosis", &[RUNTIME]),
    service("diff", &[DIFFER]),
    service("events", &[EVENT]),
    service("healthcheck", &[]),
    service("images", &[METADATA, EVENT]),
    service("introspection", &[]),
    service("leases", &[LEASE]),
    service("mounts", &[MOUNT_MANAGER]),
    service("namespaces", &[METADATA, EVENT]),
    service("sandbox-controllers", &[EVENT, SHIM]),
    service("sandboxes", &[METADATA]),
    service("snapshots", &[METADATA, EVENT]),
    service("streaming", &[STREAMING]),
    service("tasks", &[EVENT, METADATA, RUNTIME]),
    service("transfer", &[TRANSFER, STREAMING]),
    service("version", &[]),
    optional(NRI, "nri", &[]),
    service("cri", &[CRI, PODSANDBOX, EVENT, LEASE, TRANSFER]),
    core(SERVER, "ttrpc", &[EVENT]),
    core(SERVER, "grpc", &[GRPC]),
    // Only where it is wanted: see `choose`.
    optional(SERVER, "grpc-tcp", &[GRPC]),
];

impl Plugin {
    /// `<type>.<id>`, as configurations name it.
    pub fn uri(&self) -> String {
        format!("{}.{}", self.kind, self.id)
    }
}

/// Which parts run, and which could not be started.
#[derive(Clone, Debug)]
pub struct Plugins {
    disabled: Vec<String>,
    failed: BTreeMap<String, String>,
    /// What snapshotters can do on this kernel.
    found: BTreeMap<String, &'static [&'static str]>,
    /// Parts in other processes.
    proxies: Vec<Proxy>,
}

impl Plugins {
    /// The parts of a kind in other processes.
    pub fn proxies(&self, kind: ProxyKind) -> Vec<&Proxy> {
        self.proxies.iter().filter(|proxy| proxy.kind == kind).collect()
    }

    /// Whether a service or snapshotter is to be started.
    pub fn wants(&self, kind: Kind, id: &str) -> bool {
        let uri = format!("{}.{id}", kind.name());
        !self.disabled.contains(&uri) && !self.failed.contains_key(&uri)
    }

    /// Records that a snapshotter could not be started; an error if it is required.
    pub fn failed(&mut self, config: &Config, id: &str, error: &Error) -> Result<()> {
        let uri = format!("{SNAPSHOTTER}.{id}");
        if config.required.contains(&uri) {
            return Err(Error::precondition(format!("load required plugin {uri}: {error}")));
        }
        self.failed.insert(uri, error.to_string());
        Ok(())
    }

    /// Records that there are no transfers; an error if they are required.
    pub fn failed_transfers(&mut self, config: &Config, why: &str) -> Result<()> {
        for uri in [format!("{TRANSFER}.local"), format!("{GRPC}.transfer")] {
            if config.required.contains(&uri) {
                return Err(Error::precondition(format!("load required plugin {uri}: {why}")));
            }
            self.failed.insert(uri, why.to_owned());
        }
        tracing::warn!(why, "failed to load transfers");
        Ok(())
    }

    /// Records that Kubernetes' front door could not be opened; an error if it is required.
    pub fn failed_cri(&mut self, config: &Config, error: &Error) -> Result<()> {
        self.failed_part(config, format!("{GRPC}.cri"), error)
    }

    /// The same of the listener that serves it over TCP.
    pub fn failed_tcp(&mut self, config: &Config, error: &Error) -> Result<()> {
        self.failed_part(config, format!("{SERVER}.grpc-tcp"), error)
    }

    fn failed_part(&mut self, config: &Config, uri: String, error: &Error) -> Result<()> {
        if config.required.contains(&uri) {
            return Err(Error::precondition(format!("load required plugin {uri}: {error}")));
        }
        tracing::warn!(%error, "failed to load plugin {uri}");
        self.failed.insert(uri, error.to_string());
        Ok(())
    }

    /// Records what a snapshotter can do on this kernel besides what it always can.
    pub fn found(&mut self, id: &str, capabilities: &'static [&'static str]) {
        self.found.insert(format!("{SNAPSHOTTER}.{id}"), capabilities);
    }

    fn running(&self) -> impl Iterator<Item = &'static Plugin> {
        TABLE.iter().filter(|plugin| !self.disabled.contains(&plugin.uri()))
    }

    /// The parts as Introspection tells them.
    pub fn to_wire(&self, config: &Config) -> Vec<Wire> {
        let ours = self.running().map(|plugin| self.one_to_wire(plugin, config));
        ours.chain(self.proxies.iter().map(proxy_to_wire)).collect()
    }

    fn one_to_wire(&self, plugin: &Plugin, config: &Config) -> Wire {
        let uri = plugin.uri();
        let host = || api::convert::platform_to_wire(Platform::host());
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let failure = self.failed.get(&uri).map(|why| api::google::rpc::Status {
            code: api::status::code(types::Class::Unknown),
            message: why.clone(),
            details: Vec::new(),
        });
        Wire {
            r#type: plugin.kind.to_owned(),
            id: plugin.id.to_owned(),
            requires: owned(plugin.requires),
            platforms: if plugin.platform { vec![host()] } else { Vec::new() },
            exports: exports(plugin, config),
            capabilities: owned(
                &[self.found.get(&uri).copied().unwrap_or(&[]), plugin.capabilities].concat(),
            ),
            init_err: failure,
        }
    }
}

fn proxy_to_wire(proxy: &Proxy) -> Wire {
    Wire {
        r#type: proxy.kind.name().to_owned(),
        id: proxy.name.clone(),
        requires: Vec::new(),
        platforms: vec![api::convert::platform_to_wire(proxy.platform.clone())],
        exports: proxy.exports.clone(),
        capabilities: proxy.capabilities.clone(),
        init_err: None,
    }
}

/// The kinds of parts that can be left out.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A snapshotter.
    Snapshotter,
    /// A gRPC service.
    Service,
    /// Who watches containers.
    Monitor,
    /// Plugins that follow pods and containers.
    Nri,
    /// A listener.
    Server,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Snapshotter => SNAPSHOTTER,
            Self::Service => GRPC,
            Self::Monitor => MONITOR,
            Self::Nri => NRI,
            Self::Server => SERVER,
        }
    }
}

/// What a part tells others about itself: where its data is, above all.
fn exports(plugin: &Plugin, config: &Config) -> BTreeMap<String, String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let pairs = match (plugin.kind, plugin.id) {
        (CONTENT, _) => vec![("root", text(&config.root.join(plugin.uri())))],
        (SNAPSHOTTER, id) => vec![("root", text(&snapshotter_root(config, id)))],
        (METADATA, _) => {
            vec![
                ("policy", "shared".to_owned()),
                ("path", text(&config.root.join("io.containerd.metadata.v1.redb/meta.redb"))),
            ]
        }
        (RUNTIME, _) => vec![("log-uri-schemes", "fifo".to_owned())],
        _ => Vec::new(),
    };
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Where a snapshotter keeps its snapshots.
pub fn snapshotter_root(config: &Config, id: &str) -> std::path::PathBuf {
    let configured = match id {
        "overlayfs" => config.overlayfs.root.clone(),
        "native" => config.native_root.clone(),
        _ => None,
    };
    configured.unwrap_or_else(|| config.root.join(format!("{SNAPSHOTTER}.{id}")))
}

#[cfg(test)]
mod tests;
