//! Who is attached to a stream that the daemon reads. Each has a pipe, and misses what does not fit into it: nobody who does not read
//! holds a container back.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tokio::net::unix::pipe;
use types::Result;

/// How much somebody may be behind before he misses something, in bytes.
const BEHIND: usize = 256 << 10;

/// Those who are attached to a stream.
#[derive(Debug)]
pub struct Copies(Mutex<Stream>);

#[derive(Debug)]
enum Stream {
    /// It is there, with the pipes of those who listen.
    Open(Vec<OwnedFd>),
    /// It has ended, for those who come as well.
    Ended,
}

impl Default for Copies {
    fn default() -> Self {
        Self(Mutex::new(Stream::Open(Vec::new())))
    }
}

impl Copies {
    /// What is said from now on. It ends with the stream.
    pub fn attach(&self) -> Result<pipe::Receiver> {
        let made = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        let (reader, writer) = made.map_err(std::io::Error::from)?;
        // A smaller one does as well.
        let _ = fcntl_setpipe_size(&writer, BEHIND);
        let reader = pipe::Receiver::from_owned_fd(reader)?;
        if let Stream::Open(writers) = &mut *self.lock() {
            writers.push(writer);
        }
        Ok(reader)
    }

    /// Tells everybody, and forgets those who are gone. Never waits.
    pub fn say(&self, bytes: &[u8]) {
        if let Stream::Open(writers) = &mut *self.lock() {
            writers.retain(|writer| put(writer, bytes));
        }
    }

    /// It has ended.
    pub fn end(&self) {
        *self.lock() = Stream::Ended;
    }

    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what fits; whether the reader is still there.
fn put(writer: &OwnedFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(writer, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return error == Errno::AGAIN,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn each_hears_what_is_said_from_then_on_until_the_end_and_nobody_is_waited_for() {
        let copies = Copies::default();
        copies.say(b"before ");
        let (mut one, slow) = (copies.attach().unwrap(), copies.attach().unwrap());
        copies.say(b"both ");
        let mut late = copies.attach().unwrap();
        drop(slow);
        let idle = copies.attach().unwrap();
        copies.say(b"all");
        // More than fits for the one who does not read.
        copies.say(&vec![b'x'; 2 * BEHIND]);
        copies.end();
        let (mut heard, mut heard_late) = (Vec::new(), Vec::new());
        one.read_to_end(&mut heard).await.unwrap();
        late.read_to_end(&mut heard_late).await.unwrap();
        assert!(heard.starts_with(b"both allxxx"), "{:?}", &heard[..20]);
        assert!(heard_late.starts_with(b"allxxx") && heard_late.len() < 2 * BEHIND);
        drop(idle);
        let mut nothing = Vec::new();
        copies.attach().unwrap().read_to_end(&mut nothing).await.unwrap();
        assert_eq!(nothing, b"");
    }
}
