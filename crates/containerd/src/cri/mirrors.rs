//! Mirrors in the words of old configurations, as hosts files: the way that everybody else goes to registries.
//!
//! `[plugins."…".registry.mirrors."docker.io"] endpoint = ["https://mirror:5000"]` becomes a directory `docker.io` with a
//! `hosts.toml`; that of `*` is `_default`. The registry itself is asked last.

use std::fmt::Write;
use std::path::Path;

use types::{Result, ResultExt};

use crate::directories;

/// Writes the files, instead of those of an earlier start.
pub fn write(dir: &Path, mirrors: &[(String, Vec<String>)]) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context(|| format!("remove {}", dir.display()));
        }
        _ => {}
    }
    directories::make_private(dir)?;
    for (host, endpoints) in mirrors {
        // A name of a host, never a path.
        let name = if host == "*" { "_default".to_owned() } else { host.replace('/', "_") };
        if name == "." || name == ".." {
            continue;
        }
        directories::make_private(&dir.join(&name))?;
        let path = dir.join(&name).join("hosts.toml");
        std::fs::write(&path, file(endpoints)).context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The mirrors of one registry, in order. A path of an endpoint is where its API is.
fn file(endpoints: &[String]) -> String {
    let mut text = String::new();
    for endpoint in endpoints {
        let path = endpoint.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        let own = path.is_some_and(|(_, path)| !path.trim_end_matches('/').is_empty());
        let endpoint = endpoint.trim_end_matches('/');
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "[host.{endpoint:?}]\ncapabilities = [\"pull\", \"resolve\"]\noverride_path = {own}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn mirrors_become_hosts_files_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        let both = vec!["http://a:5000/".to_owned(), "https://b/proxy".to_owned()];
        let mirrors = [("docker.io".to_owned(), both), ("*".to_owned(), vec!["http://c".to_owned()])];
        write(&hosts, &mirrors).unwrap();
        write(&hosts, &mirrors).unwrap();
        let text = |name: &str| std::fs::read_to_string(hosts.join(name).join("hosts.toml")).unwrap();
        let docker = text("docker.io");
        assert!(docker.find("a:5000\"").unwrap() < docker.find("https://b/proxy").unwrap());
        assert_eq!(docker.matches("override_path = true").count(), 1);
        assert!(text("_default").contains("http://c"));
        assert_eq!(std::fs::read_dir(&hosts).unwrap().count(), 2);
        let _: PathBuf = hosts;
    }
}
