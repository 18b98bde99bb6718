//! Task services that somebody else has started: a sandboxer in another process says where tasks in its sandboxes are made.
//!
//! ```text
//!  <protocol>+<scheme>://<where>     ttrpc+unix:///run/pod.sock          ttrpc+hvsock:///run/vm.sock:1024
//! ```
//!
//! Such a task has a bundle as any other has, in which a file `endpoint` says that it is one. What differs: no program is executed
//! for it, neither to start it nor to clean up after it; the pid that is told may be one of another machine, so no process is held
//! or killed by it; and the service is never sent away, for it is not ours. When it is gone, its tasks have ended: how, nobody knows.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use types::task::Endpoint;
use types::{Error, Result};

use crate::bootstrap::Bootstrap;

/// The longest path of a socket, in bytes.
const LONGEST: usize = 107;

/// Refuses what is no address of a task service that can be spoken to.
pub fn check_endpoint(endpoint: &Endpoint) -> Result<()> {
    bootstrap(endpoint).map(drop)
}

/// How to reach it.
pub(crate) fn bootstrap(endpoint: &Endpoint) -> Result<Bootstrap> {
    let Endpoint { address, version } = endpoint;
    let refuse = |why: &str| Error::invalid(format!("task API address {address:?}: {why}"));
    let Some((protocol, rest)) = address.split_once('+') else {
        return Err(refuse(
            "the scheme of sandbox address should be in the form of <protocol>+<unix|vsock|tcp>, i.e. ttrpc+unix or grpc+vsock",
        ));
    };
    let version = i32::try_from(*version).unwrap_or(i32::MAX);
    let bootstrap = Bootstrap::new(protocol, rest, version)?;
    match rest.split_once("://") {
        Some(("unix", path)) => socket(path).map_err(refuse)?,
        Some(("hvsock", place)) => {
            let (path, _) = hybrid(place).ok_or_else(|| refuse("a path, a colon and a port are wanted"))?;
            socket(path).map_err(refuse)?;
        }
        Some((scheme @ ("vsock" | "tcp"), _)) => {
            return Err(Error::unimplemented(format!(
                "task API address {address:?}: {scheme}: not implemented"
            )));
        }
        _ => return Err(refuse("neither unix:// nor hvsock://")),
    }
    Ok(bootstrap)
}

/// The socket of a virtual machine's monitor, and the port behind it.
pub(crate) fn hybrid(place: &str) -> Option<(&str, u32)> {
    let (path, port) = place.rsplit_once(':')?;
    Some((path, port.parse().ok()?))
}

fn socket(path: &str) -> Result<(), &'static str> {
    let path = Path::new(path);
    let bytes = path.as_os_str().as_bytes();
    if !path.is_absolute() {
        return Err("the path of the socket is not absolute");
    }
    if bytes.len() > LONGEST || bytes.contains(&0) {
        return Err("the path of the socket is too long, or has a NUL in it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use types::Class;

    use super::*;

    fn at(address: &str, version: u32) -> Endpoint {
        Endpoint { address: address.into(), version }
    }

    #[test]
    fn services_behind_sockets_of_either_version_can_be_spoken_to() {
        for (address, version) in
            [("ttrpc+unix:///run/a", 3), ("ttrpc+unix:///run/a", 2), ("ttrpc+hvsock:///v.sock:1024", 3)]
        {
            let bootstrap = bootstrap(&at(address, version)).unwrap();
            assert_eq!(format!("{}+{}", bootstrap.protocol, bootstrap.address), address);
        }
        assert_eq!(hybrid("/v:1.sock:7"), Some(("/v:1.sock", 7)));
    }

    #[test]
    fn what_is_no_address_is_refused_and_named() {
        let long = format!("ttrpc+unix:///{}", "x".repeat(107));
        for address in [
            "",
            "/run/a",
            "unix:///run/a",
            "ttrpc+unix://run/a",
            "ttrpc+/run/a",
            "ttrpc+unix:///a\0b",
            "ttrpc+hvsock:///v",
            "ttrpc+hvsock:///v:x",
            "ttrpc+file:///etc/passwd",
            &long,
        ] {
            let error = bootstrap(&at(address, 3)).unwrap_err();
            assert!(
                error.class() == Class::InvalidArgument
                    && error.to_string().contains(&format!("{address:?}")),
                "{error}"
            );
        }
        for (address, version) in [
            ("grpc+unix:///a", 3),
            ("ttrpc+vsock://3:1024", 3),
            ("ttrpc+unix:///a", 4),
            ("ttrpc+unix:///a", 0),
        ] {
            assert_eq!(
                bootstrap(&at(address, version)).unwrap_err().class(),
                Class::Unimplemented,
                "{address}"
            );
        }
        assert!(bootstrap(&at("smtp+unix:///a", 3)).is_err());
    }
}
