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
    let mut size = |key| match section.integer(key, MESSAGE_SIZE) {
        0 => MESSAGE_SIZE,
        size => size,
    };
    let sizes = MessageSize { receive: size("max_recv_message_size"), send: size("max_send_message_size") };
    let mut section = plugins.section("io.containerd.server.v1.ttrpc");
    let ttrpc = listener(&mut section, &format!("{}.ttrpc", grpc.address.display()));
    for (name, listener) in [("grpc", &grpc), ("ttrpc", &ttrpc)] {
        if listener.address.is_relative() {
            section.mistake(format!("{name} address must be an absolute path, not {:?}", listener.address));
        }
    }
    (grpc, sizes, ttrpc)
}

fn listener(section: &mut Section, address: &str) -> Listener {
    Listener {
        address: section.string("address", address).into(),
        uid: section.integer("uid", rustix::process::geteuid().as_raw()),
        gid: section.integer("gid", rustix::process::getegid().as_raw()),
    }
}
