//! A client's connection once it is upgraded: two tasks, one that reads and gives what it reads to streams, one that writes.
//!
//! ```text
//!  reader   socket -> frames -> Inbound of each stream      at most BUFFER bytes wait for all streams together: then nothing
//!                                                           more is read, and the client waits
//!  writer   Outbound of each stream -> frames -> socket     in the order of the queue
//! ```
//!
//! When the client is gone, every [`Inbound`] ends, every [`Outbound`] refuses, and [`Gone`] says so. When a [`Connection`] is
//! dropped, so are both tasks and the socket.

mod channels;
mod spdy;
mod stream;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use types::{Error, Result};

use super::websocket;
use crate::tls::Socket;

pub use channels::Direction;
pub use stream::{Inbound, Outbound, Sender, Stream};

/// How many bytes of a client may wait for the streams that they belong to.
const BUFFER: usize = 1 << 20;
/// How many bytes are read at once.
pub const PIECE: usize = 64 << 10;
/// How many messages may wait to be written.
const QUEUE: usize = 4;
/// How long a client may take to go when everything was said.
const LINGER: Duration = Duration::from_secs(5);
/// How often it is looked whether a client that we do not read from is still there.
const LOOK: Duration = Duration::from_secs(1);

/// The last stream that was accepted: all of them.
const ALL: u32 = 0x7fff_ffff;

/// What is written at once.
#[derive(Debug)]
struct Message {
    head: Vec<u8>,
    body: Bytes,
    /// Nothing comes after it.
    last: bool,
}

/// Where messages are put.
#[derive(Clone, Debug)]
struct Speaker {
    queue: mpsc::Sender<Message>,
    /// Whether everything that is said is packed into messages of a WebSocket.
    tunnel: bool,
}

impl Speaker {
    async fn say(&self, head: Vec<u8>, body: Bytes) -> Result<()> {
        let head = if self.tunnel {
            let length = head.len() + body.len();
            [&websocket::head(websocket::Opcode::Binary, length)[..], &head].concat()
        } else {
            head
        };
        self.put(Message { head, body, last: false }).await
    }

    /// Says something that is packed already.
    async fn put(&self, message: Message) -> Result<()> {
        self.queue.send(message).await.map_err(|_| Error::unavailable("the client is gone"))
    }
}

/// When something was read or written last.
#[derive(Debug)]
struct Activity {
    start: Instant,
    millis: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { start: Instant::now(), millis: AtomicU64::new(0) }
    }

    fn now(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    /// Ends when nothing has happened for so long.
    async fn idle(&self, limit: Duration) {
        loop {
            let end = self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed)) + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// Tells that a client is gone.
#[derive(Clone, Debug)]
pub struct Gone(watch::Receiver<bool>);

impl Gone {
    /// Waits for it. Cancel safe.
    pub async fn wait(&mut self) {
        // If nobody can tell any more, the tasks have ended: it is gone.
        drop(self.0.wait_for(|gone| *gone).await);
    }

    /// Tells that somebody else is: `told` does, or whoever would tell it is gone.
    pub fn when(told: watch::Receiver<bool>) -> Self {
        Self(told)
    }
}

/// What came of an upgrade.
pub struct Upgraded {
    /// The client.
    pub socket: Socket,
    /// What it has said already.
    pub early: Bytes,
}

/// What the reader's task reads from.
struct Source {
    half: ReadHalf<Socket>,
    buffer: BytesMut,
    descriptor: OwnedFd,
    activity: Arc<Activity>,
    budget: Arc<Semaphore>,
}

impl Source {
    /// Reads more into the buffer; false at the end.
    async fn more(&mut self) -> Result<bool> {
        if self.buffer.capacity() - self.buffer.len() < PIECE / 16 {
            self.buffer.reserve(PIECE);
        }
        let read = read_some(&mut self.half, &mut self.buffer).await?;
        self.activity.now();
        Ok(read > 0)
    }

    /// Gives bytes to a stream, when there is room. Fails if the client goes while there is none.
    async fn give(&self, to: &Sender, bytes: Bytes) -> Result<()> {
        if bytes.is_empty() || to.is_closed() {
            return Ok(());
        }
        let size = bytes.len().min(BUFFER) as u32;
        let room = tokio::select! {
            room = Arc::clone(&self.budget).acquire_many_owned(size) => room,
            () = self.hangup() => return Err(Error::unavailable("the client is gone")),
            // Nobody will take it.
            () = to.closed() => return Ok(()),
        };
        let room = room.map_err(|e| Error::internal(format!("room for bytes of a client: {e}")))?;
        to.put(bytes, room);
        Ok(())
    }

    /// Waits until the client is gone, without reading.
    async fn hangup(&self) {
        loop {
            sleep(LOOK).await;
            let mut fds = [PollFd::new(&self.descriptor, PollFlags::RDHUP)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().is_empty() {
                return;
            }
        }
    }
}

async fn read_some(half: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Result<usize> {
    Ok(half.read_buf(buffer).await?)
}

async fn write(
    mut half: WriteHalf<Socket>,
    mut queue: mpsc::Receiver<Message>,
    activity: Arc<Activity>,
    flushed: oneshot::Sender<()>,
) {
    while let Some(Message { head, body, last }) = queue.recv().await {
        let mut bytes = Bytes::from(head).chain(body);
        if half.write_all_buf(&mut bytes).await.is_err() || half.flush().await.is_err() {
            return;
        }
        activity.now();
        if last {
            break;
        }
    }
    // The client may be gone already.
    drop(half.shutdown().await);
    let _ = flushed.send(());
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    speaker: Speaker,
    protocol: Protocol,
    activity: Arc<Activity>,
    gone: Gone,
    flushed: oneshot::Receiver<()>,
    tasks: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Spdy,
    Channels,
}

/// The parts of a connection that a protocol's reader is made of.
struct Parts {
    connection: Connection,
    source: Source,
    teller: watch::Sender<bool>,
}

impl Connection {
    /// Starts the writer.
    fn start(upgraded: Upgraded, protocol: Protocol, tunnel: bool) -> Result<Parts> {
        let descriptor = upgraded.socket.descriptor()?;
        let (read, write_half) = tokio::io::split(upgraded.socket);
        let (queue, messages) = mpsc::channel(QUEUE);
        let (teller, told) = watch::channel(false);
        let (flush, flushed) = oneshot::channel();
        let activity = Arc::new(Activity::new());
        let mut tasks = JoinSet::new();
        let (writer_teller, writer_activity) = (teller.clone(), Arc::clone(&activity));
        tasks.spawn(async move {
            write(write_half, messages, writer_activity, flush).await;
            writer_teller.send_replace(true);
        });
        let source = Source {
            half: read,
            buffer: BytesMut::from(upgraded.early),
            descriptor,
            activity: Arc::clone(&activity),
            budget: Arc::new(Semaphore::new(BUFFER)),
        };
        let (speaker, gone) = (Speaker { queue, tunnel }, Gone(told));
        Ok(Parts { connection: Self { speaker, protocol, activity, gone, flushed, tasks }, source, teller })
    }

    /// Tells when the client is gone.
    pub fn gone(&self) -> Gone {
        self.gone.clone()
    }

    /// Ends when nothing was read or written for so long.
    pub fn idle(&self, limit: Duration) -> impl Future<Output = ()> + Send + use<> {
        let activity = Arc::clone(&self.activity);
        async move { activity.idle(limit).await }
    }

    /// Says what is still to be said, and goodbye; then waits a moment for the client to go. What it says meanwhile is read, or
    /// the kernel would tell it of an error, and it might miss our last words.
    pub async fn close(mut self) {
        let last = match self.protocol {
            Protocol::Spdy => self.speaker.say(super::spdy::encode::go_away(ALL), Bytes::new()).await,
            Protocol::Channels => Ok(()),
        };
        let goodbye = match self.protocol {
            Protocol::Spdy if !self.speaker.tunnel => Vec::new(),
            _ => websocket::close(1000),
        };
        let message = Message { head: goodbye, body: Bytes::new(), last: true };
        if last.is_err() || self.speaker.put(message).await.is_err() || (&mut self.flushed).await.is_err() {
            return;
        }
        drop(timeout(LINGER, async { while self.tasks.join_next().await.is_some() {} }).await);
    }
}
