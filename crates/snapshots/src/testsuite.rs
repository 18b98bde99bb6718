//! What any [`Snapshotter`] must do: run by the tests of every implementation. It mounts, so it needs root.
//!
//! ```ignore
//! let Some(bench) = Bench::new() else { return };
//! let overlay = Overlay::open(bench.root(), Options::default())?;
//! snapshots::testsuite::all(&*overlay, &bench, Features::default()).await;
//! ```
//!
//! Each case uses keys of its own, so that all may run against one snapshotter. A failure panics. The cases follow
//! upstream's `core/snapshots/testsuite`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod layers;
mod records;
mod tree;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};

use types::mount::Mount;
use types::{Class, Labels, Result};

use crate::Snapshotter;

/// What not every snapshotter can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Directories of lower layers can be renamed (overlayfs without `redirect_dir` cannot).
    pub rename_lower_directories: bool,
}

/// A place for the suite's files and mounts, which go with it.
#[derive(Debug)]
pub struct Bench {
    dir: PathBuf,
}

impl Bench {
    /// A fresh place, or `None` where this process may not mount.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        let name = format!("snapshots-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new("/var/tmp").join(name);
        std::fs::create_dir(&dir).unwrap();
        Some(Self { dir })
    }

    /// Where a snapshotter may put its root.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// An empty directory.
    fn empty(&self) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = self.dir.join(format!("work/{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn mount(&self, mounts: &[Mount]) -> Mounted {
        let dir = self.empty();
        sys::mount::mount_all(mounts, &dir).unwrap();
        Mounted { dir }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let unmounted = sys::mount::unmount_recursive(&self.dir, sys::mount::UnmountFlags::DETACH);
        if unmounted.and_then(|()| sys::fs::remove_tree(&self.dir)).is_err() {
            eprintln!("left behind: {:?}", self.dir);
        }
    }
}

/// A mounted snapshot.
struct Mounted {
    dir: PathBuf,
}

impl Mounted {
    fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = sys::mount::unmount(&self.dir, sys::mount::UnmountFlags::empty());
        assert!(unmounted.is_ok() || std::thread::panicking(), "{unmounted:?}");
    }
}

/// What a case works with.
#[derive(Clone, Copy)]
struct On<'a> {
    snapshotter: &'a dyn Snapshotter,
    bench: &'a Bench,
    features: Features,
}

type Case = for<'a> fn(On<'a>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        const CASES: &[(&str, Case)] = &[$((stringify!($name), |on| Box::pin($module::$name(on)))),*];
    };
}

cases! {
    records::an_active_snapshot_is_described,
    records::a_committed_snapshot_is_described,
    records::parents_are_transitive,
    records::a_key_is_used_once,
    records::parents_must_be_committed,
    records::mounts_are_answered_again,
    records::labels_are_updated,
    records::names_are_free_after_removal,
    records::snapshots_with_children_stay,
    records::walking_is_filtered,
    records::a_snapshot_can_be_looked_at_during_a_walk,
    records::an_error_of_the_caller_ends_the_walk,
    records::a_name_that_is_taken_keeps_the_active_snapshot,
    records::only_active_snapshots_are_committed,
    records::cleaning_up_keeps_what_is_used,
    layers::the_life_of_an_image,
    layers::files_are_replaced,
    layers::a_directory_is_replaced_by_an_opaque_one,
    layers::owners_change,
    layers::directories_keep_their_attributes,
    layers::deleted_files_stay_deleted,
    layers::files_move_between_layers,
    layers::files_and_directories_are_renamed,
    layers::a_view_cannot_be_written,
    layers::the_root_is_open_to_all,
    layers::the_root_takes_after_the_layer_below,
    layers::usage_is_measured_and_recorded,
    layers::a_layer_is_rebased,
    layers::a_hundred_and_twenty_eight_layers_are_mounted,
}

/// Runs every case.
pub async fn all(snapshotter: &dyn Snapshotter, bench: &Bench, features: Features) {
    for (name, case) in CASES {
        let start = std::time::Instant::now();
        case(On { snapshotter, bench, features }).await;
        eprintln!("snapshotter: {name}: {:?}", start.elapsed());
    }
}

impl On<'_> {
    async fn prepare(&self, key: &str, parent: &str) -> Vec<Mount> {
        self.snapshotter.prepare(key, parent, root_label()).await.unwrap()
    }

    async fn view(&self, key: &str, parent: &str) -> Vec<Mount> {
        self.snapshotter.view(key, parent, root_label()).await.unwrap()
    }

    async fn commit(&self, name: &str, key: &str) {
        self.snapshotter.commit(name, key, None, root_label()).await.unwrap();
    }

    async fn remove(&self, keys: &[&str]) {
        for key in keys {
            self.snapshotter.remove(key).await.unwrap();
        }
    }

    /// A committed snapshot with what `ops` do to its parent.
    async fn layer(&self, name: &str, parent: &str, ops: &[tree::Op<'_>]) {
        let key = format!("{name}-active");
        let mounts = self.prepare(&key, parent).await;
        let mounted = self.bench.mount(&mounts);
        tree::apply(mounted.path(), ops);
        drop(mounted);
        self.commit(name, &key).await;
    }

    /// Layers with these changes look like one directory with all of them.
    async fn stack(&self, prefix: &str, layers: &[&[tree::Op<'_>]]) {
        let flat = self.bench.empty();
        let mut names: Vec<String> = Vec::new();
        for (i, ops) in layers.iter().enumerate() {
            let parent = names.last().cloned().unwrap_or_default();
            let name = format!("{prefix}-{i}");
            self.layer(&name, &parent, ops).await;
            tree::apply(&flat, ops);
            let key = format!("{name}-view");
            let mounts = self.view(&key, &name).await;
            tree::assert_equal(&flat, self.bench.mount(&mounts).path());
            self.remove(&[&key]).await;
            names.push(name);
        }
        for name in names.iter().rev() {
            self.remove(&[name]).await;
        }
    }
}

fn root_label() -> Labels {
    Labels::from([(types::labels::GC_ROOT.to_owned(), "testsuite".to_owned())])
}

fn with_label(value: &str) -> Labels {
    let mut labels = root_label();
    labels.insert("l".to_owned(), value.to_owned());
    labels
}

fn class<T>(result: Result<T>) -> Class {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.class(),
    }
}
