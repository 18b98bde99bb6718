//! Kubernetes' front door: `io.containerd.cri.v1.images`, `io.containerd.cri.v1.runtime` and `io.containerd.grpc.v1.cri`.
//!
//! As upstream, what cannot be meant so keeps these plugins from being loaded, with its words, and not the daemon from serving
//! everybody else.

mod images;
mod runtime;
mod server;

use std::time::Duration;

use ::cri::config::Config;

use super::section::Section;
use super::tree::duration;
use crate::services::deprecations::Deprecation;

/// What was written about it.
#[derive(Clone, Debug, Default)]
pub struct Cri {
    /// What it means.
    pub settings: Config,
    /// Mirrors of registries, in the words of old configurations: what is asked for a registry's images, in this order.
    pub mirrors: Vec<(String, Vec<String>)>,
    /// Plugins that cannot be loaded so, and why.
    pub invalid: Vec<(&'static str, String)>,
    /// Whether it is served over TCP as well, if anything is.
    pub tcp: bool,
    /// What was used although it goes away.
    pub deprecated: Vec<Deprecation>,
}

const IMAGES: &str = "io.containerd.cri.v1.images";
const RUNTIME: &str = "io.containerd.cri.v1.runtime";
const SERVER: &str = "io.containerd.grpc.v1.cri";

/// What could not be meant so.
type Wrong = String;

/// Understands the three sections. One that is not there belongs to a plugin that is disabled.
pub fn read(plugins: &mut Section) -> Cri {
    let mut cri = Cri::default();
    let mut each = |uri: &'static str, what: &str, read: fn(&mut Cri, Section) -> Result<(), Wrong>| {
        if plugins.has(uri)
            && let Err(why) = read(&mut cri, plugins.section(uri))
        {
            cri.invalid.push((uri, format!("{what}: {why}")));
        }
    };
    each(IMAGES, "invalid cri image config", images::read);
    each(RUNTIME, "invalid cri runtime config", runtime::read);
    each(SERVER, "invalid cri server config", server::read);
    cri
}

/// A duration as Go writes it; `default` where nothing is written.
fn time(section: &mut Section, key: &str, what: &str, default: Duration) -> Result<Duration, Wrong> {
    match section.string(key, "").as_str() {
        "" => Ok(default),
        text => duration::parse(text).ok_or_else(|| format!("{what}: time: invalid duration {text:?}")),
    }
}

#[cfg(test)]
mod tests;
