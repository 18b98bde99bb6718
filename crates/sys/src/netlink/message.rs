//! What netlink's messages are made of. Numbers are the machine's, unless the subsystem has them as the network does.

use rustix::io::Errno;

use super::{HEADER, Refused};

/// Bits of an attribute's number that say how it is stored.
const NESTED: u16 = 1 << 15;
const NUMBER: u16 = 0x3fff;

/// A question.
#[derive(Clone, Debug)]
pub struct Message {
    kind: u16,
    flags: u16,
    bytes: Vec<u8>,
    /// Whether something in it is longer than it can be.
    overlong: bool,
}

impl Message {
    /// With its number, flags beside those that the way of asking brings, and the structure behind the header.
    pub fn new(kind: u16, flags: u16, structure: &[u8]) -> Self {
        let mut message = Self { kind, flags, bytes: vec![0; HEADER], overlong: false };
        message.bytes.extend_from_slice(structure);
        message.align();
        message
    }

    /// Adds bytes as they are: the structure before the attributes of one that holds a whole link.
    pub fn structure(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.align();
        self
    }

    /// Adds an attribute.
    pub fn put(&mut self, number: u16, value: &[u8]) -> &mut Self {
        self.attribute(number, |message| message.bytes.extend_from_slice(value))
    }

    /// Adds a text, which ends with a zero.
    pub fn text(&mut self, number: u16, value: &str) -> &mut Self {
        self.attribute(number, |message| {
            message.bytes.extend_from_slice(value.as_bytes());
            message.bytes.push(0);
        })
    }

    /// Adds a number as the machine has it.
    pub fn number(&mut self, number: u16, value: u32) -> &mut Self {
        self.put(number, &value.to_ne_bytes())
    }

    /// Adds a number as the network has it.
    pub fn network(&mut self, number: u16, value: u32) -> &mut Self {
        self.put(number, &value.to_be_bytes())
    }

    /// Adds an attribute that holds attributes.
    pub fn nest(&mut self, number: u16, inner: impl FnOnce(&mut Self)) -> &mut Self {
        self.attribute(number | NESTED, inner)
    }

    fn attribute(&mut self, number: u16, value: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        value(self);
        match (u16::try_from(self.bytes.len() - start), self.bytes.get_mut(start..start + 4)) {
            (Ok(length), Some(head)) => {
                let ([l0, l1], [n0, n1]) = (length.to_ne_bytes(), number.to_ne_bytes());
                head.copy_from_slice(&[l0, l1, n0, n1]);
            }
            _ => self.overlong = true,
        }
        self.align();
        self
    }

    /// What stands behind the header: a part of another message.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Its bytes, with the header.
    pub(super) fn finished(mut self, flags: u16, sequence: u32) -> Result<Vec<u8>, Refused> {
        let length = u32::try_from(self.bytes.len()).ok().filter(|_| !self.overlong).ok_or(Errno::MSGSIZE)?;
        let header = [
            &length.to_ne_bytes()[..],
            &self.kind.to_ne_bytes(),
            &(self.flags | flags).to_ne_bytes(),
            &sequence.to_ne_bytes(),
            &[0; 4],
        ];
        for (to, from) in self.bytes.iter_mut().zip(header.concat()) {
            *to = from;
        }
        Ok(self.bytes)
    }
}

/// The attributes in `bytes`; what does not hold together ends them.
pub fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

/// Attributes, one after another.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The first one of this number.
    pub fn find(mut self, number: u16) -> Option<&'a [u8]> {
        self.by_ref().find(|(found, _)| *found == number).map(|(_, value)| value)
    }

    /// The attributes in it.
    pub fn inside(self, number: u16) -> Self {
        attributes(self.find(number).unwrap_or_default())
    }

    /// As a text, without what is none.
    pub fn text(self, number: u16) -> Option<String> {
        let value = self.find(number)?.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// As a number of the machine's.
    pub fn number(self, number: u16) -> Option<u32> {
        self.find(number)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// As a number of the network's.
    pub fn network(self, number: u16) -> Option<u32> {
        self.find(number)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, n0, n1, ..] = *self.0 else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = self.0.get(4..length) else {
            self.0 = &[];
            return None;
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([n0, n1]) & NUMBER, value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_hold_attributes_and_are_read_again() {
        let mut message = Message::new(16, 0, &[1, 2, 3]);
        message.text(1, "lo").nest(2, |inner| {
            inner.number(3, 7).network(4, 8);
        });
        let bytes = message.finished(0, 1).unwrap();
        let read = attributes(&bytes[HEADER + 4..]);
        assert_eq!(read.text(1).as_deref(), Some("lo"));
        assert_eq!((read.inside(2).number(3), read.inside(2).network(4)), (Some(7), Some(8)));
        assert_eq!((read.find(9), read.inside(9).count()), (None, 0));
        assert_eq!(bytes.len() % 4, 0);
    }

    proptest! {
        #[test]
        fn what_is_put_is_found(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut message = Message::new(16, 0, &[]);
            for (number, value) in (1..).zip(&values) {
                message.put(number, value);
            }
            let bytes = message.finished(0, 1).unwrap();
            let read: Vec<_> = attributes(&bytes[HEADER..]).map(|(_, value)| value.to_vec()).collect();
            prop_assert_eq!(read, values);
        }
    }
}
