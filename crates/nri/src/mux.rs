//! Two connections over one socket: frames of a connection's number, a length, and so many bytes.
//!
//! ```text
//!  client of the plugin's service  -- socketpair 1 --\                      number, u32 | length, u32 | bytes      (big endian)
//!                                                     one task -- socket
//!  server of the runtime's service -- socketpair 2 --/
//! ```
//!
//! Both ends of the protocol above are `runtime::ttrpc`'s, which knows sockets. Bytes are passed on as they come: nothing of a
//! peer's is collected here, whatever length it announces.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The connection by which the runtime calls the plugin.
const PLUGIN: u32 = 1;
/// The connection by which the plugin calls the runtime.
const RUNTIME: u32 = 2;

const HEADER: usize = 8;
/// Of one frame: the largest message of ttrpc, and its header.
const LONGEST: usize = (4 << 20) + 10;
/// Of the frames that we write. Go's plugins read frames through buffers of this size, and lose what does not fit.
const PIECE: usize = 4096;

/// A socket that was taken apart. The task that serves both ends is over when either side is gone.
#[derive(Debug)]
pub struct Split {
    /// To call the plugin.
    pub plugin: UnixStream,
    /// To be called by the plugin.
    pub runtime: UnixStream,
    /// Passes on.
    pub task: tokio::task::AbortHandle,
}

/// Takes a socket apart; spawns the task on the current runtime.
pub fn split(socket: UnixStream) -> io::Result<Split> {
    let (plugin, plugin_end) = UnixStream::pair()?;
    let (runtime, runtime_end) = UnixStream::pair()?;
    let task = tokio::spawn(async move {
        if let Err(error) = pass_on(socket, plugin_end, runtime_end).await {
            tracing::debug!(%error, "connection of a plugin ended");
        }
    });
    Ok(Split { plugin, runtime, task: task.abort_handle() })
}

async fn pass_on(socket: UnixStream, plugin: UnixStream, runtime: UnixStream) -> io::Result<()> {
    let (from_socket, to_socket) = socket.into_split();
    let (from_plugin, to_plugin) = plugin.into_split();
    let (from_runtime, to_runtime) = runtime.into_split();
    tokio::select! {
        ended = inwards(from_socket, to_plugin, to_runtime) => ended,
        ended = outwards(to_socket, from_plugin, from_runtime) => ended,
    }
}

async fn inwards(
    mut socket: OwnedReadHalf,
    mut plugin: OwnedWriteHalf,
    mut runtime: OwnedWriteHalf,
) -> io::Result<()> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; PIECE];
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let mut rest = buffer.get(..read).unwrap_or_default();
        while let Some((number, bytes)) = frames.next(&mut rest)? {
            match number {
                PLUGIN => plugin.write_all(bytes).await?,
                RUNTIME => runtime.write_all(bytes).await?,
                // Upstream drops what is for nobody.
                _ => {}
            }
        }
    }
}

async fn outwards(
    mut socket: OwnedWriteHalf,
    mut plugin: OwnedReadHalf,
    mut runtime: OwnedReadHalf,
) -> io::Result<()> {
    let (mut of_plugin, mut of_runtime) = (vec![0; PIECE], vec![0; PIECE]);
    let mut frame = Vec::with_capacity(HEADER + PIECE);
    loop {
        let (number, bytes) = tokio::select! {
            read = plugin.read(&mut of_plugin) => (PLUGIN, of_plugin.get(..read?)),
            read = runtime.read(&mut of_runtime) => (RUNTIME, of_runtime.get(..read?)),
        };
        let bytes = bytes.unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        frame.clear();
        put(number, bytes, &mut frame);
        socket.write_all(&frame).await?;
    }
}

/// Appends a frame. `bytes` are never more than [`PIECE`].
fn put(number: u32, bytes: &[u8], frame: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    frame.extend_from_slice(&number.to_be_bytes());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(bytes);
}

/// Where we are in what comes in.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header that are there.
    known: usize,
    /// Bytes of the frame that are to come.
    left: usize,
}

impl Frames {
    /// The next bytes of a connection, taken off `rest`; none when `rest` is used up.
    fn next<'a>(&mut self, rest: &mut &'a [u8]) -> io::Result<Option<(u32, &'a [u8])>> {
        while self.left == 0 {
            let Some((first, others)) = rest.split_first() else { return Ok(None) };
            *rest = others;
            if let Some(place) = self.header.get_mut(self.known) {
                *place = *first;
            }
            self.known += 1;
            if self.known == HEADER {
                self.known = 0;
                let [.., a, b, c, d] = self.header;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                if self.left > LONGEST {
                    let text = format!("a frame of {} bytes, {LONGEST} is the most", self.left);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
        }
        let (bytes, others) = rest.split_at(self.left.min(rest.len()));
        *rest = others;
        self.left -= bytes.len();
        let [a, b, c, d, ..] = self.header;
        Ok((!bytes.is_empty()).then_some((u32::from_be_bytes([a, b, c, d]), bytes)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], step: usize) -> io::Result<Vec<(u32, Vec<u8>)>> {
        let mut frames = Frames::default();
        let mut seen: Vec<(u32, Vec<u8>)> = Vec::new();
        for mut piece in bytes.chunks(step) {
            while let Some((number, bytes)) = frames.next(&mut piece)? {
                match seen.last_mut() {
                    Some((last, collected)) if *last == number => collected.extend_from_slice(bytes),
                    _ => seen.push((number, bytes.to_vec())),
                }
            }
        }
        Ok(seen)
    }

    proptest! {
        #[test]
        fn bytes_of_each_connection_come_out_in_order_however_they_were_cut(
            messages in prop::collection::vec((1u32..4, prop::collection::vec(any::<u8>(), 0..50)), 0..20),
            step in 1usize..64,
        ) {
            let (mut bytes, mut expected) = (Vec::new(), Vec::<(u32, Vec<u8>)>::new());
            for (number, message) in &messages {
                put(*number, message, &mut bytes);
                match expected.last_mut() {
                    _ if message.is_empty() => {}
                    Some((last, collected)) if last == number => collected.extend_from_slice(message),
                    _ => expected.push((*number, message.clone())),
                }
            }
            prop_assert_eq!(read(&bytes, step).unwrap(), expected);
        }

        #[test]
        fn whatever_comes_nothing_is_collected(garbage in prop::collection::vec(any::<u8>(), 0..4096)) {
            // An error or bytes that were there: it does not panic, and reserves nothing.
            let _ = read(&garbage, 7);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_ends_the_connection() {
        let mut bytes = 1u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&u32::MAX.to_be_bytes());
        assert!(read(&bytes, 3).is_err());
    }

    #[tokio::test]
    async fn two_connections_talk_over_one_socket() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut here, mut there) = (split(here).unwrap(), split(there).unwrap());
        let long = vec![7; 3 * PIECE + 5];
        here.plugin.write_all(&long).await.unwrap();
        there.runtime.write_all(b"up").await.unwrap();
        let (mut got, mut up) = (vec![0; long.len()], [0; 2]);
        there.plugin.read_exact(&mut got).await.unwrap();
        here.runtime.read_exact(&mut up).await.unwrap();
        assert_eq!((got, &up), (long, b"up"));
        drop(here);
        assert_eq!(there.runtime.read(&mut up).await.unwrap(), 0);
    }
}
