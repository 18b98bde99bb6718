//! Where the daemon listens: `io.containerd.server.v1.*`.

use std::path::PathBuf;

use super::section::Section;
use crate::cli::Flags;

/// Bytes of a message that are accepted and sent if the configuration does not say otherwise.
const MESSAGE_SIZE: usize = 16 << 20;

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its path.
    pub address: PathBuf,
    /// Its owner.
    pub uid: u32,
    /// Its group, which may connect too.
    pub gid: u32,
}

/// Limits of messages, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageSize {
    /// Of requests.
    pub receive: usize,
    /// Of replies.
    pub send: usize,
}

/// Where something is served that is not the API: a path, or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "read by the debug listener, which is being built")]
pub enum Endpoint {
    /// A unix socket.
    Unix(Listener),
    /// A TCP address, `host:port`.
    Tcp(String),
}

/// What is measured, and where it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(dead_code, reason = "read by the metrics listener, which is being built")]
pub struct Metrics {
    /// `host:port` of `/v1/metrics`; none is off.
    pub address: Option<String>,
    /// Histograms of the calls' durations.
    pub histogram: bool,
}

/// The main socket, the limits of its messages, and the socket that shims publish to.
pub fn main(plugins: &mut Section, flags: &Flags) -> (Listener, MessageSize, Listener) {
    let mut section = plugins.section("io.containerd.server.v1.grpc");
    let written = section.string("address", "/run/containerd/containerd.sock");
    let grpc = Listener {
        address: flags.address.clone().unwrap_or(written).into(),
        uid: section.integer("uid", rustix::process::geteuid().as_raw()),
        gid: section.integer("gid", rustix::process::getegid().as_raw()),
    };
    let mut size = |key| match section.integer(key, MESSAGE_SIZE) {
        0 => MESSAGE_SIZE,
        size => size,
    };
    let sizes = MessageSize { receive: size("max_recv_message_size"), send: size("max_send_message_size") };
    let mut section = plugins.section("io.containerd.server.v1.ttrpc");
    let mut derived = grpc.address.clone().into_os_string();
    derived.push(".ttrpc");
    let ttrpc = Listener {
        address: match section.string("address", "") {
            address if address.is_empty() => derived.into(),
            address => address.into(),
        },
        uid: section.integer("uid", grpc.uid),
        gid: section.integer("gid", grpc.gid),
    };
    for (name, listener) in [("grpc", &grpc), ("ttrpc", &ttrpc)] {
        if listener.address.is_relative() {
            section.mistake(format!("{name} address must be an absolute path, not {:?}", listener.address));
        }
    }
    (grpc, sizes, ttrpc)
}

/// Where the daemon lets itself be looked into; none is off.
pub fn debug(plugins: &mut Section) -> Option<Endpoint> {
    let mut section = plugins.section("io.containerd.server.v1.debug");
    let address = section.string("address", "");
    let (uid, gid) = (section.integer("uid", 0), section.integer("gid", 0));
    match address {
        address if address.is_empty() => None,
        address if address.starts_with('/') => {
            Some(Endpoint::Unix(Listener { address: address.into(), uid, gid }))
        }
        address => Some(Endpoint::Tcp(address)),
    }
}

/// What is measured.
pub fn metrics(plugins: &mut Section) -> Metrics {
    let address = plugins.section("io.containerd.server.v1.metrics").string("address", "");
    Metrics {
        address: Some(address).filter(|address| !address.is_empty()),
        histogram: plugins.section("io.containerd.metrics.v1.grpc-prometheus").boolean("grpc_histogram"),
    }
}
