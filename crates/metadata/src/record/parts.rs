//! The fields of a record, read where they lie: for lists, which look at thousands and keep none.

use std::time::SystemTime;

use types::view::AnyView;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// What is no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it is no protobuf message")
    }
}

type Result<T> = std::result::Result<T, Malformed>;

/// The fields of `message` in their order.
pub(crate) fn parts(message: &[u8]) -> Parts<'_> {
    Parts { rest: message }
}

pub(crate) struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(Malformed)?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn bytes(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn part(&mut self) -> Result<(u64, Part<'a>)> {
        let key = self.number()?;
        let part = match key & 7 {
            0 => Part::Number(self.number()?),
            1 => Part::Bytes(self.bytes(8)?),
            2 => {
                let length = self.number()?;
                Part::Bytes(self.bytes(length)?)
            }
            5 => Part::Bytes(self.bytes(4)?),
            _ => return Err(Malformed),
        };
        Ok((key >> 3, part))
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<(u64, Part<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            self.rest = &[];
        }
        Some(part)
    }
}

impl<'a> Part<'a> {
    pub(crate) fn number(self) -> Result<u64> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err(Malformed),
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(Malformed),
        }
    }

    pub(crate) fn text(self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// Fields 1 and 2 of a message, empty where they are absent: an entry of a map, an [`Opaque`](super::Opaque).
    fn two(self) -> Result<(&'a str, &'a [u8])> {
        let (mut first, mut second): (&str, &[u8]) = ("", &[]);
        for part in parts(self.bytes()?) {
            match part? {
                (1, part) => first = part.text()?,
                (2, part) => second = part.bytes()?,
                _ => {}
            }
        }
        Ok((first, second))
    }

    /// An entry of a map of texts.
    pub(crate) fn pair(self) -> Result<(&'a str, &'a str)> {
        let (key, value) = self.two()?;
        Ok((key, std::str::from_utf8(value).map_err(|_| Malformed)?))
    }

    /// An entry of a map of opaque values.
    pub(crate) fn opaque_pair(self) -> Result<(&'a str, AnyView<'a>)> {
        let (key, value) = self.two()?;
        Ok((key, Part::Bytes(value).opaque()?))
    }

    /// An [`Opaque`](super::Opaque).
    pub(crate) fn opaque(self) -> Result<AnyView<'a>> {
        let (type_url, value) = self.two()?;
        Ok(AnyView { type_url, value })
    }

    /// A [`Time`](super::Time).
    pub(crate) fn time(self) -> Result<SystemTime> {
        let (mut seconds, mut nanos) = (0, 0);
        for part in parts(self.bytes()?) {
            match part? {
                (1, part) => seconds = part.number()?.cast_signed(),
                (2, part) => nanos = u32::try_from(part.number()?).map_err(|_| Malformed)?,
                _ => {}
            }
        }
        Ok(types::time::from_unix(seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            for (_, part) in parts(&bytes).flatten() {
                let _ = (part.text(), part.time(), part.opaque(), part.pair(), part.opaque_pair());
            }
        }
    }

    #[test]
    fn a_message_that_ends_early_is_malformed() {
        for bytes in [&[0x0a][..], &[0x0a, 2, 1], &[0x80], &[0x0b], &[8, 0xff]] {
            assert_eq!(parts(bytes).last(), Some(Err(Malformed)), "{bytes:?}");
        }
    }
}
