//! The daemon's transfers: streams of bytes to it and from it, and what it tells on the way.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use api::containerd::services::streaming::v1::StreamInit;
use api::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use api::containerd::types::transfer::{Data, Progress, WindowUpdate};
use api::{ProtoAny, any};
use bytes::Bytes;
use images::export::Output;
use prost::{Message, Name};
use remote::from_status;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use types::{Error, Result, ResultExt};

use crate::client::{Client, random_lease_id};
use crate::commands::print;

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

/// Prints what happens, as upstream's ctr does: all that is known of each image, whenever something changes.
async fn watch(mut stream: Stream) {
    let mut board = Board { begun: Instant::now(), status: String::new(), known: Vec::new() };
    while let Ok(Some(message)) = stream.next().await {
        let Ok(progress) = any::unpack::<Progress>(&any::from_wire(message)) else { continue };
        if let Some(text) = board.take(progress)
            && print(text).is_err()
        {
            return;
        }
    }
}

/// What is known.
struct Board {
    begun: Instant,
    status: String,
    known: Vec<Progress>,
}

impl Board {
    /// Takes note; answers with what to print, if anything.
    fn take(&mut self, progress: Progress) -> Option<String> {
        if progress.name.is_empty() {
            self.status = progress.event;
            return None;
        }
        match self.known.iter_mut().find(|known| known.name == progress.name) {
            Some(known) => *known = progress,
            None => self.known.push(progress),
        }
        let line = |p: &Progress| format!("{:<40.40}\t{}\t\n", shown(&p.name), p.event);
        let mut text: String = self.known.iter().map(line).collect();
        for target in self.known.iter().filter_map(|known| known.desc.as_ref()) {
            text.push_str(&format!("{} {}\n", target.media_type, target.digest));
        }
        let elapsed = format!("{:.1}", self.begun.elapsed().as_secs_f64());
        text.push_str(&format!("{}\telapsed: {elapsed:<4}s\ttotal:   0.0 B\t(0.0 B/s)\t\n", self.status));
        Some(text)
    }
}

/// A name with spaces for dashes and digests cut short.
fn shown(name: &str) -> String {
    let part = |part: &str| match part.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 => format!("({})", hex.chars().take(12).collect::<String>()),
        _ => part.to_owned(),
    };
    name.split('-').map(part).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_as_upstream_prints_it() {
        let mut board = Board { begun: Instant::now(), status: String::new(), known: Vec::new() };
        assert_eq!(board.take(Progress { event: "Importing".into(), ..Progress::default() }), None);
        let desc = api::containerd::types::Descriptor {
            media_type: "m".into(),
            digest: "d".into(),
            ..Default::default()
        };
        let saved = Progress {
            event: "saved".into(),
            name: "docker.io/library/busybox:1".into(),
            desc: Some(desc),
            ..Progress::default()
        };
        let wanted = "docker.io/library/busybox:1             \tsaved\t\nm d\n\
            Importing\telapsed: 0.0 s\ttotal:   0.0 B\t(0.0 B/s)\t\n";
        assert_eq!(board.take(saved).unwrap(), wanted);
    }
}
