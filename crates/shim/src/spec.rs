//! What the shim itself wants to know of a bundle's `config.json`. The runtime reads the rest.

use std::fs::File;
use std::path::Path;

use types::{Error, Result, ResultExt};

use crate::json::Parser;
use crate::runtime;

/// The few facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The group that shares a shim, where the annotations name one.
    pub group: Option<String>,
    /// Whether the container has a process namespace of its own, so that the kernel ends its processes with its init.
    pub private_pids: bool,
    /// Whether hooks run after the container is deleted.
    pub poststop: bool,
}

/// Annotations that name the group, the first one first.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

impl Facts {
    /// Reads `config.json` in `bundle`.
    pub fn read(bundle: &Path) -> Result<Self> {
        let path = bundle.join("config.json");
        let file = File::open(&path).context(|| format!("open {}", path.display()))?;
        Self::parse(file).context(|| format!("read {}", path.display()))
    }

    fn parse(source: impl std::io::Read) -> Result<Self> {
        let mut facts = Self::default();
        let mut groups = [const { None }; GROUPS.len()];
        Parser::new(source).object(|p, key| match (key, p.peek()?) {
            ("annotations", Some(b'{')) => p.object(|p, key| match GROUPS.iter().position(|g| *g == key) {
                Some(index) => p.string().map(|group| groups[index] = Some(group)),
                None => p.skip(),
            }),
            ("linux", Some(b'{')) => p.object(|p, key| match key {
                "namespaces" => p.array(|p| namespace(p).map(|private| facts.private_pids |= private)),
                _ => p.skip(),
            }),
            ("hooks", Some(b'{')) => p.object(|p, key| match key {
                "poststop" => p.array(|p| p.skip().map(|()| facts.poststop = true)),
                _ => p.skip(),
            }),
            _ => p.skip(),
        })?;
        facts.group = groups.into_iter().flatten().next();
        Ok(facts)
    }
}

/// The newest version of the specification that every crun takes.
const OLD: &str = "1.1.0";

/// Lets a crun of before the specification's 1.2 (Debian 12's) take the bundle: it reads what it knows and leaves the rest,
/// but refuses a number that it does not know. What the file says beside that stays as it is, byte for byte.
pub fn suit(command: &str, bundle: &Path) -> Result<()> {
    if !runtime::is_crun(command) {
        return Ok(());
    }
    let path = bundle.join("config.json");
    let what = || format!("rewrite {}", path.display());
    let Some(text) = std::fs::read(&path).map_err(Error::from).and_then(|t| older(&t)).context(what)? else {
        return Ok(());
    };
    let new = bundle.join(".config.json");
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path)).context(what)
}

/// The text with an older version in it; None if the version is old already.
fn older(text: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut found = None;
    let mut parser = Parser::new(text);
    parser.object(|p, key| {
        if key != "ociVersion" || p.peek()? != Some(b'"') {
            return p.skip();
        }
        let start = p.offset();
        let version = p.string()?;
        found = Some((start, p.offset(), version));
        Ok(())
    })?;
    let Some((start, end, version)) = found else { return Ok(None) };
    if version.starts_with("1.0.") || version.starts_with("1.1.") {
        return Ok(None);
    }
    let (before, after) = (text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default());
    Ok(Some([before, format!("{OLD:?}").as_bytes(), after].concat()))
}

/// Reads one namespace; whether it is a new process namespace.
fn namespace<R: std::io::Read>(parser: &mut Parser<R>) -> Result<bool> {
    let (mut pid, mut path) = (false, String::new());
    parser.object(|p, key| match key {
        "type" => p.string().map(|kind| pid = kind == "pid"),
        "path" => p.string().map(|text| path = text),
        _ => p.skip(),
    })?;
    Ok(pid && path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_the_first_annotation_of_the_list_not_of_the_file() {
        let facts = Facts::parse(
            &br#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","x":"y","io.containerd.runc.v2.group":"g"},
                 "linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]},"hooks":{"poststop":[{"path":"/x"}]}}"#[..],
        );
        let wanted = Facts { group: Some("g".into()), private_pids: true, poststop: true };
        assert_eq!(facts.unwrap(), wanted);
    }

    #[test]
    fn a_crun_is_shown_a_version_that_it_knows_and_everything_else_as_it_was() {
        let text =
            |version: &str| format!(r#" {{ "a":{{"ociVersion":"9"}}, "ociVersion" : "{version}","b":[1]}} "#);
        assert_eq!(older(text("1.3.0").as_bytes()).unwrap().unwrap(), text("1.1.0").into_bytes());
        assert_eq!(older(text("1.0.2-dev").as_bytes()).unwrap(), None);
        assert_eq!(older(b"{}").unwrap(), None);
        assert!(older(b"{").is_err());
    }

    #[test]
    fn a_joined_process_namespace_is_not_private() {
        let facts = Facts::parse(
            &br#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]},"hooks":null}"#[..],
        );
        assert_eq!(facts.unwrap(), Facts::default());
        assert!(Facts::parse(&b"{"[..]).is_err());
    }
}
