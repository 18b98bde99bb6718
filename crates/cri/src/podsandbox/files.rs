//! Files of a pod that its containers get mounted.
//!
//! ```text
//!  <root>/sandboxes/<id>/    hosts hostname resolv.conf
//!  <state>/sandboxes/<id>/   shm/                         a tmpfs, unless the pod uses the host's
//!                            pinned-namespaces/user       the pod's user namespace, bound
//! ```

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::cri::{DnsConfig, NamespaceMode, PodSandboxConfig};
use sys::mount::UnmountFlags;
use types::mount::Mount;
use types::{Error, Result, ResultExt};

use crate::cri::{Cri, blocking};
use crate::network::namespace;
use crate::pod::Record;

/// As much as the kubelet expects: 64 MiB.
const SHM: &str = "size=67108864";
const HOST_SHM: &str = "/dev/shm";

/// Where the user namespace of a pod that has one of its own is bound, unless it is made with the sandbox: a pod on the host's
/// network has no namespace that it could belong to before.
pub fn user_namespace(cri: &Cri, pod: &Record) -> Option<PathBuf> {
    let own = !pod.netns.is_empty() && namespace::user_maps(&pod.config).is_some();
    own.then(|| cri.dirs.pod_state(&pod.id).join("pinned-namespaces/user"))
}

/// Writes and mounts them.
pub async fn write(cri: &Cri, pod: &Record) -> Result<()> {
    let (root, state) = (cri.dirs.pod(&pod.id), cri.dirs.pod_state(&pod.id));
    let config = pod.config.clone();
    blocking(move || {
        make_dir(&root, 0o755)?;
        make_dir(&state, 0o755)?;
        let put = |name: &str, text: &[u8]| {
            let path = root.join(name);
            fs::write(&path, text)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
                .context(|| format!("write {}", path.display()))
        };
        put("hostname", hostname(&config)?.as_bytes())?;
        put("hosts", &read("/etc/hosts")?)?;
        match &config.dns_config {
            Some(dns) => put("resolv.conf", resolv_conf(dns).as_bytes())?,
            None => put("resolv.conf", &read("/etc/resolv.conf")?)?,
        }
        shm(&config, &state.join("shm"))
    })
    .await
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path).context(|| format!("create {}", path.display()))
}

fn read(path: &str) -> Result<Vec<u8>> {
    match fs::read(path) {
        // A host without one has nothing to say.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.context(|| format!("read {path}")),
    }
}

fn hostname(config: &PodSandboxConfig) -> Result<String> {
    if !config.hostname.is_empty() {
        return Ok(format!("{}\n", config.hostname));
    }
    let own = rustix::system::uname();
    Ok(format!("{}\n", own.nodename().to_string_lossy()))
}

/// The text of resolv.conf.
fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

fn shm(config: &PodSandboxConfig, path: &Path) -> Result<()> {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = context.and_then(|context| context.namespace_options.as_ref());
    if options.is_some_and(|options| options.ipc() == NamespaceMode::Node) {
        return match Path::new(HOST_SHM).exists() {
            true => Ok(()),
            false => Err(Error::precondition(format!("host {HOST_SHM:?} is not available for host ipc"))),
        };
    }
    make_dir(path, 0o700)?;
    let options = ["noexec", "nosuid", "nodev", "mode=1777", SHM].map(str::to_owned).to_vec();
    let tmpfs = Mount { kind: "tmpfs".into(), source: "shm".into(), target: String::new(), options };
    sys::mount::mount_all(&[tmpfs], path).context(|| format!("mount {}", path.display()))
}

/// Unmounts what is mounted of the pod `id`. May be done again.
pub async fn unmount(cri: &Cri, id: &str) -> Result<()> {
    let state = cri.dirs.pod_state(id);
    blocking(move || unmount_below(&state)).await
}

fn unmount_below(state: &Path) -> Result<()> {
    for path in ["shm", "pinned-namespaces/user"].map(|name| state.join(name)) {
        if path.exists() {
            let unmounted = sys::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
            unmounted.context(|| format!("unmount {}", path.display()))?;
        }
    }
    Ok(())
}

/// Removes all files of the pod `id`. May be done again.
pub async fn remove(cri: &Cri, id: &str) -> Result<()> {
    let (root, state) = (cri.dirs.pod(id), cri.dirs.pod_state(id));
    blocking(move || {
        unmount_below(&state)?;
        sys::mount::unmount_recursive(&state, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        [root, state].iter().try_for_each(|dir| match fs::symlink_metadata(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            _ => sys::fs::remove_tree(dir).context(|| format!("remove {}", dir.display())),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_searches_then_servers_then_options() {
        let dns = DnsConfig {
            servers: vec!["8.8.8.8".into(), "server.google.com".into()],
            searches: vec!["114.114.114.114".into(), "b".into()],
            options: vec!["timeout:1".into(), "rotate".into()],
        };
        let expected = "search 114.114.114.114 b\nnameserver 8.8.8.8\nnameserver server.google.com\noptions timeout:1 rotate\n";
        assert_eq!(resolv_conf(&dns), expected);
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }

    #[test]
    fn the_host_name_is_the_pods_or_the_hosts() {
        let config = PodSandboxConfig { hostname: "web".into(), ..PodSandboxConfig::default() };
        assert_eq!(hostname(&config).unwrap(), "web\n");
        assert!(hostname(&PodSandboxConfig::default()).unwrap().len() > 1);
    }
}
