//! Image references as Docker writes them: `host/path:tag@digest`.

use crate::digest::Digest;
use crate::error::{Error, Result};

/// A reference split in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `docker.io/library/alpine`.
    pub locator: String,
    /// `3`, or none.
    pub tag: Option<String>,
    /// `sha256:…`, or none.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Completes a familiar name as Docker does: `alpine` is `docker.io/library/alpine:latest`.
    pub fn normalize(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::invalid(format!("invalid reference {text:?}: {why}"));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            let head = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
            let tail = tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            if !head || !tail || tag.len() > 128 {
                return Err(bad("invalid tag"));
            }
        }
        let (host, path) = match path.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
                if !host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') {
                    return Err(bad("invalid host"));
                }
                (host, path.to_owned())
            }
            Some(_) => ("docker.io", path.to_owned()),
            None => ("docker.io", format!("library/{path}")),
        };
        let component = |c: &str| {
            !c.is_empty()
                && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
                && c.starts_with(|x: char| x.is_ascii_alphanumeric())
                && c.ends_with(|x: char| x.is_ascii_alphanumeric())
        };
        if !path.split('/').all(component) || path.len() > 255 {
            return Err(bad("repository name must be lower case letters, digits and separators"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { locator: format!("{host}/{path}"), tag, digest })
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.locator)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn familiar_names_are_completed() {
        for (text, wanted) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("user/x:1", "docker.io/user/x:1"),
            ("localhost/x", "localhost/x:latest"),
            ("r.example:5000/a/b:t", "r.example:5000/a/b:t"),
        ] {
            assert_eq!(Reference::normalize(text).unwrap().to_string(), wanted);
        }
        for bad in ["", "A", "a//b", "a:", "../x", "x@sha256:0"] {
            assert!(Reference::normalize(bad).is_err(), "{bad}");
        }
    }
}
