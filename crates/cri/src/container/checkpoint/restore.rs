//! A container that goes on from an archive, which CreateContainer is given in the place of an image, or from an image whose layers
//! have what an archive has.
//!
//! What an archive says is not to be trusted: names in it are those that a checkpoint has and no others, only regular files and
//! directories are taken, its base image must be there already and gets no name from it, and its annotations give no devices.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use api::cri::{ContainerConfig, ContainerStatus, ImageSpec};
use diff::compression::{Decoder, Wrapping};
use diff::extract::{Stop, Target, extract};
use diff::tar::{Entry, Kind, Reader};
use rustix::fs::{Dir, OFlags};
use serde::de::DeserializeOwned;
use sys::mount::TempMount;
use types::mount::Mount;
use types::{Error, Result, ResultExt};

use super::Config;
use crate::image::Image;

/// What describes a checkpoint is no longer than this.
const DESCRIPTION: u64 = 4 << 20;
/// Members beside those of `checkpoint/` that are unpacked.
const MEMBERS: [&str; 4] = ["rootfs-diff.tar", "container.log", "dump.log", "stats-dump"];

/// Where a checkpoint is.
#[derive(Clone, Debug)]
enum Place {
    File(PathBuf),
    Image(Arc<Image>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "archive {path:?}"),
            Self::Image(image) => write!(f, "image {}", image.id),
        }
    }
}

/// An archive, or an image, that was looked at.
#[derive(Debug)]
pub struct Archive {
    place: Place,
    /// Of which container it is.
    pub config: Config,
    status: ContainerStatus,
}

/// The archive that a request names; none if it names an image.
pub fn named(config: &ContainerConfig) -> Option<PathBuf> {
    let path = Path::new(&config.image.as_ref()?.image);
    let is_file = path.is_absolute() && path.metadata().is_ok_and(|metadata| metadata.is_file());
    is_file.then(|| path.to_owned())
}

impl Archive {
    /// Reads what an archive says about itself. It blocks.
    pub fn read(path: &Path) -> Result<Self> {
        let (mut config, mut status) = (None, None);
        let place = Place::File(path.to_owned());
        let doing = || format!("checkpoint {place}");
        let mut reader = Reader::new(BufReader::new(File::open(path).context(doing)?));
        while let Some(entry) = reader.next_entry().context(doing)? {
            match (entry.kind, entry.name.as_slice()) {
                (Kind::File, b"config.dump") => config = Some(json(&mut reader, "config.dump")?),
                (Kind::File, b"status.dump") => status = Some(json(&mut reader, "status.dump")?),
                _ => {}
            }
        }
        let config = config.ok_or_else(|| missing(&place, "config.dump"))?;
        let status = status.ok_or_else(|| missing(&place, "status.dump"))?;
        Ok(Self { place, config, status })
    }

    /// Reads what an image says about itself that is mounted at `root`. It blocks.
    pub fn read_image(image: Arc<Image>, root: &Path) -> Result<Self> {
        let root = sys::fs::open_dir(root)?;
        let place = Place::Image(image);
        let (config, status) =
            (described(&root, &place, "config.dump")?, described(&root, &place, "status.dump")?);
        Ok(Self { place, config, status })
    }

    /// The image that it is, if it is one.
    pub fn image(&self) -> Option<&Arc<Image>> {
        match &self.place {
            Place::File(_) => None,
            Place::Image(image) => Some(image),
        }
    }

    /// Says in a request what the archive knows better: the image, and annotations.
    pub fn complete(&self, request: &mut ContainerConfig) {
        let asked = request.image.take().unwrap_or_default();
        let mut annotations = self.status.annotations.clone();
        annotations.retain(|key, _| !gives_devices(key));
        // What the kubelet looks at to see whether a container is the one that it wants.
        for key in ["io.kubernetes.container.hash", "io.kubernetes.container.restartCount"] {
            if let (Some(value), true) = (request.annotations.get(key), annotations.contains_key(key)) {
                annotations.insert(key.to_owned(), value.clone());
            }
        }
        let mut say = |key: &str, value: String| drop(annotations.insert(key.to_owned(), value));
        say("restored", "true".to_owned());
        say("checkpointedAt", self.config.checkpointed_time.clone());
        say("checkpointImage", asked.user_specified_image);
        request.annotations = annotations;
        let image = self.status.image.clone().unwrap_or_default();
        let (image, user_specified_image) = (image.image, image.user_specified_image);
        request.image = Some(ImageSpec { image, user_specified_image, ..ImageSpec::default() });
    }

    /// Unpacks it to the new directory `dir`; an image is mounted at `root`. It blocks.
    pub fn unpack(&self, root: &Path, dir: &Path) -> Result<()> {
        let doing = || format!("unpacking of checkpoint {} failed", self.place);
        let make = |dir: &Path| fs::DirBuilder::new().mode(0o700).create(dir);
        make(dir).and_then(|()| make(&dir.join("checkpoint"))).context(doing)?;
        match &self.place {
            Place::File(path) => unpack_file(path, dir).context(doing),
            Place::Image(_) => copy(root, dir).context(doing),
        }
    }
}

fn unpack_file(path: &Path, dir: &Path) -> Result<()> {
    let mut reader = Reader::new(BufReader::new(File::open(path)?));
    while let Some(entry) = reader.next_entry()? {
        if let Some(name) = member(&entry) {
            write(&mut reader, &dir.join(name))?;
        }
    }
    Ok(())
}

/// Copies what a checkpoint has from a mounted image, whatever links are in it.
fn copy(root: &Path, dir: &Path) -> Result<()> {
    let root = sys::fs::open_dir(root)?;
    let mut names: Vec<PathBuf> = MEMBERS.iter().map(PathBuf::from).collect();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let images = sys::fs::open_without_links(&root, "checkpoint", flags).context(|| "open \"checkpoint\"")?;
    for entry in Dir::new(images)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(std::io::Error::from)?
    {
        names.push(Path::new("checkpoint").join(OsStr::from_bytes(entry.file_name().to_bytes())));
    }
    for name in names {
        let Some(mut from) = regular(&root, &name)? else { continue };
        let mut to = super::options().open(dir.join(&name)).context(|| format!("write {name:?}"))?;
        std::io::copy(&mut from, &mut to).context(|| format!("write {name:?}"))?;
    }
    Ok(())
}

/// A regular file; none if there is none.
fn regular(root: &OwnedFd, name: &Path) -> Result<Option<File>> {
    // What is no file shall not keep who opens it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = match sys::fs::open_without_links(root, name, flags) {
        Ok(file) => File::from(file),
        Err(_) => return Ok(None),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

fn described<T: DeserializeOwned>(root: &OwnedFd, place: &Place, name: &str) -> Result<T> {
    let file = regular(root, Path::new(name))?.ok_or_else(|| missing(place, name))?;
    let mut bytes = Vec::new();
    file.take(DESCRIPTION).read_to_end(&mut bytes).context(|| format!("read {name:?}"))?;
    decode(&bytes, name)
}

fn missing(place: &Place, name: &str) -> Error {
    Error::invalid(format!("checkpoint {place}: failed to read {name:?}: not there"))
}

fn decode<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::invalid(format!("failed to read {name:?}: {e}")))
}

/// Puts what a container had written, and what it had said, back in their places. It blocks.
pub fn put_back(dir: &Path, rootfs: &[Mount], log: Option<&Path>) -> Result<()> {
    if let Ok(changes) = File::open(dir.join("rootfs-diff.tar")) {
        let mounted = TempMount::new(rootfs).context(|| "mount the root filesystem of a checkpoint")?;
        let applied = apply(changes, mounted.path()).context(|| "apply what a checkpoint has changed");
        applied.and(mounted.close())?;
    }
    match (File::open(dir.join("container.log")), log) {
        (Ok(mut said), Some(log)) => {
            let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
            let mut options = fs::OpenOptions::new();
            options.append(true).create(true).mode(0o640).custom_flags(flags);
            let copied = options.open(log).and_then(|mut file| std::io::copy(&mut said, &mut file));
            copied.map(drop).context(|| format!("restoring container log file {log:?} failed"))
        }
        _ => Ok(()),
    }
}

fn apply(changes: File, root: &Path) -> Result<()> {
    let mut reader = Reader::new(BufReader::new(Decoder::new(changes, Wrapping::Detect)?));
    match extract(&mut reader, Target::View(root.to_owned()), &AtomicBool::new(false)) {
        Ok(_) => Ok(()),
        Err(Stop::Failed(error)) => Err(error),
        // Only what goes into an upper directory can need another one.
        Err(Stop::NeedsMergedView) => Err(Error::internal("it is no layer")),
    }
}

fn json<R: BufRead, T: DeserializeOwned>(reader: &mut Reader<R>, name: &str) -> Result<T> {
    decode(&reader.read_body(DESCRIPTION)?, name)
}

/// The name of a member that is unpacked; none for all others.
fn member(entry: &Entry) -> Option<PathBuf> {
    let name = std::str::from_utf8(&entry.name).ok().filter(|_| entry.kind == Kind::File)?;
    if MEMBERS.contains(&name) {
        return Some(name.into());
    }
    let image = name.strip_prefix("checkpoint/")?;
    let plain = !image.is_empty() && !image.contains(['/', '\0']) && image != "." && image != "..";
    plain.then(|| Path::new("checkpoint").join(image))
}

fn write<R: BufRead>(reader: &mut Reader<R>, path: &Path) -> Result<()> {
    let mut file = super::options().open(path).context(|| format!("write {path:?}"))?;
    loop {
        let body = reader.body()?;
        if body.is_empty() {
            return Ok(());
        }
        file.write_all(body).context(|| format!("write {path:?}"))?;
        let taken = body.len();
        reader.consume(taken);
    }
}

/// Whether an annotation asks for devices, however it is written.
fn gives_devices(key: &str) -> bool {
    key.trim().to_ascii_lowercase().starts_with("cdi.k8s.io")
}

#[cfg(test)]
mod tests {
    use diff::tar::Writer;

    use super::*;

    fn archive(path: &Path, members: &[(&str, Kind, &str)]) {
        let mut tar = Writer::new(File::create(path).unwrap());
        for (name, kind, text) in members {
            let mut entry = Entry::new(*kind);
            entry.name = name.as_bytes().to_vec();
            if *kind == Kind::File {
                entry.size = text.len() as u64;
                tar.entry(&entry).unwrap();
                tar.body(text.as_bytes()).unwrap();
            } else {
                entry.link = text.as_bytes().to_vec();
                tar.entry(&entry).unwrap();
            }
        }
        tar.finish().unwrap();
    }

    const DESCRIBED: [(&str, Kind, &str); 2] = [
        ("config.dump", Kind::File, r#"{"id":"1","rootfsImageRef":"r@sha256:0","checkpointedTime":"T"}"#),
        (
            "status.dump",
            Kind::File,
            r#"{"image":{"image":"i:1"},"annotations":{"a":"b","cdi.k8s.io/x":"v","CDI.k8s.io ":"v","io.kubernetes.container.hash":"old"}}"#,
        ),
    ];

    #[test]
    fn an_archive_says_what_it_is_of_and_gives_no_devices() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        archive(&path, &DESCRIBED);
        let read = Archive::read(&path).unwrap();
        assert_eq!(read.config.rootfs_image_ref, "r@sha256:0");
        let mut request = ContainerConfig::default();
        request.annotations.insert("io.kubernetes.container.hash".to_owned(), "new".to_owned());
        request.image = Some(ImageSpec { image: path.to_str().unwrap().to_owned(), ..ImageSpec::default() });
        assert_eq!(named(&request), Some(path));
        read.complete(&mut request);
        assert_eq!(request.image.as_ref().unwrap().image, "i:1");
        let keys: Vec<&str> = request.annotations.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["a", "checkpointImage", "checkpointedAt", "io.kubernetes.container.hash", "restored"]
        );
        assert_eq!(request.annotations["io.kubernetes.container.hash"], "new");
        assert_eq!(named(&request), None);
    }

    #[test]
    fn only_files_that_a_checkpoint_has_are_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let canary = dir.path().join("canary");
        fs::write(&canary, "canary").unwrap();
        let outside = canary.to_str().unwrap();
        let mut members = DESCRIBED.to_vec();
        members.extend([
            ("container.log", Kind::Symlink, outside),
            ("dump.log", Kind::HardLink, outside),
            ("stats-dump", Kind::Fifo, ""),
            ("checkpoint/../../escaped", Kind::File, "x"),
            ("/checkpoint/absolute", Kind::File, "x"),
            ("checkpoint/a/b", Kind::File, "x"),
            ("other", Kind::File, "x"),
            ("checkpoint/pages-1.img", Kind::File, "pages"),
            ("rootfs-diff.tar", Kind::File, "layer"),
        ]);
        archive(&path, &members);
        let target = dir.path().join("target");
        Archive::read(&path).unwrap().unpack(Path::new(""), &target).unwrap();
        let names = |dir: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&target), ["checkpoint", "rootfs-diff.tar"]);
        assert_eq!(names(&target.join("checkpoint")), ["pages-1.img"]);
        assert_eq!(names(dir.path()), ["a.tar", "canary", "target"]);
    }

    #[test]
    fn an_archive_without_a_description_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        archive(&path, &DESCRIBED[..1]);
        assert!(Archive::read(&path).unwrap_err().to_string().contains("status.dump"));
    }
}
