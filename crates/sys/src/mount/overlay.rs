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
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags};
use types::mount::Mount;
use types::{Error, Result, ResultExt};

use super::options::{Options, PAGE};

/// fsconfig(2) copies strings of at most 256 bytes with their end.
const LONGEST_VALUE: usize = 255;

/// Whether mount(2) cannot take these options, with upstream's margin.
pub(super) fn needs_more_than_a_page(options: &Options) -> bool {
    options.words.iter().map(|word| word.len() + 1).sum::<usize>() >= PAGE - 512
}

/// Mounts an overlay of any number of layers.
pub(super) fn mount(mount: &Mount, options: &Options, place: &Path) -> Result<()> {
    match mount_by_layer(mount, options, place) {
        // An older kernel knows fsopen (or not), but not `lowerdir+`.
        Err(Refused::Unknown) => mount_by_descriptor(mount, options, place),
        Err(Refused::Failed(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

enum Refused {
    Unknown,
    Failed(Error),
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        Self::Failed(io::Error::from(error).into())
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn mount_by_layer(mount: &Mount, options: &Options, place: &Path) -> Result<(), Refused> {
    let fs = match kernel::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(Errno::NOSYS) => return Err(Refused::Unknown),
        fs => fs?,
    };
    // Descriptors that stand for long paths; needed until the superblock exists.
    let mut held = Vec::new();
    kernel::fsconfig_set_string(&fs, "source", &*mount.source)?;
    for word in &options.words {
        match word.split_once('=') {
            Some(("lowerdir", dirs)) => {
                for (index, dir) in split_layers(dirs).iter().enumerate() {
                    let dir = shortened(dir, &mut held)?;
                    match kernel::fsconfig_set_string(&fs, "lowerdir+", &*dir) {
                        Err(Errno::INVAL) if index == 0 => return Err(Refused::Unknown),
                        result => result.map_err(|e| explained(&fs, e))?,
                    }
                }
            }
            Some((key @ ("upperdir" | "workdir"), dir)) => {
                // The kernel undoes the escapes of these two, but not behind a descriptor.
                let long = dir.len() > LONGEST_VALUE;
                let dir = if long {
                    by_descriptor(&split_layers(dir).join(":"), &mut held)?
                } else {
                    dir.to_owned()
                };
                kernel::fsconfig_set_string(&fs, key, &*dir).map_err(|e| explained(&fs, e))?;
            }
            Some((key, value)) => {
                kernel::fsconfig_set_string(&fs, key, value).map_err(|e| explained(&fs, e))?
            }
            None => kernel::fsconfig_set_flag(&fs, &**word).map_err(|e| explained(&fs, e))?,
        }
    }
    for name in superblock_flags(options.flags) {
        kernel::fsconfig_set_flag(&fs, name)?;
    }
    kernel::fsconfig_create(&fs).map_err(|e| explained(&fs, e))?;
    let made = kernel::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes(options.flags))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    Ok(kernel::move_mount(&made, "", CWD, place, flags)?)
}

/// The kernel's own words about a refused option, which it keeps on the descriptor.
fn explained(fs: &OwnedFd, error: Errno) -> Error {
    let mut text = [0_u8; 512];
    let error = Error::from(io::Error::from(error));
    match rustix::io::read(fs, &mut text) {
        Ok(len) if len > 2 => error.context(String::from_utf8_lossy(&text[2..len]).trim().to_owned()),
        _ => error,
    }
}

fn mount_by_descriptor(mount: &Mount, options: &Options, place: &Path) -> Result<()> {
    let mut held = Vec::new();
    let mut words = options.words.clone();
    for word in &mut words {
        if let Some(dirs) = word.strip_prefix("lowerdir=") {
            let dirs: Vec<String> =
                split_layers(dirs).iter().map(|dir| by_descriptor(dir, &mut held)).collect::<Result<_>>()?;
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

fn shortened(dir: &str, held: &mut Vec<OwnedFd>) -> Result<String> {
    if dir.len() <= LONGEST_VALUE { Ok(dir.to_owned()) } else { by_descriptor(dir, held) }
}

fn by_descriptor(dir: &str, held: &mut Vec<OwnedFd>) -> Result<String> {
    let fd = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .context(|| format!("open layer {dir:?}"))?;
    let path = super::fd_path(&fd).to_string_lossy().into_owned();
    held.push(fd);
    Ok(path)
}

fn superblock_flags(flags: MountFlags) -> Vec<&'static str> {
    let names =
        [(MountFlags::RDONLY, "ro"), (MountFlags::SYNCHRONOUS, "sync"), (MountFlags::DIRSYNC, "dirsync")];
    names.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect()
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
