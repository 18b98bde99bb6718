//! The daemon's transfers: streams of bytes to it and from it, and what it tells on the way.

use std::io::{self, Read};
use std::time::Duration;

use api::containerd::services::streaming::v1::StreamInit;
use api::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use api::containerd::types::transfer::{self as wire, Data, Progress, WindowUpdate};
use api::{ProtoAny, any};
use bytes::Bytes;
use images::export::Output;
use prost::{Message, Name};
use registry::Credential;
use remote::from_status;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use types::{Error, Result, ResultExt};

use crate::client::{Client, random_lease_id};
use crate::flags::RegistryFlags;
use crate::log;
use crate::progress::tree::Tree;
use crate::registry::Known;

/// How many bytes the daemon may be ahead of us.
const WINDOW: i32 = 1 << 20;
/// The most bytes in a message, and read from an archive at a time.
const PIECE: usize = 256 << 10;
/// Messages that may wait.
const AHEAD: usize = 8;
/// How long the end of the progress may be behind the end of the transfer.
const LATE: Duration = Duration::from_secs(2);
/// What every archive of images ends with: this member, a block of it, and two empty blocks.
const LAST_MEMBER: &[u8] = b"oci-layout\0";
const ENDING: usize = 2048;

/// A message as it travels.
pub fn pack<M: Message + Name>(message: &M) -> ProtoAny {
    any::to_wire(any::pack(message))
}

/// A stream that a transfer is told the name of. Dropping it ends it.
pub struct Stream {
    /// Its name.
    pub id: String,
    sender: mpsc::Sender<ProtoAny>,
    received: Streaming<ProtoAny>,
}

impl Stream {
    /// Opens one for a purpose.
    pub async fn open(client: &Client, purpose: &str) -> Result<Self> {
        let id = format!("{purpose}-{}", random_lease_id());
        let (sender, messages) = mpsc::channel(AHEAD);
        // There is room for one.
        drop(sender.try_send(pack(&StreamInit { id: id.clone() })));
        let answer = client.streaming().stream(ReceiverStream::new(messages)).await.map_err(from_status)?;
        let mut stream = Self { id, sender, received: answer.into_inner() };
        stream.next().await?.ok_or_else(|| Error::internal("the daemon closed a stream at once"))?;
        Ok(stream)
    }

    async fn next(&mut self) -> Result<Option<ProtoAny>> {
        self.received.message().await.map_err(from_status)
    }

    /// `false` if nobody takes it any more.
    async fn send<M: Message + Name>(&self, message: &M) -> bool {
        self.sender.send(pack(message)).await.is_ok()
    }
}

/// Sends an archive, as fast as the daemon takes it.
pub async fn send(archive: Box<dyn Read + Send>, mut stream: Stream) -> Result<()> {
    let mut pieces = read(archive)?;
    let mut room = 0;
    while let Some(piece) = pieces.recv().await {
        let mut piece = piece.context(|| "failed to read stream source")?;
        while !piece.is_empty() {
            while room <= 0 {
                // A daemon that wants no more says why in its answer to the transfer.
                let Some(message) = stream.next().await? else { return Ok(()) };
                let WindowUpdate { update } = any::unpack(&any::from_wire(message))?;
                room += i64::from(update.max(0));
            }
            let data = piece.split_to(piece.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            room -= i64::try_from(data.len()).unwrap_or(i64::MAX);
            if !stream.send(&Data { data }).await {
                return Ok(());
            }
        }
    }
    // Our half is closed; to go before the daemon has closed its own would take back what is on its way.
    let Stream { sender, mut received, .. } = stream;
    drop(sender);
    while let Ok(Some(_)) = received.message().await {}
    Ok(())
}

/// Reads on a thread of its own, which is no task: one that waits for a pipe keeps nothing from ending.
fn read(mut archive: Box<dyn Read + Send>) -> Result<mpsc::Receiver<io::Result<Bytes>>> {
    let (sender, pieces) = mpsc::channel(AHEAD);
    let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(move || {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = archive.by_ref().take(PIECE as u64).read_to_end(&mut piece);
            let end = !matches!(read, Ok(1..));
            let piece = read.map(|_| Bytes::from(piece));
            if piece.as_ref().is_ok_and(Bytes::is_empty) || sender.blocking_send(piece).is_err() || end {
                return;
            }
        }
    });
    thread.map(drop).context(|| "start a thread")?;
    Ok(pieces)
}

/// An archive that comes over a stream.
pub struct Receiver<'a> {
    stream: Stream,
    out: &'a mut dyn Output,
    window: i64,
    /// The last bytes that came.
    ending: Vec<u8>,
}

impl<'a> Receiver<'a> {
    /// Writes what comes over `stream` to `out`.
    pub fn new(stream: Stream, out: &'a mut dyn Output) -> Self {
        Self { stream, out, window: 0, ending: Vec::new() }
    }

    /// Takes what comes while `transfer` is under way, and what is left of it afterwards.
    pub async fn beside(mut self, transfer: impl Future<Output = Result<()>>) -> Result<()> {
        let mut transfer = std::pin::pin!(transfer);
        loop {
            tokio::select! {
                done = &mut transfer => {
                    done?;
                    return self.finish().await;
                }
                more = self.take() => if !more? {
                    return transfer.await;
                }
            }
        }
    }

    /// Takes the next bytes; `false` at the end. Dropping it half-way loses nothing, as writing `out` does not wait.
    async fn take(&mut self) -> Result<bool> {
        if self.window <= i64::from(WINDOW / 2) && self.stream.send(&WindowUpdate { update: WINDOW }).await {
            self.window += i64::from(WINDOW);
        }
        let Some(message) = self.stream.next().await? else { return Ok(false) };
        let Data { data } = any::unpack(&any::from_wire(message))?;
        self.window -= i64::try_from(data.len()).unwrap_or(i64::MAX);
        self.ending.extend_from_slice(&data[data.len().saturating_sub(ENDING)..]);
        self.ending.drain(..self.ending.len().saturating_sub(ENDING));
        self.out.write(data).await?;
        Ok(true)
    }

    /// Takes what is on its way once the transfer has ended. Upstream's daemon leaves the stream open, but has sent all.
    async fn finish(&mut self) -> Result<()> {
        while self.ending.len() < ENDING || !self.ending.starts_with(LAST_MEMBER) {
            if !self.take().await? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// It is.
    Progress,
    /// It is not asked for.
    Nothing,
}

/// A registry at one end of a transfer: the daemon asks us for credentials, and shows us what it says to it. Dropping it ends
/// both.
pub struct Registry {
    message: wire::OciRegistry,
    answering: Vec<JoinHandle<()>>,
}

impl Registry {
    /// The registry of `name`, as the flags say.
    pub async fn open(client: &Client, name: &str, flags: &RegistryFlags, known: Known) -> Result<Self> {
        let credentials = Stream::open(client, "creds").await?;
        let mut resolver = wire::RegistryResolver {
            auth_stream: credentials.id.clone(),
            host_dir: flags.hosts_dir.clone(),
            default_scheme: if flags.plain_http { "http".to_owned() } else { String::new() },
            ..wire::RegistryResolver::default()
        };
        let mut answering = vec![tokio::spawn(answer(credentials, known))];
        let debug = match (flags.http_dump, flags.http_trace) {
            (false, false) => wire::HttpDebug::Disabled,
            (true, false) => wire::HttpDebug::Debug,
            (false, true) => wire::HttpDebug::Trace,
            (true, true) => wire::HttpDebug::Both,
        };
        if debug != wire::HttpDebug::Disabled {
            let logs = Stream::open(client, "http-debug-logs").await?;
            resolver.logs_stream = logs.id.clone();
            answering.push(tokio::spawn(show(logs)));
        }
        resolver.set_http_debug(debug);
        let message = wire::OciRegistry { reference: name.to_owned(), resolver: Some(resolver) };
        Ok(Self { message, answering })
    }

    /// As a transfer is told of it.
    pub fn pack(&self) -> ProtoAny {
        pack(&self.message)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.answering.iter().for_each(JoinHandle::abort);
    }
}

/// Tells the daemon what it asks for. What cannot be found out is told of here, and is nothing there.
async fn answer(mut stream: Stream, known: Known) {
    while let Ok(Some(message)) = stream.next().await {
        let Ok(wire::AuthRequest { host, .. }) = any::unpack(&any::from_wire(message)) else { continue };
        let credential = known.answer(&host).await.unwrap_or_else(|error| {
            log::error("failed to get credentials", Some(&error));
            None
        });
        if !stream.send(&auth(credential)).await {
            return;
        }
    }
}

fn auth(credential: Option<Credential>) -> wire::AuthResponse {
    let (kind, username, secret) = match credential {
        None => (wire::AuthType::None, String::new(), String::new()),
        Some(Credential::Basic { user, secret }) => (wire::AuthType::Credentials, user, secret),
        Some(Credential::RefreshToken(secret)) => (wire::AuthType::Refresh, String::new(), secret),
        Some(Credential::Header(secret)) => (wire::AuthType::Header, String::new(), secret),
    };
    wire::AuthResponse { auth_type: kind.into(), secret, username, expire_at: None }
}

/// Shows what comes as lines of the log.
async fn show(stream: Stream) {
    let mut lines = Lines(Vec::new());
    let mut receiver = Receiver::new(stream, &mut lines);
    while let Ok(true) = receiver.take().await {}
    lines.end();
}

/// Bytes as lines of the log.
struct Lines(Vec<u8>);

impl Lines {
    fn end(&mut self) {
        if !self.0.is_empty() {
            log::info(String::from_utf8_lossy(&std::mem::take(&mut self.0)).trim_end());
        }
    }
}

#[async_trait::async_trait]
impl Output for Lines {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.0);
                    log::info(String::from_utf8_lossy(&line).trim_end());
                }
                byte => self.0.push(byte),
            }
        }
        Ok(())
    }
}

/// Asks for a transfer from one end to another, and waits for it. `beside` is what moves bytes meanwhile; if that fails, the
/// transfer ends, too.
pub async fn transfer(
    client: &Client,
    (source, destination): (ProtoAny, ProtoAny),
    show: Show,
    beside: Option<JoinHandle<Result<()>>>,
) -> Result<()> {
    let progress = match show {
        Show::Progress => Some(Stream::open(client, "progress").await?),
        Show::Nothing => None,
    };
    let options =
        TransferOptions { progress_stream: progress.as_ref().map(|s| s.id.clone()).unwrap_or_default() };
    let watching = progress.map(|stream| tokio::spawn(watch(stream)));
    let request =
        TransferRequest { source: Some(source), destination: Some(destination), options: Some(options) };
    let mut service = client.transfer();
    let answer = async { service.transfer(request).await.map(drop).map_err(from_status) };
    let failed = async {
        if let Some(beside) = beside
            && let Ok(Err(error)) = beside.await
        {
            return error;
        }
        // It has done its part; the transfer will say how it went.
        std::future::pending().await
    };
    let done = tokio::select! {
        done = answer => done,
        error = failed => Err(error),
    };
    if let Some(mut watching) = watching {
        // The daemon ends the progress before it answers.
        if done.is_ok() {
            drop(tokio::time::timeout(LATE, &mut watching).await);
        }
        watching.abort();
    }
    done
}

/// Draws what happens.
async fn watch(mut stream: Stream) {
    let mut tree = Tree::stdout();
    loop {
        let due = tree.due();
        let idle = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let drawn = tokio::select! {
            message = stream.next() => match message {
                Ok(Some(message)) => match any::unpack::<Progress>(&any::from_wire(message)) {
                    Ok(progress) => tree.take(progress),
                    Err(_) => Ok(()),
                },
                _ => {
                    drop(tree.draw());
                    return;
                }
            },
            () = idle => tree.draw(),
        };
        // Nobody looks any more.
        if drawn.is_err() {
            return;
        }
    }
}
