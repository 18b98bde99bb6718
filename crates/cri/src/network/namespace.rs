//! The network namespace of a pod: a file to which the kernel's is bound.
//!
//! The name is chosen, and written down in the pod's record, before the namespace is made: one that is found without a record
//! is not ours, unless the directory is.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use api::cri::{IdMapping, NamespaceMode, PodSandboxConfig};
use sys::netlink::{Family, Message, Socket};
use sys::netns::{self, Netns, UserMaps};
use types::{Error, Result, ResultExt};

use super::Network;

impl Network {
    /// A path that no namespace has, or had.
    pub fn plan(&self) -> PathBuf {
        let b: [u8; 16] = rand::random();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let parts = [&b[..4], &b[4..6], &b[6..8], &b[8..10], &b[10..]].map(hex);
        self.dir.join(format!("cni-{}", parts.join("-")))
    }

    /// The files of namespaces that nobody in `known` has, if all that are there are ours.
    pub fn orphans(&self, known: &[&str]) -> Vec<PathBuf> {
        if !self.own_dir {
            return Vec::new();
        }
        let files = std::fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|path| !known.iter().any(|known| Path::new(known) == path)).collect()
    }
}

/// The maps of a pod that has a user namespace of its own.
pub fn user_maps(config: &PodSandboxConfig) -> Option<UserMaps> {
    let context = config.linux.as_ref()?.security_context.as_ref()?;
    let options = context.namespace_options.as_ref()?.userns_options.as_ref()?;
    (options.mode() == NamespaceMode::Pod)
        .then(|| UserMaps { uids: lines(&options.uids), gids: lines(&options.gids) })
}

fn lines(maps: &[IdMapping]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.length)).collect()
}

/// Makes a namespace; with `user`, one that belongs to a new user namespace, which is bound there.
pub fn create(path: &Path, user: Option<(&Path, &UserMaps)>) -> Result<()> {
    let dir = |path: &Path| match path.parent() {
        Some(dir) => DirBuilder::new().recursive(true).mode(0o755).create(dir),
        None => Ok(()),
    };
    let made = dir(path).and_then(|()| match user {
        None => netns::create(path),
        Some((user, maps)) => {
            dir(user)?;
            netns::create_with_user_namespace(path, user, maps)
        }
    });
    made.context(|| format!("create network namespace {}", path.display()))
}

/// Removes a namespace. It may be done again.
pub fn remove(path: &Path) -> Result<()> {
    netns::remove(path).context(|| format!("remove network namespace {}", path.display()))
}

/// Brings `lo` up inside.
pub fn loopback_up(path: &Path) -> Result<()> {
    /// `RTM_NEWLINK`, the index of `lo`, and `IFF_UP`.
    const NEW_LINK: u16 = 16;
    const LO: i32 = 1;
    const UP: u32 = 1;
    let up = || {
        let mut about = vec![0; 4];
        about.extend(LO.to_ne_bytes());
        about.extend(UP.to_ne_bytes());
        about.extend(UP.to_ne_bytes());
        let socket = Socket::open(Family::Route).map_err(|e| Error::unknown(e.to_string()))?;
        socket.change(Message::new(NEW_LINK, 0, &about)).map_err(|e| Error::unknown(e.to_string()))
    };
    let doing = || format!("bring lo up in {}", path.display());
    Netns::open(path).and_then(|namespace| namespace.inside(up)).context(doing)?.context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn network(under_state: bool, state: &Path) -> Network {
        let mut config = Config::default();
        config.runtime.netns_under_state = under_state;
        Network::new(&config, state)
    }

    #[test]
    fn namespaces_are_named_as_upstream_names_them() {
        let network = network(false, Path::new("/s"));
        let path = network.plan();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(path.starts_with("/var/run/netns") && name.starts_with("cni-"), "{name}");
        assert_eq!(name.split('-').map(str::len).collect::<Vec<_>>(), [3, 8, 4, 4, 4, 12]);
        assert_ne!(network.plan(), path);
        assert!(network.orphans(&[]).is_empty(), "others have theirs there too");
    }

    #[test]
    fn a_namespace_is_made_used_and_removed() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let state = tempfile::tempdir().unwrap();
        let network = network(true, state.path());
        let path = network.plan();
        create(&path, None).unwrap();
        loopback_up(&path).unwrap();
        let talk = || {
            std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|l| std::net::TcpStream::connect(l.local_addr()?))
                .is_ok()
        };
        assert!(Netns::open(&path).unwrap().inside(talk).unwrap());
        assert!(network.orphans(&[path.to_str().unwrap()]).is_empty());
        assert_eq!(network.orphans(&[]), std::slice::from_ref(&path));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(network.orphans(&[]).is_empty());
    }
}
