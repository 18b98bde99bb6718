//! The members of an archive, read by a thread and handed over in bounded pieces.

use std::io::{BufReader, Read};

use bytes::Bytes;
use diff::compression::{Decoder, Wrapping};
use diff::tar::{Kind, Reader};
use tokio::sync::mpsc;
use types::{Error, Result, ResultExt};

/// How many members an archive may have; a real one has three a layer.
const MAX_MEMBERS: usize = 50_000;
/// Bytes handed over at a time, at most.
const PIECE: usize = 1 << 20;
/// Pieces that may wait.
const WAITING: usize = 4;

/// What the thread finds, in order; a regular file's pieces follow it.
#[derive(Debug)]
pub enum Found {
    /// A regular file: its cleaned name and its size in bytes.
    File(String, u64),
    /// Bytes of the file.
    Piece(Bytes),
    /// A symbolic link: its cleaned name, and what it points to if that can be in the archive.
    Link(String, Option<String>),
}

/// Starts reading; the end of the channel is the end of the archive.
///
/// The thread is no task of the runtime: one that waits for a pipe would keep the runtime from ending.
pub fn members(archive: Box<dyn Read + Send>) -> Result<mpsc::Receiver<Result<Found>>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let thread = std::thread::Builder::new().name("import".to_owned());
    let started = thread.spawn(move || {
        let found = |found| sender.blocking_send(Ok(found)).map_err(|_| Stop::Unwanted);
        if let Err(Stop::Failed(error)) = read(archive, &found) {
            // Whoever went away needs no error.
            let _ = sender.blocking_send(Err(error));
        }
    });
    started.context(|| "start a thread")?;
    Ok(receiver)
}

/// Why reading ended early.
enum Stop {
    /// Nobody listens any more.
    Unwanted,
    /// The archive is bad.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn read(archive: Box<dyn Read + Send>, found: &dyn Fn(Found) -> Result<(), Stop>) -> Result<(), Stop> {
    let decoder = Decoder::new(archive, Wrapping::Detect).context(|| "read archive")?;
    let mut tar = Reader::new(BufReader::with_capacity(PIECE, decoder));
    let mut members = 0;
    while let Some(entry) = tar.next_entry().context(|| "unrecognized image format")? {
        members += 1;
        if members > MAX_MEMBERS {
            return Err(Error::invalid(format!(
                "the archive has more than {MAX_MEMBERS} members: not an image"
            ))
            .into());
        }
        let name = clean(&String::from_utf8_lossy(&entry.name))?;
        match entry.kind {
            Kind::File if entry.sparse.is_some() => {
                return Err(Error::invalid(format!("archive member {name:?} is a sparse file")).into());
            }
            Kind::File => {
                found(Found::File(name, entry.size))?;
                loop {
                    let piece = Bytes::copy_from_slice(tar.body()?);
                    if piece.is_empty() {
                        break;
                    }
                    tar.consume(piece.len());
                    found(Found::Piece(piece))?;
                }
            }
            Kind::Symlink => {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                let target = clean(&format!("{directory}/{}", String::from_utf8_lossy(&entry.link)));
                found(Found::Link(name, target.ok()))?;
            }
            Kind::HardLink | Kind::Char | Kind::Block | Kind::Directory | Kind::Fifo | Kind::Other(_) => {}
        }
    }
    if members == 0 {
        return Err(Error::invalid("unrecognized image format: the archive is empty").into());
    }
    Ok(())
}

/// A member's name without `.` and empty components. One that leaves the archive is refused.
fn clean(name: &str) -> Result<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(Error::invalid(format!("archive member {name:?} leaves the archive")));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_stay_inside() {
        assert_eq!(clean("./a//b/../c").unwrap(), "a/c");
        assert_eq!(clean("/index.json").unwrap(), "index.json");
        assert!(clean("../a").is_err() && clean("a/../../b").is_err());
    }

    #[test]
    fn noise_and_cut_off_archives_are_errors() {
        for bytes in [&b""[..], b"hello", &[7; 2000], b"\x1f\x8b\x08not gzip", b"\x28\xb5\x2f\xfdnot zstd"] {
            let read = read(Box::new(std::io::Cursor::new(bytes.to_vec())), &|_| Ok(()));
            assert!(matches!(read, Err(Stop::Failed(_))), "{bytes:?}");
        }
    }
}
