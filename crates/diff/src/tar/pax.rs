//! The records of a PAX extended header: `<length> <key>=<value>\n`.

use types::Result;

use super::header::id;
use super::sparse::MapText;
use super::{Entry, Time, malformed};

const XATTR: &[u8] = b"SCHILY.xattr.";
/// The keys whose value may not contain a NUL.
const TEXTS: [&[u8]; 4] = [b"path", b"linkpath", b"uname", b"gname"];

/// What an extended header says about the next entry. Of a key that is given twice the last counts; an empty value
/// leaves what the header says.
#[derive(Debug, Default)]
pub(super) struct Records {
    path: Option<Vec<u8>>,
    linkpath: Option<Vec<u8>>,
    size: Option<Vec<u8>>,
    uid: Option<Vec<u8>>,
    gid: Option<Vec<u8>>,
    mtime: Option<Vec<u8>>,
    atime: Option<Vec<u8>>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: MapText,
}

impl Records {
    pub(super) fn parse(mut rest: &[u8]) -> Result<Self> {
        let mut records = Self::default();
        while !rest.is_empty() {
            let (key, value, after) = record(rest)?;
            records.keep(key, value)?;
            rest = after;
        }
        Ok(records)
    }

    fn keep(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let field = match key {
            b"path" => &mut self.path,
            b"linkpath" => &mut self.linkpath,
            b"size" => &mut self.size,
            b"uid" => &mut self.uid,
            b"gid" => &mut self.gid,
            b"mtime" => &mut self.mtime,
            b"atime" => &mut self.atime,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                    return Ok(());
                }
                return self.sparse.keep(key, value);
            }
        };
        *field = Some(value).filter(|v| !v.is_empty()).map(<[u8]>::to_vec);
        Ok(())
    }

    /// Overrides what the header said; returns the size of the body if it is among it.
    pub(super) fn merge(&mut self, entry: &mut Entry) -> Result<Option<i64>> {
        if let Some(path) = self.path.take() {
            entry.name = path;
        }
        if let Some(link) = self.linkpath.take() {
            entry.link = link;
        }
        if let Some(uid) = &self.uid {
            entry.uid = id(integer(uid)?)?;
        }
        if let Some(gid) = &self.gid {
            entry.gid = id(integer(gid)?)?;
        }
        if let Some(mtime) = &self.mtime {
            entry.mtime = time(mtime)?;
        }
        if let Some(atime) = &self.atime {
            entry.atime = Some(time(atime)?);
        }
        entry.xattrs = std::mem::take(&mut self.xattrs);
        self.size.as_deref().map(integer).transpose()
    }
}

/// Splits the first record off: key, value, rest.
fn record(data: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let bad = || malformed("bad PAX record");
    let space = data.iter().position(|b| *b == b' ').ok_or_else(bad)?;
    let length = usize::try_from(integer(&data[..space])?).map_err(|_| bad())?;
    if length < 5 || length > data.len() || length <= space + 1 {
        return Err(bad());
    }
    let (record, rest) = data.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(bad)?;
    let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let nul = if TEXTS.contains(&key) { value.contains(&0) } else { key.contains(&0) };
    if key.is_empty() || nul {
        return Err(bad());
    }
    Ok((key, value, rest))
}

/// A decimal number, perhaps with a sign.
pub(super) fn integer(text: &[u8]) -> Result<i64> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| malformed(format!("PAX number {:?}", String::from_utf8_lossy(text))))
}

/// `<seconds>[.<fraction>]`; digits beyond nanoseconds are cut.
fn time(text: &[u8]) -> Result<Time> {
    let mut parts = text.splitn(2, |b| *b == b'.');
    let whole = parts.next().unwrap_or(&[]);
    let secs = integer(whole)?;
    let fraction = parts.next().unwrap_or(&[]);
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(malformed("PAX time"));
    }
    let nanos = (0..9).fold(0, |n, at| n * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0')));
    Ok(match whole.first() {
        // -1.25 is a quarter of a second before -1.
        Some(b'-') if nanos > 0 => Time {
            secs: secs.checked_sub(1).ok_or_else(|| malformed("PAX time"))?,
            nanos: 1_000_000_000 - nanos,
        },
        _ => Time { secs, nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_go_reads_them() {
        assert_eq!(record(b"6 k=v\n\n").unwrap(), (&b"k"[..], &b"v"[..], &b"\n"[..]));
        assert_eq!(record(b"19 path=/etc/hosts\nabc").unwrap().1, b"/etc/hosts");
        assert_eq!(record(b"9 k=a=b=\n").unwrap(), (&b"k"[..], &b"a=b="[..], &b""[..]));
        for bad in [
            &b"6 k=1\x00\n"[..3],
            b"6 k~1\n",
            b"6_k=1\n",
            b"6 k=1 ",
            b"632 k=1\n",
            b"16 longkeyname=hahaha\n",
            b"3 somelongkey=\n",
            b"50 tooshort=\n",
            b"0000000000000000000000000000000030 mtime=1432668921.098285006\n30 ctime=2147483649.15163319",
            b"2 k=1\n",
            b"-6 k=1\n",
            b"22 SCHILY.xattr.u\x00=1\n\n",
            b"10 path=\x00\n\n",
            b"6 =v1\n",
        ] {
            let parsed = Records::parse(bad);
            assert!(parsed.is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn fractions_of_seconds_count_downwards_before_the_epoch() {
        assert_eq!(time(b"1350244992.023960108").unwrap(), Time { secs: 1_350_244_992, nanos: 23_960_108 });
        assert_eq!(time(b"1350244992.02396010").unwrap().nanos, 23_960_100);
        assert_eq!(time(b"1.0000000009").unwrap().nanos, 0);
        assert_eq!(time(b"-1.25").unwrap(), Time { secs: -2, nanos: 750_000_000 });
        assert_eq!(time(b"1.").unwrap(), Time { secs: 1, nanos: 0 });
        for bad in [&b""[..], b".5", b"1.x", b"1e3", b"--1"] {
            assert!(time(bad).is_err());
        }
    }
}
