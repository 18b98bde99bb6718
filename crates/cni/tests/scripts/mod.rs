//! A node whose plugins are shell scripts.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cni::{Attachment, Cni, Limits, Network};
use serde_json::{Value, json};

/// A program that is just being written cannot be run, nor while a fork of another test still has it open.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A directory with plugins and a cache. Scripts find it as `$DIR`.
pub struct Node {
    dir: tempfile::TempDir,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

impl Node {
    pub async fn new(plugins: &[(&str, &str)]) -> Self {
        let node = Self { dir: tempfile::tempdir().unwrap(), _alone: ALONE.lock().await };
        fs::create_dir(node.bin()).unwrap();
        for (name, script) in plugins {
            node.plugin(name, script);
        }
        node
    }

    pub fn plugin(&self, name: &str, script: &str) {
        let path = self.bin().join(name);
        fs::write(&path, format!("#!/bin/sh\nDIR={}\n{script}\n", self.dir().display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn bin(&self) -> PathBuf {
        self.dir().join("bin")
    }

    pub fn cni(&self) -> Cni {
        self.cni_with(Limits::default())
    }

    pub fn cni_with(&self, limits: Limits) -> Cni {
        Cni::new(vec![self.bin()], &self.dir().join("cache"), limits)
    }

    pub fn attachment(&self, container: &str) -> Attachment {
        Attachment {
            container: container.into(),
            netns: "/proc/self/ns/net".into(),
            interface: "eth0".into(),
            ..Attachment::default()
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.dir().join(name).exists()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(name)).unwrap()
    }

    /// How many entries are in the cache.
    pub fn entries(&self) -> usize {
        fs::read_dir(self.dir().join("cache/results")).map_or(0, Iterator::count)
    }

    #[track_caller]
    pub fn leaves_nothing(&self) {
        assert_eq!(self.entries(), 0);
    }
}

/// A network called `net`.
pub fn network(version: &str, plugins: &[Value]) -> Network {
    Network::parse(json!({"name": "net", "cniVersion": version, "plugins": plugins}).to_string().as_bytes())
        .unwrap()
}
