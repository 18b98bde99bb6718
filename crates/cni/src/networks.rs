//! The networks of a directory, and containers in all of them: what go-cni is to containerd and its clients.
//!
//! ```text
//!  lo       the loopback plugin, if it is asked for
//!  eth0     the first network of the directory
//!  eth1     the second one, ...
//! ```
//!
//! The directory is looked at whenever somebody asks ([`Fingerprint`]): a network that was put there is used by the next
//! container. One that was taken away is still known from the cache, so that its containers can be detached.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use serde_json::{Map, Value};
use tracing::debug;
use types::{Class, Error, Result};

use crate::builtin::Builtin;
use crate::cache::Entry;
use crate::conf::Network;
use crate::directory::{self, Fingerprint, NOT_INITIALIZED};
use crate::merged::Merged;
use crate::plugin::Limits;
use crate::result::AddResult;
use crate::verbs::{self, Attachment, Cni};

/// The network of the loopback interface.
const LOOPBACK: &[u8] =
    br#"{"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]}"#;

/// Which networks, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where plugins are.
    pub plugin_dirs: Vec<PathBuf>,
    /// Where networks are.
    pub conf_dir: PathBuf,
    /// How many of them count; 0 for all.
    pub most: usize,
    /// How interfaces are called: this, and a number.
    pub prefix: String,
    /// Whether `lo` is among the networks.
    pub loopback: Loopback,
    /// Whether a container's networks are set up, and taken away, one after another.
    pub order: Order,
    /// Where what was added is written down.
    pub cache: PathBuf,
    /// What a plugin may take.
    pub limits: Limits,
    /// Which plugins are run without their programs.
    pub builtin: Builtin,
}

impl Default for Settings {
    /// As go-cni has it.
    fn default() -> Self {
        Self {
            plugin_dirs: vec!["/opt/cni/bin".into()],
            conf_dir: "/etc/cni/net.d".into(),
            most: 1,
            prefix: "eth".into(),
            loopback: Loopback::Absent,
            order: Order::Parallel,
            cache: verbs::CACHE.into(),
            limits: Limits::default(),
            builtin: Builtin::default(),
        }
    }
}

/// Whether `lo` is brought up by its plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loopback {
    /// By nobody, or by the caller.
    Absent,
    /// By the plugin `loopback`.
    Plugin,
}

/// In which order a container's networks are set up, and taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All at once.
    Parallel,
    /// One after another, as the files are.
    Serial,
}

/// What else plugins are told of a container.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// CNI_ARGS.
    pub arguments: Vec<(String, String)>,
    /// By capability.
    pub capabilities: Map<String, Value>,
}

/// The networks.
#[derive(Debug)]
pub struct Networks {
    settings: Settings,
    cni: Cni,
    loaded: Mutex<Loaded>,
}

#[derive(Clone, Debug, Default)]
struct Loaded {
    seen: Option<Fingerprint>,
    networks: Arc<Vec<Named>>,
    /// Why the last look found none.
    failure: Option<(Class, String)>,
}

/// A network and the interface by which containers are in it.
#[derive(Clone, Debug)]
struct Named {
    network: Network,
    interface: String,
}

impl Networks {
    /// Looks at nothing yet.
    pub fn new(settings: Settings) -> Self {
        let cni = Cni::new(settings.plugin_dirs.clone(), &settings.cache, settings.limits);
        let cni = cni.with_builtin(settings.builtin);
        Self { settings, cni, loaded: Mutex::default() }
    }

    /// Removes what programs that were killed have left half-written in the cache.
    pub fn sweep(&self) {
        self.cni.sweep();
    }

    /// Loads the networks, if the directory has changed since the last time. While it cannot be read there are none.
    pub fn refresh(&self) -> Result<()> {
        // Before they are read: what is written meanwhile makes the next look different.
        let seen = Fingerprint::of(&self.settings.conf_dir);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.seen.as_ref() != Some(&seen) {
            let (networks, failure) = match self.load() {
                Ok(networks) => (networks, None),
                Err(error) => (Vec::new(), Some((error.class(), error.to_string()))),
            };
            *loaded = Loaded { seen: Some(seen), networks: Arc::new(networks), failure };
        }
        match &loaded.failure {
            Some((class, text)) => Err(Error::new(*class, text.clone())),
            None => Ok(()),
        }
    }

    fn load(&self) -> Result<Vec<Named>> {
        let mut networks = Vec::new();
        if self.settings.loopback == Loopback::Plugin {
            networks.push(Named { network: Network::parse(LOOPBACK)?, interface: "lo".into() });
        }
        let found = directory::load(&self.settings.conf_dir, self.settings.most)?;
        networks.extend(
            found
                .into_iter()
                .enumerate()
                .map(|(at, network)| Named { network, interface: self.interface(at) }),
        );
        Ok(networks)
    }

    fn interface(&self, number: usize) -> String {
        format!("{}{number}", self.settings.prefix)
    }

    fn ready(&self) -> Result<Arc<Vec<Named>>> {
        match self.refresh() {
            Ok(()) => Ok(self.known()),
            Err(error) => {
                let text = error.to_string();
                let why = text.strip_suffix(&format!(": {NOT_INITIALIZED}")).unwrap_or(&text);
                Err(Error::unavailable(format!("{NOT_INITIALIZED}: {why}")))
            }
        }
    }

    /// What was loaded, as it is.
    fn known(&self) -> Arc<Vec<Named>> {
        Arc::clone(&self.loaded.lock().unwrap_or_else(PoisonError::into_inner).networks)
    }

    /// The networks with their interfaces.
    pub fn list(&self) -> Vec<(String, Network)> {
        self.known().iter().map(|named| (named.interface.clone(), named.network.clone())).collect()
    }

    /// Whether containers can be set up now.
    pub async fn status(&self) -> Result<()> {
        for named in self.ready()?.iter() {
            self.cni.status(&named.network).await?;
        }
        Ok(())
    }

    /// Sets a container up in all networks, or in none. Not to be dropped half-way: what a plugin does then is known from
    /// the cache only.
    pub async fn setup(&self, container: &str, netns: &str, options: &Options) -> Result<Merged> {
        let networks = self.ready()?;
        let at = |named: &Named| attachment(container, netns, &named.interface, options);
        let added: Vec<Result<AddResult>> = match self.settings.order {
            Order::Parallel => {
                let adding =
                    networks.iter().map(async |named| self.cni.add(&named.network, &at(named)).await);
                join_all(adding).await
            }
            Order::Serial => {
                let mut added = Vec::new();
                for named in networks.iter() {
                    added.push(self.cni.add(&named.network, &at(named)).await);
                    if added.last().is_some_and(Result::is_err) {
                        break;
                    }
                }
                added
            }
        };
        let done: Vec<&Named> =
            networks.iter().zip(&added).filter(|(_, added)| added.is_ok()).map(|(named, _)| named).collect();
        let results: Result<Vec<AddResult>> = added.into_iter().collect();
        let merged = results.and_then(|results| {
            let current: Vec<_> = results.iter().map(AddResult::current).collect();
            Merged::of(&current, &self.interface(0))
        });
        match merged {
            Ok(merged) => Ok(merged),
            Err(mut error) => {
                for named in done {
                    error = self.cni.taken_back(&named.network, &at(named), error).await;
                }
                Err(error)
            }
        }
    }

    /// Takes a container out of all networks that it is in: those that were written down and those of the directory.
    /// Goes on after an error and tells of all. It may be done again, and for a container that was never set up.
    pub async fn remove(&self, container: &str, netns: &str, options: &Options) -> Result<()> {
        // Networks that cannot be read keep nobody from removing what was written down.
        if let Err(error) = self.refresh() {
            debug!(container, %error, "removed from what was written down alone");
        }
        let networks = self.known();
        let entries = self.cni.attachments(container)?;
        let is_of = |named: &Named, entry: &Entry| {
            entry.network_name == named.network.name() && entry.if_name == named.interface
        };
        let del = async |named: &Named| {
            let at = attachment(container, netns, &named.interface, options);
            self.cni.del(&named.network, &at).await.err()
        };
        let mut errors: Vec<Error> = match self.settings.order {
            // Each is in an interface of its own: what was added side by side goes so.
            Order::Parallel => join_all(networks.iter().map(del)).await.into_iter().flatten().collect(),
            Order::Serial => {
                let mut errors = Vec::new();
                for named in networks.iter() {
                    errors.extend(del(named).await);
                }
                errors
            }
        };
        for entry in &entries {
            if !networks.iter().any(|named| is_of(named, entry)) {
                errors.extend(self.cni.del_entry(entry, netns).await.err());
            }
        }
        errors.retain(|error| !is_gone(error, netns));
        verbs::all(errors)
    }

    /// Whether a container is set up as it was left. A network of before 0.4.0 cannot be asked, as that of `lo` is.
    pub async fn check(&self, container: &str, netns: &str, options: &Options) -> Result<()> {
        for named in self.ready()?.iter() {
            let at = attachment(container, netns, &named.interface, options);
            match self.cni.check(&named.network, &at).await {
                Err(error) if error.class() != Class::Unimplemented => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The verbs for one network, and what was written down.
    pub fn cni(&self) -> &Cni {
        &self.cni
    }
}

fn attachment(container: &str, netns: &str, interface: &str, options: &Options) -> Attachment {
    Attachment {
        container: container.into(),
        netns: netns.into(),
        interface: interface.into(),
        arguments: options.arguments.clone(),
        capabilities: options.capabilities.clone(),
    }
}

/// Whether an error of DEL says that there is nothing to delete any more. Plugins have only words for it; go-cni looks for
/// the same ones. A plugin that is missing is another matter.
fn is_gone(error: &Error, netns: &str) -> bool {
    let text = error.to_string();
    netns.is_empty() && text.contains("no such file or directory") || text.contains("not found")
}

#[cfg(test)]
mod tests;
