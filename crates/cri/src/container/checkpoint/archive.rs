//! The archive of a checkpoint: a tar of regular files and directories, and of nothing else.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use diff::tar::{Entry, Kind, Time, Writer};
use types::{Error, Result, ResultExt};

/// Writes what is in `dir` to the file `location`, which is there as a whole or not at all. It blocks.
pub fn write(dir: &Path, location: &Path) -> Result<()> {
    let doing = || format!("write checkpoint archive {location:?}");
    let mut temporary = location.as_os_str().to_owned();
    temporary.push(format!(".{}", crate::cri::new_id()));
    let temporary = PathBuf::from(temporary);
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&temporary).context(doing)?;
    let written = || {
        let mut tar = Writer::new(BufWriter::new(file));
        add(&mut tar, dir, Path::new(""))?;
        let file = tar.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(fs::rename(&temporary, location)?)
    };
    written().inspect_err(|_: &Error| drop(fs::remove_file(&temporary))).context(doing)
}

/// Adds what is in a directory, by name.
fn add<W: Write>(tar: &mut Writer<W>, dir: &Path, name: &Path) -> Result<()> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for path in entries {
        let metadata = path.symlink_metadata()?;
        let name = name.join(path.file_name().unwrap_or_default());
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_file() => Kind::File,
            _ => return Err(Error::invalid(format!("{path:?} is not a regular file or directory"))),
        };
        let mut entry = Entry::new(kind);
        entry.name = name.as_os_str().as_encoded_bytes().to_vec();
        entry.mode = metadata.mode() & 0o7777;
        entry.mtime =
            Time { secs: metadata.mtime(), nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) };
        if metadata.is_dir() {
            tar.entry(&entry)?;
            add(tar, &path, &name)?;
        } else {
            entry.size = metadata.len();
            tar.entry(&entry)?;
            // What is added meanwhile is no part of it.
            let mut file = io::Read::take(fs::File::open(&path)?, entry.size);
            tar.body_with(|out, size| io::copy(&mut file, out).map(|copied| copied.min(size)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_what_was_in_the_directory_or_is_not_there() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("dir");
        fs::create_dir_all(dir.join("checkpoint")).unwrap();
        fs::write(dir.join("config.dump"), "{}").unwrap();
        fs::write(dir.join("checkpoint/pages-1.img"), vec![7; 5000]).unwrap();
        let location = top.path().join("archive.tar");
        write(&dir, &location).unwrap();
        let mut reader = diff::tar::Reader::new(io::BufReader::new(fs::File::open(&location).unwrap()));
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push((String::from_utf8(entry.name).unwrap(), entry.size));
        }
        let names: Vec<(&str, u64)> =
            names.iter().map(|(name, size)| (name.trim_end_matches('/'), *size)).collect();
        assert_eq!(names, [("checkpoint", 0), ("checkpoint/pages-1.img", 5000), ("config.dump", 2)]);
        fs::remove_file(&location).unwrap();
        std::os::unix::fs::symlink("config.dump", dir.join("link")).unwrap();
        assert!(write(&dir, &location).is_err());
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
    }
}
