//! A client's connection, which gives its word that what it was given is written.
//!
//! An event counts as told when it cannot be lost with the daemon any more: when the kernel has it. Between the stream of
//! events and the kernel are HTTP/2's queues, which say nothing; but what they do with the connection shows it:
//!
//! ```text
//!   a stream is asked for more     what it gave before is in the queues: its receipts are handed in, and the connection woken
//!   read: nothing there            a turn begins: whatever was in the queues before is written in it
//!   write, write, flush            ... it ends with a flush, unless the client takes no more for now
//!   read: nothing there            if the last word of the turn was a flush, the receipts of before it are dropped
//! ```
//!
//! A client that has not even read what HTTP/2's window allows may miss the end of an event: it does not read, and is
//! waited for by nobody.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use types::events::Receipt;

use crate::authority::Inward;

/// A stream of bytes to a client.
pub struct Connection<S> {
    stream: S,
    ledger: Ledger,
    inward: Inward,
}

/// Receipts for what a connection was given. Cloning shares it.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Given since the turn began.
    given: Vec<Receipt>,
    /// Given before it began.
    due: Vec<Receipt>,
    /// Whether everything of this turn is written.
    flushed: bool,
    /// Wakes the connection.
    waker: Option<Waker>,
    /// Nobody reads any more.
    closed: bool,
}

impl Ledger {
    /// Takes receipts for what is in the connection's queues, to be dropped when it is written.
    pub fn hand_in(&self, receipts: &mut Vec<Receipt>) {
        let mut state = self.lock();
        if receipts.is_empty() || state.closed {
            return receipts.clear();
        }
        state.given.append(receipts);
        state.wake();
    }

    fn turn(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        if std::mem::take(&mut state.flushed) {
            state.due.clear();
        }
        let State { given, due, .. } = &mut *state;
        due.append(given);
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none @ None => *none = Some(cx.waker().clone()),
        }
        if !state.due.is_empty() {
            // One more turn, to see how this one ended.
            state.wake();
        }
    }

    fn flushed(&self, is: bool) {
        self.lock().flushed = is;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&self) {
        self.waker.iter().for_each(Waker::wake_by_ref);
    }
}

impl<S> Connection<S> {
    /// A connection that was given nothing yet.
    pub fn new(stream: S) -> Self {
        Self { stream, ledger: Ledger::default(), inward: Inward::default() }
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        *self.ledger.lock() = State { closed: true, ..State::default() };
    }
}

/// A call finds its connection's ledger among its extensions.
impl<S> Connected for Connection<S> {
    type ConnectInfo = Ledger;

    fn connect_info(&self) -> Ledger {
        self.ledger.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, ledger, inward } = &mut *self;
        let read = inward.poll_read(Pin::new(stream), cx, buf);
        if read.is_pending() {
            ledger.turn(cx);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.ledger.flushed(false);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.ledger.flushed(false);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.ledger.flushed(flushed.is_ok());
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use types::events::{Delivery, Exchange};

    use super::*;

    /// An event on its way, and the receipt of who has it in his hands.
    fn event() -> (Delivery, Vec<Receipt>) {
        let bus = Exchange::new();
        let mut client = bus.catch_up();
        let envelope = types::events::Envelope {
            timestamp: std::time::SystemTime::now(),
            namespace: "default".into(),
            topic: "/tasks/oom".into(),
            event: types::Any::default(),
        };
        let delivery = bus.forward_once(envelope).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(std::pin::pin!(client.next()).poll(&mut cx).is_ready());
        (delivery, client.receipt().into_iter().collect())
    }

    fn is_taken(delivery: &mut Delivery) -> bool {
        std::pin::pin!(delivery.taken()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    struct Peer {
        connection: Connection<tokio::io::DuplexStream>,
        other: tokio::io::DuplexStream,
    }

    impl Peer {
        fn new() -> Self {
            let (one, other) = tokio::io::duplex(4);
            Self { connection: Connection::new(one), other }
        }

        fn reads(&mut self) {
            let mut buffer = [0; 8];
            let mut cx = Context::from_waker(Waker::noop());
            let read = Pin::new(&mut self.connection).poll_read(&mut cx, &mut ReadBuf::new(&mut buffer));
            assert!(read.is_pending());
        }

        fn writes(&mut self, text: &[u8]) -> bool {
            let mut cx = Context::from_waker(Waker::noop());
            Pin::new(&mut self.connection).poll_write(&mut cx, text).is_ready()
        }

        fn flushes(&mut self) {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut self.connection).poll_flush(&mut cx).is_ready());
        }
    }

    #[tokio::test]
    async fn what_was_given_in_the_middle_of_a_turn_is_written_in_the_next_one() {
        let (mut delivery, mut receipts) = event();
        let mut peer = Peer::new();
        peer.reads();
        peer.connection.connect_info().hand_in(&mut receipts);
        peer.flushes();
        peer.reads();
        assert!(!is_taken(&mut delivery), "that flush may have been of before");
        assert!(peer.writes(b"abcd"));
        peer.flushes();
        assert!(!is_taken(&mut delivery), "more may come in this turn");
        peer.reads();
        assert!(is_taken(&mut delivery));
    }

    #[tokio::test]
    async fn a_client_that_takes_no_more_has_nothing_yet() {
        use tokio::io::AsyncReadExt;

        let (mut delivery, mut receipts) = event();
        let mut peer = Peer::new();
        peer.connection.connect_info().hand_in(&mut receipts);
        peer.reads();
        assert!(peer.writes(b"abcd"));
        peer.flushes();
        assert!(!peer.writes(b"e"));
        peer.reads();
        assert!(!is_taken(&mut delivery));
        peer.other.read_exact(&mut [0; 4]).await.unwrap();
        assert!(peer.writes(b"e"));
        peer.flushes();
        peer.reads();
        assert!(is_taken(&mut delivery));
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_not_waited_for() {
        let (mut delivery, mut receipts) = event();
        let (mut late, mut more) = event();
        let peer = Peer::new();
        let ledger = peer.connection.connect_info();
        ledger.hand_in(&mut receipts);
        drop(peer);
        ledger.hand_in(&mut more);
        assert!(is_taken(&mut delivery) && is_taken(&mut late));
    }
}
