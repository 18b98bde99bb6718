//! Where the daemon listens: `io.containerd.server.v1.*`.

use std::path::PathBuf;

use super::section::Section;

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

/// The main socket, the limits of its messages, and the socket that shims publish to.
pub fn main(plugins: &mut Section) -> (Listener, MessageSize, Listener) {
    let mut section = plugins.section("io.containerd.server.v1.grpc");
    let grpc = listener(&mut section, "/run/containerd/containerd.sock");
    let sizes = sizes(&mut section);
    let mut section = plugins.section("io.containerd.server.v1.ttrpc");
    let ttrpc = listener(&mut section, &format!("{}.ttrpc", grpc.address.display()));
    for (name, listener) in [("grpc", &grpc), ("ttrpc", &ttrpc)] {
        if listener.address.is_relative() {
            section.mistake(format!("{name} address must be an absolute path, not {:?}", listener.address));
        }
    }
    (grpc, sizes, ttrpc)
}

/// Where else the CRI is served: anywhere on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// `host:port`.
    pub address: String,
    /// Its encryption, if it is wanted.
    pub tls: Option<Tls>,
    /// Limits of its messages.
    pub size: MessageSize,
}

/// How a listener proves who it is, and others who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The file of its certificate and those that have signed it.
    pub certificate: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    /// The file of certificates of which one has signed each client's; without it clients need none.
    pub clients: Option<PathBuf>,
}

/// The second listener, if there is to be one.
pub fn tcp(plugins: &mut Section) -> Option<Tcp> {
    let mut section = plugins.section("io.containerd.server.v1.grpc-tcp");
    let [address, certificate, key, clients, common_name] =
        ["address", "tls_cert", "tls_key", "tls_ca", "tls_common_name"].map(|key| section.string(key, ""));
    let size = sizes(&mut section);
    if address.is_empty() {
        return None;
    }
    if !common_name.is_empty() {
        section.warn("grpc-tcp: tls_common_name is of Windows alone and ignored");
    }
    let tls = (!certificate.is_empty()).then(|| Tls {
        certificate: certificate.into(),
        key: key.into(),
        clients: (!clients.is_empty()).then(|| clients.into()),
    });
    Some(Tcp { address, tls, size })
}

fn sizes(section: &mut Section) -> MessageSize {
    let mut size = |key| match section.integer(key, MESSAGE_SIZE) {
        0 => MESSAGE_SIZE,
        size => size,
    };
    MessageSize { receive: size("max_recv_message_size"), send: size("max_send_message_size") }
}

fn listener(section: &mut Section, address: &str) -> Listener {
    Listener {
        address: section.string("address", address).into(),
        uid: section.integer("uid", rustix::process::geteuid().as_raw()),
        gid: section.integer("gid", rustix::process::getegid().as_raw()),
    }
}
