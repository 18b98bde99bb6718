//! Where the tests extract to, with a canary next to it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::local::LocalStore;
use diff::{Applied, Applier as _, ApplyOptions, WalkingApplier};
use sys::mount::TempMount;
use tempfile::TempDir;
use types::Result;
use types::mount::Mount;
use types::oci::image::media;

use crate::archive::store_layer;

/// A store, a directory to extract to, and a canary next to it.
pub struct Place {
    pub top: TempDir,
    pub store: Arc<LocalStore>,
    pub layers: Vec<PathBuf>,
}

impl Place {
    pub fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        for dir in ["canary", "root", "work"] {
            std::fs::create_dir(top.path().join(dir)).unwrap();
        }
        std::fs::write(top.path().join("canary/file"), "alive").unwrap();
        let store = LocalStore::open(top.path().join("content")).unwrap();
        Self { top, store, layers: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    pub fn root(&self, name: &str) -> PathBuf {
        self.path("root").join(name)
    }

    pub fn canary(&self) -> Canary {
        Canary::of(&self.path("canary"))
    }

    pub async fn apply_to(&self, mounts: &[Mount], tar: &[u8]) -> Result<Applied> {
        let layer = store_layer(&self.store, media::OCI_LAYER_GZIP, tar).await;
        WalkingApplier::new(Arc::clone(&self.store) as _).apply(&layer, mounts, ApplyOptions::default()).await
    }

    /// Straight into a directory.
    pub async fn apply(&self, tar: &[u8]) -> Result<Applied> {
        self.apply_to(&[bind(&self.path("root"))], tar).await
    }

    /// As a layer of an overlay above the ones before.
    pub async fn apply_layer(&mut self, tar: &[u8]) -> Result<Applied> {
        let dir = self.path(&format!("layer{}", self.layers.len()));
        std::fs::create_dir(&dir).unwrap();
        let mounts = match self.layers.len() {
            0 => vec![bind(&dir)],
            _ => vec![self.overlay(&dir)],
        };
        let applied = self.apply_to(&mounts, tar).await?;
        self.layers.push(dir);
        Ok(applied)
    }

    pub fn overlay(&self, upper: &Path) -> Mount {
        let lowers: Vec<String> = self.layers.iter().rev().map(|l| l.display().to_string()).collect();
        overlay(vec![
            "index=off".into(),
            format!("workdir={}", self.path("work").display()),
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", lowers.join(":")),
        ])
    }

    /// All layers as a container would see them.
    pub fn view(&self) -> TempMount {
        let empty = self.path("empty");
        let _ = std::fs::create_dir(&empty);
        let lowers: Vec<String> = self.layers.iter().rev().map(|l| l.display().to_string()).collect();
        let option = format!("lowerdir={}:{}", lowers.join(":"), empty.display());
        TempMount::new(&[overlay(vec![option])]).unwrap()
    }
}

pub fn bind(dir: &Path) -> Mount {
    Mount {
        kind: "bind".into(),
        source: dir.display().to_string(),
        target: String::new(),
        options: vec!["rw".into(), "rbind".into()],
    }
}

pub fn overlay(options: Vec<String>) -> Mount {
    Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options }
}

/// Everything about a tree that a stray chmod, chown, write or utime would change.
#[derive(Debug, PartialEq)]
pub struct Canary(BTreeMap<PathBuf, (String, Vec<u8>, Vec<CString>)>);

impl Canary {
    pub fn of(dir: &Path) -> Self {
        let mut seen = BTreeMap::new();
        let mut todo = vec![dir.to_owned()];
        while let Some(path) = todo.pop() {
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let body = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            if meta.is_dir() {
                todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
            let xattrs = sys::fs::list_xattrs(std::fs::File::open(&path).unwrap()).unwrap();
            let (mode, owner, links) = (meta.mode(), (meta.uid(), meta.gid()), meta.nlink());
            let times = (meta.mtime(), meta.mtime_nsec());
            let facts = (format!("{mode:o} {owner:?} {links} {times:?}"), body, xattrs);
            seen.insert(path, facts);
        }
        Self(seen)
    }
}

pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

pub fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}
