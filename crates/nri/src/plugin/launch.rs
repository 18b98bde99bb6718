//! Plugins that are there already: programs `NN-name`, launched with a connection as descriptor 3.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sys::process::Bond;
use tokio::net::UnixStream;
use types::{Error, Result, ResultExt};

use super::{Origin, Program};
use crate::config::Config;
use crate::name;

/// The largest configuration of a plugin that is read.
const LARGEST: u64 = 1 << 20;

/// A plugin to be launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The program.
    pub path: PathBuf,
    /// Two digits.
    pub index: String,
    /// The rest of its name.
    pub name: String,
    /// What it is configured with.
    pub config: String,
}

/// Looks for plugins, in the order of their names. One whose name is none is an error, as upstream.
pub fn discover(config: &Config) -> Result<Vec<Found>> {
    let dir = &config.plugins;
    let doing = || format!("failed to discover plugins in {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(doing)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.context(doing)?;
        let Ok(meta) = fs::metadata(entry.path()) else { continue };
        if meta.is_dir() || meta.permissions().mode() & 0o111 == 0 {
            continue;
        }
        let file = entry.file_name().to_string_lossy().into_owned();
        let (index, name) = name::parse(&file).context(doing)?;
        let config = configuration(&config.plugin_configs, &file, name).context(doing)?;
        found.push(Found { path: entry.path(), index: index.to_owned(), name: name.to_owned(), config });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Its own, or that of all instances; none is empty.
fn configuration(dir: &Path, file: &str, name: &str) -> Result<String> {
    for name in [file, name] {
        let path = dir.join(format!("{name}.conf"));
        let doing = || format!("failed to read configuration for plugin {file:?}");
        match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Ok(meta) if meta.len() > LARGEST => {
                return Err(Error::invalid("more than 1 MiB").context(doing()));
            }
            _ => return fs::read_to_string(&path).context(doing),
        }
    }
    Ok(String::new())
}

/// Launches one; it has yet to register.
pub fn launch(found: Found) -> Result<(UnixStream, Origin)> {
    let doing = || format!("failed to launch plugin \"{}-{}\"", found.index, found.name);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().context(doing)?;
    ours.set_nonblocking(true).context(doing)?;
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Error::invalid("a NUL").context(doing()));
    let path = text(found.path.as_os_str().as_bytes())?;
    let env = [
        text(format!("NRI_PLUGIN_NAME={}", found.name).as_bytes())?,
        text(format!("NRI_PLUGIN_IDX={}", found.index).as_bytes())?,
        text(b"NRI_PLUGIN_SOCKET=3")?,
    ];
    let null = fs::File::options().read(true).write(true).open("/dev/null").context(doing)?;
    let program = sys::process::Program {
        path: &path,
        args: std::slice::from_ref(&path),
        env: &env,
        dir: c"/",
        stdio: [null.as_fd(); 3],
        more: Some([theirs.as_fd(), null.as_fd(), null.as_fd()]),
        bond: Bond::Outlives,
    };
    let child = program.spawn().context(doing)?;
    let socket = UnixStream::from_std(ours).context(doing)?;
    let Found { index, name, config, .. } = found;
    Ok((socket, Origin::Launched { index, name, config, program: Program::new(child) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn programs_are_found_in_order_with_their_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let (plugins, plugin_configs) = (dir.path().join("p"), dir.path().join("c"));
        fs::create_dir(&plugins).unwrap();
        fs::create_dir(&plugin_configs).unwrap();
        let config = Config { plugins: plugins.clone(), plugin_configs, ..Config::default() };
        for name in ["20-b", "10-a", "30-a"] {
            write(&plugins.join(name), "", 0o755);
        }
        write(&plugins.join("README"), "", 0o644);
        fs::create_dir(plugins.join("lib")).unwrap();
        write(&config.plugin_configs.join("a.conf"), "all", 0o644);
        write(&config.plugin_configs.join("30-a.conf"), "own", 0o644);
        let found: Vec<_> =
            discover(&config).unwrap().into_iter().map(|f| (f.index, f.name, f.config)).collect();
        let expected = [("10", "a", "all"), ("20", "b", ""), ("30", "a", "own")];
        assert_eq!(found, expected.map(|(i, n, c)| (i.to_owned(), n.to_owned(), c.to_owned())));
        write(&plugins.join("wrong"), "", 0o755);
        assert!(discover(&config).is_err());
    }

    #[test]
    fn no_directory_is_no_plugin() {
        let config = Config { plugins: "/nonexistent/plugins".into(), ..Config::default() };
        assert_eq!(discover(&config).unwrap(), []);
    }
}
