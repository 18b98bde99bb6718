//! Clients of the server, made of its own words.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::streaming::spdy::headers::tests::Deflater;
use crate::streaming::spdy::{Decoder, Event, encode};
use crate::streaming::websocket::frame::tests::{masked, unframe};

pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
pub type Wire = Box<dyn Duplex>;

const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");

/// Asks for an upgrade; the answer's head in lower case, the connection, and what came after the head.
pub async fn upgrade(method: &str, url: &str, headers: &[(&str, &str)]) -> (String, Wire, BytesMut) {
    let address = url.split('/').nth(2).unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    ask(Box::new(socket), method, url, headers).await
}

async fn ask(mut wire: Wire, method: &str, url: &str, headers: &[(&str, &str)]) -> (String, Wire, BytesMut) {
    let path = format!("/{}", url.splitn(4, '/').nth(3).unwrap());
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: 0\r\n\r\n");
    wire.write_all(request.as_bytes()).await.unwrap();
    let mut answer = BytesMut::new();
    loop {
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = answer.split_to(end + 4);
            return (String::from_utf8_lossy(&head).to_lowercase(), wire, answer);
        }
        assert_ne!(wire.read_buf(&mut answer).await.unwrap(), 0, "no answer");
    }
}

/// The status of an answer.
pub fn refused(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// A client that speaks SPDY.
pub struct Spdy {
    read: ReadHalf<Wire>,
    write: WriteHalf<Wire>,
    outer: BytesMut,
    buffer: BytesMut,
    decoder: Decoder,
    deflater: Deflater,
    next: u32,
    tunnel: bool,
    names: HashMap<String, u32>,
    heard: HashMap<u32, (Vec<u8>, bool)>,
}

impl Spdy {
    /// Opens a connection, in a WebSocket if the protocol says so.
    pub async fn open(url: &str, protocol: &str) -> Self {
        let address = url.split('/').nth(2).unwrap();
        Self::over(Box::new(TcpStream::connect(address).await.unwrap()), url, protocol).await
    }

    async fn over(wire: Wire, url: &str, protocol: &str) -> Self {
        let tunnel = protocol.starts_with("SPDY");
        let spdy =
            [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocol)];
        let socket = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            KEY,
            ("sec-websocket-protocol", protocol),
        ];
        let (method, headers) = if tunnel { ("GET", &socket[..]) } else { ("POST", &spdy[..]) };
        let (head, wire, early) = ask(wire, method, url, headers).await;
        assert_eq!(refused(&head), 101, "{head}");
        assert!(head.contains(&protocol.to_lowercase()), "{head}");
        let (read, write) = tokio::io::split(wire);
        let (outer, buffer) = if tunnel { (early, BytesMut::new()) } else { (BytesMut::new(), early) };
        let (names, heard) = Default::default();
        let (decoder, deflater) = (Decoder::default(), Deflater::new());
        Self { read, write, outer, buffer, decoder, deflater, next: 1, tunnel, names, heard }
    }

    /// Opens a connection with an error stream and `streams`.
    pub async fn exec(url: &str, protocol: &str, streams: &[&str]) -> Self {
        Self::open(url, protocol).await.with(streams).await
    }

    /// The same over TLS, whose certificate is known.
    pub async fn exec_tls(
        url: &str,
        certificate: CertificateDer<'static>,
        protocol: &str,
        streams: &[&str],
    ) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = TcpStream::connect(url.split('/').nth(2).unwrap()).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        Self::over(Box::new(tls), url, protocol).await.with(streams).await
    }

    async fn with(mut self, streams: &[&str]) -> Self {
        for name in [&["error"], streams].concat() {
            let id = self.stream(&[("streamtype", name)]).await;
            self.names.insert(name.to_owned(), id);
        }
        self
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        let framed = if self.tunnel { masked(0x82, bytes) } else { bytes.to_vec() };
        self.write.write_all(&framed).await.unwrap();
    }

    /// Opens a stream.
    pub async fn stream(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next;
        self.next += 2;
        let block = self.deflater.headers(headers);
        let frame = encode::control(1, &[&id.to_be_bytes()[..], &[0; 6], &block].concat());
        self.raw(&frame).await;
        id
    }

    /// Sends bytes of a stream.
    pub async fn data(&mut self, stream: u32, bytes: &[u8], finished: bool) {
        let frame = [&encode::data(stream, bytes.len(), finished)[..], bytes].concat();
        self.raw(&frame).await;
    }

    /// The same by name.
    pub async fn say(&mut self, name: &str, bytes: &[u8]) {
        self.data(self.names[name], bytes, false).await;
    }

    /// The next event; none at the end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if self.tunnel {
                while let Some((opcode, message)) = unframe(&mut self.outer) {
                    if opcode != 2 {
                        return None;
                    }
                    self.buffer.extend_from_slice(&message);
                }
            }
            if let Some(event) = self.decoder.next(&mut self.buffer).unwrap() {
                if let Event::Data { stream, bytes, finished } = &event {
                    let heard = self.heard.entry(*stream).or_default();
                    heard.0.extend_from_slice(bytes);
                    heard.1 |= finished;
                }
                return Some(event);
            }
            let buffer = if self.tunnel { &mut self.outer } else { &mut self.buffer };
            if self.read.read_buf(buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub fn heard(&self, stream: u32) -> &[u8] {
        self.heard.get(&stream).map_or(&[], |heard| &heard.0)
    }

    pub fn ended(&self, streams: &[u32]) -> bool {
        streams.iter().all(|stream| self.heard.get(stream).is_some_and(|heard| heard.1))
    }

    /// What is heard until the server has said everything, by the streams' names.
    pub async fn hear(&mut self) -> BTreeMap<String, Vec<u8>> {
        while !matches!(self.next().await, None | Some(Event::GoAway)) {}
        self.names.iter().map(|(name, id)| (name.clone(), self.heard(*id).to_vec())).collect()
    }

    /// The same while `bytes` are sent, and the stream ended.
    pub async fn talk(&mut self, name: &str, bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let id = self.names[name];
        let mut frames = Vec::new();
        for piece in bytes.chunks(100_000) {
            frames.extend(encode::data(id, piece.len(), false));
            frames.extend(piece);
        }
        frames.extend(encode::data(id, 0, true));
        let (_, mut write) = tokio::io::split(Box::new(tokio::io::empty()) as Wire);
        std::mem::swap(&mut self.write, &mut write);
        let send = tokio::spawn(async move {
            write.write_all(&frames).await.unwrap();
            write
        });
        let heard = self.hear().await;
        self.write = send.await.unwrap();
        heard
    }
}

/// A client that speaks of channels in a WebSocket.
pub struct WebSocket {
    wire: Wire,
    buffer: BytesMut,
    heard: HashMap<u8, Vec<u8>>,
}

impl WebSocket {
    pub async fn open(url: &str, protocol: &str) -> Self {
        let mut headers =
            vec![("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"), KEY];
        if !protocol.is_empty() {
            headers.push(("sec-websocket-protocol", protocol));
        }
        let (head, wire, buffer) = upgrade("GET", url, &headers).await;
        assert_eq!(refused(&head), 101, "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        assert!(head.contains(protocol), "{head}");
        Self { wire, buffer, heard: HashMap::new() }
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.wire.write_all(bytes).await.unwrap();
    }

    pub async fn message(&mut self, bytes: &[u8]) {
        self.raw(&masked(0x82, bytes)).await;
    }

    /// Hears one message; false at the end.
    async fn next(&mut self) -> bool {
        loop {
            match unframe(&mut self.buffer) {
                Some((1 | 2, message)) => {
                    self.heard.entry(message[0]).or_default().extend(&message[1..]);
                    return true;
                }
                Some((8, _)) => return false,
                Some(_) => {}
                None if self.wire.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 => return false,
                None => {}
            }
        }
    }

    /// Hears so many bytes more from channel 1.
    pub async fn take(&mut self, count: usize) {
        let goal = self.heard.get(&1).map_or(0, Vec::len) + count;
        while self.heard.get(&1).map_or(0, Vec::len) < goal {
            assert!(self.next().await);
        }
    }

    /// Hears exactly `bytes` from a channel.
    pub async fn take_of(&mut self, channel: u8, bytes: &[u8]) {
        while self.heard.get(&channel).is_none_or(|heard| heard != bytes) {
            assert!(self.next().await, "{:?}", self.heard);
        }
    }

    /// What is heard until the server has said everything.
    pub async fn hear(&mut self) -> HashMap<u8, Vec<u8>> {
        while self.next().await {}
        self.heard.clone()
    }
}
