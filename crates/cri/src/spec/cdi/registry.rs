//! Which devices there are: the files of all directories. What a later directory describes hides the same device of earlier ones;
//! a device that two files of one directory describe is nobody's.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use types::{Error, Result, ResultExt};

use super::edits::Edits;
use super::names::{self, DeviceName};
use super::yaml;

/// A file larger than this describes nothing.
const LIMIT: u64 = 16 << 20;

/// A file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct File {
    #[serde(skip)]
    pub(super) path: PathBuf,
    #[serde(deserialize_with = "yaml::text")]
    cdi_version: String,
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    /// For all of its devices.
    #[serde(default, rename = "containerEdits")]
    pub(super) edits: Edits,
}

/// A device.
#[derive(Debug, Deserialize)]
pub(super) struct Device {
    #[serde(deserialize_with = "yaml::text")]
    name: String,
    /// For this one.
    #[serde(default, rename = "containerEdits")]
    pub(super) edits: Edits,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Registry {
    files: Vec<File>,
    /// By name: the directory, and the file and the device in it; none if two files have it.
    devices: BTreeMap<DeviceName, (usize, Option<(usize, usize)>)>,
    problems: Vec<String>,
}

impl Registry {
    /// Reads all files. Those that cannot be read are told by [`Registry::problems`]: others may do.
    pub(super) fn read(dirs: &[PathBuf]) -> Self {
        let mut registry = Self::default();
        for (priority, dir) in dirs.iter().enumerate() {
            for path in files(dir) {
                match load(&path) {
                    Ok(file) => registry.add(priority, file),
                    Err(error) => registry.problems.push(error.to_string()),
                }
            }
        }
        registry
    }

    fn add(&mut self, priority: usize, file: File) {
        let at = self.files.len();
        for (index, device) in file.devices.iter().enumerate() {
            let name = DeviceName { kind: file.kind.clone(), name: device.name.clone() };
            let new = (priority, Some((at, index)));
            let had = self.devices.entry(name).or_insert(new);
            if had.0 < priority {
                *had = new;
            } else if *had != new {
                had.1 = None;
                let (kind, name, path) = (&file.kind, &device.name, file.path.display());
                self.problems.push(format!("conflicting device {kind}={name} (in {path} and another file)"));
            }
        }
        self.files.push(file);
    }

    /// A device and its file.
    pub(super) fn find(&self, name: &DeviceName) -> Option<(&File, &Device)> {
        let (file, device) = self.devices.get(name)?.1?;
        let file = self.files.get(file)?;
        Some((file, file.devices.get(device)?))
    }

    /// What is wrong with the files.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }
}

/// In order of their names. A directory that is not there has none.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| ["json", "yaml", "yml"].iter().any(|known| extension == *known))
            && path.is_file()
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is).collect();
    files.sort();
    files
}

fn load(path: &Path) -> Result<File> {
    let doing = || format!("failed to load CDI Spec {path:?}");
    let mut text = String::new();
    let file = std::fs::File::open(path).context(doing)?;
    file.take(LIMIT).read_to_string(&mut text).context(doing)?;
    let invalid = |why: String| Error::invalid(why).context(doing());
    let value = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?
    } else {
        yaml::parse(&text).map_err(|e| e.context(doing()))?
    };
    let mut file: File = serde_json::from_value(value).map_err(|e| invalid(e.to_string()))?;
    path.clone_into(&mut file.path);
    if !names::is_kind(&file.kind) {
        return Err(invalid(format!("invalid kind {:?}", file.kind)));
    }
    let known = file
        .cdi_version
        .trim_start_matches('v')
        .split('.')
        .next()
        .is_some_and(|major| major == "0" || major == "1");
    if !known {
        return Err(invalid(format!("unsupported version {:?}", file.cdi_version)));
    }
    match file.devices.iter().find(|device| !names::is_name(&device.name)) {
        Some(device) => Err(invalid(format!("invalid name of a device {:?}", device.name))),
        None => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: &str, value: &str) -> String {
        format!(
            r#"{{"cdiVersion":"1.0.0","kind":"{kind}","devices":[{{"name":"d","containerEdits":{{"env":["A={value}"]}}}}]}}"#
        )
    }

    #[test]
    fn a_later_directory_hides_an_earlier_one() {
        let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
        for (dir, value) in dirs.iter().zip(["static", "dynamic"]) {
            std::fs::write(dir.path().join("x.json"), file("a.b/c", value)).unwrap();
        }
        std::fs::write(dirs[0].path().join("ignored.txt"), "{").unwrap();
        let paths: Vec<_> = dirs.iter().map(|dir| dir.path().to_owned()).collect();
        let registry = Registry::read(&paths);
        let (found, _) = registry.find(&"a.b/c=d".parse().unwrap()).unwrap();
        assert!(found.path.starts_with(&paths[1]));
        assert!(registry.problems().is_empty() && registry.find(&"a.b/c=e".parse().unwrap()).is_none());
    }

    #[test]
    fn a_file_with_a_bad_kind_or_version_is_a_problem() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kind.json"), file("nope", "1")).unwrap();
        std::fs::write(dir.path().join("version.json"), file("a.b/c", "1").replace("1.0.0", "9.0")).unwrap();
        let registry = Registry::read(&[dir.path().to_owned(), "/nope".into()]);
        assert_eq!(registry.problems().len(), 2);
    }
}
