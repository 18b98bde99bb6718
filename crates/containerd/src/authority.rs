//! What a client calls this daemon (HTTP/2's `:authority`), made into something that our HTTP library takes.
//!
//! Go's gRPC names the server after the path that it dials, unless it is told another name: `%2Frun%2Fcontainerd.sock`, older
//! ones `/run/containerd.sock`. Go's servers do not look at it. Ours is strict: it would end each such call with PROTOCOL_ERROR,
//! long before anybody is asked. Nothing here depends on the name, so each `%` and `/` in it becomes a `-`. In HTTP/2's
//! compression all three have six bits: lengths stay what they are, and so do both sides' tables.
//!
//! ```text
//!   preface | frame | frame ...        frames with headers are kept back until they are whole; everything else passes
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// What an HTTP/2 client says first.
const PREFACE: usize = 24;
/// Bytes before a frame's payload.
const HEAD: usize = 9;
/// The type of a frame with the beginning of headers, and its flags.
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Larger frames are refused by whoever gets them.
const LARGEST: usize = 1 << 20;
/// The name `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;
/// `%`, `/` and `-` in HPACK's Huffman code, of six bits each.
const PERCENT: u32 = 0x15;
const SLASH: u32 = 0x18;
const DASH: u32 = 0x16;
/// How many symbols have how many bits, in the order of their codes. Longer ones are no characters of paths.
const CODES: [(usize, u32); 10] =
    [(5, 10), (6, 26), (7, 32), (8, 6), (10, 5), (11, 3), (12, 2), (13, 6), (14, 2), (15, 3)];

/// Bytes of a connection on their way in.
#[derive(Debug)]
pub struct Inward {
    /// How much passes without a look.
    pass: usize,
    /// The beginning of a frame.
    held: Vec<u8>,
    /// What was held and can go on.
    ready: Vec<u8>,
}

impl Default for Inward {
    fn default() -> Self {
        Self { pass: PREFACE, held: Vec::new(), ready: Vec::new() }
    }
}

impl Inward {
    /// Reads from a stream, and gives what has been seen to.
    pub fn poll_read(
        &mut self,
        mut stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.ready.is_empty() {
                let size = self.ready.len().min(buf.remaining());
                buf.put_slice(&self.ready[..size]);
                self.ready.drain(..size);
                return Poll::Ready(Ok(()));
            }
            let start = buf.filled().len();
            ready!(stream.as_mut().poll_read(cx, buf))?;
            let new = &mut buf.filled_mut()[start..];
            if new.is_empty() {
                // The end. What is still held is no frame.
                return Poll::Ready(Ok(()));
            }
            if !self.held.is_empty() {
                self.held.extend_from_slice(new);
                buf.set_filled(start);
                let mut held = std::mem::take(&mut self.held);
                let seen = self.look(&mut held);
                self.held = held.split_off(seen);
                self.ready = held;
                continue;
            }
            let seen = self.look(new);
            self.held.extend_from_slice(&new[seen..]);
            buf.set_filled(start + seen);
            if seen > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Goes through what has come; gives how much of it can go on.
    fn look(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        loop {
            let passing = self.pass.min(bytes.len() - at);
            self.pass -= passing;
            at += passing;
            let Some((head, payload)) = bytes[at..].split_at_mut_checked(HEAD) else { return at };
            let size = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if head[3] == HEADERS && size <= LARGEST {
                let Some(payload) = payload.get_mut(..size) else { return at };
                see_to(payload, head[4]);
            }
            self.pass = HEAD + size;
        }
    }
}

/// Sees to the headers of a frame. What cannot be understood is left for others to refuse.
fn see_to(payload: &mut [u8], flags: u8) {
    let before = usize::from(flags & PADDED != 0) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let Some(block) = payload.get_mut(before..) else { return };
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        // An indexed field; a literal one that is kept; a new size of the table; a literal one that is not kept.
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let Some(name) = integer(block, &mut at, prefix) else { return };
        if !literal {
            continue;
        }
        if name == 0 && string(block, &mut at).is_none() {
            return;
        }
        let Some((value, huffman)) = string(block, &mut at) else { return };
        if name == AUTHORITY {
            return if huffman { rename_packed(value) } else { rename(value) };
        }
    }
}

/// HPACK's integer whose first byte has so many bits of it.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let mask = (1 << prefix) - 1;
    let mut value = usize::from(*block.get(*at)? & mask);
    *at += 1;
    if value < usize::from(mask) {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// HPACK's string, and whether it is packed by the Huffman code.
fn string<'a>(block: &'a mut [u8], at: &mut usize) -> Option<(&'a mut [u8], bool)> {
    let huffman = *block.get(*at)? & 0x80 != 0;
    let size = integer(block, at, 7)?;
    let start = *at;
    *at = start.checked_add(size)?;
    Some((block.get_mut(start..*at)?, huffman))
}

fn rename(value: &mut [u8]) {
    for byte in value.iter_mut().filter(|byte| matches!(byte, b'%' | b'/')) {
        *byte = b'-';
    }
}

fn rename_packed(value: &mut [u8]) {
    let mut at = 0;
    while let Some((bits, code)) = symbol(value, at) {
        if bits == 6 && matches!(code, PERCENT | SLASH) {
            for bit in 0..bits {
                let (place, mask) = ((at + bit) / 8, 0x80 >> ((at + bit) % 8));
                let is_set = DASH >> (bits - 1 - bit) & 1 == 1;
                value[place] = if is_set { value[place] | mask } else { value[place] & !mask };
            }
        }
        at += bits;
    }
}

/// The symbol that begins at a bit: how many bits it has, and its code. None at the end, and for symbols that no path has.
fn symbol(value: &[u8], at: usize) -> Option<(usize, u32)> {
    let (mut code, mut taken, mut first) = (0, 0, 0);
    for (bits, count) in CODES {
        first <<= bits - taken;
        while taken < bits {
            let byte = value.get((at + taken) / 8)?;
            code = code << 1 | u32::from(byte >> (7 - (at + taken) % 8) & 1);
            taken += 1;
        }
        if code < first + count {
            return Some((bits, code));
        }
        first += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client whose bytes come in pieces of this size.
    struct Pieces(Vec<u8>, usize);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let size = self.1.min(self.0.len()).min(buf.remaining());
            buf.put_slice(&self.0[..size]);
            self.0.drain(..size);
            Poll::Ready(Ok(()))
        }
    }

    async fn all(mut client: Pieces, room: usize) -> Vec<u8> {
        let (mut server, mut got) = (Inward::default(), Vec::new());
        loop {
            let mut bytes = vec![0; room];
            let read = std::future::poll_fn(|cx| {
                let mut buf = ReadBuf::new(&mut bytes);
                let done = ready!(server.poll_read(Pin::new(&mut client), cx, &mut buf));
                Poll::Ready(done.map(|()| buf.filled().len()))
            });
            match read.await.unwrap() {
                0 => return got,
                size => got.extend_from_slice(&bytes[..size]),
            }
        }
    }

    /// Codes of HPACK (RFC 7541, appendix B).
    const SYMBOLS: [(char, u32, usize); 14] = [
        ('%', 0x15, 6),
        ('/', 0x18, 6),
        ('-', 0x16, 6),
        ('2', 0x2, 5),
        ('F', 0x61, 7),
        ('r', 0x2c, 6),
        ('u', 0x2d, 6),
        ('n', 0x2a, 6),
        ('.', 0x17, 6),
        ('s', 0x8, 5),
        ('o', 0x7, 5),
        ('c', 0x4, 5),
        ('k', 0x75, 7),
        ('!', 0x3f8, 10),
    ];

    fn pack(text: &str) -> Vec<u8> {
        let mut bits = String::new();
        for c in text.chars() {
            let (_, code, length) = SYMBOLS.iter().find(|(symbol, ..)| *symbol == c).unwrap();
            bits += &format!("{code:0length$b}");
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    #[test]
    fn packed_names_keep_their_length_and_lose_what_is_refused() {
        for (name, becomes) in [
            ("%2Frun%2Fc.sock", "-2Frun-2Fc.sock"),
            ("/run/k.sock", "-run-k.sock"),
            ("run-n.sock", "run-n.sock"),
            ("!/", "!-"),
        ] {
            let mut value = pack(name);
            rename_packed(&mut value);
            assert_eq!(value, pack(becomes), "{name}");
        }
        // RFC 7541, C.4.1.
        let example = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let mut value = example;
        rename_packed(&mut value);
        assert_eq!(value, example);
    }

    /// A frame of headers as Go sends them: a method, a scheme, a path, the authority, one more that looks like it.
    fn headers(authority: &str, padded: bool) -> Vec<u8> {
        let mut block = vec![0x83, 0x86, 0x44, 5];
        block.extend(b"/a%/b");
        block.extend([0x41, authority.len() as u8]);
        block.extend(authority.as_bytes());
        block.extend([0x40, 2, b'x', b'y', 3]);
        block.extend(b"/%/");
        let mut payload = if padded { [&[2], &[0; 5][..], &block, &[0, 0]].concat() } else { block };
        let flags = 4 | if padded { PADDED | PRIORITY } else { 0 };
        let mut frame = vec![0, 0, payload.len() as u8, HEADERS, flags, 0, 0, 0, 1];
        frame.append(&mut payload);
        frame
    }

    #[tokio::test]
    async fn names_are_changed_however_the_bytes_come_and_nothing_else_is() {
        let data = [&[0, 0, 3, 0, 0, 0, 0, 0, 1][..], b"/%/"].concat();
        let stream = |name: &str| {
            let settings = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            [preface, settings, headers(name, false), data.clone(), headers(name, true), data.clone()]
                .concat()
        };
        for piece in [1, 2, 7, 33, 1000] {
            for room in [1, 5, 1000] {
                let got = all(Pieces(stream("%2Frun%2Fx/y"), piece), room).await;
                assert_eq!(got, stream("-2Frun-2Fx-y"), "pieces of {piece}, room for {room}");
            }
        }
    }

    #[test]
    fn what_is_no_header_block_harms_nobody() {
        for length in 0..40 {
            for byte in [0, 1, 0x1f, 0x3f, 0x40, 0x41, 0x7f, 0x80, 0xff] {
                for flags in [0, PADDED, PRIORITY, PADDED | PRIORITY] {
                    see_to(&mut vec![byte; length], flags);
                }
            }
        }
    }
}
