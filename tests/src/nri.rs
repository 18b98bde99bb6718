//! An NRI plugin, from the wire up: frames of two connections over one socket, ttrpc in both of them.
//!
//! It shares nothing with the daemon but the messages, so that what the daemon says is checked against the protocol.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::nri as wire;
use api::ttrpc::{HEADER, Header, Kind, Request, Response};
use prost::Message;

use crate::deadline;

/// The connection by which the daemon calls the plugin, and that by which the plugin calls the daemon.
const PLUGIN: u32 = 1;
const RUNTIME: u32 = 2;

/// What is answered to a method and its message; an empty message if nothing.
pub type Answer = dyn Fn(&str, &[u8]) -> Option<Vec<u8>> + Send;

/// A plugin that is connected. Dropping it is going away without a word.
pub struct Plugin {
    socket: UnixStream,
    heard: Arc<Mutex<Vec<String>>>,
    answers: Receiver<Response>,
    next: Mutex<u32>,
}

impl Plugin {
    /// Connects, and registers `NN-name` for `events`; none is all of them.
    ///
    /// # Panics
    /// If the daemon does not take it.
    pub fn connect(socket: &Path, name: &str, events: &[wire::Event], answer: Box<Answer>) -> Self {
        let socket = UnixStream::connect(socket).expect("connect to NRI");
        let (sender, answers) = channel();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let peer = Peer {
            socket: socket.try_clone().expect("clone a socket"),
            events: events.iter().fold(0, |mask, event| mask | 1 << (*event as i32 - 1)),
            heard: Arc::clone(&heard),
            answers: sender,
            answer,
        };
        std::thread::spawn(move || peer.run());
        let plugin = Self { socket, heard, answers, next: Mutex::new(1) };
        let (index, name) = name.split_once('-').expect("an index and a name");
        let request = wire::RegisterPluginRequest {
            plugin_name: name.to_owned(),
            plugin_idx: index.to_owned(),
            nri_version: String::new(),
        };
        plugin.call("RegisterPlugin", &request).expect("register");
        plugin
    }

    /// Calls the daemon.
    ///
    /// # Errors
    /// What it answers.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn call(&self, method: &str, request: &impl Message) -> Result<Vec<u8>, String> {
        let request = Request {
            service: "nri.pkg.api.v1alpha1.Runtime".to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            ..Request::default()
        };
        let mut next = self.next.lock().expect("a number");
        let frame = api::ttrpc::frame(Kind::Request, *next, &request).expect("a frame");
        *next += 2;
        send(&self.socket, RUNTIME, &frame).expect("send");
        let answer =
            self.answers.recv_timeout(deadline::patient(Duration::from_secs(30))).expect("an answer");
        match answer.status.filter(|status| status.code != 0) {
            Some(status) => Err(status.message),
            None => Ok(answer.payload),
        }
    }

    /// The methods that were called, in their order.
    ///
    /// # Panics
    /// If the plugin's own thread has panicked.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("what was heard").clone()
    }

    /// Whether a method was called.
    pub fn has_heard(&self, method: &str) -> bool {
        self.heard().iter().any(|heard| heard == method)
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// The reading side, on a thread of its own.
struct Peer {
    socket: UnixStream,
    events: i32,
    heard: Arc<Mutex<Vec<String>>>,
    answers: Sender<Response>,
    answer: Box<Answer>,
}

impl Peer {
    /// Until the daemon goes.
    fn run(mut self) {
        let (mut calls, mut answers) = (Vec::new(), Vec::new());
        while let Some((number, bytes)) = self.frame() {
            match number {
                PLUGIN => calls.extend(bytes),
                RUNTIME => answers.extend(bytes),
                other => panic!("a frame of connection {other}"),
            }
            while let Some((header, message)) = take(&mut calls) {
                let request = Request::decode(message.as_slice()).expect("a request");
                assert_eq!(
                    (header.kind, request.service.as_str()),
                    (Kind::Request, "nri.pkg.api.v1alpha1.Plugin")
                );
                let response = Response { payload: self.serve(&request), ..Response::default() };
                let frame = api::ttrpc::frame(Kind::Response, header.stream, &response).expect("a frame");
                if send(&self.socket, PLUGIN, &frame).is_err() {
                    return;
                }
            }
            while let Some((header, message)) = take(&mut answers) {
                assert_eq!(header.kind, Kind::Response);
                let _ = self.answers.send(Response::decode(message.as_slice()).expect("a response"));
            }
        }
    }

    fn frame(&mut self) -> Option<(u32, Vec<u8>)> {
        let mut header = [0; 8];
        self.socket.read_exact(&mut header).ok()?;
        let [a, b, c, d, e, f, g, h] = header;
        let mut bytes = vec![0; u32::from_be_bytes([e, f, g, h]) as usize];
        self.socket.read_exact(&mut bytes).ok()?;
        Some((u32::from_be_bytes([a, b, c, d]), bytes))
    }

    fn serve(&self, request: &Request) -> Vec<u8> {
        let method = request.method.as_str();
        let answer = (self.answer)(method, &request.payload).unwrap_or_else(|| match method {
            "Configure" => wire::ConfigureResponse { events: self.events }.encode_to_vec(),
            "Synchronize" => {
                let more =
                    wire::SynchronizeRequest::decode(request.payload.as_slice()).expect("a request").more;
                wire::SynchronizeResponse { more, ..Default::default() }.encode_to_vec()
            }
            _ => Vec::new(),
        });
        self.heard.lock().expect("what was heard").push(method.to_owned());
        answer
    }
}

/// A whole message, taken off the front.
fn take(bytes: &mut Vec<u8>) -> Option<(Header, Vec<u8>)> {
    let header = Header::decode(bytes.first_chunk::<HEADER>()?);
    let end = HEADER + header.length;
    let message = bytes.get(HEADER..end)?.to_vec();
    bytes.drain(..end);
    Some((header, message))
}

fn send(mut socket: &UnixStream, number: u32, bytes: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(bytes.len()).expect("a length");
    let frame = [&number.to_be_bytes(), &length.to_be_bytes(), bytes].concat();
    socket.write_all(&frame)
}
