//! What is stored, where, and when it is thrown away: snapshotters, metadata, the collector of garbage.

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;

/// Settings of the overlayfs snapshotter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlayfs {
    /// Another directory than the one below root.
    pub root: Option<PathBuf>,
    /// Label snapshots with their upper directory.
    pub upperdir_label: bool,
    /// Copy an image for a user namespace whose ids the kernel cannot shift.
    pub slow_chown: bool,
    /// Options of every mount.
    pub mount_options: Vec<String>,
}

/// When garbage is collected: `io.containerd.gc.v1.scheduler`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gc {
    /// The part of real time that collections may take, at most 0.5.
    pub pause_threshold: f64,
    /// Deletions after which one is scheduled; 0 is never.
    pub deletion_threshold: u64,
    /// Changes after which the next scheduled one is not skipped; 0 is never.
    pub mutation_threshold: u64,
    /// How long after the trigger.
    pub schedule_delay: Duration,
    /// How long after the start of the daemon the first one comes.
    pub startup_delay: Duration,
}

/// Settings of the overlayfs snapshotter.
pub fn overlayfs(plugins: &mut Section) -> Overlayfs {
    let mut section = plugins.section("io.containerd.snapshotter.v1.overlayfs");
    if section.boolean("sync_remove") {
        section.warn("overlayfs: sync_remove is not supported yet and ignored".to_owned());
    }
    Overlayfs {
        root: section.path("root_path"),
        upperdir_label: section.boolean("upperdir_label"),
        slow_chown: section.boolean("slow_chown"),
        mount_options: section.strings("mount_options", &[]),
    }
}

/// Another directory for the native snapshotter.
pub fn native_root(plugins: &mut Section) -> Option<PathBuf> {
    plugins.section("io.containerd.snapshotter.v1.native").path("root_path")
}

/// When garbage is collected.
pub fn gc(plugins: &mut Section) -> Gc {
    let mut section = plugins.section("io.containerd.gc.v1.scheduler");
    Gc {
        pause_threshold: section.float("pause_threshold", 0.02).clamp(0.0, 0.5),
        deletion_threshold: section.integer("deletion_threshold", 0),
        mutation_threshold: section.integer("mutation_threshold", 100),
        schedule_delay: section.duration("schedule_delay", Duration::ZERO),
        startup_delay: section.duration("startup_delay", Duration::from_millis(100)),
    }
}

/// What the metadata store may be told. There is nothing yet that it does otherwise.
pub fn metadata(plugins: &mut Section) {
    let mut section = plugins.section("io.containerd.metadata.v1.bolt");
    if section.boolean("no_sync") {
        section.warn("metadata: no_sync is ignored: every acknowledged change is on disk");
    }
    match section.string("content_sharing_policy", "shared").as_str() {
        "shared" => {}
        "isolated" => section.warn(
            "metadata: content_sharing_policy isolated is not supported yet: whoever knows a digest gets the blob",
        ),
        other => section.mistake(format!("unknown policy: {other}: invalid argument")),
    }
}
