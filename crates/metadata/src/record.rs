//! What a stored record is: a protobuf message whose field 1 is its version.
//!
//! A record of a version that this program does not know is an error that says so. It is never dropped, and never
//! written back without the fields that a newer program put into it.

pub(crate) mod parts;

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::time::SystemTime;

use prost::Message;
use types::{Any, Error, Result};

use parts::{Malformed, Part, parts};

/// A kind of record. `record!` implements it.
pub(crate) trait Record: Message + Default {
    /// What it is called in messages.
    const KIND: &'static str;
    /// The newest version that this program knows, and the one it writes.
    const VERSION: u32;

    /// Puts [`Record::VERSION`] into field 1.
    fn stamp(&mut self);
}

macro_rules! record {
    ($type:ty, $kind:literal, $version:literal) => {
        impl $crate::record::Record for $type {
            const KIND: &'static str = $kind;
            const VERSION: u32 = $version;

            fn stamp(&mut self) {
                self.version = Self::VERSION;
            }
        }
    };
}
pub(crate) use record;

/// Field 1 of every record. The other fields of a newer version may have any shape.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(uint32, tag = "1")]
    version: u32,
}

/// The bytes of `record` in the version of this program.
pub(crate) fn encode<R: Record>(mut record: R) -> Vec<u8> {
    record.stamp();
    record.encode_to_vec()
}

/// The record in `bytes`, which stand under `key`.
pub(crate) fn decode<R: Record>(key: impl Debug, bytes: &[u8]) -> Result<R> {
    let head = Head::decode(bytes).map_err(|e| damaged::<R>(&key, &e))?;
    check_version::<R>(&key, head.version.into())?;
    R::decode(bytes).map_err(|e| damaged::<R>(&key, &e))
}

/// What the fields of the record in `bytes` are, read where they lie: `take` gets each with its number.
pub(crate) fn look<'a, R: Record>(
    key: impl Debug,
    bytes: &'a [u8],
    mut take: impl FnMut(u64, Part<'a>) -> std::result::Result<(), Malformed>,
) -> Result<()> {
    let mut version = 0;
    for part in parts(bytes) {
        let (number, part) = part.map_err(|e| damaged::<R>(&key, &e))?;
        let taken =
            if number == 1 { part.number().map(|number| version = number) } else { take(number, part) };
        // A newer version may have changed the shape of any other field.
        taken.or_else(|e| check_version::<R>(&key, version).and(Err(damaged::<R>(&key, &e))))?;
    }
    check_version::<R>(&key, version)
}

fn damaged<R: Record>(key: &impl Debug, why: &impl Display) -> Error {
    Error::data_loss(format!("{} record {key:?} is damaged: {why}", R::KIND))
}

/// Refuses a record of a version that this program does not know.
pub(crate) fn check_version<R: Record>(key: impl Debug, version: u64) -> Result<()> {
    match version {
        0 => Err(damaged::<R>(&key, &"it has no version")),
        known if known <= R::VERSION.into() => Ok(()),
        newer => Err(Error::precondition(format!(
            "{} record {key:?} has version {newer}, and this containerd-rs knows versions up to {}: it was \
             written by a newer one, which is needed to read it",
            R::KIND,
            R::VERSION
        ))),
    }
}

/// A time, to the nanosecond.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(uint32, tag = "2")]
    nanos: u32,
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let (seconds, nanos) = types::time::unix(time);
        Self { seconds, nanos }
    }
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        types::time::from_unix(time.seconds, time.nanos)
    }
}

/// The time in an optional field; absent is the epoch.
pub(crate) fn time(field: Option<Time>) -> SystemTime {
    field.unwrap_or_default().into()
}

/// An opaque value: the bytes that a client gave, never looked into.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Opaque {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl From<Any> for Opaque {
    fn from(any: Any) -> Self {
        Self { type_url: any.type_url, value: any.value }
    }
}

impl From<Opaque> for Any {
    fn from(opaque: Opaque) -> Self {
        Self { type_url: opaque.type_url, value: opaque.value }
    }
}

/// Labels as they are stored: an empty value means "no such label", as upstream's database has it.
pub(crate) fn stored(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.retain(|_, value| !value.is_empty());
    labels
}

#[cfg(test)]
mod tests {
    use types::Class;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Thing {
        #[prost(uint32, tag = "1")]
        version: u32,
        #[prost(string, tag = "2")]
        name: String,
    }
    record!(Thing, "thing", 2);

    #[derive(Clone, PartialEq, Message)]
    struct NewerThing {
        #[prost(uint32, tag = "1")]
        version: u32,
        #[prost(uint64, tag = "2")]
        name: u64,
    }

    #[test]
    fn a_record_comes_back_with_the_version_of_this_program() {
        let bytes = encode(Thing { version: 0, name: "x".into() });
        let thing: Thing = decode("k", &bytes).unwrap();
        assert_eq!(thing, Thing { version: 2, name: "x".into() });
    }

    #[test]
    fn a_newer_record_is_refused_by_name_even_if_its_fields_changed_shape() {
        let bytes = NewerThing { version: 3, name: 7 }.encode_to_vec();
        let error = decode::<Thing>(("default", "c1"), &bytes).unwrap_err();
        assert_eq!(error.class(), Class::FailedPrecondition);
        assert!(error.to_string().contains(r#"thing record ("default", "c1") has version 3"#), "{error}");
    }

    #[test]
    fn a_record_without_a_version_or_with_broken_bytes_is_data_loss() {
        for bytes in [&[][..], &[0x12, 0xff], &[0x08, 0x02, 0x12, 0x01, 0xff]] {
            assert_eq!(decode::<Thing>("k", bytes).unwrap_err().class(), Class::DataLoss, "{bytes:?}");
        }
    }

    #[test]
    fn times_keep_their_nanoseconds() {
        let now = SystemTime::now();
        assert_eq!(time(Some(now.into())), now);
        assert_eq!(time(None), SystemTime::UNIX_EPOCH);
    }
}
