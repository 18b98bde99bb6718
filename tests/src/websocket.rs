//! A client of the streaming server: channels in messages of a WebSocket, as kubectl has them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::deadline;

/// A connection. Dropping it is going away without a word.
pub struct WebSocket {
    socket: TcpStream,
    buffer: Vec<u8>,
    heard: HashMap<u8, Vec<u8>>,
    over: bool,
}

impl WebSocket {
    /// Asks for `protocol` at a URL that a call has given.
    ///
    /// # Panics
    /// If it is not had.
    #[track_caller]
    pub fn open(url: &str, protocol: &str) -> Self {
        let address = url.split('/').nth(2).expect("a host");
        let path = url.splitn(4, '/').nth(3).expect("a path");
        let mut socket = TcpStream::connect(address).expect("connect to the streaming server");
        socket.set_read_timeout(Some(deadline::default())).expect("set a time limit");
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("ask");
        let mut client = Self { socket, buffer: Vec::new(), heard: HashMap::new(), over: false };
        loop {
            if let Some(end) = client.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head: Vec<u8> = client.buffer.drain(..end + 4).collect();
                let head = String::from_utf8_lossy(&head).to_lowercase();
                assert!(head.contains(" 101 ") && head.contains(&protocol.to_lowercase()), "{head}");
                return client;
            }
            assert!(client.read() > 0, "no answer");
        }
    }

    fn read(&mut self) -> usize {
        let mut piece = vec![0; 64 << 10];
        let read = self.socket.read(&mut piece).unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..read]);
        read
    }

    /// Another handle that says something, beside what this one hears.
    ///
    /// # Panics
    /// If there can be no more descriptors.
    pub fn speaker(&self) -> Speaker {
        Speaker(self.socket.try_clone().expect("another descriptor"))
    }

    /// Says something in a channel.
    pub fn say(&self, channel: u8, bytes: &[u8]) {
        self.speaker().say(channel, bytes);
    }

    /// Hears one message more; false at the end.
    fn next(&mut self) -> bool {
        loop {
            if let Some((opcode, message)) = self.take() {
                match opcode {
                    1 | 2 if message.is_empty() => return true,
                    1 | 2 => {
                        self.heard.entry(message[0]).or_default().extend(&message[1..]);
                        return true;
                    }
                    8 => self.over = true,
                    _ => {}
                }
            } else if self.read() == 0 {
                self.over = true;
            }
            if self.over {
                return false;
            }
        }
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let length = match *self.buffer.get(1)? {
            126 => (4, u64::from(u16::from_be_bytes(*self.buffer.get(2..)?.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*self.buffer.get(2..)?.first_chunk()?)),
            length => (2, u64::from(length)),
        };
        let (head, length) = (length.0, usize::try_from(length.1).expect("a length"));
        if self.buffer.len() < head + length {
            return None;
        }
        let opcode = self.buffer[0] & 0x0f;
        let message = self.buffer[head..head + length].to_vec();
        self.buffer.drain(..head + length);
        Some((opcode, message))
    }

    /// What was heard in a channel so far.
    pub fn heard(&self, channel: u8) -> &[u8] {
        self.heard.get(&channel).map_or(&[], Vec::as_slice)
    }

    /// Hears until a channel has said `text`.
    ///
    /// # Panics
    /// If it ends before.
    #[track_caller]
    pub fn until(&mut self, channel: u8, text: &str) {
        while !String::from_utf8_lossy(self.heard(channel)).contains(text) {
            let more = self.next();
            assert!(more, "{:?} and no {text:?}", String::from_utf8_lossy(self.heard(channel)));
        }
    }

    /// Hears everything.
    pub fn end(&mut self) {
        while self.next() {}
    }

    /// Hears and forgets channel 1, and tells each piece of it.
    pub fn each(&mut self, mut piece: impl FnMut(&[u8])) {
        while self.next() {
            if let Some(bytes) = self.heard.remove(&1) {
                piece(&bytes);
            }
        }
    }
}

/// See [`WebSocket::speaker`].
pub struct Speaker(TcpStream);

impl Speaker {
    /// Says something in a channel. Who does not hear it any more is not told.
    pub fn say(&mut self, channel: u8, bytes: &[u8]) {
        let length = bytes.len() as u64 + 1;
        let mut frame = vec![0x82];
        match length {
            0..126 => frame.push(0x80 | length as u8),
            126..65536 => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend(length.to_be_bytes());
            }
        }
        // A mask of zeroes is a mask.
        frame.extend([0; 4]);
        frame.push(channel);
        frame.extend(bytes);
        let _ = self.0.write_all(&frame);
    }

    /// Ends a channel, in version 5 of the protocol.
    pub fn finish(&mut self, channel: u8) {
        self.say(255, &[channel]);
    }

    /// Goes away.
    pub fn hang_up(self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
