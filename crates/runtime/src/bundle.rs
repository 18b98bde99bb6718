//! The directory of a task: made before its shim, removed after it, and all that is known about it after a restart.
//!
//! ```text
//!  <state>/io.containerd.runtime.v2.task/<ns>/<id>/     0700, or 0710 for the group that is root in its user namespace
//!      config.json        the spec, byte for byte
//!      rootfs/            0711, where the shim mounts
//!      work ->            <root>/io.containerd.runtime.v2.task/<ns>/<id>   (on disk, for what must not fill /run)
//!      shim-binary-path   which program the shim is; written before it is started
//!      sandbox            where it is no task, but what a shim makes by its sandbox service
//!      endpoint           where it is served by somebody who is not ours: no program is executed for it
//!      bootstrap.json     how to reach it; written before it is used
//!      log                FIFO, read by the daemon
//!      journal            events that the shim has not told yet; init.exit: how init ended (both of our shim)
//!      address            written by shims before 1.7 instead of bootstrap.json
//!  <state>/io.containerd.runtime.v2.task/<ns>/.<id>/    on its way out; a crash may leave it, `load` removes it
//! ```
//!
//! Paths are made of checked identifiers only. Nothing is synced: `<state>` is a tmpfs, gone with the kernel that ran
//! the processes; files that matter appear by rename.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use types::any::RUNTIME_SPEC;
use types::events::Envelope;
use types::{Any, Class, Error, Result, ResultExt, crash};

use crate::bootstrap::Bootstrap;
use crate::key::TaskKey;

/// The plugin whose directories these are, below root and state.
const PLUGIN: &str = "io.containerd.runtime.v2.task";

/// Says that the bundles are ours: another daemon's are not touched.
const MARKER: &str = ".containerd-rs";

/// Where bundles and work directories lie.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) state: PathBuf,
    pub(crate) root: PathBuf,
}

/// The paths of one bundle; it need not exist.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    pub(crate) path: PathBuf,
    pub(crate) work: PathBuf,
}

/// Fails if `<state>` holds bundles that were not made by us. Touches nothing.
pub fn check_state(state: &Path) -> Result<()> {
    let dir = state.join(PLUGIN);
    let holds_bundles = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).context(|| format!("read {dir:?}")),
        Ok(entries) => entries.flatten().any(|namespace| {
            std::fs::read_dir(namespace.path()).is_ok_and(|mut bundles| bundles.next().is_some())
        }),
    };
    if !holds_bundles || dir.join(MARKER).exists() {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "state directory {dir:?} holds tasks of another daemon (containerd); nothing was changed: \
         stop them and move the directory away, or start with another --state"
    )))
}

impl Layout {
    pub(crate) fn new(root: &Path, state: &Path) -> Self {
        Self { state: state.join(PLUGIN), root: root.join(PLUGIN) }
    }

    /// Makes the two directories and marks them as ours.
    pub(crate) fn prepare(&self) -> Result<()> {
        for dir in [&self.root, &self.state] {
            make_dir_all(dir)?;
        }
        let marker = self.state.join(MARKER);
        std::fs::write(&marker, b"").context(|| format!("write {marker:?}"))
    }

    pub(crate) fn bundle(&self, key: &TaskKey) -> Bundle {
        let below = Path::new(key.namespace().as_str()).join(key.id());
        Bundle { path: self.state.join(&below), work: self.root.join(&below) }
    }
}

impl Bundle {
    /// Makes the directories and writes the spec. On an error nothing is left.
    pub(crate) fn create(&self, spec: Option<&Any>) -> Result<()> {
        let gid = match spec {
            Some(spec) if spec.is(RUNTIME_SPEC) => remapped_gid(&spec.value)?,
            _ => None,
        };
        for dir in [&self.path, &self.work] {
            make_dir_all(parent(dir))?;
        }
        // Not `make_dir`: it says who holds the id.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.path)
            .context(|| format!("create bundle {:?}", self.path))?;
        crash::point("bundle-begun");
        let filled = self.fill(spec, gid);
        if filled.is_err()
            && let Err(error) = self.remove()
        {
            tracing::error!(%error, "remove half a bundle");
        }
        filled
    }

    fn fill(&self, spec: Option<&Any>, gid: Option<u32>) -> Result<()> {
        if let Some(gid) = gid {
            std::os::unix::fs::chown(&self.path, None, Some(gid))
                .context(|| format!("give bundle {:?} to group {gid}", self.path))?;
            set_mode(&self.path, 0o710)?;
        }
        make_dir(&self.rootfs())?;
        match make_dir(&self.work) {
            // Left by a task of this id before a reboot.
            Err(error) if error.is_already_exists() => {
                sys::fs::remove_tree(&self.work)?;
                make_dir(&self.work)?;
            }
            made => made?,
        }
        let link = self.path.join("work");
        std::os::unix::fs::symlink(&self.work, &link).context(|| format!("link {link:?}"))?;
        match spec {
            Some(spec) if !spec.value.is_empty() => write(&self.path.join("config.json"), &spec.value, 0o644)
                .context(|| "failed to write bundle spec"),
            _ => Ok(()),
        }
    }

    /// Removes bundle and work directory, whatever of them is there; unmounts what is mounted on the rootfs.
    ///
    /// The bundle vanishes by a rename, so that a crash leaves it whole or hidden, never half.
    pub(crate) fn remove(&self) -> Result<()> {
        self.unmount_rootfs(&self.path)?;
        if let Err(error) = crate::why::keep(self) {
            tracing::warn!(%error, "the record of a death is lost");
        }
        // Both are tried; the first error is told.
        let removed = vanish(&self.path);
        vanish(&self.work).and(removed)
    }

    /// Where bundle and work directory are on their way out.
    pub(crate) fn hidden(&self) -> [PathBuf; 2] {
        [hidden(&self.path), hidden(&self.work)]
    }

    /// The container's control group, as its specification names it.
    pub(crate) fn cgroup(&self) -> Option<String> {
        let text = read(&self.path.join("config.json")).ok().flatten()?;
        let spec: SpecCgroup = serde_json::from_slice(&text).ok()?;
        spec.linux?.cgroups_path.filter(|path| !path.is_empty())
    }

    /// Removes what a crash left of an earlier removal.
    pub(crate) fn remove_hidden(&self) -> Result<()> {
        let [bundle, work] = self.hidden();
        self.unmount_rootfs(&bundle)?;
        sys::fs::remove_tree(&bundle)?;
        sys::fs::remove_tree(&work)
    }

    /// Unmounts and removes `rootfs`, so that the removal of the tree cannot reach into a container's files.
    fn unmount_rootfs(&self, bundle: &Path) -> Result<()> {
        let rootfs = bundle.join("rootfs");
        // An empty directory that can be removed is no mount point: this saves reading the mount table.
        match std::fs::remove_dir(&rootfs) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => {}
        }
        sys::mount::unmount_recursive(&rootfs, sys::mount::UnmountFlags::empty())
            .context(|| format!("unmount rootfs {rootfs:?}"))
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Keeps which program the shim is. Written before the program is started.
    pub(crate) fn write_binary(&self, binary: &Path) -> Result<()> {
        write(&self.path.join("shim-binary-path"), binary.as_os_str().as_bytes(), 0o600)
    }

    /// The program, if it was written.
    pub(crate) fn read_binary(&self) -> Result<Option<PathBuf>> {
        let bytes = read(&self.path.join("shim-binary-path"))?;
        Ok(bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| std::ffi::OsStr::from_bytes(&bytes).into()))
    }

    /// Keeps that the shim makes it by its sandbox service.
    pub(crate) fn mark_sandbox(&self) -> Result<()> {
        write(&self.path.join("sandbox"), b"", 0o600)
    }

    /// Whether the shim makes it by its sandbox service.
    pub(crate) fn is_sandbox(&self) -> bool {
        self.path.join("sandbox").exists()
    }

    /// Keeps that somebody who is not ours serves it (see [`crate::endpoint`]).
    pub(crate) fn mark_served(&self) -> Result<()> {
        write(&self.path.join("endpoint"), b"", 0o600)
    }

    /// Whether somebody who is not ours serves it.
    pub(crate) fn is_served(&self) -> bool {
        self.path.join("endpoint").exists()
    }

    /// Keeps how to reach the shim: whole or not at all.
    pub(crate) fn write_bootstrap(&self, bootstrap: &Bootstrap) -> Result<()> {
        let (temporary, path) = (self.path.join(".bootstrap.json"), self.path.join("bootstrap.json"));
        write(&temporary, &bootstrap.to_json()?, 0o644)?;
        std::fs::rename(&temporary, &path).context(|| format!("failed to write {path:?}"))
    }

    /// How to reach the shim, if it was ever known.
    pub(crate) fn read_bootstrap(&self) -> Result<Option<Bootstrap>> {
        if let Some(json) = read(&self.path.join("bootstrap.json"))? {
            return Bootstrap::parse(&json).map(Some).context(|| "read bootstrap.json");
        }
        let address = read(&self.path.join("address"))?.unwrap_or_default();
        match std::str::from_utf8(address.trim_ascii()) {
            Ok("") | Err(_) => Ok(None),
            Ok(address) => Ok(Some(Bootstrap::plain(address))),
        }
    }

    /// The pid of the init process, as the shim wrote it down.
    pub(crate) fn init_pid(&self) -> Option<u32> {
        let bytes = read(&self.path.join("init.pid")).ok().flatten()?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }

    /// Whether the shim has written down how init ended. Only ours does.
    pub(crate) fn knows_exit(&self) -> bool {
        self.path.join("init.exit").exists()
    }

    /// The events that the shim could not tell any more, in order.
    pub(crate) fn read_journal(&self) -> Result<Vec<Envelope>> {
        let path = self.path.join(api::journal::FILE);
        let bytes = read(&path)?.unwrap_or_default();
        let journal = api::journal::recover(&bytes).context(|| format!("read {path:?}"))?;
        Ok(journal.records.into_iter().map(|record| api::convert::envelope(record.envelope)).collect())
    }

    /// Whether the init process still exists (or another with its pid).
    pub(crate) fn init_may_live(&self) -> bool {
        self.init_pid().is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
    }

    /// Makes the FIFO that the shim logs to, if it is not there.
    pub(crate) fn make_log(&self) -> Result<PathBuf> {
        let path = self.path.join("log");
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Error::invalid(format!("{path:?} contains a NUL")))?;
        let mode = rustix::fs::Mode::RWXU;
        match rustix::fs::mknodat(rustix::fs::CWD, &*name, rustix::fs::FileType::Fifo, mode, 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(path),
            Err(errno) => Err(io::Error::from(errno)).context(|| format!("open shim log pipe {path:?}")),
        }
    }
}

/// Only what the mode of the bundle depends on.
#[derive(Deserialize)]
struct SpecMappings {
    linux: Option<LinuxMappings>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinuxMappings {
    #[serde(default)]
    gid_mappings: Option<Vec<Mapping>>,
}

/// Only where the container's processes are counted.
#[derive(Deserialize)]
struct SpecCgroup {
    linux: Option<LinuxCgroup>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinuxCgroup {
    #[serde(default)]
    cgroups_path: Option<String>,
}

#[derive(Deserialize)]
struct Mapping {
    #[serde(default, rename = "containerID")]
    container: u32,
    #[serde(default, rename = "hostID")]
    host: u32,
}

/// The group on the host that is root's in the container, unless that is root's too.
fn remapped_gid(spec: &[u8]) -> Result<Option<u32>> {
    let spec: SpecMappings =
        serde_json::from_slice(spec).map_err(|e| Error::invalid(format!("parse runtime spec: {e}")))?;
    let mappings = spec.linux.and_then(|linux| linux.gid_mappings).unwrap_or_default();
    Ok(mappings
        .iter()
        .find(|mapping| mapping.container == 0)
        .map(|mapping| mapping.host)
        .filter(|gid| *gid != 0))
}

/// Renames `path` to its hidden name and removes it there.
fn vanish(path: &Path) -> Result<()> {
    let hidden = hidden(path);
    loop {
        match std::fs::rename(path, &hidden).map_err(Error::from) {
            Ok(()) => {
                crash::point("bundle-hidden");
                return sys::fs::remove_tree(&hidden);
            }
            Err(error) if error.is_not_found() => return Ok(()),
            // An earlier removal was interrupted.
            Err(_) if hidden.symlink_metadata().is_ok() => sys::fs::remove_tree(&hidden)?,
            Err(error) => return Err(error.context(format!("remove {path:?}"))),
        }
    }
}

fn hidden(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Makes a directory with mode 0711 whatever the umask.
fn make_dir(path: &Path) -> Result<()> {
    std::fs::create_dir(path).context(|| format!("create {path:?}"))?;
    set_mode(path, 0o711)
}

fn make_dir_all(path: &Path) -> Result<()> {
    match make_dir(path) {
        Err(error) if error.is_already_exists() => Ok(()),
        Err(error) if error.is_not_found() && path.parent().is_some() => {
            make_dir_all(parent(path))?;
            make_dir_all(path)
        }
        made => made,
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .context(|| format!("chmod {path:?}"))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        io::Write::write_all(&mut file, bytes)
    };
    write().context(|| format!("write {path:?}"))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path).map_err(Error::from) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.class() == Class::NotFound => Ok(None),
        Err(error) => Err(error.context(format!("read {path:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout, TaskKey) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("root"), &dir.path().join("state"));
        layout.prepare().unwrap();
        (dir, layout, TaskKey::new(&"default".parse().unwrap(), "c1").unwrap())
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    fn files(dir: &Path) -> Vec<String> {
        let entries =
            std::fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
        let mut names: Vec<_> = entries.iter().map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_bundle_has_upstreams_layout_and_goes_without_a_trace() {
        let (_dir, layout, key) = layout();
        let bundle = layout.bundle(&key);
        let spec = Any::new(RUNTIME_SPEC, r#"{"linux":{}, "x":  1}"#);
        bundle.create(Some(&spec)).unwrap();
        assert_eq!(files(&bundle.path), ["config.json", "rootfs", "work"]);
        assert_eq!(std::fs::read(bundle.path.join("config.json")).unwrap(), spec.value);
        assert_eq!((mode(&bundle.path), mode(&bundle.rootfs())), (0o700, 0o711));
        assert_eq!(std::fs::read_link(bundle.path.join("work")).unwrap(), bundle.work);
        assert!(bundle.create(Some(&spec)).unwrap_err().is_already_exists());
        bundle.remove().unwrap();
        bundle.remove().unwrap();
        assert!(
            files(&layout.state.join("default")).is_empty() && files(&layout.root.join("default")).is_empty()
        );
    }

    #[test]
    fn a_bundle_of_a_user_namespace_is_open_to_its_root_group() {
        let (_dir, layout, key) = layout();
        let spec = r#"{"linux":{"gidMappings":[{"containerID":0,"hostID":1234,"size":10}]}}"#;
        layout.bundle(&key).create(Some(&Any::new(RUNTIME_SPEC, spec))).unwrap();
        let metadata = layout.bundle(&key).path.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o710);
        assert_eq!(std::os::unix::fs::MetadataExt::gid(&metadata), 1234);
    }

    #[test]
    fn a_spec_that_is_no_json_leaves_nothing() {
        let (_dir, layout, key) = layout();
        let error = layout.bundle(&key).create(Some(&Any::new(RUNTIME_SPEC, "{"))).unwrap_err();
        assert_eq!(error.class(), Class::InvalidArgument);
        assert!(files(&layout.state.join("default")).is_empty());
    }

    #[test]
    fn when_filling_fails_the_directory_goes_again() {
        let (_dir, layout, key) = layout();
        let bundle = layout.bundle(&key);
        // A file where the work directory should be made: cannot be created below it.
        std::fs::write(layout.root.join("default"), b"").unwrap();
        assert!(bundle.create(None).is_err());
        assert!(files(&layout.state.join("default")).is_empty());
    }

    #[test]
    fn an_interrupted_removal_does_not_stop_the_next_one() {
        let (_dir, layout, key) = layout();
        let bundle = layout.bundle(&key);
        bundle.create(None).unwrap();
        std::fs::create_dir_all(layout.state.join("default/.c1/rootfs/x")).unwrap();
        bundle.remove().unwrap();
        assert!(files(&layout.state.join("default")).is_empty());
        std::fs::create_dir_all(layout.state.join("default/.c1/rootfs")).unwrap();
        bundle.remove_hidden().unwrap();
        assert!(files(&layout.state.join("default")).is_empty());
    }

    #[test]
    fn bundles_of_another_daemon_are_recognised_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        check_state(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join(PLUGIN).join("k8s.io")).unwrap();
        check_state(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join(PLUGIN).join("k8s.io/c1")).unwrap();
        assert_eq!(check_state(dir.path()).unwrap_err().class(), Class::FailedPrecondition);
        Layout::new(&dir.path().join("root"), dir.path()).prepare().unwrap();
        check_state(dir.path()).unwrap();
    }

    #[test]
    fn the_address_is_found_in_either_file() {
        let (_dir, layout, key) = layout();
        let bundle = layout.bundle(&key);
        bundle.create(None).unwrap();
        assert_eq!(bundle.read_bootstrap().unwrap(), None);
        std::fs::write(bundle.path.join("address"), "unix:///old").unwrap();
        assert_eq!(bundle.read_bootstrap().unwrap().unwrap().address, "unix:///old");
        bundle.write_bootstrap(&Bootstrap::plain("unix:///new")).unwrap();
        assert_eq!(bundle.read_bootstrap().unwrap().unwrap().address, "unix:///new");
    }
}
