//! Overlayfs with more layers than one page of options can name.
//!
//! mount(2) takes 4096 bytes of options, and a layer's path has about 60. From Linux 6.5 on the new mount API takes one
//! layer a call (`lowerdir+`); before that the layers are named by descriptor, `/proc/self/fd/N`, which lasts for about
//! 200 of them. Upstream changes the directory of a thread instead, which needs a thread that can be thrown away.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount as kernel;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags};
use types::mount::Mount;
use types::{Error, Result, ResultExt};

use super::idmap;
use super::options::{IdMaps, Options, PAGE};

/// fsconfig(2) copies strings of at most 256 bytes with their end.
const LONGEST_VALUE: usize = 255;

/// Whether mount(2) cannot take these options, with upstream's margin.
pub(super) fn needs_more_than_a_page(options: &Options) -> bool {
    options.words.iter().map(|word| word.len() + 1).sum::<usize>() >= PAGE - 512
}

/// Mounts an overlay of any number of layers.
pub(super) fn mount(mount: &Mount, options: &Options, place: &Path) -> Result<()> {
    let refused = match mount_by_layer(mount, options, place) {
        Ok(()) => return Ok(()),
        Err(refused) => refused,
    };
    // Before 6.5 the kernel takes any option at first, and finds at the end that it does not know `lowerdir+`, or
    // that a page is full: the same EINVAL as for a wrong option. If the old way fails too the option was wrong.
    if matches!(refused.errno, Errno::INVAL | Errno::NOSYS)
        && mount_by_descriptor(mount, options, place).is_ok()
    {
        return Ok(());
    }
    Err(refused.told())
}

/// Mounts an overlay whose lower layers seem to belong to others (Linux 5.19).
///
/// The kernel takes a shifted clone of a layer only where it is mounted. So the clones lie on `place`, one on the other,
/// until the overlay on top of them is made; then all goes but a clone of the overlay. A crash between leaves nothing
/// that the removal of `place` does not remove.
pub(super) fn mount_idmapped(mount: &Mount, options: &Options, maps: &IdMaps, place: &Path) -> Result<()> {
    let namespace = idmap::namespace(maps)?;
    let mut stack = Stack { place, depth: 0 };
    let mut held = Vec::new();
    let mut words = options.words.clone();
    for word in &mut words {
        let Some(dirs) = word.strip_prefix("lowerdir=") else { continue };
        let mut layers = Vec::new();
        for dir in split_layers(dirs) {
            let layer = idmap::clone(Path::new(&dir))?;
            idmap::set_id_map(&layer, &namespace).context(|| format!("shift owners of {dir:?}"))?;
            stack.push(&layer)?;
            layers.push(super::fd_path(&layer).to_string_lossy().into_owned());
            held.push(layer);
        }
        *word = format!("lowerdir={}", layers.join(":"));
    }
    let options = Options { words, ..options.clone() };
    if needs_more_than_a_page(&options) {
        self::mount(mount, &options, place)?;
    } else {
        super::plain_mount(mount, &options, &options.data()?, place)?;
    }
    stack.depth += 1;
    let overlay = idmap::clone(place)?;
    stack.clear()?;
    idmap::attach(&overlay, place)
}

/// Mounts on one place, to be taken away again.
struct Stack<'a> {
    place: &'a Path,
    depth: usize,
}

impl Stack<'_> {
    fn push(&mut self, tree: &OwnedFd) -> Result<()> {
        idmap::attach(tree, self.place)?;
        self.depth += 1;
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        while self.depth > 0 {
            super::unmount_once(self.place, UnmountFlags::DETACH)
                .map_err(io::Error::from)
                .context(|| format!("unmount a layer from {:?}", self.place))?;
            self.depth -= 1;
        }
        Ok(())
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        // Whoever asked for the mount hears of why it failed; what cannot be unmounted goes with the place.
        let _ = self.clear();
    }
}

/// Why the kernel refused, and its own words about it.
struct Refused {
    errno: Errno,
    reason: String,
}

impl Refused {
    fn told(self) -> Error {
        let error = Error::from(io::Error::from(self.errno));
        if self.reason.is_empty() { error } else { error.context(self.reason) }
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self { errno, reason: String::new() }
    }
}

fn mount_by_layer(mount: &Mount, options: &Options, place: &Path) -> Result<(), Refused> {
    let fs = kernel::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Descriptors that stand for long paths; needed until the superblock exists.
    let mut held = Vec::new();
    let configured = configure(&fs, mount, options, &mut held).and_then(|()| kernel::fsconfig_create(&fs));
    configured.map_err(|errno| Refused { errno, reason: reason(&fs) })?;
    let made = kernel::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes(options.flags))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    Ok(kernel::move_mount(&made, "", CWD, place, flags)?)
}

fn configure(fs: &OwnedFd, mount: &Mount, options: &Options, held: &mut Vec<OwnedFd>) -> Result<(), Errno> {
    kernel::fsconfig_set_string(fs, "source", &*mount.source)?;
    for word in &options.words {
        match word.split_once('=') {
            Some(("lowerdir", dirs)) => {
                for dir in split_layers(dirs) {
                    kernel::fsconfig_set_string(fs, "lowerdir+", &*shortened(dir, held)?)?;
                }
            }
            // The kernel undoes the escapes of these two itself, but a path that is opened has none.
            Some(("upperdir" | "workdir", dir)) if dir.len() > LONGEST_VALUE => {
                let (key, _) = word.split_at(word.len() - dir.len() - 1);
                kernel::fsconfig_set_string(fs, key, &*by_descriptor(&split_layers(dir).join(":"), held)?)?;
            }
            // mount(2) needs quotes around commas, and here they would be taken for a part of the label.
            Some((key @ ("context" | "fscontext" | "defcontext" | "rootcontext"), label)) => {
                kernel::fsconfig_set_string(fs, key, label.replace('"', ""))?;
            }
            Some((key, value)) => kernel::fsconfig_set_string(fs, key, value)?,
            None => kernel::fsconfig_set_flag(fs, &**word)?,
        }
    }
    superblock_flags(options.flags).try_for_each(|name| kernel::fsconfig_set_flag(fs, name))
}

/// The kernel's own words about what it refused, which it keeps on the descriptor.
fn reason(fs: &OwnedFd) -> String {
    let mut text = [0_u8; 512];
    match rustix::io::read(fs, &mut text) {
        // `e `, `w ` or `i ` comes first.
        Ok(len) if len > 2 => String::from_utf8_lossy(&text[2..len]).trim().to_owned(),
        _ => String::new(),
    }
}

fn mount_by_descriptor(mount: &Mount, options: &Options, place: &Path) -> Result<()> {
    let mut held = Vec::new();
    let mut words = options.words.clone();
    for word in &mut words {
        if let Some(dirs) = word.strip_prefix("lowerdir=") {
            let dirs = split_layers(dirs);
            let dirs: Result<Vec<String>, Errno> =
                dirs.iter().map(|dir| by_descriptor(dir, &mut held)).collect();
            let dirs = dirs.map_err(io::Error::from).context(|| "open layers")?;
            *word = format!("lowerdir={}", dirs.join(":"));
        }
    }
    let data: CString = Options { words, ..options.clone() }.data()?;
    super::plain_mount(mount, options, &data, place)
}

/// The layers of a `lowerdir=` value: separated by colons, unless escaped by a backslash.
fn split_layers(dirs: &str) -> Vec<String> {
    let mut layers = vec![String::new()];
    let mut escaped = false;
    for c in dirs.chars() {
        match (c, escaped) {
            ('\\', false) => {
                escaped = true;
                continue;
            }
            (':', false) => layers.push(String::new()),
            _ => {
                if let Some(layer) = layers.last_mut() {
                    layer.push(c);
                }
            }
        }
        escaped = false;
    }
    layers
}

fn shortened(dir: String, held: &mut Vec<OwnedFd>) -> Result<String, Errno> {
    if dir.len() <= LONGEST_VALUE { Ok(dir) } else { by_descriptor(&dir, held) }
}

fn by_descriptor(dir: &str, held: &mut Vec<OwnedFd>) -> Result<String, Errno> {
    let fd = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = super::fd_path(&fd).to_string_lossy().into_owned();
    held.push(fd);
    Ok(path)
}

fn superblock_flags(flags: MountFlags) -> impl Iterator<Item = &'static str> {
    let names =
        [(MountFlags::RDONLY, "ro"), (MountFlags::SYNCHRONOUS, "sync"), (MountFlags::DIRSYNC, "dirsync")];
    names.into_iter().filter(move |(flag, _)| flags.contains(*flag)).map(|(_, name)| name)
}

fn attributes(flags: MountFlags) -> MountAttrFlags {
    use {MountAttrFlags as A, MountFlags as F};
    let pairs = [
        (F::RDONLY, A::MOUNT_ATTR_RDONLY),
        (F::NOSUID, A::MOUNT_ATTR_NOSUID),
        (F::NODEV, A::MOUNT_ATTR_NODEV),
        (F::NOEXEC, A::MOUNT_ATTR_NOEXEC),
        (F::NODIRATIME, A::MOUNT_ATTR_NODIRATIME),
        (F::NOATIME, A::MOUNT_ATTR_NOATIME),
        (F::STRICTATIME, A::MOUNT_ATTR_STRICTATIME),
        (F::NOSYMFOLLOW, A::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    pairs.iter().filter(|(from, _)| flags.contains(*from)).fold(A::empty(), |all, (_, to)| all | *to)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Both ways, for the tests of the parent module: this kernel would only ever take the first.
    pub(in super::super) fn old_way(mount: &Mount, place: &Path) -> Result<()> {
        mount_by_descriptor(mount, &Options::parse(&mount.options)?, place)
    }

    #[test]
    fn colons_in_a_layers_path_are_escaped() {
        assert_eq!(split_layers("/a:/b"), ["/a", "/b"]);
        assert_eq!(split_layers(r"/a\:x:/b\\c"), ["/a:x", r"/b\c"]);
    }
}
