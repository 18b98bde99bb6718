//! NRI plugins, and the pods and containers that they follow.
//!
//! ```text
//!  hooks      what calls tell and ask: nothing is made, or looked up, where no plugin is there
//!  messages   pods and containers, as plugins are told them
//!  limits     limits, there and back
//!  adjust     a spec, as plugins want it
//!  node       what plugins want of containers that are there
//! ```

mod adjust;
mod hooks;
mod limits;
mod messages;
mod node;

use std::sync::Arc;

use ::nri::{Config, Identity, Nri};
use tokio::sync::RwLockReadGuard;
use types::{Namespace, version};

use crate::cri::Cri;
use crate::timers::{Observe, Observed};

pub use hooks::*;

/// Plugins, unless the administrator wants none.
pub struct Plugins(Option<Nri>);

impl Plugins {
    /// Nobody is there before [`start`].
    pub fn new(config: Option<Config>, namespace: &Namespace, observe: &Observe) -> Self {
        let identity = Identity { name: "containerd".to_owned(), version: version::VERSION.to_owned() };
        let observe = Arc::clone(observe);
        let observe: ::nri::Observe = Arc::new(move |what| observe(Observed::Plugin(what)));
        Self(config.map(|config| Nri::new(config, identity, namespace.clone(), observe)))
    }

    /// Where somebody is there.
    fn active(&self) -> Option<&Nri> {
        self.0.as_ref().filter(|nri| nri.is_active())
    }
}

/// Launches plugins, and has others connect from now on. That they cannot is told in the log, and the CRI does without, as upstream
/// without plugins.
pub async fn start(cri: &Cri) {
    let Some(nri) = &cri.nri.0 else { return };
    if let Err(error) = nri.start(Arc::new(node::Node::of(cri))).await {
        tracing::error!(%error, "failed to start NRI");
    }
}

/// Keeps plugins from coming in the middle of what they are to see whole.
pub async fn hold(cri: &Cri) -> Option<RwLockReadGuard<'_, ()>> {
    match &cri.nri.0 {
        Some(nri) => Some(nri.hold().await),
        None => None,
    }
}
