//! A log file of a process: what is written for its output, and when a new file is begun.
//!
//! Several forks may write to one file, as standard output and error have one each, and so may execs. Where files are
//! rotated each write and each rotation is therefore done under a lock of the file that has the name at that moment: no
//! line goes to a file that has been removed already.
//!
//! A file that cannot be written does not hold the process back: bytes are counted, and a line tells of them when it can
//! be written again.
//!
//! Only forks (`carrier`) come here: a disk may hang. What one leaves unwritten the next one finds in a [`memo`].

mod lines;
pub mod memo;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use types::output::{Format, LogFile, lost_mark};

use lines::{Batch, Form};
use memo::Left;

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
    /// What is not written yet.
    left: Left,
    /// What is about to be written.
    batch: Batch,
}

/// Opens, or makes, a log file; and its directory, unless that is the kubelet's: then a pod that is gone stays gone.
pub fn open(log: &LogFile) -> io::Result<File> {
    let mode = match log.format {
        Format::Cri => 0o640,
        Format::Raw | Format::Json => {
            if let Some(dir) = log.path.parent() {
                std::fs::create_dir_all(dir)?;
            }
            0o644
        }
    };
    File::options().append(true).create(true).mode(mode).open(&log.path)
}

impl LogWriter {
    /// For one stream of a process, of which somebody has `left` something.
    pub fn new(log: LogFile, channel: Channel, left: Left) -> Self {
        Self { log, channel, file: None, left, batch: Batch::default() }
    }

    /// Writes what the process has said, but for the beginning of a line.
    pub fn write(&mut self, bytes: &[u8]) {
        let mut batch = std::mem::take(&mut self.batch);
        if self.log.format == Format::Raw {
            batch.raw(bytes);
        } else {
            self.form().add(bytes, &mut self.left.partial, &mut batch);
        }
        self.put_batch(&batch);
        batch.clear();
        self.batch = batch;
    }

    /// The process says nothing more: what has begun of a line is written.
    pub fn finish(&mut self) {
        let mut batch = Batch::default();
        if !self.left.partial.is_empty() {
            self.form().rest(&mut self.left.partial, &mut batch);
        }
        self.put_batch(&batch);
    }

    /// Somebody else writes what comes next: what is left for that.
    pub fn leave(mut self) -> Left {
        self.put_batch(&Batch::default());
        self.left
    }

    fn form(&self) -> Form {
        let LogFile { format, max_line, .. } = self.log;
        Form { format, max_line, channel: self.channel, time: types::time::rfc3339(SystemTime::now()) }
    }

    /// Writes whole lines, or raw bytes; what cannot be written is counted.
    fn put_batch(&mut self, batch: &Batch) {
        if self.left.lost > 0 {
            let mark = self.mark();
            let written = self.put_all(&mark);
            if written < mark.len() {
                self.left.torn |= written > 0;
                self.left.lost += batch.said_behind(0);
                return;
            }
            (self.left.lost, self.left.torn) = (0, false);
        }
        let written = self.put_all(batch.text());
        if written < batch.text().len() {
            self.left.torn = !batch.is_end(written);
            self.left.lost += batch.said_behind(written);
        }
    }

    /// The line that stands for what was lost, behind what there is of the one before.
    fn mark(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mark = lost_mark(self.left.lost);
        if self.left.torn || self.log.format == Format::Raw {
            text.push(b'\n');
        }
        match self.log.format {
            Format::Raw => text.extend_from_slice(format!("{mark}\n").as_bytes()),
            Format::Cri | Format::Json => self.form().whole(mark.as_bytes(), &mut text),
        }
        text
    }

    /// Writes all of `bytes`, or as much as can be written: how much that was.
    fn put_all(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(rest @ [_, ..]) = bytes.get(written..) {
            match self.put(rest) {
                Ok(more @ 1..) => written += more,
                Ok(0) | Err(_) => {
                    self.file = None;
                    break;
                }
            }
        }
        written
    }

    /// Writes the first of `bytes`, as many as belong into the file that has the name now.
    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let path = self.log.path.as_path();
        loop {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(open(&self.log)?),
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
        let log = LogFile { format, rotation, ..LogFile::plain(path.to_owned()) };
        LogWriter::new(log, Channel::Out, Left::default())
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Stream, tag and text of the lines of a log of Kubernetes.
    fn words(path: &Path) -> Vec<String> {
        read(path).lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_have_the_form_that_the_kubelet_and_docker_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = writer(&path, Format::Cri, None);
        log.write(b"one\r\ntw");
        log.write(b"o\nend");
        log.finish();
        assert_eq!(words(&path), ["stdout F one", "stdout F two", "stdout P end"]);
        let text = read(&path);
        assert!(types::time::parse_rfc3339(text.split(' ').next().unwrap()).is_some());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o137, 0);
        let path = dir.path().join("new/json");
        writer(&path, Format::Json, None).write(b"a \"b\"\xff\n");
        let text = read(&path);
        assert!(text.starts_with(r#"{"log":"a \"b\""#) && text.ends_with("\"}\n"), "{text}");
        assert!(text.contains(r#"\n","stream":"stdout","time":""#), "{text}");
    }

    #[test]
    fn the_directory_of_a_log_of_kubernetes_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod/log");
        let mut log = writer(&path, Format::Cri, None);
        log.write(b"one\n");
        assert!(!dir.path().join("pod").exists());
        std::fs::create_dir(dir.path().join("pod")).unwrap();
        log.write(b"two\n");
        let mark = format!("stdout F {}", lost_mark(4));
        assert_eq!(words(&path), [mark.as_str(), "stdout F two"]);
    }

    #[test]
    fn another_writer_goes_on_where_one_has_left_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = writer(&path, Format::Cri, None);
        log.write(b"one\nbeg");
        let left = log.leave();
        assert_eq!((words(&path).len(), left.partial.as_slice()), (1, b"beg".as_slice()));
        let renamed = dir.path().join("log.1");
        std::fs::rename(&path, &renamed).unwrap();
        let mut next = LogWriter::new(
            LogFile { format: Format::Cri, ..LogFile::plain(path.clone()) },
            Channel::Out,
            left,
        );
        next.write(b"un\n");
        assert_eq!(
            (words(&renamed), words(&path)),
            (vec!["stdout F one".into()], vec!["stdout F begun".into()])
        );
    }

    #[test]
    fn a_line_that_was_torn_is_told_of_on_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "T stdout F tor").unwrap();
        let mut log = writer(&path, Format::Cri, None);
        log.left = Left { lost: 5, torn: true, partial: Vec::new() };
        log.write(b"again\n");
        let lines = words(&path);
        assert_eq!(
            lines,
            ["stdout F tor".into(), format!("stdout F {}", lost_mark(5)), "stdout F again".into()]
        );
    }

    #[test]
    fn a_full_disk_is_told_of_with_the_bytes_that_it_cost() {
        let mut log = writer(Path::new("/dev/full"), Format::Cri, None);
        log.write(b"one\r\ntwo\n");
        log.write(b"three\n");
        assert_eq!(log.leave(), Left { lost: 15, torn: false, partial: Vec::new() });
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
        assert!(log.left.lost > 0);
        std::fs::remove_dir(&path).unwrap();
        log.write(b"again\n");
        assert_eq!(log.left.lost, 0);
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
