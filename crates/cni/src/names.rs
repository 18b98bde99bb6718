//! Names that become file names and environment, and who may pass: libcni's rules and words.

use types::{Error, Result};

use crate::error::{Code, PluginError};

/// As long as the kernel takes.
const INTERFACE: usize = 15;

/// A container's id.
pub fn container(id: &str) -> Result<()> {
    if id.is_empty() {
        return refuse(Code::UnknownContainer, "missing containerID", "");
    }
    if !is_plain(id) {
        return refuse(Code::InvalidEnvironment, "invalid characters in containerID", id);
    }
    Ok(())
}

/// A network's name.
pub fn network(name: &str) -> Result<()> {
    if name.is_empty() {
        return refuse(Code::InvalidConfig, "missing network name:", "");
    }
    if !is_plain(name) {
        return refuse(Code::InvalidConfig, "invalid characters found in network name", name);
    }
    Ok(())
}

/// The name of an interface in a container: what the kernel takes.
pub fn interface(name: &str) -> Result<()> {
    let refused = |why: &str, details: &str| refuse(Code::InvalidEnvironment, why, details);
    match name {
        "" => refused("interface name is empty", ""),
        _ if name.len() > INTERFACE => {
            refused("interface name is too long", "interface name should be less than 16 characters")
        }
        "." | ".." => refused("interface name is . or ..", ""),
        _ if name.chars().any(|c| matches!(c, '/' | ':' | '\0') || c.is_whitespace()) => {
            refused("interface name contains / or : or whitespace characters", "")
        }
        _ => Ok(()),
    }
}

/// An argument of CNI_ARGS, which is `KEY=VALUE;KEY=VALUE`: neither may look like two.
pub fn argument(key: &str, value: &str) -> Result<()> {
    let bad = |text: &str| text.contains(';') || text.chars().any(char::is_control);
    if key.is_empty() || key.contains('=') || bad(key) || bad(value) {
        return Err(Error::invalid(format!("invalid CNI argument {key:?}={value:?}")));
    }
    Ok(())
}

/// A plugin's type, which is a file name.
pub fn plugin(kind: &str) -> Result<()> {
    if kind.is_empty() {
        return Err(Error::invalid("no plugin name provided"));
    }
    if kind.contains(['/', '\0']) || kind == "." || kind == ".." {
        return Err(Error::invalid(format!("invalid plugin name: {}", kind.escape_default())));
    }
    Ok(())
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn refuse<T>(code: Code, message: &str, details: &str) -> Result<T> {
    Err(PluginError::new(code, message, details).of_ours())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_and_networks_have_plain_names() {
        for good in ["a", "default-c1", "0a.B_c-"] {
            assert!(container(good).is_ok() && network(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".", "..", "a/b", "../a", "a b", "a\n", "ä", "a\0", "a;b"] {
            assert!(container(bad).is_err() && network(bad).is_err(), "{bad:?}");
        }
        assert_eq!(container("a/b").unwrap_err().to_string(), "invalid characters in containerID; a/b");
        assert_eq!(network("").unwrap_err().to_string(), "missing network name:");
    }

    #[test]
    fn interfaces_are_what_the_kernel_takes() {
        assert!(interface("eth0").is_ok() && interface("fifteen-letters").is_ok());
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "sixteen-letters!", "a\0"] {
            assert!(interface(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_argument_is_one_argument() {
        assert!(argument("K8S_POD_NAME", "a=b").is_ok());
        for (key, value) in [("", "a"), ("a=b", "c"), ("a", "b;IgnoreUnknown=1"), ("a", "b\n"), ("a", "b\0")]
        {
            assert!(argument(key, value).is_err(), "{key:?} {value:?}");
        }
    }

    #[test]
    fn a_plugin_is_a_file_and_no_path() {
        assert!(plugin("host-local").is_ok());
        for bad in ["", "../../bin/sh", "/bin/sh", "a/b", ".", "..", "a\0"] {
            assert!(plugin(bad).is_err(), "{bad:?}");
        }
    }
}
