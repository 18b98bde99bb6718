//! Operating system, architecture and variant, with Go's names (OCI image-index.md, containerd/platforms).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A platform; variants are normalised (`arm64` has none, `arm` has `v7`, `amd64` has none).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// e.g. `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// e.g. `linux`.
    #[serde(default)]
    pub os: String,
    /// Only Windows uses it.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Only Windows and erofs use it.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// e.g. `v7`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// The one this binary runs on.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { architecture: architecture.into(), os: "linux".into(), ..Self::default() }.normalized()
    }

    /// Go's spelling of what people write (`x86_64`, `aarch64`, `armhf`…).
    pub fn normalized(mut self) -> Self {
        self.os = match self.os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".into(),
            os => os.to_owned(),
        };
        let (arch, variant) = (self.architecture.to_ascii_lowercase(), self.variant.to_ascii_lowercase());
        (self.architecture, self.variant) = match (arch.as_str(), variant.as_str()) {
            ("i386" | "i686" | "386", _) => ("386".into(), String::new()),
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64".into(), String::new()),
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64".into(), v.into()),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0" | "") => ("arm64".into(), String::new()),
            ("aarch64" | "arm64", v) => ("arm64".into(), v.into()),
            ("armhf", _) => ("arm".into(), "v7".into()),
            ("armel", _) => ("arm".into(), "v6".into()),
            ("arm", "" | "7") => ("arm".into(), "v7".into()),
            ("arm", v @ ("5" | "6" | "8")) => ("arm".into(), format!("v{v}")),
            (a, v) => (a.into(), v.into()),
        };
        self
    }

    /// How well `image` fits this machine: smaller is better, `None` is not at all.
    pub fn rank(&self, image: &Platform) -> Option<u32> {
        let (host, image) = (self.clone().normalized(), image.clone().normalized());
        if host.os != image.os {
            return None;
        }
        let level = |variant: &str, default: u32| -> Option<u32> {
            if variant.is_empty() { Some(default) } else { variant.trim_start_matches('v').parse().ok() }
        };
        match (host.architecture.as_str(), image.architecture.as_str()) {
            ("arm", "arm") => level(&host.variant, 7)?.checked_sub(level(&image.variant, 7)?),
            ("arm64", "arm") => 8u32.checked_sub(level(&image.variant, 7)?).map(|d| d + 10),
            ("amd64", "amd64") => level(&host.variant, 1)?.checked_sub(level(&image.variant, 1)?),
            ("amd64", "386") => Some(10),
            (a, b) if a == b && (host.variant == image.variant || image.variant.is_empty()) => Some(0),
            (a, b) if a == b && host.variant.is_empty() => Some(1),
            _ => None,
        }
    }

    /// Whether `image` runs here at all. A 32-bit image is not chosen for a 64-bit x86 machine by this.
    pub fn matches(&self, image: &Platform) -> bool {
        self.rank(image).is_some()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os.is_empty() {
            return f.write_str("unknown");
        }
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `linux/arm64/v8`, `linux/amd64`, `amd64` or `linux`.
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let ok =
            |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if !parts.iter().all(ok) {
            return Err(Error::invalid(format!(
                "{text:?} is an invalid platform specifier: invalid argument"
            )));
        }
        let host = Self::host();
        let platform = match parts.as_slice() {
            [one] if matches!(*one, "linux" | "windows" | "darwin" | "freebsd") => {
                Self { os: (*one).into(), ..host }
            }
            [arch] => Self { architecture: (*arch).into(), variant: String::new(), ..host },
            [os, arch] => Self { os: (*os).into(), architecture: (*arch).into(), ..Self::default() },
            [os, arch, variant] => Self {
                os: (*os).into(),
                architecture: (*arch).into(),
                variant: (*variant).into(),
                ..Self::default()
            },
            _ => {
                return Err(Error::invalid(format!(
                    "{text:?}: cannot parse platform specifier: invalid argument"
                )));
            }
        };
        Ok(platform.normalized())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_normalised() {
        for (text, wanted) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), wanted);
        }
        assert!("linux//x".parse::<Platform>().is_err());
        assert!("a/b/c/d".parse::<Platform>().is_err());
    }

    #[test]
    fn an_older_variant_runs_on_a_newer_machine_and_not_the_other_way() {
        let v7: Platform = "linux/arm/v7".parse().unwrap();
        let v6: Platform = "linux/arm/v6".parse().unwrap();
        assert!(v7.matches(&v6) && !v6.matches(&v7));
        assert!(!v7.matches(&"linux/amd64".parse().unwrap()));
    }
}
