//! Just enough JSON: read in a stream through a small buffer, so that a large spec leaves no pages behind in the server.
//!
//! The shim looks at a few members of `config.json`, of the runtime's log and of its answers, and hands everything else
//! on as it came. [`Parser`] is pulled: the caller says at each place what it expects there, or skips it.

use std::io::Read;

use types::{Error, Result};

/// Reads one JSON text after the other from `source`.
pub struct Parser<R> {
    source: R,
    buffer: [u8; 2048],
    at: usize,
    end: usize,
    consumed: usize,
}

fn malformed(why: &str, at: usize) -> Error {
    Error::invalid(format!("invalid JSON at byte {at}: {why}"))
}

impl<R: Read> Parser<R> {
    /// A parser at the beginning of `source`.
    pub fn new(source: R) -> Self {
        Self { source, buffer: [0; 2048], at: 0, end: 0, consumed: 0 }
    }

    /// How many bytes have been consumed.
    pub fn offset(&self) -> usize {
        self.consumed
    }

    /// The first byte of the next token, which tells its kind; none at the end of the text.
    pub fn peek(&mut self) -> Result<Option<u8>> {
        loop {
            match self.byte()? {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.advance(),
                other => return Ok(other),
            }
        }
    }

    /// Calls `member` with each key of an object; it must consume the value.
    pub fn object(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<()>) -> Result<()> {
        self.expect(b'{')?;
        if self.peek()? == Some(b'}') {
            self.advance();
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            member(self, &key)?;
            match self.peek()? {
                Some(b',') => self.advance(),
                _ => return self.expect(b'}'),
            }
        }
    }

    /// Calls `element` for each element of an array; it must consume it. `null` is an empty array, as Go writes it.
    pub fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if self.peek()? == Some(b'n') {
            return self.skip();
        }
        self.expect(b'[')?;
        if self.peek()? == Some(b']') {
            self.advance();
            return Ok(());
        }
        loop {
            element(self)?;
            match self.peek()? {
                Some(b',') => self.advance(),
                _ => return self.expect(b']'),
            }
        }
    }

    /// A string, unescaped. What is no UTF-8 is replaced.
    pub fn string(&mut self) -> Result<String> {
        let mut text = Vec::new();
        self.string_into(&mut text)?;
        Ok(String::from_utf8(text).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// An unsigned integer.
    pub fn unsigned(&mut self) -> Result<u64> {
        let at = self.consumed;
        let word = self.word()?;
        word.parse().map_err(|_| malformed("expected an unsigned integer", at))
    }

    /// Whether the next value is `true`; consumes it, whatever it is.
    pub fn is_true(&mut self) -> Result<bool> {
        match self.peek()? {
            Some(b't') => Ok(self.word()? == "true"),
            _ => self.skip().map(|()| false),
        }
    }

    /// Consumes one value of any kind.
    pub fn skip(&mut self) -> Result<()> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                Some(b'{' | b'[') => {
                    self.advance();
                    depth += 1;
                }
                Some(b'}' | b']') if depth > 0 => {
                    self.advance();
                    depth -= 1;
                }
                Some(b',' | b':') if depth > 0 => {
                    self.advance();
                    continue;
                }
                Some(b'"') => self.string_into(&mut Vec::new())?,
                Some(b'-' | b'0'..=b'9' | b'a'..=b'z') => drop(self.word()?),
                _ => return Err(malformed("expected a value", self.consumed)),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn byte(&mut self) -> Result<Option<u8>> {
        if self.at == self.end {
            self.end = self.source.read(&mut self.buffer)?;
            self.at = 0;
        }
        Ok(self.buffer[..self.end].get(self.at).copied())
    }

    fn advance(&mut self) {
        self.at += 1;
        self.consumed += 1;
    }

    fn next(&mut self) -> Result<u8> {
        let byte = self.byte()?.ok_or_else(|| malformed("unexpected end", self.consumed))?;
        self.advance();
        Ok(byte)
    }

    fn expect(&mut self, wanted: u8) -> Result<()> {
        self.peek()?;
        if self.next()? != wanted {
            return Err(malformed(&format!("expected {:?}", char::from(wanted)), self.consumed - 1));
        }
        Ok(())
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<String> {
        self.peek()?;
        let mut word = String::new();
        while let Some(byte @ (b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E')) = self.byte()? {
            if word.len() >= 64 {
                return Err(malformed("number too long", self.consumed));
            }
            word.push(char::from(byte));
            self.advance();
        }
        let number = |w: &str| w.parse::<f64>().is_ok_and(f64::is_finite);
        match word.as_str() {
            "true" | "false" | "null" => Ok(word),
            other if number(other) => Ok(word),
            _ => Err(malformed("expected a value", self.consumed)),
        }
    }

    fn string_into(&mut self, text: &mut Vec<u8>) -> Result<()> {
        self.expect(b'"')?;
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => {
                    let escaped = match self.next()? {
                        plain @ (b'"' | b'\\' | b'/') => plain,
                        b'b' => 8,
                        b'f' => 12,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'u' => {
                            let c = self.unicode()?;
                            text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                            continue;
                        }
                        _ => return Err(malformed("unknown escape", self.consumed)),
                    };
                    text.push(escaped);
                }
                0..=0x1f => return Err(malformed("control character in a string", self.consumed)),
                byte => text.push(byte),
            }
        }
    }

    /// What stands behind `\u`; half a surrogate pair becomes the replacement character, as in Go.
    fn unicode(&mut self) -> Result<char> {
        let high = self.hex4()?;
        if !(0xd800..0xdc00).contains(&high) {
            return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if self.byte()? != Some(b'\\') {
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        self.advance();
        if self.next()? != b'u' {
            return Err(malformed("expected the second half of a surrogate pair", self.consumed));
        }
        let low = self.hex4()?;
        let pair = 0x10000 + ((high - 0xd800) << 10) + low.wrapping_sub(0xdc00);
        let valid = (0xdc00..0xe000).contains(&low);
        Ok(char::from_u32(pair).filter(|_| valid).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Result<u32> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16);
            value = value * 16 + digit.ok_or_else(|| malformed("expected a hex digit", self.consumed))?;
        }
        Ok(value)
    }
}

/// Appends `text` as a JSON string.
pub fn quote(text: &str, to: &mut String) {
    to.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => to.extend(['\\', c]),
            '\n' => to.push_str("\\n"),
            '\0'..='\x1f' => to.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => to.push(c),
        }
    }
    to.push('"');
}

/// A JSON object that is being written.
pub struct Object(String);

impl Object {
    /// None of its members yet.
    pub fn new() -> Self {
        Self(String::from("{"))
    }

    /// A member whose value is JSON already.
    pub fn raw(&mut self, name: &str, value: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        quote(name, &mut self.0);
        self.0.push(':');
        self.0.push_str(value);
    }

    /// A number.
    pub fn number(&mut self, name: &str, value: u64) {
        self.raw(name, &value.to_string());
    }

    /// A text.
    pub fn text(&mut self, name: &str, value: &str) {
        let mut quoted = String::new();
        quote(value, &mut quoted);
        self.raw(name, &quoted);
    }

    /// All of it.
    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A JSON array of what is JSON already.
pub fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_and_the_rest_is_skipped() {
        let text = br#" {"a": {"x": [1, -2.5e3, {"y": "}"}]}, "b": "q\"\u00e9\ud83d\ude00", "c": [3,4], "d": null, "t": true} "#;
        let (mut b, mut c, mut t) = (String::new(), Vec::new(), false);
        let mut parser = Parser::new(&text[..]);
        parser
            .object(|p, key| {
                match key {
                    "b" => b = p.string()?,
                    "c" => p.array(|p| p.unsigned().map(|n| c.push(n)))?,
                    "t" => t = p.is_true()?,
                    _ => p.skip()?,
                }
                Ok(())
            })
            .unwrap();
        assert_eq!((b.as_str(), c.as_slice(), t), ("q\"é😀", &[3, 4][..], true));
        assert_eq!(parser.peek().unwrap(), None);
    }

    #[test]
    fn what_is_cut_or_wrong_is_refused() {
        for text in ["", "{", "{\"a\"", "{\"a\":1", "[1 2", "tru", "\"\\x\"", "{\"a\":1,}", "nan", "\"a\nb\""]
        {
            let mut parser = Parser::new(text.as_bytes());
            let read = match text.as_bytes().first() {
                Some(b'{') => parser.object(|p, _| p.skip()),
                _ => parser.skip(),
            };
            assert!(read.is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn quoted_text_comes_back(text: String) {
            let mut quoted = String::new();
            quote(&text, &mut quoted);
            assert_eq!(Parser::new(quoted.as_bytes()).string().unwrap(), text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Parser::new(&bytes[..]).skip();
            let _ = Parser::new(&bytes[..]).object(|p, _| p.skip());
        }
    }
}
