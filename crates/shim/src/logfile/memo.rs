//! What a fork that wrote a log leaves for the next one: the beginning of a line, and what could not be written.
//!
//! It is in a file in memory that the shim keeps open and does not read, so that it costs the shim nothing.
//!
//! ```text
//!  lost: 8 bytes   torn: 1 byte   the beginning of a line
//! ```

use std::io;
use std::os::fd::BorrowedFd;

const HEAD: usize = 9;

/// What is not written yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The line that has begun and not ended, where lines have a form.
    pub partial: Vec<u8>,
    /// How many bytes of the process could not be written, and are not told of yet.
    pub lost: u64,
    /// Whether the file ends in the middle of a line of ours.
    pub torn: bool,
}

impl Left {
    /// What is in `memo`; nothing if that cannot be read.
    pub fn read(memo: BorrowedFd<'_>) -> Self {
        let length = rustix::fs::fstat(memo).map_or(0, |about| usize::try_from(about.st_size).unwrap_or(0));
        let mut bytes = vec![0; length];
        let mut read = 0;
        while let Some(rest @ [_, ..]) = bytes.get_mut(read..) {
            match rustix::io::pread(memo, rest, read as u64) {
                Ok(more @ 1..) => read += more,
                Ok(0) | Err(_) => return Self::default(),
            }
        }
        Self::decode(&bytes).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (lost, rest) = bytes.split_first_chunk()?;
        let (torn, partial) = rest.split_first()?;
        Some(Self { partial: partial.to_vec(), lost: u64::from_le_bytes(*lost), torn: *torn != 0 })
    }

    /// Puts it into `memo`.
    pub fn write(&self, memo: BorrowedFd<'_>) -> io::Result<()> {
        if *self == Self::default() {
            return Ok(rustix::fs::ftruncate(memo, 0)?);
        }
        let mut bytes = Vec::with_capacity(HEAD + self.partial.len());
        bytes.extend_from_slice(&self.lost.to_le_bytes());
        bytes.push(self.torn.into());
        bytes.extend_from_slice(&self.partial);
        let mut written = 0;
        while let Some(rest @ [_, ..]) = bytes.get(written..) {
            written += rustix::io::pwrite(memo, rest, written as u64)?;
        }
        Ok(rustix::fs::ftruncate(memo, bytes.len() as u64)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_one_leaves_the_next_one_finds() {
        let memo = crate::offload::memory_file("test").unwrap();
        assert_eq!(Left::read(memo.as_fd()), Left::default());
        let left = Left { partial: b"begun".to_vec(), lost: 77, torn: true };
        left.write(memo.as_fd()).unwrap();
        assert_eq!(Left::read(memo.as_fd()), left);
        let shorter = Left { partial: b"b".to_vec(), ..Left::default() };
        shorter.write(memo.as_fd()).unwrap();
        assert_eq!(Left::read(memo.as_fd()), shorter);
        Left::default().write(memo.as_fd()).unwrap();
        assert_eq!(memo.metadata().unwrap().len(), 0);
    }
}
