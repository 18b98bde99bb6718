//! Image names as an archive tells them.

use types::oci::Descriptor;
use types::reference::Reference;
use types::{Error, Result};

use crate::import::{IMAGE_NAME, REF_NAME};

/// A descriptor with its image's name on it, for us in full and for others as a tag.
pub(super) fn annotated(name: &str, target: &Descriptor) -> Descriptor {
    let mut image = target.clone();
    image.annotations.insert(IMAGE_NAME.to_owned(), name.to_owned());
    image.annotations.insert(REF_NAME.to_owned(), tag(name).unwrap_or(name).to_owned());
    image
}

/// What is behind the colon in a name; `None` of one that has a digest alone, or no host in front.
fn tag(name: &str) -> Option<&str> {
    let (host, path) = name.split_once('/')?;
    let port = host.rsplit_once(':').map_or("", |(_, port)| port);
    if host.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match path.split_once([':', '@']) {
        Some((before, tag)) if !tag.is_empty() && path.as_bytes()[before.len()] == b':' => Some(tag),
        _ => None,
    }
}

/// A name as Docker prints it.
pub(super) fn familiar(name: &str) -> Result<String> {
    let reference = Reference::normalize(name)
        .map_err(|e: Error| e.context(format!("failed to parse {name:?}")))?
        .to_string();
    let short = reference.strip_prefix("docker.io/");
    Ok(short.map_or(reference.as_str(), |s| s.strip_prefix("library/").unwrap_or(s)).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_alone_is_for_others() {
        for (name, wanted) in [
            ("docker.io/library/busybox:1", Some("1")),
            ("localhost:5000/a/b:v1", Some("v1")),
            ("r.io/x:v1@sha256:aa", Some("v1@sha256:aa")),
            ("r.io/x@sha256:aa", None),
            ("r.io/x", None),
            ("import-2026:latest", None),
            ("bad:port/x:1", None),
        ] {
            assert_eq!(tag(name), wanted, "{name}");
        }
    }

    #[test]
    fn names_are_shortened_as_docker_shows_them() {
        for (name, wanted) in [
            ("docker.io/library/busybox:1", "busybox:1"),
            ("docker.io/user/x:1", "user/x:1"),
            ("busybox", "busybox:latest"),
            ("r.io/library/x:1", "r.io/library/x:1"),
        ] {
            assert_eq!(familiar(name).unwrap(), wanted);
        }
        assert!(familiar("UPPER").unwrap_err().to_string().contains("failed to parse \"UPPER\""));
    }
}
