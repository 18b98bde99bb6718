//! Networks in files of a directory, in the order of their names; and whether something has changed there.
//!
//! ```text
//!  10-bridge.conflist          a list
//!  20-other.conf, .json        a single plugin
//!  NETWORK/50-more.conf        plugins that the list of that name does not have itself (1.1)
//! ```

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use types::{Error, Result, ResultExt};

use crate::conf::{LARGEST, Network, Plugin};

/// The endings of files that count.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// The first `most` networks (all, if that is 0). One that cannot be read hides none: it is an error.
pub fn load(dir: &Path, most: usize) -> Result<Vec<Network>> {
    let files = files(dir, &ENDINGS).context(|| "failed to read config file")?;
    if files.is_empty() {
        let shown = dir.display();
        return Err(Error::unavailable(format!("no network config found in {shown}: {NOT_INITIALIZED}")));
    }
    let count = if most == 0 { files.len() } else { most };
    files.iter().take(count).map(|file| load_file(file)).collect()
}

/// What is said of networks that are not there.
pub(crate) const NOT_INITIALIZED: &str = "cni plugin not initialized";

fn load_file(file: &Path) -> Result<Network> {
    let invalid = |what: &str, error: &Error| {
        let shown = file.display();
        Error::invalid(format!("failed to load CNI config {what}{shown}: {error}: invalid cni config"))
    };
    if file.extension().is_some_and(|ending| ending == "conflist") {
        return load_list(file).map_err(|error| invalid("list file ", &error));
    }
    read(file).and_then(|bytes| Network::parse_single(&bytes)).map_err(|error| invalid("file ", &error))
}

/// A list, with the plugins of its directory.
fn load_list(file: &Path) -> Result<Network> {
    let mut network = Network::parse(&read(file)?)?;
    if !network.inlined_only
        && let Some(dir) = file.parent()
    {
        // The name has been checked, and is one component.
        let more = files(&dir.join(network.name()), &["conf"])?;
        let more = more.iter().map(|file| Plugin::parse(&read(file)?).context(|| shown(file)));
        network.extend(more.collect::<Result<_>>()?)?;
    }
    if network.plugins().is_empty() {
        return Err(Error::invalid("no plugin configs found"));
    }
    Ok(network)
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(LARGEST + 1).read_to_end(&mut bytes))
        .context(|| format!("error reading {}", file.display()))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::invalid(format!("{} is larger than {LARGEST} bytes", file.display())));
    }
    Ok(bytes)
}

/// Files with one of these endings, sorted; none, if there is no such directory.
fn files(dir: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::from(error).context(format!("read {}", dir.display()))),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.context(|| format!("read {}", dir.display()))?;
        let path = entry.path();
        let counts = path.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known));
        if counts && !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What a directory looks like from outside: as long as it stays the same, what was loaded from it does. Comparing is a
/// handful of system calls, made when somebody asks; no watch is kept, and an idle machine does nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<(PathBuf, [i64; 6])>);

impl Fingerprint {
    /// Of a directory and the directories in it. What cannot be looked at looks like nothing.
    pub fn of(dir: &Path) -> Self {
        let mut seen = Vec::new();
        look(dir, &mut seen);
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            look(&path, &mut seen);
            if path.is_dir() {
                let inner = fs::read_dir(&path).into_iter().flatten().flatten();
                inner.for_each(|entry| look(&entry.path(), &mut seen));
            }
        }
        seen.sort();
        Self(seen)
    }
}

fn look(path: &Path, seen: &mut Vec<(PathBuf, [i64; 6])>) {
    // Through links: what a configuration map is mounted with changes where they lead.
    if let Ok(found) = fs::metadata(path) {
        let (changed, nanos) = (found.ctime(), found.ctime_nsec());
        let place = [found.ino().cast_signed(), found.size().cast_signed()];
        let facts = [changed, nanos, found.mtime(), found.mtime_nsec(), place[0], place[1]];
        seen.push((path.to_owned(), facts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(name: &str) -> String {
        format!(r#"{{"name":"{name}","cniVersion":"1.0.0","plugins":[{{"type":"a"}}]}}"#)
    }

    fn names(dir: &Path, most: usize) -> Vec<String> {
        load(dir, most).unwrap().iter().map(|network| network.name().to_owned()).collect()
    }

    #[test]
    fn networks_are_taken_in_the_order_of_their_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("20.conflist"), list("second")).unwrap();
        fs::write(dir.path().join("10.conf"), r#"{"name":"first","type":"a"}"#).unwrap();
        fs::write(dir.path().join("30.json"), r#"{"name":"third","type":"a"}"#).unwrap();
        fs::write(dir.path().join("00.txt"), "no network").unwrap();
        fs::create_dir(dir.path().join("05.conf")).unwrap();
        assert_eq!(names(dir.path(), 0), ["first", "second", "third"]);
        assert_eq!(names(dir.path(), 1), ["first"]);
    }

    #[test]
    fn without_networks_the_plugin_is_not_initialized() {
        let dir = tempfile::tempdir().unwrap();
        for empty in [dir.path().to_owned(), dir.path().join("none")] {
            let wanted =
                format!("no network config found in {}: cni plugin not initialized", empty.display());
            assert_eq!(load(&empty, 1).unwrap_err().to_string(), wanted);
        }
        fs::write(dir.path().join("file"), "").unwrap();
        let error = load(&dir.path().join("file"), 1).unwrap_err().to_string();
        assert!(error.starts_with("failed to read config file: read "), "{error}");
    }

    #[test]
    fn a_file_that_is_no_network_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("a.conf", "garbage".into()),
            ("a.conf", list("n")),
            ("a.conflist", r#"{"name":"n"}"#.into()),
            ("a.conflist", format!("{}{}", " ".repeat(2 << 20), list("n"))),
        ] {
            fs::write(dir.path().join(name), bytes).unwrap();
            let error = load(dir.path(), 0).unwrap_err().to_string();
            assert!(error.contains(name) && error.ends_with(": invalid cni config"), "{error}");
            fs::remove_file(dir.path().join(name)).unwrap();
        }
    }

    #[test]
    fn plugins_may_stand_in_a_directory_of_the_networks_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("n")).unwrap();
        fs::write(dir.path().join("n/2.conf"), r#"{"type":"c"}"#).unwrap();
        fs::write(dir.path().join("n/1.conf"), r#"{"type":"b"}"#).unwrap();
        fs::write(dir.path().join("n/3.conflist"), "not read").unwrap();
        fs::write(dir.path().join("n.conflist"), list("n")).unwrap();
        let kinds = || {
            let network = load(dir.path(), 1).unwrap().remove(0);
            network.plugins().iter().map(|plugin| plugin.kind().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(kinds(), ["a", "b", "c"]);
        fs::write(dir.path().join("n.conflist"), r#"{"name":"n","cniVersion":"1.1.0"}"#).unwrap();
        assert_eq!(kinds(), ["b", "c"]);
        let only = r#"{"name":"n","loadOnlyInlinedPlugins":true,"plugins":[{"type":"a"}]}"#;
        fs::write(dir.path().join("n.conflist"), only).unwrap();
        assert_eq!(kinds(), ["a"]);
    }

    #[test]
    fn every_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = Fingerprint::of(dir.path());
        assert_eq!(last, Fingerprint::of(dir.path()));
        let changed = |last: &mut Fingerprint| {
            let now = Fingerprint::of(dir.path());
            assert_ne!(*last, now);
            *last = now;
        };
        fs::write(dir.path().join("a.conf"), "1").unwrap();
        changed(&mut last);
        fs::write(dir.path().join("a.conf"), "12").unwrap();
        changed(&mut last);
        fs::create_dir(dir.path().join("n")).unwrap();
        changed(&mut last);
        fs::write(dir.path().join("n/1.conf"), "1").unwrap();
        changed(&mut last);
        fs::remove_file(dir.path().join("a.conf")).unwrap();
        changed(&mut last);
        fs::remove_dir_all(dir.path()).unwrap();
        changed(&mut last);
    }
}
