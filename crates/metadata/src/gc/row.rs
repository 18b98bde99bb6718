//! Rows as a collection reads them: fields of a stored record, without making anything of the others.
//!
//! A collection looks at every row of the database. Decoding each would cost several times as much as all the rest, most of
//! it for memory that is freed at once.

use types::{Error, Result};

use crate::record::Record;

/// The bytes of a record of a version that this program knows.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    bytes: &'a [u8],
}

/// What a field holds.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed width, which none of our records has.
    Other,
}

impl<'a> Row<'a> {
    /// The record of type `R` in `bytes`, which stand under `key`. A newer version is an error: it may refer to things in
    /// a way that this program does not know.
    pub(super) fn of<R: Record>(key: &str, bytes: &'a [u8]) -> Result<Self> {
        let row = Self { bytes };
        crate::record::check_version::<R>(key, row.number(1)?)?;
        Ok(row)
    }

    /// The text of a field, or an empty one.
    pub(super) fn text(self, tag: u32) -> Result<&'a str> {
        match self.last(tag)? {
            Some(Value::Bytes(bytes)) => text(bytes),
            Some(_) => Err(damaged()),
            None => Ok(""),
        }
    }

    /// The number in a field, or 0.
    pub(super) fn number(self, tag: u32) -> Result<u64> {
        match self.last(tag)? {
            Some(Value::Number(number)) => Ok(number),
            Some(_) => Err(damaged()),
            None => Ok(0),
        }
    }

    /// The message in a field.
    pub(super) fn message(self, tag: u32) -> Result<Option<Self>> {
        match self.last(tag)? {
            Some(Value::Bytes(bytes)) => Ok(Some(Self { bytes })),
            Some(_) => Err(damaged()),
            None => Ok(None),
        }
    }

    /// Calls `each` for every label of a map of labels.
    pub(super) fn labels(self, tag: u32, mut each: impl FnMut(&'a str, &'a str)) -> Result<()> {
        let mut rest = self.bytes;
        while let Some((found, value)) = next(&mut rest)? {
            if found != tag {
                continue;
            }
            let Value::Bytes(bytes) = value else { return Err(damaged()) };
            let entry = Row { bytes };
            each(entry.text(1)?, entry.text(2)?);
        }
        Ok(())
    }

    /// The value of a field; the last one counts, as protobuf has it.
    fn last(self, tag: u32) -> Result<Option<Value<'a>>> {
        let (mut rest, mut last) = (self.bytes, None);
        while let Some((found, value)) = next(&mut rest)? {
            if found == tag {
                last = Some(value);
            }
        }
        Ok(last)
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| damaged())
}

fn damaged() -> Error {
    Error::data_loss("a record is damaged: it is no protobuf message")
}

/// Cuts the next field off.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u32, Value<'a>)>> {
    if rest.is_empty() {
        return Ok(None);
    }
    let head = varint(rest)?;
    let tag = u32::try_from(head >> 3).map_err(|_| damaged())?;
    let value = match head & 7 {
        0 => Value::Number(varint(rest)?),
        1 => cut(rest, 8).map(|_| Value::Other)?,
        2 => {
            let len = varint(rest)?;
            Value::Bytes(cut(rest, len)?)
        }
        5 => cut(rest, 4).map(|_| Value::Other)?,
        _ => return Err(damaged()),
    };
    Ok(Some((tag, value)))
}

fn cut<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8]> {
    let len = usize::try_from(len).map_err(|_| damaged())?;
    let (cut, behind) = rest.split_at_checked(len).ok_or_else(damaged)?;
    *rest = behind;
    Ok(cut)
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first().ok_or_else(damaged)?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(damaged())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::content::{BlobRecord, IngestRecord};
    use crate::record::{Opaque, Time, encode};

    #[test]
    fn what_prost_writes_is_read() {
        let labels: BTreeMap<String, String> =
            [("k".to_owned(), "v".to_owned()), ("l".repeat(300), "w".repeat(3000))].into();
        let now = Some(Time::from(std::time::SystemTime::now()));
        let blob =
            BlobRecord { version: 0, size: u64::MAX, labels: labels.clone(), created: now, updated: now };
        let bytes = encode(blob);
        let row = Row::of::<BlobRecord>("k", &bytes).unwrap();
        let mut found = BTreeMap::new();
        row.labels(3, |key, value| drop(found.insert(key.to_owned(), value.to_owned()))).unwrap();
        assert_eq!(found, labels);
        assert_eq!(row.number(2).unwrap(), u64::MAX);
        assert_eq!(row.text(9).unwrap(), "");
        assert!(row.message(4).unwrap().unwrap().number(1).unwrap() > 1_700_000_000);
        assert!(row.text(2).is_err() && row.number(4).is_err());
    }

    #[test]
    fn a_newer_version_is_refused() {
        let bytes = IngestRecord { version: 9, ..IngestRecord::default() }.encode_to_vec();
        let error = Row::of::<IngestRecord>("k", &bytes).err().unwrap();
        assert!(error.to_string().contains("ingest record \"k\" has version 9"), "{error}");
        assert!(Row::of::<IngestRecord>("k", b"").is_err());
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let row = Row { bytes: &bytes };
            let _ = (row.text(1), row.number(2), row.labels(3, |_, _| ()));
        }

        #[test]
        fn of_repeated_and_unknown_fields_the_same_is_read_as_by_prost(
            fields in proptest::collection::vec((prop_oneof![Just(1_u8), Just(9)], "[a-z]{0,9}", any::<u64>()), 0..6)
        ) {
            let mut bytes = Vec::new();
            for (tag, text, number) in fields {
                bytes.extend([tag << 3 | 2, u8::try_from(text.len()).unwrap()]);
                bytes.extend(text.as_bytes());
                bytes.push(10 << 3);
                prost::encoding::encode_varint(number, &mut bytes);
            }
            let opaque = Opaque::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(types::Any::from(opaque).type_url, Row { bytes: &bytes }.text(1).unwrap());
        }
    }
}
