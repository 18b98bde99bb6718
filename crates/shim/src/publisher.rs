//! Events for the daemon: journalled, sent one after the other, in order, when it is there.
//!
//! ```text
//!  push -> journal of the container (bundle) -> the oldest of all -> ttrpc Forward, answered -> out of the journal
//!                                                                 \-> `containerd publish`, where there is no ttrpc
//! ```
//!
//! The daemon answers requests of one connection side by side, so the next event is sent only when the last one was
//! answered. While the daemon is away the journals wait, however long; nothing polls while they are empty. An event that
//! was taken, but whose answer was lost, is sent again: the daemon knows it by its time and content.

mod handover;

use std::ffi::OsStr;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::containerd::services::events::ttrpc::v1::ForwardRequest;
use api::containerd::types::Envelope;
use api::ttrpc::{self, Kind as FrameKind, Request, Response};
use prost::Message;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sys::epoll::{Epoll, Ready};
use sys::pidfd::PidFd;
use types::{Class, Error, Result};

use crate::io::Captured;
use crate::journal::{Journal, Kept};
use crate::offload::memory_file;
use crate::token::{Kind, Token};
use crate::wire::{Frame, Peer, Wire};

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
/// An event that the daemon calls wrong so often is dropped, as it will be wrong for ever.
const ATTEMPTS: u32 = 5;
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(5);
const TOKEN: Token = Token { kind: Kind::Publisher, serial: 0 };

/// How the daemon is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Not at all: nobody said how.
    None,
    /// By its ttrpc socket.
    Ttrpc(PathBuf),
    /// By a program that knows how, and the daemon's gRPC socket.
    Program(PathBuf, String),
}

impl Way {
    /// The way that a daemon's addresses leave us.
    pub fn new(ttrpc: &str, program: &str, grpc: &str) -> Self {
        match (ttrpc.strip_prefix("unix://").unwrap_or(ttrpc), program) {
            ("", "") => Self::None,
            ("", program) => Self::Program(program.into(), grpc.to_owned()),
            (ttrpc, _) => Self::Ttrpc(ttrpc.into()),
        }
    }
}

/// The way to the daemon.
pub struct Publisher {
    way: Way,
    namespace: String,
    journals: Vec<Journal>,
    /// How many events there were.
    count: u64,
    wire: Option<Wire>,
    /// The order of the event that is on its way.
    in_flight: Option<u64>,
    stream: u32,
    attempts: u32,
    delay: Duration,
    complaints: Vec<String>,
    /// Whether it was said that a journal cannot be written.
    complained: bool,
}

/// When to call again.
#[derive(Debug, PartialEq, Eq)]
pub enum Again {
    /// When the socket is ready, or an event is queued.
    WhenReady,
    /// After this time.
    After(Duration),
    /// When the program has ended that was started, by [`Publisher::told`].
    Told(Box<Teller>),
}

/// A program that tells the daemon of an event.
#[derive(Debug)]
pub struct Teller(pub PidFd);

impl PartialEq for Teller {
    fn eq(&self, other: &Self) -> bool {
        self.0.pid() == other.0.pid()
    }
}

impl Eq for Teller {}

impl Publisher {
    /// Events of `namespace` go this way.
    pub fn new(way: Way, namespace: &str) -> Self {
        Self {
            way,
            namespace: namespace.to_owned(),
            journals: Vec::new(),
            count: 0,
            wire: None,
            in_flight: None,
            stream: 1,
            attempts: 0,
            delay: FIRST_DELAY,
            complaints: Vec::new(),
            complained: false,
        }
    }

    /// Queues an event of the container in `bundle`.
    pub fn push(&mut self, bundle: &Path, topic: &str, event: types::Any) {
        if self.way == Way::None {
            return;
        }
        let envelope = Envelope {
            timestamp: api::convert::timestamp(std::time::SystemTime::now()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(api::any::to_wire(event)),
        };
        self.count += 1;
        let index = self.journals.iter().position(|journal| journal.is_in(bundle)).unwrap_or_else(|| {
            self.journals.push(Journal::new(bundle));
            self.journals.len() - 1
        });
        let kept = self.journals.get_mut(index).map(|journal| journal.push(self.count, &envelope));
        if kept == Some(Kept::InMemory) && !self.complained {
            self.complained = true;
            self.complaints.push("events cannot be journalled and are kept in memory".to_owned());
        }
    }

    /// Whether everything was sent and taken.
    pub fn is_idle(&self) -> bool {
        self.journals.iter().all(|journal| journal.order().is_none())
    }

    /// What should be in the log.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// The daemon is back: do not wait longer.
    pub fn hurry(&mut self, epoll: &Epoll) -> Again {
        self.delay = FIRST_DELAY;
        self.advance(epoll)
    }

    /// Sends the next event, if none is on its way.
    pub fn advance(&mut self, epoll: &Epoll) -> Again {
        if self.in_flight.is_some() {
            return Again::WhenReady;
        }
        let Some((order, envelope)) = self.next() else {
            // Journals of containers that are gone; one that has more to say makes another.
            self.journals = Vec::new();
            return Again::WhenReady;
        };
        let begun = match &self.way {
            Way::None => return Again::WhenReady,
            Way::Ttrpc(_) => self.forward(&envelope, epoll).map(|()| Again::WhenReady),
            Way::Program(program, address) => {
                execute(program, address, &envelope).map(|child| Again::Told(Box::new(Teller(child))))
            }
        };
        match begun {
            Ok(again) => {
                self.in_flight = Some(order);
                again
            }
            Err(error) if error.class() == Class::InvalidArgument => {
                self.give_up(&error);
                self.advance(epoll)
            }
            Err(_) => self.lose(),
        }
    }

    /// The oldest event of all containers.
    fn next(&self) -> Option<(u64, Envelope)> {
        let of_journal = |journal: &Journal| Some((journal.order()?, journal.first()?.clone()));
        let oldest = self.journals.iter().filter(|j| j.order().is_some()).min_by_key(|j| j.order())?;
        of_journal(oldest)
    }

    fn forward(&mut self, envelope: &Envelope, epoll: &Epoll) -> Result<()> {
        let request = Request {
            service: SERVICE.into(),
            method: "Forward".into(),
            payload: ForwardRequest { envelope: Some(envelope.clone()) }.encode_to_vec(),
            timeout_nano: 0,
            metadata: vec![ttrpc::KeyValue { key: ttrpc::NAMESPACE.into(), value: self.namespace.clone() }],
        };
        let frame = ttrpc::frame(FrameKind::Request, self.stream, &request)
            .map_err(|error| error.reclass(Class::InvalidArgument))?;
        self.send(&frame, epoll).map_err(|e| Error::unavailable(e.to_string()))?;
        self.stream = self.stream.wrapping_add(2);
        Ok(())
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
                let response = Response::decode(message.as_slice());
                let response = response.map_err(|e| Error::unknown(format!("decode an answer: {e}")));
                answers.push(response.and_then(ttrpc::result).map(drop));
            }
        }
        let interest = if wire.has_unsent() { Ready::IN | Ready::OUT } else { Ready::IN };
        let watched = epoll.modify(&*wire, TOKEN.pack(), interest);
        for answer in answers {
            if let Some(delay) = self.answered(answer) {
                return Again::After(delay);
            }
        }
        if !matches!(peer, Ok(Peer::There)) || watched.is_err() {
            return self.lose();
        }
        self.advance(epoll)
    }

    /// The program that was to tell the daemon has ended.
    pub fn told(&mut self, success: bool, epoll: &Epoll) -> Again {
        let answer = if success { Ok(()) } else { Err(Error::unavailable("the daemon was not told")) };
        match self.answered(answer) {
            Some(delay) => Again::After(delay),
            None => self.advance(epoll),
        }
    }

    /// An event was answered; how long to wait before the next, if not at all.
    fn answered(&mut self, answer: Result<()>) -> Option<Duration> {
        let order = self.in_flight.take();
        match answer {
            Ok(()) => {
                self.delay = FIRST_DELAY;
                self.attempts = 0;
                self.pop(order);
                None
            }
            Err(error) => {
                let wrong = matches!(error.class(), Class::InvalidArgument | Class::Unimplemented);
                self.attempts = if wrong { self.attempts + 1 } else { 0 };
                if self.attempts >= ATTEMPTS {
                    self.give_up(&error);
                }
                Some(self.later())
            }
        }
    }

    fn give_up(&mut self, error: &Error) {
        let what = self.next().map(|(_, envelope)| envelope.topic).unwrap_or_default();
        self.complaints.push(format!("event {what} cannot be published and is dropped: {error}"));
        self.attempts = 0;
        self.pop(self.next().map(|(order, _)| order));
    }

    fn pop(&mut self, order: Option<u64>) {
        let taken = self.journals.iter_mut().find(|journal| order.is_some() && journal.order() == order);
        if let Some(journal) = taken {
            journal.pop();
        }
    }

    /// The connection is gone, or there is none: what was on its way is sent again.
    fn lose(&mut self) -> Again {
        self.wire = None;
        self.in_flight = None;
        if self.is_idle() { Again::WhenReady } else { Again::After(self.later()) }
    }

    fn later(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (delay * 2).min(LAST_DELAY);
        delay
    }

    fn send(&mut self, frame: &[u8], epoll: &Epoll) -> io::Result<()> {
        let Way::Ttrpc(address) = &self.way else { return Err(io::ErrorKind::NotConnected.into()) };
        let wire = match &mut self.wire {
            Some(wire) => wire,
            none => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                rustix::net::connect(&fd, &SocketAddrUnix::new(address)?)?;
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

/// Executes `containerd publish`, which reads the event from its standard input.
fn execute(program: &Path, address: &str, envelope: &Envelope) -> Result<PidFd> {
    let mut event = memory_file("shim-event")?;
    event.write_all(&envelope.event.clone().unwrap_or_default().encode_to_vec())?;
    event.seek(SeekFrom::Start(0))?;
    let output = memory_file("publish-output")?;
    let captured = Captured::new(&output)?;
    let [_, stdout, stderr] = captured.stdio();
    let words =
        ["--address", address, "publish", "--topic", &envelope.topic, "--namespace", &envelope.namespace];
    let mut args = vec![program.as_os_str()];
    args.extend(words.map(OsStr::new));
    let command = program.to_string_lossy();
    crate::runtime::external::spawn(&command, &args, Path::new("/"), [event.as_fd(), stdout, stderr])
        .map_err(|error| error.reclass(Class::Unavailable))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn event(n: u8) -> types::Any {
        types::Any::new("t", vec![n])
    }

    fn publisher(address: &Path) -> Publisher {
        Publisher::new(Way::new(address.to_str().unwrap(), "", ""), "ns")
    }

    /// Reads one Forward; its topic, and where the answer goes.
    fn receive(peer: &mut UnixStream) -> (String, u32) {
        let mut header = [0; ttrpc::HEADER];
        peer.read_exact(&mut header).unwrap();
        let header = ttrpc::Header::decode(&header);
        let mut message = vec![0; header.length];
        peer.read_exact(&mut message).unwrap();
        let request = Request::decode(message.as_slice()).unwrap();
        assert_eq!((request.service.as_str(), request.method.as_str()), (SERVICE, "Forward"));
        let forward = ForwardRequest::decode(request.payload.as_slice()).unwrap();
        (forward.envelope.unwrap().topic, header.stream)
    }

    fn answer(peer: &mut UnixStream, stream: u32, result: Result<Vec<u8>>) {
        peer.write_all(&ttrpc::frame(FrameKind::Response, stream, &ttrpc::response(result)).unwrap())
            .unwrap();
    }

    #[test]
    fn without_a_daemon_all_events_wait_in_order_over_all_containers() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, epoll) = (dir.path().join("s"), Epoll::new().unwrap());
        let bundles = ["a", "b"].map(|name| dir.path().join(name));
        bundles.iter().for_each(|bundle| std::fs::create_dir(bundle).unwrap());
        let mut publisher = publisher(&socket);
        for n in 0..5000 {
            publisher.push(&bundles[n % 2], &format!("/{n}"), event(1));
        }
        assert_eq!(publisher.advance(&epoll), Again::After(FIRST_DELAY));
        assert_eq!(publisher.advance(&epoll), Again::After(FIRST_DELAY * 2));
        let listener = UnixListener::bind(&socket).unwrap();
        publisher.hurry(&epoll);
        let (mut peer, _) = listener.accept().unwrap();
        for n in 0..5000 {
            let (topic, stream) = receive(&mut peer);
            assert_eq!(topic, format!("/{n}"));
            answer(&mut peer, stream, Ok(Vec::new()));
            publisher.ready(Ready::IN, &epoll);
        }
        assert!(publisher.is_idle() && publisher.complaints().is_empty());
    }

    #[test]
    fn an_event_is_sent_again_when_the_daemon_went_before_it_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let epoll = Epoll::new().unwrap();
        let mut publisher = publisher(&path);
        publisher.push(dir.path(), "/t", event(1));
        assert_eq!(publisher.advance(&epoll), Again::WhenReady);
        drop(listener.accept().unwrap());
        assert!(matches!(publisher.ready(Ready::IN, &epoll), Again::After(_)));
        assert_eq!(publisher.hurry(&epoll), Again::WhenReady);
        let (mut peer, _) = listener.accept().unwrap();
        let (topic, stream) = receive(&mut peer);
        assert_eq!(topic, "/t");
        answer(&mut peer, stream, Ok(Vec::new()));
        publisher.ready(Ready::IN, &epoll);
        assert!(publisher.is_idle());
    }

    #[test]
    fn only_an_event_that_is_wrong_for_ever_is_dropped_and_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let epoll = Epoll::new().unwrap();
        let mut publisher = publisher(&path);
        publisher.push(dir.path(), "/t", event(1));
        publisher.advance(&epoll);
        let (mut peer, _) = listener.accept().unwrap();
        let mut refuse = |publisher: &mut Publisher, error: Error| {
            let (_, stream) = receive(&mut peer);
            answer(&mut peer, stream, Err(error));
            assert!(matches!(publisher.ready(Ready::IN, &epoll), Again::After(_)));
            publisher.advance(&epoll);
        };
        for _ in 0..3 * ATTEMPTS {
            refuse(&mut publisher, Error::unavailable("not now"));
        }
        assert!(!publisher.is_idle());
        for _ in 0..ATTEMPTS {
            refuse(&mut publisher, Error::invalid("bad topic"));
        }
        assert!(publisher.is_idle());
        assert_eq!(publisher.complaints().len(), 1);
    }

    #[test]
    fn the_way_is_the_socket_if_there_is_one_and_else_the_program() {
        assert_eq!(Way::new("unix:///s", "/p", "/g"), Way::Ttrpc("/s".into()));
        assert_eq!(Way::new("", "/p", "/g"), Way::Program("/p".into(), "/g".into()));
        assert_eq!(Way::new("", "", "/g"), Way::None);
    }
}
