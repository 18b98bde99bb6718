//! The repository of a reference, checked so that its text can stand in an URL and in a directory's name.

use types::reference::Reference;
use types::{Error, Result};

/// A host and a repository on it: `docker.io`, `library/alpine`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// The host as the reference has it; a port may follow.
    pub host: String,
    /// The path on the host.
    pub path: String,
}

impl Repository {
    /// The repository of `reference`.
    pub fn of(reference: &Reference) -> Result<Self> {
        let bad = |why: &str| Error::invalid(format!("invalid reference {reference}: {why}"));
        let (host, path) = reference.locator.split_once('/').ok_or_else(|| bad("hostname required"))?;
        if !is_host(host) {
            return Err(bad("invalid host"));
        }
        if !is_path(path) {
            return Err(bad("invalid repository name"));
        }
        Ok(Self { host: host.to_owned(), path: path.to_owned() })
    }

    /// The scope of a token that allows to pull, or to pull and push.
    pub fn scope(&self, actions: &str) -> String {
        scope(&self.path, actions)
    }
}

/// The scope of a token for `path`.
pub fn scope(path: &str, actions: &str) -> String {
    format!("repository:{path}:{actions}")
}

/// Whether `text` is a host with an optional port, and nothing that could leave a directory or an URL's authority.
pub fn is_host(text: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]%".contains(&b);
    let head = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'[');
    let port = split_port(text).1.is_none_or(|port| port.parse::<u16>().is_ok());
    head && port && text.len() <= 270 && text.bytes().all(safe)
}

/// Whether `text` is a repository's path whose parts are plain names.
pub fn is_path(text: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(safe);
    text.len() <= 512 && text.split('/').all(plain)
}

/// The host that `docker.io` means.
pub const DOCKER_HUB: &str = "registry-1.docker.io";

/// Whether `host` is this machine by its name or address.
pub fn is_localhost(host: &str) -> bool {
    let (name, _) = split_port(host);
    name == "localhost"
        || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// `host:port` in its parts; the brackets of an IPv6 address stay.
pub fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_a_directory_or_an_url_is_no_repository() {
        for bad in ["h/../x", "h//x", "h/a?b", "h/a#b", "../x", "a@b/x", "h/a%2fb", "nohost"] {
            let reference = Reference { locator: bad.into(), tag: None, digest: None };
            assert!(Repository::of(&reference).is_err(), "{bad}");
        }
    }

    #[test]
    fn localhost_is_known_by_name_and_address() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:80", "[::1]:5000", "[::1]"] {
            assert!(is_localhost(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "r.example:5000"] {
            assert!(!is_localhost(host), "{host}");
        }
        assert_eq!(split_port("[::1]:80"), ("[::1]", Some("80")));
        assert_eq!(split_port("r.example"), ("r.example", None));
    }
}
