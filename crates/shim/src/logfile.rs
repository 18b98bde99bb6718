//! A log file of a process: what is written for its output, and when a new file is begun.
//!
//! Several forks may write to one file, as standard output and error have one each, and so may execs. Where files are
//! rotated each write and each rotation is therefore done under a lock of the file that has the name at that moment: no
//! line goes to a file that has been removed already.
//!
//! A file that cannot be written does not hold the process back: bytes are counted, and a line tells of them when it can
//! be written again.
//!
//! Only forks (`carrier`) come here: a disk may hang.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use types::output::{Format, LogFile, lost_mark};

/// A longer line is written in parts, as the kubelet and Docker expect.
const LINE: usize = 16 << 10;

/// Which stream of the process it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output, or the terminal.
    Out,
    /// Standard error.
    Err,
}

impl Channel {
    /// As it stands in log lines and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

/// A log file that is written.
pub struct LogWriter {
    log: LogFile,
    channel: Channel,
    file: Option<File>,
    /// The line that has begun and not ended, where lines have a form.
    partial: Vec<u8>,
    /// Bytes that could not be written, and are not told of yet.
    lost: u64,
    /// What is about to be written.
    text: Vec<u8>,
}

/// Opens, or makes, a log file and its directory.
pub fn open(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    File::options().append(true).create(true).mode(0o644).open(path)
}

impl LogWriter {
    /// For one stream of a process.
    pub fn new(log: LogFile, channel: Channel) -> Self {
        Self { log, channel, file: None, partial: Vec::new(), lost: 0, text: Vec::new() }
    }

    /// Writes what the process has said.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.log.format == Format::Raw {
            return self.put_all(bytes);
        }
        let time = types::time::rfc3339(SystemTime::now());
        let mut text = std::mem::take(&mut self.text);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LINE.saturating_sub(self.partial.len());
            let end = rest.iter().take(room).position(|byte| *byte == b'\n');
            let (piece, after) = rest.split_at(end.unwrap_or(room.min(rest.len())));
            self.partial.extend_from_slice(piece);
            rest = after;
            if end.is_some() {
                rest = rest.get(1..).unwrap_or_default();
                self.line(&time, Line::Whole, &mut text);
            } else if self.partial.len() >= LINE {
                self.line(&time, Line::Part, &mut text);
            }
        }
        self.put_all(&text);
        text.clear();
        self.text = text;
    }

    /// The process says nothing for a while, or nothing more: what has begun of a line is written.
    pub fn settle(&mut self) {
        let mut text = Vec::new();
        if !self.partial.is_empty() {
            let time = types::time::rfc3339(SystemTime::now());
            self.line(&time, Line::Part, &mut text);
        }
        if !text.is_empty() || self.lost > 0 {
            self.put_all(&text);
        }
    }

    fn line(&mut self, time: &str, line: Line, text: &mut Vec<u8>) {
        let said = std::mem::take(&mut self.partial);
        write_line(self.log.format, time, self.channel, (&said, line), text);
        self.partial = said;
        self.partial.clear();
    }

    /// Writes whole lines, or raw bytes; what cannot be written is counted.
    fn put_all(&mut self, bytes: &[u8]) {
        let mark = if self.lost > 0 { self.mark() } else { Vec::new() };
        if !mark.is_empty() && self.put(&mark).is_err() {
            self.lost += bytes.len() as u64;
            return;
        }
        if !mark.is_empty() {
            self.lost = 0;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.put(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(_) => {
                    self.file = None;
                    self.lost += rest.len() as u64;
                    return;
                }
            }
        }
    }

    fn mark(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let time = types::time::rfc3339(SystemTime::now());
        let mark = lost_mark(self.lost);
        match self.log.format {
            Format::Raw => text.extend_from_slice(format!("\n{mark}\n").as_bytes()),
            format => write_line(format, &time, self.channel, (mark.as_bytes(), Line::Whole), &mut text),
        }
        text
    }

    /// Writes the first of `bytes`, as many as belong into the file that has the name now.
    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let path = self.log.path.as_path();
        loop {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(open(path)?),
            };
            let Some(rotation) = self.log.rotation else { return file.write(bytes) };
            flock(&*file, FlockOperation::LockExclusive)?;
            let now = file.metadata()?;
            if !is_at(&now, path) {
                // Another fork has begun a new file.
                self.file = None;
                continue;
            }
            let room = usize::try_from(rotation.max_size.saturating_sub(now.len())).unwrap_or(usize::MAX);
            let mut fits = fitting(bytes, room, now.len());
            if fits == 0 {
                if rotate(path, rotation.max_files).is_ok() {
                    // The lock goes with the file; who waits for it finds that the name is another's.
                    self.file = None;
                    continue;
                }
                // A file that grows too large is better than a line that is lost.
                fits = bytes.len();
            }
            let written = file.write(bytes.get(..fits).unwrap_or_default());
            flock(&*file, FlockOperation::Unlock)?;
            return written;
        }
    }
}

/// Gives the name to nobody: the files move on by one, and the oldest goes.
fn rotate(path: &Path, files: u32) -> io::Result<()> {
    if files == 1 {
        return std::fs::remove_file(path);
    }
    for n in (1..files).rev() {
        match std::fs::rename(numbered(path, n - 1), numbered(path, n)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// A whole line, or a part that another follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Whole,
    Part,
}

fn write_line(format: Format, time: &str, channel: Channel, (said, line): (&[u8], Line), text: &mut Vec<u8>) {
    match format {
        Format::Raw => text.extend_from_slice(said),
        Format::Cri => {
            let tag = if line == Line::Whole { "F" } else { "P" };
            text.extend_from_slice(format!("{time} {} {tag} ", channel.name()).as_bytes());
            text.extend_from_slice(said);
            text.push(b'\n');
        }
        Format::Json => {
            let mut said = String::from_utf8_lossy(said).into_owned();
            if line == Line::Whole {
                said.push('\n');
            }
            let mut json = String::from("{\"log\":");
            crate::json::quote(&said, &mut json);
            json.push_str(&format!(",\"stream\":\"{}\",\"time\":\"{time}\"}}\n", channel.name()));
            text.extend_from_slice(json.as_bytes());
        }
    }
}

/// How many of `bytes` go into a file that has `length` bytes and room for `room`: whole lines, or nothing. A line that is
/// longer than a file may be has one of its own.
fn fitting(bytes: &[u8], room: usize, length: u64) -> usize {
    if bytes.len() <= room {
        return bytes.len();
    }
    let within = bytes.get(..room).unwrap_or(bytes);
    match within.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => end + 1,
        None if length == 0 => {
            bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1)
        }
        None => 0,
    }
}

fn is_at(file: &std::fs::Metadata, path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (file.dev(), file.ino()))
}

/// `x`, `x.1`, `x.2`, ...
fn numbered(path: &Path, n: u32) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::output::Rotation;

    fn writer(path: &Path, format: Format, rotation: Option<(u64, u32)>) -> LogWriter {
        let rotation = rotation.map(|(max_size, max_files)| Rotation { max_size, max_files });
        LogWriter::new(LogFile { path: path.to_owned(), format, rotation }, Channel::Out)
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn lines_have_the_form_that_the_kubelet_and_docker_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/log");
        let mut log = writer(&path, Format::Cri, None);
        log.write(b"one\ntw");
        log.write(b"o\nend");
        log.settle();
        let text = read(&path);
        let words: Vec<Vec<&str>> = text.lines().map(|l| l.splitn(4, ' ').skip(1).collect()).collect();
        assert_eq!(words, [["stdout", "F", "one"], ["stdout", "F", "two"], ["stdout", "P", "end"]]);
        assert!(types::time::parse_rfc3339(text.split(' ').next().unwrap()).is_some());
        let path = dir.path().join("json");
        writer(&path, Format::Json, None).write(b"a \"b\"\xff\n");
        let text = read(&path);
        assert!(text.starts_with(r#"{"log":"a \"b\""#) && text.ends_with("\"}\n"), "{text}");
        assert!(text.contains(r#"\n","stream":"stdout","time":""#), "{text}");
    }

    #[test]
    fn a_long_line_is_written_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = writer(&path, Format::Cri, None);
        log.write(&vec![b'x'; LINE + 5]);
        log.write(b"\n");
        let text = read(&path);
        let tags: Vec<_> = text
            .lines()
            .map(|l| (l.split(' ').nth(2).unwrap(), l.split(' ').nth(3).unwrap().len()))
            .collect();
        assert_eq!(tags, [("P", LINE), ("F", 5)]);
    }

    #[test]
    fn rotation_loses_no_line_and_splits_none_whoever_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let write = |name: char| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut log = writer(&path, Format::Raw, Some((1000, 1000)));
                for n in 0..500 {
                    log.write(format!("{name} {n:04}\n").as_bytes());
                }
            })
        };
        let (a, b) = (write('a'), write('b'));
        a.join().unwrap();
        b.join().unwrap();
        let mut lines: Vec<String> = Vec::new();
        let mut files = 0;
        while numbered(&path, files).exists() {
            let text = read(&numbered(&path, files));
            assert!(text.len() <= 1000 && text.ends_with('\n'), "{text}");
            lines.extend(text.lines().map(str::to_owned));
            files += 1;
        }
        lines.sort();
        let wanted: Vec<String> =
            ['a', 'b'].iter().flat_map(|c| (0..500).map(move |n| format!("{c} {n:04}"))).collect();
        assert_eq!(lines, wanted);
        assert!(files > 5);
    }

    #[test]
    fn no_more_files_are_kept_than_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for files in [1u32, 3] {
            let mut log = writer(&path, Format::Raw, Some((10, files)));
            for n in 0..9 {
                log.write(format!("line {n}\n").as_bytes());
            }
            log.write(b"a line that is longer than a file\n");
            let count = std::fs::read_dir(dir.path()).unwrap().count();
            assert_eq!(count, files as usize);
            assert_eq!(read(&path), "a line that is longer than a file\n");
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::create_dir(&path).unwrap();
        let mut log = writer(&path, Format::Raw, None);
        log.write(b"12345");
        log.write(b"678\n");
        assert!(log.lost > 0);
        std::fs::remove_dir(&path).unwrap();
        log.write(b"again\n");
        assert_eq!(log.lost, 0);
        let text = read(&path);
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!((types::output::parse_lost_mark(lines[0]), lines[1]), (Some(9), "again"));
    }

    #[test]
    fn lines_stay_whole_where_they_fit() {
        assert_eq!(fitting(b"ab\ncd\n", 4, 9), 3);
        assert_eq!(fitting(b"ab\ncd\n", 6, 9), 6);
        assert_eq!(fitting(b"abcdef\n", 4, 9), 0);
        assert_eq!(fitting(b"abcdef\ngh\n", 4, 0), 7);
    }
}
