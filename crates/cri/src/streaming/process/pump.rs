//! Output of a process, from its FIFO to where it goes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::streaming::connection::{Outbound, PIECE};

/// How much others may still say when the process has ended.
const AFTERWARDS: usize = 16 << 20;

/// How long output may be held open by others when the process has ended.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// So long it may take, not counting what a slow client takes.
    pub limit: Duration,
    /// Whether it is an error that it is held open longer.
    pub strict: bool,
}

impl Patience {
    /// What the process itself has said is there at once; who else has its output, in the background, has never been waited for.
    pub const DEFAULT: Self = Self { limit: Duration::from_secs(1), strict: false };
}

/// Where output goes.
#[derive(Debug)]
pub enum Sink {
    /// Nowhere.
    Nowhere,
    /// To a client.
    Client(Outbound),
    /// Into memory, up to a limit, the rest nowhere.
    Memory(Vec<u8>, usize),
}

impl From<Option<Outbound>> for Sink {
    fn from(client: Option<Outbound>) -> Self {
        client.map_or(Self::Nowhere, Self::Client)
    }
}

impl Sink {
    /// What was kept in memory.
    pub fn kept(self) -> Vec<u8> {
        match self {
            Self::Memory(kept, _) => kept,
            Self::Nowhere | Self::Client(_) => Vec::new(),
        }
    }

    async fn put(&mut self, bytes: Bytes) {
        match self {
            Self::Nowhere => {}
            // Nobody wants it any more. The process shall not notice.
            Self::Client(client) => {
                if client.send(bytes).await.is_err() {
                    *self = Self::Nowhere;
                }
            }
            Self::Memory(kept, limit) => {
                let room = limit.saturating_sub(kept.len()).min(bytes.len());
                kept.extend_from_slice(&bytes[..room]);
            }
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Drained {
    /// Where it went.
    pub sink: Sink,
    /// Whether others still have it open.
    pub held: bool,
}

/// Copies output until its end, or until patience is over: `exited` tells when the process ended.
pub async fn pump(
    from: Option<Receiver>,
    mut sink: Sink,
    mut exited: watch::Receiver<Option<Instant>>,
    patience: Patience,
) -> Drained {
    let Some(mut from) = from else { return Drained { sink, held: false } };
    let held = copy(&mut from, &mut sink, &mut exited, patience.limit).await;
    if let Sink::Client(client) = sink {
        client.finish().await;
        sink = Sink::Nowhere;
    }
    Drained { sink, held }
}

/// Whether others still have it open.
async fn copy(
    from: &mut Receiver,
    sink: &mut Sink,
    exited: &mut watch::Receiver<Option<Instant>>,
    limit: Duration,
) -> bool {
    let mut buffer = BytesMut::new();
    let (mut waited, mut afterwards) = (Duration::ZERO, 0);
    loop {
        let begin = Instant::now();
        let over = async {
            // Whoever was to tell is gone with the exec.
            drop(exited.wait_for(Option::is_some).await);
            sleep(limit.saturating_sub(waited)).await;
        };
        tokio::select! {
            biased;
            ready = from.readable() => if ready.is_err() { return false },
            () = over => return true,
        }
        if let Some(exit) = *exited.borrow() {
            waited += Instant::now().saturating_duration_since(begin.max(exit));
        }
        if buffer.capacity() < PIECE / 16 {
            buffer.reserve(PIECE);
        }
        match from.try_read_buf(&mut buffer) {
            Ok(0) => return false,
            Ok(read) if exited.borrow().is_some() => afterwards += read,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return false,
        }
        if afterwards > AFTERWARDS {
            return true;
        }
        sink.put(buffer.split().freeze()).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::unix::pipe;

    use super::*;

    fn memory(limit: usize) -> Sink {
        Sink::Memory(Vec::new(), limit)
    }

    fn kept(drained: Drained) -> (Vec<u8>, bool) {
        match drained.sink {
            Sink::Memory(kept, _) => (kept, drained.held),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn output_is_kept_up_to_a_limit_and_read_to_its_end() {
        let (mut writer, reader) = pipe::pipe().unwrap();
        let (_tell, exited) = watch::channel(None);
        let pump = tokio::spawn(pump(Some(reader), memory(100_000), exited, Patience::DEFAULT));
        for _ in 0..50 {
            writer.write_all(&[b'x'; 10_000]).await.unwrap();
        }
        drop(writer);
        assert_eq!(kept(pump.await.unwrap()), (vec![b'x'; 100_000], false));
    }

    #[tokio::test]
    async fn nobody_is_waited_for_who_holds_the_output_of_a_process_that_has_ended() {
        let (mut writer, reader) = pipe::pipe().unwrap();
        let (tell, exited) = watch::channel(None);
        let pump = tokio::spawn(pump(Some(reader), memory(100), exited, Patience::DEFAULT));
        sleep(Duration::from_millis(200)).await;
        writer.write_all(b"last words").await.unwrap();
        let exit = Instant::now();
        tell.send_replace(Some(exit));
        assert_eq!(kept(pump.await.unwrap()), (b"last words".to_vec(), true));
        assert!(exit.elapsed() >= Patience::DEFAULT.limit);
    }

    #[tokio::test]
    async fn who_never_stops_talking_is_not_listened_to_for_ever() {
        let (mut writer, reader) = pipe::pipe().unwrap();
        let (_tell, exited) = watch::channel(Some(Instant::now()));
        let pump = tokio::spawn(pump(Some(reader), memory(10), exited, Patience::DEFAULT));
        while writer.write_all(&[0; 10_000]).await.is_ok() {}
        assert!(kept(pump.await.unwrap()).1);
    }
}
