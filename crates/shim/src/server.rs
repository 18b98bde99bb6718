//! The ttrpc server: clients of the shim's socket, their requests, and the answers to them.

mod handover;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use api::ttrpc::{self, Kind as FrameKind, Request};
use prost::Message;
use rustix::net::{SocketFlags, accept_with};
use sys::epoll::{Epoll, Ready};
use types::{Error, Result};

use crate::call::Call;
use crate::token::{Kind, Token};
use crate::wire::{Frame, Peer, Wire};

/// The listening socket and who is connected to it.
pub struct Server {
    listener: Option<OwnedFd>,
    clients: BTreeMap<u64, Client>,
    next: u64,
    /// Whether accepting is paused because descriptors ran out.
    paused: bool,
}

struct Client {
    wire: Wire,
    interest: Ready,
}

/// What a client's readiness brought.
pub struct Arrived {
    /// Its requests, in order.
    pub requests: Vec<(Call, Result<Request>)>,
    /// Whether it has gone, after these.
    pub gone: bool,
}

const LISTENER: Token = Token { kind: Kind::Listener, serial: 0 };

fn token(client: u64) -> u64 {
    Token { kind: Kind::Client, serial: client }.pack()
}

impl Server {
    /// Serves on a listening, non-blocking socket.
    pub fn new(listener: OwnedFd, epoll: &Epoll) -> io::Result<Self> {
        epoll.add(&listener, LISTENER.pack(), Ready::IN)?;
        Ok(Self { listener: Some(listener), clients: BTreeMap::new(), next: 1, paused: false })
    }

    /// Accepts whoever waits, if he has our user id.
    pub fn accept(&mut self, epoll: &Epoll) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        loop {
            match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(fd) => {
                    let peer = rustix::net::sockopt::socket_peercred(&fd)?;
                    if peer.uid != rustix::process::geteuid() {
                        continue;
                    }
                    let (wire, client) = (Wire::new(fd), self.next);
                    self.next += 1;
                    epoll.add(&wire, token(client), Ready::IN)?;
                    self.clients.insert(client, Client { wire, interest: Ready::IN });
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                    // Who waits stays in the queue until a descriptor is free; asking again at once would spin.
                    epoll.remove(listener)?;
                    self.paused = true;
                    return Ok(());
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Reads and writes what a client's readiness allows.
    pub fn ready(&mut self, id: u64, ready: Ready, epoll: &Epoll) -> Arrived {
        let mut arrived = Arrived { requests: Vec::new(), gone: false };
        let Some(client) = self.clients.get_mut(&id) else { return arrived };
        let mut peer = Ok(Peer::There);
        if ready.contains(Ready::OUT) {
            peer = client.wire.flush();
        }
        if matches!(peer, Ok(Peer::There)) && ready.intersects(Ready::IN | Ready::HUP | Ready::ERR) {
            peer = client.wire.receive();
        }
        while let Some(frame) = client.wire.next_frame() {
            arrived.requests.extend(request(id, frame));
        }
        arrived.gone = !matches!(peer, Ok(Peer::There)) || client.watch(id, epoll).is_err();
        arrived
    }

    /// Answers a call; the answer to a client that has gone is dropped.
    pub fn reply(&mut self, call: Call, result: Result<Vec<u8>>, epoll: &Epoll) {
        let Some(client) = self.clients.get_mut(&call.client) else { return };
        let response = ttrpc::response(result);
        let frame = ttrpc::frame(FrameKind::Response, call.stream, &response)
            .or_else(|e| ttrpc::frame(FrameKind::Response, call.stream, &ttrpc::response(Err(e))));
        if let Ok(frame) = frame {
            // A client that has gone is found out by its next readiness, which closes it in one place.
            let _ = client.wire.send(&frame);
            let _ = client.watch(call.client, epoll);
        }
    }

    /// Closes a client that has gone.
    pub fn close(&mut self, id: u64, epoll: &Epoll) {
        self.clients.remove(&id);
        if let (true, Some(listener)) = (self.paused, &self.listener) {
            self.paused = epoll.add(listener, LISTENER.pack(), Ready::IN).is_err();
        }
    }

    /// Closes the listening socket: nobody new is served.
    pub fn stop_listening(&mut self) {
        self.listener = None;
    }

    /// Whether an answer is still on its way.
    pub fn has_unsent(&self) -> bool {
        self.clients.values().any(|c| c.wire.has_unsent())
    }
}

impl Client {
    /// Watches for what can go on: reading unless answers pile up, writing while some wait.
    fn watch(&mut self, id: u64, epoll: &Epoll) -> io::Result<()> {
        let mut interest = Ready::empty();
        interest.set(Ready::IN, !self.wire.is_clogged());
        interest.set(Ready::OUT, self.wire.has_unsent());
        if interest != self.interest {
            epoll.modify(&self.wire, token(id), interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}

/// A frame as a request, or as what is to be answered to it; frames that ask for nothing are none.
fn request(client: u64, frame: Frame) -> Option<(Call, Result<Request>)> {
    match frame {
        Frame::TooLarge(header) => {
            Some((Call { client, stream: header.stream }, Err(ttrpc::too_large(header.length))))
        }
        Frame::Message(header, message) => {
            let call = Call { client, stream: header.stream };
            if header.stream % 2 == 0 {
                return Some((
                    call,
                    Err(Error::invalid("StreamID must be odd for client initiated streams")),
                ));
            }
            match header.kind {
                FrameKind::Request => {
                    let request = Request::decode(message.as_slice());
                    Some((call, request.map_err(|e| Error::invalid(format!("unmarshal request: {e}")))))
                }
                // Data belongs to streaming methods, of which there are none here.
                FrameKind::Response | FrameKind::Data | FrameKind::Other(_) => None,
            }
        }
    }
}
