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
    /// Reads a name as clients of the API write it: nothing is completed. A host is required, tag and digest are not.
    pub fn parse(text: &str) -> Result<Self> {
        if text.contains("://") {
            return Err(Error::invalid("invalid reference"));
        }
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        if host.is_empty() {
            return Err(Error::invalid("hostname required"));
        }
        if let Some((_, port)) = host.rsplit_once(':').filter(|(name, _)| !name.ends_with(':'))
            && !port.ends_with(']')
            && !port.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(Error::invalid(format!(
                "parse {text:?}: invalid port {:?} after host",
                format!(":{port}")
            )));
        }
        let (path, object) = match path.find([':', '@']) {
            Some(at) => path.split_at(at),
            None => (path, ""),
        };
        let (tag, digest) =
            object.split_once('@').map_or((object, None), |(tag, digest)| (tag, Some(digest)));
        let tag = tag.strip_prefix(':').unwrap_or(tag);
        let parts = std::iter::once(host).chain(path.split('/')).filter(|part| !part.is_empty());
        Ok(Self {
            locator: parts.collect::<Vec<_>>().join("/"),
            tag: (!tag.is_empty()).then(|| tag.to_owned()),
            digest: digest.map(str::parse).transpose()?,
        })
    }

    /// The host, with its port if it has one.
    pub fn host(&self) -> &str {
        self.locator.split('/').next().unwrap_or_default()
    }

    /// The host without its port, as labels have it.
    pub fn hostname(&self) -> &str {
        let host = self.host();
        let name = match host.rsplit_once(':') {
            Some((name, _)) if !name.contains(':') || name.ends_with(']') => name,
            _ => host,
        };
        name.trim_start_matches('[').trim_end_matches(']')
    }

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
    fn names_of_the_api_are_taken_as_they_are() {
        for (text, locator, tag, digest) in [
            ("docker.io/library/alpine:3", "docker.io/library/alpine", Some("3"), false),
            ("h:5000/a/b", "h:5000/a/b", None, false),
            ("[::1]:5000/a:t", "[::1]:5000/a", Some("t"), false),
            ("h/a:t@D", "h/a", Some("t"), true),
            ("h/a@D", "h/a", None, true),
            ("alpine", "alpine", None, false),
        ] {
            let text = text.replace('D', Digest::of(b"x").as_str());
            let read = Reference::parse(&text).unwrap();
            assert_eq!((read.locator.as_str(), read.tag.as_deref()), (locator, tag), "{text}");
            assert_eq!(read.digest.is_some(), digest);
            assert_eq!(read.to_string(), text);
        }
        assert_eq!(Reference::parse("h:5000/a").unwrap().host(), "h:5000");
        for (text, name) in [
            ("r.io/a", "r.io"),
            ("r.io:5000/a", "r.io"),
            ("[::1]:80/a", "::1"),
            ("127.0.0.1:1/a", "127.0.0.1"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().hostname(), name);
        }
        for (bad, why) in [
            ("docker://h/a", "invalid reference"),
            ("", "hostname required"),
            ("/a", "hostname required"),
            ("alpine:latest", "invalid port \":latest\" after host"),
            ("h/a@sha256:0", "digest"),
        ] {
            let error = Reference::parse(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

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
