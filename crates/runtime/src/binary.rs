//! From the name of a runtime to the program that is its shim.

use std::path::{Path, PathBuf};

use types::error::os_text;
use types::{Error, Result};

/// Finds the shim of `runtime`.
///
/// `io.containerd.runc.v2` is `containerd-shim-runc-v2`, looked for in the working directory (a leftover of upstream's
/// that people rely on for tests), in PATH, and next to the daemon. An absolute path is taken as it is.
///
/// Nothing is remembered: a few `stat` calls are cheap, and a shim that is installed or moved later is found.
pub(crate) fn resolve(runtime: &str, daemon: &Path) -> Result<PathBuf> {
    if runtime.is_empty() {
        return Err(Error::unknown("no runtime name"));
    }
    if Path::new(runtime).is_absolute() {
        let path = PathBuf::from(runtime);
        return match path.metadata() {
            Ok(_) => Ok(path),
            Err(e) => {
                Err(Error::unknown(format!("invalid custom binary path: stat {runtime}: {}", os_text(&e))))
            }
        };
    }
    let name = name(runtime).filter(|_| !runtime.contains('/')).ok_or_else(|| {
        Error::unknown(format!(
            "invalid runtime name {runtime}, correct runtime name should be either format like \
             `io.containerd.runc.v2` or a full path to the binary"
        ))
    })?;
    let here = std::env::current_dir().ok();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let beside = daemon.parent().map(Path::to_owned);
    here.into_iter()
        .chain(std::env::split_paths(&search).filter(|dir| dir.is_absolute()))
        .chain(beside)
        .map(|dir| dir.join(&name))
        .find(|path| is_program(path))
        .ok_or_else(|| {
            Error::unknown(format!("runtime {runtime:?} binary not installed {name:?}: file does not exist"))
        })
}

/// `a.b.name.version` is `containerd-shim-name-version`.
fn name(runtime: &str) -> Option<String> {
    let mut parts = runtime.rsplit('.');
    let (version, name) = (parts.next()?, parts.next()?);
    (!runtime.starts_with('.')).then(|| format!("containerd-shim-{name}-{version}"))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_parts_of_a_runtimes_name_name_its_program() {
        assert_eq!(name("io.containerd.runc.v2").unwrap(), "containerd-shim-runc-v2");
        assert_eq!(name("kata.v2").unwrap(), "containerd-shim-kata-v2");
        for bad in ["runc", "", ".runc.v2"] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_shim_beside_the_daemon_is_found_and_others_are_refused_by_name() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let shim = dir.path().join("containerd-shim-test-v9");
        std::fs::write(&shim, b"").unwrap();
        std::fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755)).unwrap();
        let daemon = dir.path().join("containerd");
        assert_eq!(resolve("io.containerd.test.v9", &daemon).unwrap(), shim);
        assert_eq!(resolve(shim.to_str().unwrap(), &daemon).unwrap(), shim);
        for (runtime, wanted) in [
            ("io.containerd.absent.v1", "binary not installed \"containerd-shim-absent-v1\""),
            ("/absent/shim", "invalid custom binary path: stat /absent/shim: no such file or directory"),
            ("./shim.v2", "invalid runtime name"),
            ("", "no runtime name"),
        ] {
            let error = resolve(runtime, &daemon).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
