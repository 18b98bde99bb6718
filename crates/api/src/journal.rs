//! The journal of a container's events, without I/O: written by the shim into the bundle, read by it, and by the daemon
//! when the shim is gone.
//!
//! ```text
//!  0          8          16
//!  | magic    | head     | record | record | ...
//!                          0        4          8       16
//!                        = | length | checksum | order | envelope |
//! ```
//!
//! Numbers are little-endian. `head` is where the first record begins that nobody has taken yet; `length` counts what
//! follows the checksum, which is of that. `order` counts the events of a shim, so that those of several containers can
//! be told in the order in which they happened. A record that was half written when its writer died ends the journal.

use prost::Message;
use types::{Error, Result};

use crate::proto::containerd::types::Envelope;

/// The name of the file in the bundle.
pub const FILE: &str = "journal";
/// Bytes before the first record.
pub const HEADER: u64 = 16;
/// Bytes of a record before its envelope.
pub const OVERHEAD: usize = 16;
/// The largest record, in bytes: more than an event of ttrpc can have.
pub const LARGEST: usize = 5 << 20;

const MAGIC: [u8; 8] = *b"ctdrsEv1";

/// The header of a journal whose first record that nobody has taken begins at `head`.
pub fn header(head: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (magic, place) = bytes.split_at_mut(8);
    magic.copy_from_slice(&MAGIC);
    place.copy_from_slice(&head.to_le_bytes());
    bytes
}

/// A record.
pub fn record(order: u64, envelope: &Envelope) -> Vec<u8> {
    let length = 8 + envelope.encoded_len();
    let mut bytes = Vec::with_capacity(8 + length);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&order.to_le_bytes());
    envelope.encode_raw(&mut bytes);
    let sum = checksum(bytes.get(8..).unwrap_or_default());
    if let Some(place) = bytes.get_mut(4..8) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its place among the events of the shim.
    pub order: u64,
    /// The event.
    pub envelope: Envelope,
    /// Its bytes in the journal.
    pub length: usize,
}

/// How many bytes the record has that begins with these 16.
pub fn record_length(start: &[u8]) -> Option<usize> {
    let length = usize::try_from(number32(start, 0)?).ok()?;
    (8..=LARGEST).contains(&length).then_some(8 + length)
}

/// Reads the record at the start of `bytes`; none if it is not whole.
pub fn read_record(bytes: &[u8]) -> Option<Record> {
    let length = record_length(bytes)?;
    let body = bytes.get(8..length)?;
    if number32(bytes, 4)? != checksum(body) {
        return None;
    }
    let (order, envelope) = body.split_first_chunk::<8>()?;
    let envelope = Envelope::decode(envelope).ok()?;
    Some(Record { order: u64::from_le_bytes(*order), envelope, length })
}

/// What is in a journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// The records that nobody has taken, in order.
    pub records: Vec<Record>,
    /// Where the first of them begins.
    pub head: u64,
    /// Where the last one ends, and the next would begin.
    pub end: u64,
    /// Bytes behind that, of a record that was half written.
    pub torn: usize,
}

/// Reads a journal. An empty one, or one whose header was not written yet, has nothing.
pub fn recover(bytes: &[u8]) -> Result<Recovered> {
    let empty = Recovered { head: HEADER, end: HEADER, ..Recovered::default() };
    let Some((header, _)) = bytes.split_first_chunk::<16>() else {
        return Ok(Recovered { torn: bytes.len(), ..empty });
    };
    let (magic, head) = header.split_at(8);
    if magic != MAGIC {
        return Err(Error::invalid("no journal of events"));
    }
    let head = head.try_into().map_or(HEADER, u64::from_le_bytes);
    let Some(mut rest) = usize::try_from(head).ok().filter(|h| *h >= 16).and_then(|h| bytes.get(h..)) else {
        // Cut off after the last record was taken.
        return Ok(empty);
    };
    let mut recovered = Recovered { head, end: head, ..Recovered::default() };
    while let Some(record) = read_record(rest) {
        recovered.end += record.length as u64;
        rest = rest.get(record.length..).unwrap_or_default();
        recovered.records.push(record);
    }
    recovered.torn = rest.len();
    Ok(recovered)
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// FNV-1a: enough to tell a record from what was half written.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(topic: &str) -> Envelope {
        Envelope { topic: topic.into(), namespace: "ns".into(), ..Envelope::default() }
    }

    fn journal(topics: &[&str]) -> Vec<u8> {
        let mut bytes = header(HEADER).to_vec();
        for (order, topic) in (7..).zip(topics) {
            bytes.extend_from_slice(&record(order, &envelope(topic)));
        }
        bytes
    }

    fn topics(bytes: &[u8]) -> Vec<String> {
        recover(bytes).unwrap().records.into_iter().map(|r| r.envelope.topic).collect()
    }

    #[test]
    fn what_was_written_is_read_from_the_head_on() {
        let mut bytes = journal(&["/a", "/b", "/c"]);
        assert_eq!(topics(&bytes), ["/a", "/b", "/c"]);
        let first = recover(&bytes).unwrap().records.remove(0);
        assert_eq!(first.order, 7);
        let head = HEADER + first.length as u64;
        bytes[..16].copy_from_slice(&header(head));
        assert_eq!(topics(&bytes), ["/b", "/c"]);
        assert_eq!(recover(&bytes).unwrap().end, bytes.len() as u64);
    }

    #[test]
    fn a_journal_that_is_cut_anywhere_keeps_all_whole_records() {
        let bytes = journal(&["/a", "/b"]);
        let second = bytes.len() - record(8, &envelope("/b")).len();
        for cut in 0..bytes.len() {
            let recovered = recover(&bytes[..cut]).unwrap();
            assert_eq!(recovered.records.len(), usize::from(cut >= second), "{cut}");
            if cut >= 16 {
                assert_eq!(recovered.end + recovered.torn as u64, cut as u64);
            }
        }
    }

    #[test]
    fn a_changed_byte_ends_the_journal_before_its_record() {
        let bytes = journal(&["/a", "/b"]);
        for at in 16..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            assert!(topics(&changed).len() < 2, "{at}");
        }
        assert!(recover(b"something else that is long").is_err());
    }

    #[test]
    fn one_that_was_cut_off_behind_its_head_is_empty() {
        assert_eq!(recover(&header(4000)).unwrap().records, []);
        assert_eq!(recover(&header(0)).unwrap().records, []);
        assert_eq!(recover(b"").unwrap().end, HEADER);
    }
}
