//! The log of a container whose shim writes none: the daemon reads its FIFOs, and writes the lines.
//!
//! Whoever is attached gets a copy ([`Log::attach`]).
//!
//! A line has its time, its stream, and a tag: `F` for one that is whole, `P` for a part that another one follows. What cannot be
//! written is lost, so that the container never waits for a disk that is full.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use runtime::Attach;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use types::task::Stdio;
use types::{Result, ResultExt, time};

use super::copies::Copies;
use crate::cri::blocking;

/// So long what a container has said at last is waited for, should somebody keep its FIFOs open.
const LAST: Duration = Duration::from_secs(5);
/// Bytes that are read at once.
const PIECE: usize = 32 << 10;

/// A log.
#[derive(Debug)]
pub struct Log {
    /// None if nothing is kept.
    path: Option<PathBuf>,
    max_line: Option<usize>,
    file: Mutex<Option<File>>,
    reading: Mutex<Vec<JoinHandle<()>>>,
    /// Who is attached, to either stream.
    stdout: Copies,
    stderr: Copies,
}

/// One of the streams of a container.
#[derive(Clone, Copy, Debug)]
enum Said {
    Stdout,
    Stderr,
}

impl Said {
    /// As lines of logs have it.
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Keeps the end away from FIFOs that the shim has not opened yet.
#[derive(Debug)]
pub struct Keepers(#[expect(dead_code, reason = "held, not looked at")] Vec<std::os::fd::OwnedFd>);

impl Log {
    /// Opens the file, which is made if it is not there.
    pub fn open(path: &str, max_line: Option<usize>) -> Result<Arc<Self>> {
        let path = (!path.is_empty()).then(|| PathBuf::from(path));
        let file = path.as_deref().map(open).transpose()?;
        let (file, reading) = (Mutex::new(file), Mutex::default());
        let (stdout, stderr) = (Copies::default(), Copies::default());
        Ok(Arc::new(Self { path, max_line, file, reading, stdout, stderr }))
    }

    /// What is said from now on, as far as it is wanted and read in time.
    pub fn attach(&self, want: Attach) -> Result<(Option<pipe::Receiver>, Option<pipe::Receiver>)> {
        let stdout = want.stdout.then(|| self.stdout.attach()).transpose()?;
        Ok((stdout, want.stderr.then(|| self.stderr.attach()).transpose()?))
    }

    fn copies(&self, of: Said) -> &Copies {
        match of {
            Said::Stdout => &self.stdout,
            Said::Stderr => &self.stderr,
        }
    }

    /// Goes on in a new file under the log's name.
    pub fn reopen(&self) -> Result<()> {
        let file = self.path.as_deref().map(open).transpose()?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// Reads the FIFOs of a task from now on.
    pub fn follow(self: &Arc<Self>, stdio: &Stdio) -> Result<Keepers> {
        let mut keepers = Vec::new();
        for (fifo, stream) in [(&stdio.stdout, Said::Stdout), (&stdio.stderr, Said::Stderr)] {
            if !fifo.is_empty() {
                let opened = sys::fifo::open_reader(Path::new(fifo));
                let (reader, keeper) = opened.context(|| format!("open FIFO {fifo}"))?;
                keepers.push(keeper);
                let reader = pipe::Receiver::from_owned_fd(reader).context(|| format!("open FIFO {fifo}"))?;
                let reading = tokio::spawn(read(Arc::clone(self), reader, stream));
                self.reading.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
            }
        }
        Ok(Keepers(keepers))
    }

    /// Waits until all that was said is written, or a moment. Cancel safe.
    pub async fn ended(&self) {
        let reading = std::mem::take(&mut *self.reading.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async {
            for reading in reading {
                drop(reading.await);
            }
        };
        if tokio::time::timeout(LAST, all).await.is_err() {
            tracing::warn!(path = ?self.path, "somebody keeps the streams of a container open that has ended");
        }
    }

    fn write(&self, text: &[u8]) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = file.as_mut()
            && let Err(error) = file.write_all(text)
        {
            tracing::warn!(path = ?self.path, %error, "lines of a log are lost");
        }
    }
}

fn open(path: &Path) -> Result<File> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.append(true).create(true).mode(0o640).open(path);
    file.context(|| format!("failed to create and open log file {:?}", path.display().to_string()))
}

async fn read(log: Arc<Log>, mut from: pipe::Receiver, stream: Said) {
    let mut lines = Lines { stream: stream.name(), max: log.max_line, partial: Vec::new() };
    let mut piece = vec![0; PIECE];
    loop {
        let said = match from.read(&mut piece).await {
            Ok(0) => break,
            Ok(count) => piece.get(..count).unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "read what a container says");
                break;
            }
        };
        log.copies(stream).say(said);
        write(&log, lines.add(said, &now())).await;
    }
    log.copies(stream).end();
    write(&log, lines.rest(&now())).await;
}

fn now() -> String {
    time::rfc3339(SystemTime::now())
}

async fn write(log: &Arc<Log>, text: Vec<u8>) {
    if text.is_empty() {
        return;
    }
    let log = Arc::clone(log);
    let written = blocking(move || {
        log.write(&text);
        Ok(())
    });
    // Only a panic could end it.
    drop(written.await);
}

/// What a process says, cut into lines.
struct Lines {
    stream: &'static str,
    max: Option<usize>,
    partial: Vec<u8>,
}

impl Lines {
    /// The lines that are whole with these bytes, and parts of one that is too long.
    fn add(&mut self, bytes: &[u8], time: &str) -> Vec<u8> {
        let mut text = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let whole = piece.strip_suffix(b"\n");
            self.partial.extend_from_slice(whole.unwrap_or(piece));
            // It is no part of the line if the next byte ends that.
            let returned = usize::from(self.partial.ends_with(b"\r"));
            if whole.is_some() {
                self.partial.truncate(self.partial.len() - returned);
            }
            let certain = self.partial.len() - if whole.is_some() { 0 } else { returned };
            self.parts(certain, time, &mut text);
            if whole.is_some() {
                let line = std::mem::take(&mut self.partial);
                self.line(&line, "F", time, &mut text);
            }
        }
        text
    }

    /// What has begun and will not end.
    fn rest(&mut self, time: &str) -> Vec<u8> {
        let mut text = Vec::new();
        self.parts(self.partial.len(), time, &mut text);
        let line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            self.line(&line, "P", time, &mut text);
        }
        text
    }

    fn parts(&mut self, certain: usize, time: &str, text: &mut Vec<u8>) {
        let Some(max) = self.max.filter(|max| *max > 0) else { return };
        let mut left = certain;
        while left > max {
            let part: Vec<u8> = self.partial.drain(..max).collect();
            self.line(&part, "P", time, text);
            left -= max;
        }
    }

    fn line(&self, line: &[u8], tag: &str, time: &str, text: &mut Vec<u8>) {
        text.extend_from_slice(format!("{time} {} {tag} ", self.stream).as_bytes());
        text.extend_from_slice(line);
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(max: usize, pieces: &[&str]) -> Vec<String> {
        let mut lines = Lines { stream: "stdout", max: Some(max), partial: Vec::new() };
        let mut text: Vec<u8> = pieces.iter().flat_map(|piece| lines.add(piece.as_bytes(), "T")).collect();
        text.extend(lines.rest("T"));
        let text = String::from_utf8(text).unwrap();
        text.lines().map(|line| line.strip_prefix("T stdout ").unwrap().to_owned()).collect()
    }

    #[test]
    fn a_line_is_cut_only_when_it_is_longer_than_it_may_be() {
        assert_eq!(cut(4, &["abcd\n"]), ["F abcd"]);
        assert_eq!(cut(4, &["abcd", "\n", "x\r\n"]), ["F abcd", "F x"]);
        assert_eq!(cut(4, &["abcdefghi\nx\n\n"]), ["P abcd", "P efgh", "F i", "F x", "F "]);
        assert_eq!(cut(4, &["abcd\r", "\n"]), ["F abcd"]);
        assert_eq!(cut(4, &["abcd\r", "x"]), ["P abcd", "P \rx"]);
        assert_eq!(cut(4, &["abc"]), ["P abc"]);
    }

    #[tokio::test]
    async fn what_is_said_into_fifos_is_in_the_log_and_goes_on_in_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let stdio = Stdio { stdout: path("out"), stderr: path("err"), ..Stdio::default() };
        for fifo in [&stdio.stdout, &stdio.stderr] {
            sys::fifo::make(Path::new(fifo), 0o600).unwrap();
        }
        let log = Log::open(&path("log"), None).unwrap();
        let keepers = log.follow(&stdio).unwrap();
        let mut out = File::from(sys::fifo::open_writer(Path::new(&stdio.stdout)).unwrap());
        drop(keepers);
        out.write_all(b"one\n").unwrap();
        let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
        while !read("log").ends_with(" stdout F one\n") {
            tokio::task::yield_now().await;
        }
        std::fs::rename(path("log"), path("log.1")).unwrap();
        log.reopen().unwrap();
        out.write_all(b"two\n").unwrap();
        drop(out);
        log.ended().await;
        assert!(read("log").ends_with(" stdout F two\n") && !read("log").contains("one"));
    }
}
