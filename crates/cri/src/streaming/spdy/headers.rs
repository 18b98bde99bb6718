//! Name/value blocks: headers of a stream, compressed by one zlib stream for each direction of a connection.

use std::mem;

use flate2::{Decompress, FlushDecompress, Status};
use types::{Error, Result};

use super::dictionary::DICTIONARY;

/// A block that is larger than this when it is inflated ends the connection.
const MAX_BLOCK: usize = 64 << 10;
/// As upstream's.
const MAX_HEADERS: u32 = 1000;

/// What a stream was opened with. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of `name`, which is in lower case; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Reads an inflated block.
    fn parse(mut block: &[u8]) -> Result<Self> {
        let count = number(&mut block)?;
        if count > MAX_HEADERS {
            return Err(Error::invalid("too many headers"));
        }
        let mut headers: Vec<(String, String)> = Vec::new();
        for _ in 0..count {
            let (name, value) = (text(&mut block)?, text(&mut block)?);
            if name.is_empty() || name.chars().any(char::is_uppercase) {
                return Err(Error::invalid("header was not lowercased"));
            }
            if headers.iter().any(|(known, _)| *known == name) {
                return Err(Error::invalid("multiple headers with same name"));
            }
            // Several values of one name are separated by NULs; nobody sends several to us.
            let value = value.split('\0').next().unwrap_or_default().to_owned();
            headers.push((name, value));
        }
        if !block.is_empty() {
            return Err(Error::invalid("more bytes than headers"));
        }
        Ok(Self(headers))
    }
}

fn number(block: &mut &[u8]) -> Result<u32> {
    let (number, rest) = block.split_first_chunk().ok_or_else(short)?;
    *block = rest;
    Ok(u32::from_be_bytes(*number))
}

fn text(block: &mut &[u8]) -> Result<String> {
    let length = number(block)? as usize;
    let (text, rest) = block.split_at_checked(length).ok_or_else(short)?;
    *block = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn short() -> Error {
    Error::invalid("headers end too early")
}

/// The decompression of one direction.
#[derive(Debug)]
pub struct Inflater {
    zlib: Decompress,
    out: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { zlib: Decompress::new(true), out: Vec::new() }
    }
}

impl Inflater {
    /// The headers of the connection's next block.
    pub fn headers(&mut self, compressed: &[u8]) -> Result<Headers> {
        let block = self.inflate(compressed)?;
        let headers = Headers::parse(&block);
        self.out = block;
        headers
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>> {
        let mut out = mem::take(&mut self.out);
        out.clear();
        loop {
            if out.len() == out.capacity() {
                if out.len() >= MAX_BLOCK {
                    return Err(Error::invalid("headers are too large"));
                }
                out.reserve(512.max(out.len()));
            }
            let before = (self.zlib.total_in(), self.zlib.total_out());
            let done = self.zlib.decompress_vec(input, &mut out, FlushDecompress::Sync);
            let taken = usize::try_from(self.zlib.total_in() - before.0).unwrap_or(usize::MAX);
            input = input.get(taken..).unwrap_or_default();
            match done {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(DICTIONARY).map_err(|_| broken())?;
                }
                Err(_) => return Err(broken()),
                Ok(Status::StreamEnd) => return Err(Error::invalid("compression of headers has ended")),
                Ok(_) if input.is_empty() && out.len() < out.capacity() => return Ok(out),
                // Neither input nor room were missing, and yet nothing has happened.
                Ok(_)
                    if before == (self.zlib.total_in(), self.zlib.total_out())
                        && out.len() < out.capacity() =>
                {
                    return Err(broken());
                }
                Ok(_) => {}
            }
        }
    }
}

fn broken() -> Error {
    Error::invalid("headers cannot be decompressed")
}

#[cfg(test)]
pub(in crate::streaming) mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    /// What a client compresses headers with.
    pub struct Deflater(Compress);

    impl Deflater {
        pub fn new() -> Self {
            let mut zlib = Compress::new(Compression::best(), true);
            zlib.set_dictionary(DICTIONARY).unwrap();
            Self(zlib)
        }

        pub fn headers(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
            let mut block = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
            for text in headers.iter().flat_map(|(name, value)| [name, value]) {
                block.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                block.extend(text.as_bytes());
            }
            self.block(&block)
        }

        pub fn block(&mut self, block: &[u8]) -> Vec<u8> {
            let mut out = Vec::with_capacity(2 * block.len() + 1024);
            self.0.compress_vec(block, &mut out, FlushCompress::Sync).unwrap();
            assert!(out.len() < out.capacity());
            out
        }
    }

    #[test]
    fn the_dictionary_is_everybody_elses() {
        // Adler-32, as zlib's streams name it.
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in DICTIONARY {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_of_a_connection_build_on_each_other() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::default());
        for port in ["80", "8080"] {
            let block = deflater.headers(&[("streamtype", "data"), ("port", port)]);
            let headers = inflater.headers(&block).unwrap();
            assert_eq!(
                (headers.get("streamtype"), headers.get("port"), headers.get("x")),
                ("data", port, "")
            );
        }
    }

    #[test]
    fn our_own_empty_blocks_are_understood() {
        let mut inflater = Inflater::default();
        let (first, second) = (super::super::encode::reply(1, true), super::super::encode::reply(3, false));
        assert_eq!(inflater.headers(&first[12..]).unwrap(), Headers::default());
        assert_eq!(inflater.headers(&second[12..]).unwrap(), Headers::default());
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = Deflater::new().block(&vec![0; 2 << 20]);
        assert!(bomb.len() < 4096);
        assert!(Inflater::default().headers(&bomb).unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn counts_and_lengths_that_cannot_be_are_refused() {
        for block in [
            &[0xff, 0xff, 0xff, 0xff][..],
            &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0, 1, 0, 0, 0, 1, b'a'],
            &[0, 0, 0, 1, 0, 0, 0, 1, b'A', 0, 0, 0, 0],
            &[0, 0, 0, 0, 7],
            &[],
        ] {
            assert!(Inflater::default().headers(&Deflater::new().block(block)).is_err(), "{block:?}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            let _ = Inflater::default().headers(&noise);
            let _ = Headers::parse(&noise);
        }

        #[test]
        fn what_is_written_is_read(value in "[a-z0-9]{0,2000}", other in "[ -~]{0,200}") {
            let block = Deflater::new().headers(&[("a", &value), ("b", &other)]);
            let headers = Inflater::default().headers(&block).unwrap();
            prop_assert_eq!(headers.get("a"), value);
            prop_assert_eq!(headers.get("b"), other);
        }
    }
}
