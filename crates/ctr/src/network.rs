//! `--cni`: a container in the networks of /etc/cni/net.d, as upstream's ctr puts it there.
//!
//! ```text
//!  record    an extension tells that its container has networks         for whoever ends it
//!  Create    the network namespace is there; we keep it open            so that it is there when we take it out
//!  ADD       as <namespace>-<id>, in /proc/<pid>/ns/net
//!  Start ... end, Delete
//!  DEL       in what we kept open, or without where we come too late
//! ```
//!
//! A detached container is taken out by `tasks kill`, as by upstream's; by ours also when its task or its record is deleted,
//! if it is written down as attached by then.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

use cni::{Networks, Options, Settings};
use serde::{Deserialize, Serialize};
use types::container::Container;
use types::{Any, Error, Result, ResultExt};

use crate::client::Client;
use crate::log;

/// The extension by which upstream's ctr tells that a container has networks.
const EXTENSION: &str = "ctr.cni-containerd.metadata";
/// Its type, which upstream's ctr has to know to read it.
const TYPE: &str = "github.com/containerd/containerd/v2/cmd/ctr/commands/NetworkMetaData";

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct Metadata {
    enable_cni: bool,
}

/// What the record of a container with networks has more than others.
pub fn extension() -> Result<(String, Any)> {
    let value = crate::go::json::compact(&Metadata { enable_cni: true })?;
    Ok((EXTENSION.into(), Any::new(TYPE, value)))
}

/// Whether a container has networks.
fn has_networks(container: &Container) -> bool {
    let metadata = container.extensions.get(EXTENSION);
    let metadata = metadata.and_then(|any| serde_json::from_slice::<Metadata>(&any.value).ok());
    metadata.unwrap_or_default().enable_cni
}

/// The networks for a container that is about to be created; an error if there are none.
pub fn open() -> Result<Networks> {
    let networks = Networks::new(Settings::default());
    networks.refresh()?;
    Ok(networks)
}

/// A container, its networks, and its network namespace while that is there.
pub struct Attached {
    networks: Networks,
    id: String,
    netns: Option<Netns>,
}

impl Attached {
    /// For a container whose task is created and not started: it is in no network yet.
    pub fn new(client: &Client, networks: Networks, container: &str, pid: u32) -> Result<Self> {
        let netns = Netns::of(pid).context(|| format!("network namespace of {container}"))?;
        if netns.is_ours()? {
            let text = format!("{container} is in the host's network, which --cni would reconfigure");
            return Err(Error::precondition(text));
        }
        Ok(Self { networks, id: full_id(client, container), netns: Some(netns) })
    }

    /// For a command that ends a container; nothing, if that never had networks. With a pid while its process is there.
    /// To be called before it ends.
    pub fn of(client: &Client, container: &Container, pid: Option<u32>) -> Option<Self> {
        let networks = has_networks(container).then(|| Networks::new(Settings::default()))?;
        let netns = pid.filter(|pid| *pid != 0).and_then(|pid| Netns::of(pid).ok());
        // A process that has just ended leaves us with nothing to open, and plugins are told so.
        let netns = netns.filter(|netns| netns.is_ours().is_ok_and(|ours| !ours));
        Some(Self { networks, id: full_id(client, &container.id), netns })
    }

    /// Puts the process with this pid in the networks.
    pub async fn set_up(&self, pid: u32) -> Result<()> {
        self.networks.setup(&self.id, &format!("/proc/{pid}/ns/net"), &Options::default()).await.map(drop)
    }

    /// Takes it out, if it is written down that it is in. What goes wrong is told and no more.
    pub async fn remove(self) {
        let removed = match self.networks.cni().attachments(&self.id) {
            Ok(attachments) if attachments.is_empty() => Ok(()),
            Ok(_) => {
                let netns = self.netns.as_ref().map(Netns::path).unwrap_or_default();
                self.networks.remove(&self.id, &netns, &Options::default()).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            log::error("failed to remove network", Some(&error));
        }
    }
}

/// A network namespace that stays as long as we hold it.
struct Netns(File);

impl Netns {
    fn of(pid: u32) -> Result<Self> {
        Ok(Self(File::open(format!("/proc/{pid}/ns/net"))?))
    }

    /// A path for programs that we start.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    fn is_ours(&self) -> Result<bool> {
        let (own, other) = (std::fs::metadata("/proc/self/ns/net")?, self.0.metadata()?);
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }
}

/// As plugins know the container.
fn full_id(client: &Client, container: &str) -> String {
    format!("{}-{container}", client.namespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(extensions: &[(&str, &str)]) -> Container {
        let extension = |(key, value): &(&str, &str)| ((*key).to_owned(), Any::new("x", *value));
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        Container {
            id: "c".into(),
            labels: Default::default(),
            image: String::new(),
            runtime: Default::default(),
            spec: None,
            snapshotter: String::new(),
            snapshot_key: String::new(),
            created_at: epoch,
            updated_at: epoch,
            extensions: extensions.iter().map(extension).collect(),
            sandbox: String::new(),
        }
    }

    #[test]
    fn the_extension_is_upstreams() {
        let (key, any) = extension().unwrap();
        assert_eq!((key.as_str(), any.value.as_slice()), (EXTENSION, &b"{\"EnableCni\":true}"[..]));
        assert!(has_networks(&container(&[(EXTENSION, "{\"EnableCni\":true}")])));
        for none in [&[][..], &[(EXTENSION, "{}")], &[(EXTENSION, "x")], &[("other", "{\"EnableCni\":true}")]]
        {
            assert!(!has_networks(&container(none)), "{none:?}");
        }
    }

    #[test]
    fn a_namespace_is_held_and_known_as_ours() {
        let netns = Netns::of(std::process::id()).unwrap();
        assert!(netns.is_ours().unwrap());
        assert!(std::fs::metadata(netns.path()).is_ok());
        assert!(Netns::of(0).is_err());
    }
}
