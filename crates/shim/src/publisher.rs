//! Events for the daemon: queued, sent one after the other, in order, when it is there.
//!
//! The daemon answers requests of one connection side by side, so the next event is sent only when the last one was
//! answered. While the daemon is away the queue waits, bounded; nothing polls while it is empty.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use api::containerd::services::events::ttrpc::v1::ForwardRequest;
use api::containerd::types::Envelope;
use api::ttrpc::{self, Kind as FrameKind, Request, Response};
use prost::Message;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sys::epoll::{Epoll, Ready};

use crate::token::{Kind, Token};
use crate::wire::{Frame, Peer, Wire};

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
/// As many as upstream keeps.
const QUEUE: usize = 2048;
/// An event that the daemon refuses so often is dropped.
const ATTEMPTS: u32 = 5;
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(5);
const TOKEN: Token = Token { kind: Kind::Publisher, serial: 0 };

/// The way to the daemon.
pub struct Publisher {
    address: String,
    namespace: String,
    queue: VecDeque<Vec<u8>>,
    wire: Option<Wire>,
    in_flight: bool,
    stream: u32,
    attempts: u32,
    delay: Duration,
    /// Events that were thrown away, and not reported yet.
    pub dropped: u32,
}

/// When to call again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// When the socket is ready, or an event is queued.
    WhenReady,
    /// After this time.
    After(Duration),
}

impl Publisher {
    /// Events of `namespace` go to the ttrpc socket `address`; nowhere if it is empty.
    pub fn new(address: &str, namespace: &str) -> Self {
        Self {
            address: address.strip_prefix("unix://").unwrap_or(address).to_owned(),
            namespace: namespace.to_owned(),
            queue: VecDeque::new(),
            wire: None,
            in_flight: false,
            stream: 1,
            attempts: 0,
            delay: FIRST_DELAY,
            dropped: 0,
        }
    }

    /// Queues an event.
    pub fn push(&mut self, topic: &str, event: types::Any) {
        if self.address.is_empty() {
            return;
        }
        if self.queue.len() >= QUEUE {
            // The oldest one goes, but not the one that is being sent.
            self.queue.remove(usize::from(self.in_flight));
            self.dropped += 1;
        }
        let envelope = Envelope {
            timestamp: api::convert::timestamp(std::time::SystemTime::now()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(api::any::to_wire(event)),
        };
        self.queue.push_back(ForwardRequest { envelope: Some(envelope) }.encode_to_vec());
    }

    /// Whether everything was sent and taken.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The daemon is back: do not wait longer.
    pub fn hurry(&mut self, epoll: &Epoll) -> Again {
        self.delay = FIRST_DELAY;
        self.advance(epoll)
    }

    /// Sends the next event, if none is on its way.
    pub fn advance(&mut self, epoll: &Epoll) -> Again {
        let Some(event) = self.queue.front() else {
            self.queue = VecDeque::new();
            return Again::WhenReady;
        };
        if self.in_flight {
            return Again::WhenReady;
        }
        let request = Request {
            service: SERVICE.into(),
            method: "Forward".into(),
            payload: event.clone(),
            timeout_nano: 0,
            metadata: vec![ttrpc::KeyValue { key: ttrpc::NAMESPACE.into(), value: self.namespace.clone() }],
        };
        let Ok(frame) = ttrpc::frame(FrameKind::Request, self.stream, &request) else {
            self.give_up();
            return self.advance(epoll);
        };
        match self.send(&frame, epoll) {
            Ok(()) => {
                self.in_flight = true;
                self.stream = self.stream.wrapping_add(2);
                Again::WhenReady
            }
            Err(_) => self.lose(),
        }
    }

    /// Reads the answers.
    pub fn ready(&mut self, ready: Ready, epoll: &Epoll) -> Again {
        let Some(wire) = &mut self.wire else { return Again::WhenReady };
        let mut peer = wire.flush();
        if ready.intersects(Ready::IN | Ready::HUP | Ready::ERR) && matches!(peer, Ok(Peer::There)) {
            peer = wire.receive();
        }
        let mut answers = Vec::new();
        while let Some(frame) = wire.next_frame() {
            if let Frame::Message(header, message) = frame
                && header.kind == FrameKind::Response
            {
                answers.push(Response::decode(message.as_slice()).is_ok_and(|r| ttrpc::result(r).is_ok()));
            }
        }
        let interest = if wire.has_unsent() { Ready::IN | Ready::OUT } else { Ready::IN };
        let watched = epoll.modify(&*wire, TOKEN.pack(), interest);
        for taken in answers {
            if !self.answered(taken) {
                return Again::After(LAST_DELAY / 5);
            }
        }
        if !matches!(peer, Ok(Peer::There)) || watched.is_err() {
            return self.lose();
        }
        self.advance(epoll)
    }

    /// An event was answered; whether to go on at once.
    fn answered(&mut self, taken: bool) -> bool {
        self.in_flight = false;
        self.delay = FIRST_DELAY;
        if taken {
            self.queue.pop_front();
            self.attempts = 0;
            return true;
        }
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            self.give_up();
        }
        false
    }

    fn give_up(&mut self) {
        self.queue.pop_front();
        self.attempts = 0;
        self.dropped += 1;
    }

    /// The connection is gone, or there is none: what was on its way is sent again.
    fn lose(&mut self) -> Again {
        self.wire = None;
        self.in_flight = false;
        if self.queue.is_empty() {
            return Again::WhenReady;
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(LAST_DELAY);
        Again::After(delay)
    }

    fn send(&mut self, frame: &[u8], epoll: &Epoll) -> io::Result<()> {
        let wire = match &mut self.wire {
            Some(wire) => wire,
            none => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                rustix::net::connect(&fd, &SocketAddrUnix::new(self.address.as_str())?)?;
                epoll.add(&fd, TOKEN.pack(), Ready::IN)?;
                none.insert(Wire::new(fd))
            }
        };
        if wire.send(frame)? == Peer::Gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if wire.has_unsent() {
            epoll.modify(&*wire, TOKEN.pack(), Ready::IN | Ready::OUT)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    fn event(n: u8) -> types::Any {
        types::Any::new("t", vec![n])
    }

    #[test]
    fn without_a_daemon_events_wait_and_the_oldest_are_dropped() {
        let epoll = Epoll::new().unwrap();
        let mut publisher = Publisher::new("/nonexistent/socket", "ns");
        publisher.push("/t", event(1));
        assert_eq!(publisher.advance(&epoll), Again::After(FIRST_DELAY));
        assert_eq!(publisher.advance(&epoll), Again::After(FIRST_DELAY * 2));
        for _ in 0..QUEUE {
            publisher.push("/t", event(2));
        }
        assert_eq!((publisher.queue.len(), publisher.dropped), (QUEUE, 1));
    }

    #[test]
    fn an_event_is_sent_again_when_the_daemon_went_before_it_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let epoll = Epoll::new().unwrap();
        let mut publisher = Publisher::new(path.to_str().unwrap(), "ns");
        publisher.push("/t", event(1));
        assert_eq!(publisher.advance(&epoll), Again::WhenReady);
        drop(listener.accept().unwrap());
        assert!(matches!(publisher.ready(Ready::IN, &epoll), Again::After(_)));
        assert_eq!(publisher.hurry(&epoll), Again::WhenReady);
        let (mut peer, _) = listener.accept().unwrap();
        let mut header = [0; ttrpc::HEADER];
        peer.read_exact(&mut header).unwrap();
        let header = ttrpc::Header::decode(&header);
        let mut message = vec![0; header.length];
        peer.read_exact(&mut message).unwrap();
        let request = Request::decode(message.as_slice()).unwrap();
        assert_eq!((request.service.as_str(), request.method.as_str()), (SERVICE, "Forward"));
        let forward = ForwardRequest::decode(request.payload.as_slice()).unwrap();
        assert_eq!(forward.envelope.unwrap().topic, "/t");
        let answer = ttrpc::frame(FrameKind::Response, header.stream, &Response::default()).unwrap();
        peer.write_all(&answer).unwrap();
        publisher.ready(Ready::IN, &epoll);
        assert!(publisher.is_idle());
    }
}
