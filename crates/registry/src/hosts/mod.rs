//! Which hosts stand for a registry, in what order, and how each is spoken to.
//!
//! ```text
//!   config_path/                     the first of these that exists, in the first directory that has one
//!     r.example_5000_/               host with its port, as file systems without colons like it
//!     r.example:5000/
//!     _default/
//!       hosts.toml                   or, without it, docker's *.crt, *.cert and *.key
//! ```
//!
//! Files are read again for each pull. What is written wrong is an error that names file, line and key: falling back
//! to the default, as upstream does, would ask a registry that its owner meant to replace.

mod certificates;
mod file;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderMap;
use types::{Result, ResultExt};

use crate::repository::{self, DOCKER_HUB};
use crate::settings::{Scheme, Settings};

pub use file::parse;

/// What a host may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Manifests and blobs by digest.
    Pull,
    /// Names to digests.
    Resolve,
    /// Uploads.
    Push,
    /// Who refers to a digest.
    Referrers,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pull, Self::Resolve, Self::Push, Self::Referrers];

    /// As `hosts.toml` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Resolve => "resolve",
            Self::Push => "push",
            Self::Referrers => "referrers",
        }
    }
}

/// What a host's files say about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Files with authorities to believe in as well.
    pub ca: Vec<PathBuf>,
    /// Files with a certificate, and with its key if that is not in the same file.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether any certificate will do.
    pub skip_verify: Option<bool>,
}

/// A host that stands for a registry.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// How it is spoken to; `https` first where `fallback` is set.
    pub scheme: Scheme,
    /// Name and port.
    pub name: String,
    /// The root of its API.
    pub path: String,
    /// What it may be used for.
    pub capabilities: Vec<Capability>,
    /// What its files say about TLS.
    pub tls: Tls,
    /// Headers for this host alone.
    pub headers: HeaderMap,
    /// How long connecting may take.
    pub dial_timeout: Option<Duration>,
    /// Whether `http` will do where nobody speaks TLS.
    pub fallback: bool,
}

impl Host {
    /// Whether it may be used for all of `capabilities`.
    pub fn can(&self, capabilities: &[Capability]) -> bool {
        capabilities.iter().all(|c| self.capabilities.contains(c))
    }

    /// Whether it stands for another registry than itself, and must be told which.
    pub fn is_proxy_of(&self, registry: &str) -> bool {
        self.name != registry && !(registry == "docker.io" && self.name == DOCKER_HUB)
    }

    /// `https://r.example:5000`.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme.as_str(), self.name)
    }
}

/// A host as its file has it; without an address it is the registry itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Scheme, name, path.
    pub address: Option<(Scheme, String, String)>,
    /// See [`Host::capabilities`]; none means all.
    pub capabilities: Vec<Capability>,
    /// See [`Host::tls`].
    pub tls: Tls,
    /// See [`Host::headers`].
    pub headers: HeaderMap,
    /// See [`Host::dial_timeout`].
    pub dial_timeout: Option<Duration>,
}

/// What was looked for on the way to the hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// A directory or a file.
    pub path: PathBuf,
    /// Whether it is there.
    pub found: bool,
}

/// The hosts of a registry, and which files made them.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// What was looked for, in order.
    pub considered: Vec<Considered>,
    /// Who is asked, in order.
    pub list: Vec<Host>,
}

/// Reads the files about `registry`. Blocks.
pub fn lookup(settings: &Settings, registry: &str) -> Result<Hosts> {
    let mut hosts = Hosts::default();
    let entries = match directory(&settings.config_path, registry, &mut hosts.considered)? {
        Some(directory) => read_directory(&directory, &mut hosts.considered)?,
        None => vec![Entry::default()],
    };
    hosts.list = entries.into_iter().map(|entry| complete(settings, registry, entry)).collect();
    Ok(hosts)
}

/// The directory about `registry`.
fn directory(roots: &[PathBuf], registry: &str, considered: &mut Vec<Considered>) -> Result<Option<PathBuf>> {
    let mut names = Vec::new();
    if let Some((name, port)) = registry.rsplit_once(':').filter(|(name, _)| !name.is_empty()) {
        names.push(format!("{name}_{port}_"));
    }
    names.push(registry.to_owned());
    names.push("_default".to_owned());
    for root in roots {
        for name in &names {
            let path = root.join(name);
            let found = exists(&path)?;
            considered.push(Considered { path: path.clone(), found });
            if found {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

fn exists(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).context(|| format!("look for registry files in {}", path.display())),
    }
}

/// `hosts.toml`, or docker's certificates where it is missing or empty.
fn read_directory(directory: &Path, considered: &mut Vec<Considered>) -> Result<Vec<Entry>> {
    let path = directory.join("hosts.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e).context(|| format!("read {}", path.display())),
    };
    let text = text.filter(|text| !text.is_empty());
    considered.push(Considered { path: path.clone(), found: text.is_some() });
    match text {
        Some(text) => parse(&text, &path),
        None => Ok(vec![Entry { tls: certificates::read(directory, considered)?, ..Entry::default() }]),
    }
}

/// An entry with everything that it leaves open.
fn complete(settings: &Settings, registry: &str, entry: Entry) -> Host {
    let Entry { address, mut capabilities, mut tls, headers, dial_timeout } = entry;
    let (mut scheme, name, path) = address.unwrap_or_else(|| {
        capabilities.clear();
        itself(settings, registry, &mut tls)
    });
    if capabilities.is_empty() {
        capabilities = Capability::ALL.to_vec();
    }
    // Whoever says how to speak TLS means TLS, even where the scheme says otherwise: it is tried first.
    let configured = settings.skip_verify || settings.ca.is_some() || settings.client.is_some();
    let explicit = configured || tls != Tls::default();
    let fallback = scheme == Scheme::Http && explicit && repository::split_port(&name).1 != Some("80");
    if fallback {
        scheme = Scheme::Https;
    }
    Host { scheme, name, path, capabilities, tls, headers, dial_timeout, fallback }
}

/// The address of the registry itself, by upstream's rules for localhost.
fn itself(settings: &Settings, registry: &str, tls: &mut Tls) -> (Scheme, String, String) {
    let path = "/v2".to_owned();
    if registry == "docker.io" {
        return (Scheme::Https, DOCKER_HUB.to_owned(), path);
    }
    let name = registry.to_owned();
    if let Some(scheme) = settings.default_scheme {
        return (scheme, name, path);
    }
    if !repository::is_localhost(registry) {
        return (Scheme::Https, name, path);
    }
    let port = repository::split_port(registry).1;
    if port != Some("80") {
        tls.skip_verify = Some(true);
    }
    let scheme = if matches!(port, None | Some("443")) { Scheme::Https } else { Scheme::Http };
    (scheme, name, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(files: &[(&str, &str)]) -> (tempfile::TempDir, Settings) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let settings = Settings { config_path: vec![root.path().to_owned()], ..Settings::default() };
        (root, settings)
    }

    fn origins(settings: &Settings, registry: &str) -> Vec<String> {
        lookup(settings, registry).unwrap().list.iter().map(|h| format!("{}{}", h.origin(), h.path)).collect()
    }

    #[test]
    fn without_files_a_registry_stands_for_itself() {
        let settings = Settings::default();
        assert_eq!(origins(&settings, "docker.io"), ["https://registry-1.docker.io/v2"]);
        assert_eq!(origins(&settings, "r.example:5000"), ["https://r.example:5000/v2"]);
        assert_eq!(origins(&settings, "localhost:80"), ["http://localhost:80/v2"]);
        let local = lookup(&settings, "127.0.0.1:5000").unwrap().list.remove(0);
        assert!(local.fallback && local.scheme == Scheme::Https, "TLS first, then in the clear: {local:?}");
        let plain = Settings { default_scheme: Some(Scheme::Http), ..Settings::default() };
        let local = lookup(&plain, "r.example").unwrap().list.remove(0);
        assert!(!local.fallback && local.scheme == Scheme::Http, "{local:?}");
    }

    #[test]
    fn mirrors_come_first_in_the_order_of_the_file_and_the_server_last() {
        let text =
            "server = \"https://up.example\"\n[host.\"https://z.example\"]\n[host.\"http://a.example/x\"]\n";
        let (_root, settings) = settings(&[("r.example/hosts.toml", text)]);
        assert_eq!(
            origins(&settings, "r.example"),
            ["https://z.example/v2", "http://a.example/x/v2", "https://up.example/v2"]
        );
    }

    #[test]
    fn a_port_is_found_with_underscores_then_with_a_colon_then_by_default() {
        let (root, settings) = settings(&[
            ("_default/hosts.toml", "server = \"https://d.example\""),
            ("r.example:5000/hosts.toml", "server = \"https://colon.example\""),
            ("r.example_5000_/hosts.toml", "server = \"https://under.example\""),
        ]);
        assert_eq!(origins(&settings, "r.example:5000"), ["https://under.example/v2"]);
        std::fs::remove_dir_all(root.path().join("r.example_5000_")).unwrap();
        assert_eq!(origins(&settings, "r.example:5000"), ["https://colon.example/v2"]);
        assert_eq!(origins(&settings, "docker.io"), ["https://d.example/v2"]);
    }

    #[test]
    fn a_file_without_a_server_ends_with_the_registry_itself() {
        let (_root, settings) = settings(&[("docker.io/hosts.toml", "[host.\"https://m.example\"]")]);
        assert_eq!(
            origins(&settings, "docker.io"),
            ["https://m.example/v2", "https://registry-1.docker.io/v2"]
        );
    }

    #[test]
    fn dockers_certificates_are_used_where_there_is_no_file() {
        let (root, settings) =
            settings(&[("r.example/a.crt", "x"), ("r.example/c.cert", "x"), ("r.example/c.key", "x")]);
        let host = lookup(&settings, "r.example").unwrap().list.remove(0);
        let at = |name: &str| root.path().join("r.example").join(name);
        assert_eq!(host.tls.ca, [at("a.crt")]);
        assert_eq!(host.tls.client, [(at("c.cert"), Some(at("c.key")))]);
    }
}
