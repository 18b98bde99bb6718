//! The events of one container that the daemon has not taken yet, in a file of its bundle (`api::journal`).
//!
//! The file is the queue: only the next event is in memory, however long the daemon is away. Where the file cannot be
//! written the events behind it stay in memory until it can; no event is thrown away for that.

mod handover;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use api::containerd::types::Envelope;
use api::journal::{FILE, HEADER, OVERHEAD, Record, header, read_record, record, record_length};

/// The journal of a container.
pub struct Journal {
    path: PathBuf,
    file: Option<File>,
    /// Where the first event in the file begins, and where the last one ends.
    head: u64,
    tail: u64,
    /// The first event, if there is any.
    next: Option<Record>,
    /// Events behind those of the file.
    unwritten: VecDeque<Vec<u8>>,
}

/// Where an event is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In the file.
    OnFile,
    /// In memory, as the file could not be written.
    InMemory,
}

impl Journal {
    /// An empty journal in `bundle`, whose file is made with the first event.
    pub fn new(bundle: &Path) -> Self {
        Self {
            path: bundle.join(FILE),
            file: None,
            head: HEADER,
            tail: HEADER,
            next: None,
            unwritten: VecDeque::new(),
        }
    }

    /// Whether this is the journal in `bundle`.
    pub fn is_in(&self, bundle: &Path) -> bool {
        self.path.parent() == Some(bundle)
    }

    /// The order of the first event.
    pub fn order(&self) -> Option<u64> {
        self.next.as_ref().map(|record| record.order)
    }

    /// The first event.
    pub fn first(&self) -> Option<&Envelope> {
        self.next.as_ref().map(|record| &record.envelope)
    }

    /// Adds an event.
    pub fn push(&mut self, order: u64, envelope: &Envelope) -> Kept {
        self.unwritten.push_back(record(order, envelope));
        let kept = if self.write().is_ok() { Kept::OnFile } else { Kept::InMemory };
        if self.next.is_none() {
            self.load();
        }
        kept
    }

    /// The first event was taken.
    pub fn pop(&mut self) {
        let Some(taken) = self.next.take() else { return };
        if self.head < self.tail {
            self.head += taken.length as u64;
            // Whoever reads an older head gets an event twice, which the daemon knows.
            let _ = self.write_head();
        } else {
            // It was never written.
            self.unwritten.pop_front();
        }
        let _ = self.write();
        self.load();
    }

    /// Moves what is in memory into the file.
    fn write(&mut self) -> io::Result<()> {
        while let Some(record) = self.unwritten.front() {
            let file = match &self.file {
                Some(file) => file,
                None => {
                    let mut options = File::options();
                    let options = options.read(true).write(true).create(true).truncate(true).mode(0o600);
                    let file = options.open(&self.path)?;
                    file.write_all_at(&header(self.head), 0)?;
                    self.file.insert(file)
                }
            };
            file.write_all_at(record, self.tail)?;
            self.tail += record.len() as u64;
            self.unwritten.pop_front();
        }
        Ok(())
    }

    fn write_head(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if self.head == self.tail {
            // Cut off first: a head behind the end is an empty journal, one before it would repeat all.
            file.set_len(HEADER)?;
            (self.head, self.tail) = (HEADER, HEADER);
        }
        file.write_all_at(&header(self.head), 0)
    }

    /// Reads the first event.
    fn load(&mut self) {
        self.next = if self.head < self.tail { self.read() } else { None };
        if self.next.is_none() {
            // Nothing that we wrote is unreadable, unless the file was changed under us: then what we have is the rest.
            self.head = self.tail;
            self.next = self.unwritten.front().and_then(|bytes| read_record(bytes));
        }
    }

    fn read(&self) -> Option<Record> {
        let file = self.file.as_ref()?;
        let mut start = [0; OVERHEAD];
        file.read_exact_at(&mut start, self.head).ok()?;
        let mut bytes = vec![0; record_length(&start)?];
        file.read_exact_at(&mut bytes, self.head).ok()?;
        read_record(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::journal::recover;

    fn envelope(n: u64) -> Envelope {
        Envelope { topic: format!("/{n}"), ..Envelope::default() }
    }

    fn take(journal: &mut Journal) -> Vec<String> {
        let mut topics = Vec::new();
        while let Some(first) = journal.first() {
            topics.push(first.topic.clone());
            journal.pop();
        }
        topics
    }

    #[test]
    fn events_come_out_in_order_and_the_file_tells_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(dir.path());
        for n in 0..100 {
            assert_eq!(journal.push(n, &envelope(n)), Kept::OnFile);
        }
        journal.pop();
        assert_eq!(journal.order(), Some(1));
        let left = recover(&std::fs::read(dir.path().join(FILE)).unwrap()).unwrap();
        assert_eq!((left.records.len(), left.records[0].order), (99, 1));
        let wanted: Vec<_> = (1..100).map(|n| format!("/{n}")).collect();
        assert_eq!(take(&mut journal), wanted);
        assert_eq!(std::fs::metadata(dir.path().join(FILE)).unwrap().len(), HEADER);
        journal.push(100, &envelope(100));
        assert_eq!(take(&mut journal), ["/100"]);
    }

    #[test]
    fn where_the_file_cannot_be_written_no_event_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle");
        let mut journal = Journal::new(&bundle);
        assert_eq!(journal.push(0, &envelope(0)), Kept::InMemory);
        assert_eq!(journal.push(1, &envelope(1)), Kept::InMemory);
        assert_eq!(journal.first().unwrap().topic, "/0");
        std::fs::create_dir(&bundle).unwrap();
        assert_eq!(journal.push(2, &envelope(2)), Kept::OnFile);
        assert_eq!(recover(&std::fs::read(bundle.join(FILE)).unwrap()).unwrap().records.len(), 3);
        assert_eq!(take(&mut journal), ["/0", "/1", "/2"]);
    }

    #[test]
    fn a_full_disk_in_the_middle_keeps_the_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(dir.path());
        journal.push(0, &envelope(0));
        // A file that can be read but not be written any more, as on a disk that is full.
        journal.file = Some(File::open(dir.path().join(FILE)).unwrap());
        for n in 1..4 {
            assert_eq!(journal.push(n, &envelope(n)), Kept::InMemory);
        }
        assert_eq!(take(&mut journal), ["/0", "/1", "/2", "/3"]);
    }

    #[test]
    fn a_file_that_was_changed_under_us_costs_its_events_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(dir.path());
        journal.push(0, &envelope(0));
        journal.push(1, &envelope(1));
        std::fs::write(dir.path().join(FILE), "").unwrap();
        journal.pop();
        journal.push(2, &envelope(2));
        assert_eq!(take(&mut journal), ["/2"]);
    }
}
