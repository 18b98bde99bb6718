//! The shared suite, and what is native's own.

use super::*;
use crate::testsuite::{self, Bench, Features};

#[tokio::test(flavor = "multi_thread")]
async fn the_conformance_suite_passes() {
    let Some(bench) = Bench::new() else { return };
    let native = Native::open(bench.root()).unwrap();
    testsuite::all(&*native, &bench, Features { rename_lower_directories: true }).await;
}

#[tokio::test]
async fn a_snapshot_that_would_need_its_removals_is_not_rebased() {
    let dir = tempfile::tempdir().unwrap();
    let native = Native::open(dir.path().join("root")).unwrap();
    native.prepare("a", "", Labels::new()).await.unwrap();
    native.commit("base", "a", None, Labels::new()).await.unwrap();
    native.prepare("b", "", Labels::new()).await.unwrap();
    let error = native.commit("top", "b", Some("base"), Labels::new()).await.unwrap_err();
    assert_eq!(error.class(), types::Class::Unimplemented);
    assert!(!native.can_rebase());
    native.commit("top", "b", None, Labels::new()).await.unwrap();
}

#[tokio::test]
async fn a_view_has_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    let native = Native::open(dir.path().join("root")).unwrap();
    native.prepare("a", "", Labels::new()).await.unwrap();
    native.commit("base", "a", None, Labels::new()).await.unwrap();
    let mounts = native.view("v", "base", Labels::new()).await.unwrap();
    assert_eq!(mounts[0].source, dir.path().join("root/snapshots/1").to_str().unwrap());
    assert_eq!(mounts[0].options, ["rbind", "ro"]);
    assert!(!dir.path().join("root/snapshots/2").exists());
    drop(native);
    Native::open(dir.path().join("root")).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("root/snapshots")).unwrap().count(), 1);
}
