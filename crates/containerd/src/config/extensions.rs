//! What other people's programs add: proxy plugins.

use std::collections::BTreeMap;
use std::path::PathBuf;

use types::platform::Platform;

use super::section::Section;

/// A plugin that is another process, on a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its id.
    pub name: String,
    /// What it is.
    pub kind: ProxyKind,
    /// Its socket.
    pub address: PathBuf,
    /// For which platform it works.
    pub platform: Platform,
    /// What it tells about itself.
    pub exports: BTreeMap<String, String>,
    /// What it can do besides what its kind can.
    pub capabilities: Vec<String>,
}

impl Proxy {
    /// `<type>.<id>`, as configurations name it.
    pub fn uri(&self) -> String {
        format!("{}.{}", self.kind.name(), self.name)
    }
}

/// What a proxy plugin can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// A snapshotter.
    Snapshotter,
    /// A content store.
    Content,
    /// Something that applies and compares layers.
    Differ,
    /// Something that makes sandboxes.
    Sandboxer,
}

impl ProxyKind {
    /// The type of such plugins.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshotter => "io.containerd.snapshotter.v1",
            Self::Content => "io.containerd.content.v1",
            Self::Differ => "io.containerd.differ.v1",
            Self::Sandboxer => "io.containerd.sandbox.controller.v1",
        }
    }
}

/// The proxy plugins.
pub fn proxies(top: &mut Section) -> Vec<Proxy> {
    let mut all = top.section("proxy_plugins");
    all.keys().into_iter().filter_map(|name| proxy(&name, all.section(&name))).collect()
}

fn proxy(name: &str, mut section: Section) -> Option<Proxy> {
    let kind = match section.string("type", "").as_str() {
        "snapshot" | "io.containerd.snapshotter.v1" => ProxyKind::Snapshotter,
        "content" | "io.containerd.content.v1" => ProxyKind::Content,
        "diff" | "io.containerd.differ.v1" => ProxyKind::Differ,
        "sandbox" | "io.containerd.sandbox.controller.v1" => ProxyKind::Sandboxer,
        other => {
            section.warn(format!("proxy plugin {name}: type {other:?} is not supported, it is ignored"));
            return None;
        }
    };
    let platform = match section.string("platform", "").as_str() {
        "" => Platform::host(),
        text => text.parse().unwrap_or_else(|error| {
            section.warn(format!("proxy plugin {name}: platform {text:?}: {error}"));
            Platform::host()
        }),
    };
    let written = section.string("address", "");
    let path = written.strip_prefix("unix://").unwrap_or(&written);
    if !path.starts_with('/') {
        section
            .mistake(format!("proxy plugin {name}: address must be the path of a socket, not {written:?}"));
    }
    if kind == ProxyKind::Sandboxer && matches!(name, "shim" | "podsandbox") {
        section.mistake(format!("proxy plugin {name}: this is the name of a sandboxer of the daemon's own"));
    }
    let mut exports = section.texts("exports");
    exports.insert("address".into(), written.clone());
    Some(Proxy {
        name: name.to_owned(),
        kind,
        address: path.into(),
        platform,
        exports,
        capabilities: section.strings("capabilities", &[]),
    })
}
