//! fstab words: which are flags of the mount, which the filesystem's own data.

use std::ffi::CString;

use rustix::mount::{MountFlags, MountPropagationFlags};
use types::mount::Mount;
use types::{Error, Result};

/// The kernel copies at most one page of data, whatever the machine's page size is.
pub(super) const PAGE: usize = 4096;

/// Options that our own layers use among themselves; the kernel never sees them.
const INTERNAL: &str = "X-containerd.";

/// Parsed options of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Flags that are set.
    pub(super) flags: MountFlags,
    /// Flags that an option cleared (`suid`, `rw`…): they are not inherited by a bind either.
    pub(super) cleared: MountFlags,
    /// Propagation changes, in order; the kernel takes one a call.
    pub(super) propagation: Vec<MountPropagationFlags>,
    /// Change an existing mount.
    pub(super) remount: bool,
    /// The source is a file: it is mounted through a loop device.
    pub(super) through_loop: bool,
    /// Words for the filesystem.
    pub(super) words: Vec<String>,
    /// Shift owners through these maps.
    pub(super) remap: Option<IdMaps>,
}

/// Maps of a user namespace in the form of the options `uidmap=` and `gidmap=`: `container:host:size`, comma separated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdMaps {
    pub(super) uids: String,
    pub(super) gids: String,
}

enum Word {
    Set(MountFlags),
    Clear(MountFlags),
    Propagate(MountPropagationFlags),
    Remount,
    Nothing,
    Data,
}

fn word(text: &str) -> Word {
    use {MountFlags as F, MountPropagationFlags as P};
    match text {
        "defaults" => Word::Nothing,
        "bind" => Word::Set(F::BIND),
        "rbind" => Word::Set(F::BIND | F::REC),
        "remount" => Word::Remount,
        "ro" => Word::Set(F::RDONLY),
        "rw" => Word::Clear(F::RDONLY),
        "noatime" => Word::Set(F::NOATIME),
        "atime" => Word::Clear(F::NOATIME),
        "nodev" => Word::Set(F::NODEV),
        "dev" => Word::Clear(F::NODEV),
        "nodiratime" => Word::Set(F::NODIRATIME),
        "diratime" => Word::Clear(F::NODIRATIME),
        "noexec" => Word::Set(F::NOEXEC),
        "exec" => Word::Clear(F::NOEXEC),
        "nosuid" => Word::Set(F::NOSUID),
        "suid" => Word::Clear(F::NOSUID),
        "relatime" => Word::Set(F::RELATIME),
        "norelatime" => Word::Clear(F::RELATIME),
        "strictatime" => Word::Set(F::STRICTATIME),
        "nostrictatime" => Word::Clear(F::STRICTATIME),
        "dirsync" => Word::Set(F::DIRSYNC),
        "sync" => Word::Set(F::SYNCHRONOUS),
        "async" => Word::Clear(F::SYNCHRONOUS),
        "mand" => Word::Set(F::PERMIT_MANDATORY_FILE_LOCKING),
        "nomand" => Word::Clear(F::PERMIT_MANDATORY_FILE_LOCKING),
        "nosymfollow" => Word::Set(F::NOSYMFOLLOW),
        "shared" => Word::Propagate(P::SHARED),
        "rshared" => Word::Propagate(P::SHARED | P::REC),
        "slave" => Word::Propagate(P::DOWNSTREAM),
        "rslave" => Word::Propagate(P::DOWNSTREAM | P::REC),
        "private" => Word::Propagate(P::PRIVATE),
        "rprivate" => Word::Propagate(P::PRIVATE | P::REC),
        "unbindable" => Word::Propagate(P::UNBINDABLE),
        "runbindable" => Word::Propagate(P::UNBINDABLE | P::REC),
        _ => Word::Data,
    }
}

impl Options {
    /// Sorts fstab words; id maps need both halves.
    pub(super) fn parse(options: &[String]) -> Result<Self> {
        let mut parsed = Self {
            flags: MountFlags::empty(),
            cleared: MountFlags::empty(),
            propagation: Vec::new(),
            remount: false,
            through_loop: false,
            words: Vec::new(),
            remap: None,
        };
        let (mut uids, mut gids) = (None, None);
        for option in options {
            match word(option) {
                Word::Set(flags) => {
                    parsed.flags |= flags;
                    parsed.cleared -= flags;
                }
                Word::Clear(flags) => {
                    parsed.flags -= flags;
                    parsed.cleared |= flags;
                }
                Word::Propagate(kind) => parsed.propagation.push(kind),
                Word::Remount => parsed.remount = true,
                Word::Nothing => {}
                Word::Data if option == "loop" => parsed.through_loop = true,
                Word::Data if option.starts_with(INTERNAL) => {}
                Word::Data => match option.split_once('=') {
                    Some(("uidmap", map)) => uids = Some(map.to_owned()),
                    Some(("gidmap", map)) => gids = Some(map.to_owned()),
                    _ => parsed.words.push(option.clone()),
                },
            }
        }
        // As upstream: only the remapping of both is supported, one alone is ignored.
        parsed.remap = uids.zip(gids).map(|(uids, gids)| IdMaps { uids, gids });
        Ok(parsed)
    }

    /// The filesystem's words as mount(2) takes them.
    pub(super) fn data(&self) -> Result<CString> {
        let data = self.words.join(",");
        if data.len() >= PAGE {
            return Err(Error::invalid("mount options is too long"));
        }
        CString::new(data).map_err(|_| Error::invalid("mount options contain a null byte"))
    }
}

/// The same mounts, read-only: overlays lose their upper directory to the lower ones, others get `ro`.
pub fn read_only(mounts: &[Mount]) -> Vec<Mount> {
    let mut mounts = mounts.to_vec();
    for mount in &mut mounts {
        if mount.kind == "overlay" {
            mount.options = read_only_overlay(&mount.options);
        } else {
            mount.options.retain(|option| option != "rw" && option != "ro");
            mount.options.push("ro".to_owned());
        }
    }
    mounts
}

fn read_only_overlay(options: &[String]) -> Vec<String> {
    let upper = options.iter().find_map(|option| option.strip_prefix("upperdir="));
    let gone = ["upperdir=", "workdir=", "uidmap=", "gidmap="];
    let mut kept: Vec<String> = options
        .iter()
        .filter(|option| !gone.iter().any(|prefix| option.starts_with(prefix)))
        .cloned()
        .collect();
    if let Some(upper) = upper {
        for option in &mut kept {
            if let Some(lower) = option.strip_prefix("lowerdir=") {
                *option = format!("lowerdir={upper}:{lower}");
            }
        }
    }
    kept
}

/// The same mounts without overlayfs's `volatile`, which forbids a second mount of the same upper directory.
pub fn without_volatile(mounts: &[Mount]) -> Vec<Mount> {
    let mut mounts = mounts.to_vec();
    for mount in mounts.iter_mut().filter(|mount| mount.kind == "overlay") {
        mount.options.retain(|option| !is_volatile(option));
    }
    mounts
}

/// The same mounts with it, which every kernel has that we run on (5.10), where something can be written. Each can be mounted once.
pub fn with_volatile(mounts: &[Mount]) -> Vec<Mount> {
    let mut mounts = mounts.to_vec();
    for mount in mounts.iter_mut().filter(|mount| mount.kind == "overlay") {
        let writes = mount.options.iter().any(|option| option.starts_with("upperdir="));
        if writes && !mount.options.iter().any(|option| is_volatile(option)) {
            mount.options.push("volatile".to_owned());
        }
    }
    mounts
}

fn is_volatile(option: &str) -> bool {
    option == "volatile" || option == "fsync=volatile"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Options {
        Options::parse(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_can_be_written_is_mounted_volatile_once() {
        let mount = |kind: &str, options: &[&str]| Mount {
            kind: kind.to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        };
        let written =
            |kind: &str, options: &[&str]| with_volatile(&[mount(kind, options)])[0].options.clone();
        assert_eq!(written("overlay", &["upperdir=u", "workdir=w"]), ["upperdir=u", "workdir=w", "volatile"]);
        for other in [&["lowerdir=a:b"][..], &["upperdir=u", "volatile"], &["upperdir=u", "fsync=volatile"]] {
            assert_eq!(written("overlay", other), other);
        }
        assert_eq!(written("bind", &["rbind", "rw"]), ["rbind", "rw"]);
    }

    #[test]
    fn flags_are_told_from_data_and_the_last_word_counts() {
        let options =
            parse(&["ro", "nosuid", "size=64k", "rw", "mode=755", "defaults", "X-containerd.mkfs.fs=ext4"]);
        assert_eq!(options.flags, MountFlags::NOSUID);
        assert_eq!(options.cleared, MountFlags::RDONLY);
        assert_eq!(options.data().unwrap().to_str().unwrap(), "size=64k,mode=755");
    }

    #[test]
    fn one_half_of_an_id_map_is_ignored_and_a_loop_is_no_data() {
        assert_eq!(parse(&["uidmap=0:1:2"]).remap, None);
        assert!(parse(&["uidmap=0:1:2", "gidmap=0:1:2"]).remap.is_some());
        let options = parse(&["loop", "noload"]);
        assert!(options.through_loop && options.words == ["noload"]);
    }

    #[test]
    fn a_read_only_overlay_shows_its_upper_directory_as_the_first_lower_one() {
        let overlay = Mount {
            kind: "overlay".to_owned(),
            options: ["workdir=/w", "upperdir=/u", "lowerdir=/a:/b", "index=off"].map(str::to_owned).to_vec(),
            ..Mount::default()
        };
        assert_eq!(read_only(&[overlay])[0].options, ["lowerdir=/u:/a:/b", "index=off"]);
    }
}
