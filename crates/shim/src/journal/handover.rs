//! A journal, handed over with its file.

use std::fs::File;
use std::path::PathBuf;

use api::containerdrs::shim::v1 as wire;
use sys::handover::Inherited;
use types::Result;

use super::Journal;
use crate::handover::Kept;

impl Journal {
    /// All of it.
    pub fn write_down<'a>(&'a self, kept: &mut Kept<'a>) -> wire::Journal {
        // The first event is read again.
        let Self { path, file, head, tail, next: _, unwritten } = self;
        wire::Journal {
            path: path.to_string_lossy().into_owned(),
            fd: file.as_ref().map(|file| kept.add(file)),
            head: *head,
            tail: *tail,
            unwritten: unwritten.iter().cloned().collect(),
        }
    }

    /// The same, back.
    pub fn read_back(state: wire::Journal, inherited: &mut Inherited) -> Result<Self> {
        let mut journal = Self {
            path: PathBuf::from(state.path),
            file: state.fd.map(|fd| inherited.take(fd)).transpose()?.map(File::from),
            head: state.head,
            tail: state.tail,
            next: None,
            unwritten: state.unwritten.into(),
        };
        journal.load();
        Ok(journal)
    }
}
