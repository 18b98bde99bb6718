//! What the container's record adds to a task: its runtime, spec and options, and the words for one that is missing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

use runtime::{Options, Runtime, Timeouts};
use tasks::{Create, Tasks};
use types::any::RUNTIME_SPEC;
use types::container::{Container, RuntimeInfo};
use types::events::Exchange;
use types::filters::Filters;
use types::task::Exec;
use types::{Any, Class, Namespace};

struct House {
    dir: tempfile::TempDir,
    tasks: Tasks,
}

fn namespace() -> Namespace {
    "default".parse().unwrap()
}

impl House {
    /// With one container, `c1`, whose shim writes down its bundle's spec and what it is told, and fails.
    async fn build() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let content =
            content::local::LocalStore::open(root.join("io.containerd.content.v1.content")).unwrap();
        let db = metadata::Db::open(metadata::Options {
            dir: root.join("io.containerd.metadata.v1.redb"),
            content,
            snapshotters: BTreeMap::new(),
        })
        .unwrap();
        let shim = script(&dir, "record");
        let container = Container {
            id: "c1".into(),
            labels: types::Labels::default(),
            image: String::new(),
            runtime: RuntimeInfo {
                name: shim.to_str().unwrap().to_owned(),
                options: Some(Any::new("x.Options", *b"of the record")),
            },
            spec: Some(Any::new(RUNTIME_SPEC, r#"{"spec":  "of the record"}"#)),
            snapshotter: String::new(),
            snapshot_key: String::new(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
            extensions: BTreeMap::new(),
            sandbox: String::new(),
        };
        db.containers(&namespace()).create(container).await.unwrap();
        let options = Options {
            state: dir.path().join("state"),
            address: "/nowhere".into(),
            ttrpc_address: "/nowhere.ttrpc".into(),
            binary: "/nowhere/containerd".into(),
            socket_dir: None,
            env: Vec::new(),
            events: Exchange::new(),
            debug: false,
            timeouts: Timeouts::default(),
            root,
        };
        let runtime = Runtime::open(options).await.unwrap();
        let mounts = mounts::Manager::open(dir.path().join("mounts"), Vec::new()).await.unwrap();
        Self { tasks: Tasks::new(db, runtime, mounts), dir }
    }

    fn told(&self, shim: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.path().join(format!("{shim}.told"))).unwrap())
            .into_owned()
    }

    async fn create(&self, create: Create) -> String {
        self.tasks.create(&namespace(), Create { id: "c1".into(), ..create }).await.unwrap_err().to_string()
    }
}

fn script(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    let path = dir.path().join(name);
    let told = dir.path().join(format!("{name}.told"));
    let text = format!(
        "#!/bin/sh\nfor last; do :; done\n[ $last = start ] && cat config.json - > {told:?}\nexit 1\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn spec_runtime_and_options_come_from_the_record() {
    let house = House::build().await;
    let error = house.create(Create::default()).await;
    assert_eq!(error, "failed to start shim: start failed: : exit status 1");
    let told = house.told("record");
    assert!(told.starts_with(r#"{"spec":  "of the record"}"#) && told.contains("of the record"), "{told}");
    assert!(told.contains("x.Options"), "{told}");
}

#[tokio::test]
async fn the_caller_may_choose_other_options_and_another_runtime() {
    let house = House::build().await;
    let runtime = script(&house.dir, "other").to_str().unwrap().to_owned();
    let options = Some(Any::new("y.Options", *b"of the call"));
    house.create(Create { runtime, options, ..Create::default() }).await;
    let told = house.told("other");
    assert!(told.contains("y.Options") && !told.contains("x.Options"), "{told}");
}

#[tokio::test]
async fn a_container_without_a_record_is_not_found_in_upstreams_words() {
    let House { tasks, .. } = &House::build().await;
    let ns = namespace();
    let wanted = "container \"c9\" in namespace \"default\": not found";
    let create = Create { id: "c9".into(), ..Create::default() };
    let exec = || Exec { id: "e1".into(), ..Exec::default() };
    assert_eq!(tasks.create(&ns, create).await.unwrap_err().to_string(), wanted);
    assert_eq!(tasks.start(&ns, "c9", "").await.unwrap_err().to_string(), wanted);
    assert_eq!(tasks.wait(&ns, "c9", "").await.unwrap_err().to_string(), wanted);
    assert_eq!(tasks.delete(&ns, "c9").await.unwrap_err().to_string(), wanted);
    assert_eq!(tasks.exec(&ns, "c9", exec()).await.unwrap_err().to_string(), wanted);
    assert_eq!(tasks.get(&ns, "c1", "").await.unwrap_err().to_string(), "task c1 not found");
    let error = tasks.exec(&ns, "c1", Exec::default()).await.unwrap_err();
    assert_eq!(
        (error.class(), error.to_string().as_str()),
        (Class::InvalidArgument, "exec id cannot be empty")
    );
    assert!(tasks.list(&ns).await.unwrap().is_empty());
    assert!(tasks.metrics(&ns, &Filters::default()).await.unwrap().is_empty());
}
