//! Docker's layout of certificates: `*.crt` are authorities, `*.cert` the client's certificates, `*.key` their keys.

use std::path::Path;

use types::{Result, ResultExt};

use super::{Considered, Tls, exists};

/// What lies in `directory`, by name.
pub fn read(directory: &Path, considered: &mut Vec<Considered>) -> Result<Tls> {
    let doing = || format!("read {}", directory.display());
    let mut tls = Tls::default();
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).context(doing)? {
        let entry = entry.context(doing)?;
        if !entry.path().is_dir() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    for path in paths {
        let kind = path.extension().and_then(|e| e.to_str());
        match kind {
            Some("crt") => tls.ca.push(path.clone()),
            Some("cert") => {
                // A certificate without a key beside it has the key in its own file.
                let key = path.with_extension("key");
                tls.client.push((path.clone(), exists(&key)?.then_some(key)));
            }
            _ => continue,
        }
        considered.push(Considered { path, found: true });
    }
    Ok(tls)
}
