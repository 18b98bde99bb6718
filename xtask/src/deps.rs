//! `deps`: the layers of the house, read from `cargo metadata` and compared with the law; and what else must hold for
//! whole crates: where unsafe code may be, what the shim links.

mod law;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::program;

/// Prints what breaks the law.
pub fn run() -> Result<ExitCode> {
    let violations = check()?;
    if violations.is_empty() {
        println!("layering holds: {} crates", law::LAW.len());
        return Ok(ExitCode::SUCCESS);
    }
    violations.iter().for_each(|violation| println!("{violation}"));
    Ok(ExitCode::FAILURE)
}

/// All violations, one sentence each.
pub fn check() -> Result<Vec<String>> {
    let text =
        program::output(&mut program::cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&text).context("read cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let mut violations = Vec::new();
    for package in packages {
        let crate_ = Crate::read(package).context("a package of cargo metadata")?;
        violations.extend(layering(&crate_));
        violations.extend(unsafe_code(&crate_));
    }
    let tree =
        ["tree", "--locked", "--package", law::SHIM, "--edges=normal", "--prefix=none", "--format={p}|{f}"];
    violations.extend(shim_links(&program::output(&mut program::cargo(&tree))?));
    Ok(violations)
}

/// What the law asks about a crate.
#[derive(Debug)]
struct Crate {
    room: String,
    uses: Vec<String>,
    heads: Vec<PathBuf>,
}

impl Crate {
    fn read(package: &Value) -> Option<Self> {
        let dependencies = package["dependencies"].as_array()?;
        // Development dependencies are not linked into anything; a test may use what it tests with.
        let uses = dependencies
            .iter()
            .filter(|dependency| dependency["path"].is_string() && dependency["kind"] != "dev")
            .filter_map(|dependency| dependency["name"].as_str().map(law::room));
        let targets = package["targets"].as_array()?;
        let heads = targets
            .iter()
            .filter(|target| matches!(target["kind"][0].as_str(), Some("lib" | "bin")))
            .filter_map(|target| target["src_path"].as_str().map(PathBuf::from));
        Some(Self {
            room: law::room(package["name"].as_str()?),
            uses: uses.collect(),
            heads: heads.collect(),
        })
    }
}

fn layering(crate_: &Crate) -> Vec<String> {
    let Some((_, allowed)) = law::LAW.iter().find(|(room, _)| *room == crate_.room) else {
        return vec![format!("{}: not in the law (xtask/src/deps/law.rs)", crate_.room)];
    };
    let forbidden = crate_.uses.iter().filter(|used| !allowed.contains(&used.as_str()));
    forbidden.map(|used| format!("{} uses {used}, which the law does not allow", crate_.room)).collect()
}

fn unsafe_code(crate_: &Crate) -> Vec<String> {
    if crate_.room == law::UNSAFE {
        return Vec::new();
    }
    let lacks = |path: &&PathBuf| {
        !fs::read_to_string(path).is_ok_and(|text| text.contains("#![forbid(unsafe_code)]"))
    };
    let heads = crate_.heads.iter().filter(lacks);
    heads.map(|path| format!("{} does not forbid unsafe code", relative(path).display())).collect()
}

/// `tree` has a line `name version (path)|features` for each crate that the shim links.
fn shim_links(tree: &str) -> Vec<String> {
    let mut violations = Vec::new();
    for line in tree.lines() {
        let (package, features) = line.split_once('|').unwrap_or((line, ""));
        let name = package.split(' ').next().unwrap_or_default();
        let features = features.trim_end_matches(" (*)");
        if name.ends_with("-sys") && !law::SHIM_SYS.contains(&name) {
            violations.push(format!("the shim links {name}: no C in the shim"));
        }
        // Its channels alone are plain memory; a runtime is threads and memory in each shim of the world.
        if name == "tokio" && features.split(',').any(|feature| !matches!(feature, "" | "sync" | "default")) {
            violations.push(format!("the shim links tokio with {features}: only its channels are allowed"));
        }
    }
    violations.sort();
    violations.dedup();
    violations
}

fn relative(path: &Path) -> PathBuf {
    path.strip_prefix(crate::paths::repository()).unwrap_or(path).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_(room: &str, uses: &[&str]) -> Crate {
        Crate {
            room: room.to_owned(),
            uses: uses.iter().map(|s| (*s).to_owned()).collect(),
            heads: Vec::new(),
        }
    }

    #[test]
    fn a_use_that_the_law_does_not_name_is_a_violation() {
        assert!(layering(&crate_("content", &["types", "sys"])).is_empty());
        assert_eq!(layering(&crate_("content", &["metadata"])).len(), 1);
        assert_eq!(layering(&crate_("attic", &[])).len(), 1);
    }

    #[test]
    fn the_law_has_no_circles() {
        // Every room stands after the rooms that it may use.
        for (index, (room, allowed)) in law::LAW.iter().enumerate() {
            for used in *allowed {
                let position = law::LAW.iter().position(|(room, _)| room == used);
                assert!(position.is_some_and(|position| position < index), "{room} may use {used}");
            }
        }
    }

    #[test]
    fn the_shim_links_no_c_and_no_runtime() {
        assert!(shim_links("tokio v1.0.0|sync\nlinux-raw-sys v0.1.0|std\nlibc v0.2.0|\n").is_empty());
        assert_eq!(shim_links("tokio v1.0.0|rt,sync\nzstd-sys v2.0.0|\nzstd-sys v2.0.0| (*)\n").len(), 2);
    }
}
