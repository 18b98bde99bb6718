//! Writing archives, to the byte as Go's archive/tar does: plain USTAR where it can tell everything, else a PAX header in
//! front. So a layer has the same diff id here as upstream, and the same tree always gives the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use types::{Error, Result};

use super::{BLOCK, Entry, Kind, MAX_SPECIAL, Time, malformed};

/// The fields of a header.
mod field {
    use std::ops::Range;

    pub const NAME: Range<usize> = 0..100;
    pub const MODE: Range<usize> = 100..108;
    pub const UID: Range<usize> = 108..116;
    pub const GID: Range<usize> = 116..124;
    pub const SIZE: Range<usize> = 124..136;
    pub const MTIME: Range<usize> = 136..148;
    pub const CHECKSUM: Range<usize> = 148..156;
    pub const FLAG: usize = 156;
    pub const LINK: Range<usize> = 157..257;
    pub const MAGIC: Range<usize> = 257..265;
    pub const MAJOR: Range<usize> = 329..337;
    pub const MINOR: Range<usize> = 337..345;
    pub const PREFIX: Range<usize> = 345..500;
}

type Block = [u8; BLOCK];
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Writes entries one after the other. A body must be as long as its entry said before the next one comes.
pub struct Writer<W: Write> {
    out: W,
    /// What is still missing of the body.
    missing: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// An archive into `out`.
    pub fn new(out: W) -> Self {
        Self { out, missing: 0, padding: 0 }
    }

    /// Writes an entry's header. Sparse maps and access times are not written; of `Kind::Other` nothing is known.
    pub fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.end_body()?;
        let flag = flag(entry.kind)?;
        let records = records(entry);
        let split = split(&entry.name);
        let plain = !records.keys().any(|key| key != b"path" || split.is_none());
        let mut block = [0; BLOCK];
        if plain {
            let (prefix, name) = split.unwrap_or((&[], &entry.name));
            text(&mut block[field::NAME], name);
            text(&mut block[field::LINK], &entry.link);
            text(&mut block[field::PREFIX], prefix);
        } else {
            self.extension(&entry.name, &records)?;
            text(&mut block[field::NAME], &ascii(&entry.name));
            text(&mut block[field::LINK], &ascii(&entry.link));
        }
        block[field::FLAG] = flag;
        numbers(&mut block, entry)?;
        self.block(block)?;
        self.missing = entry.size;
        self.padding = padding(entry.size);
        Ok(())
    }

    /// Writes some of the last entry's body.
    pub fn body(&mut self, bytes: &[u8]) -> Result<()> {
        self.taken(bytes.len() as u64)?;
        Ok(self.out.write_all(bytes)?)
    }

    /// Lets `write` put some of the last entry's body, at most the bytes that are missing, where the archive goes; it says
    /// how many. For whoever copies without a buffer of its own.
    pub fn body_with(&mut self, write: impl FnOnce(&mut W, u64) -> io::Result<u64>) -> Result<u64> {
        let written = write(&mut self.out, self.missing)?;
        self.taken(written)?;
        Ok(written)
    }

    /// How many bytes are missing of the last entry's body.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    fn taken(&mut self, bytes: u64) -> Result<()> {
        let left = self.missing.checked_sub(bytes);
        self.missing =
            left.ok_or_else(|| Error::internal("more bytes for an archive's entry than its header says"))?;
        Ok(())
    }

    /// Ends the archive, and gives what it was written to back.
    pub fn finish(mut self) -> Result<W> {
        self.end_body()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn end_body(&mut self) -> Result<()> {
        if self.missing > 0 {
            return Err(Error::internal("fewer bytes for an archive's entry than its header says"));
        }
        Ok(self.out.write_all(&[0; BLOCK][..std::mem::take(&mut self.padding)])?)
    }

    /// The PAX header that says what the next one cannot.
    fn extension(&mut self, name: &[u8], records: &Records) -> Result<()> {
        let mut body = Vec::new();
        for (key, value) in records {
            record(&mut body, key, value)?;
        }
        if body.len() as u64 > MAX_SPECIAL {
            return Err(malformed("extended attributes or names too long"));
        }
        let mut block = [0; BLOCK];
        let mut called = ascii(&extension_name(name));
        called.truncate(field::NAME.len());
        while called.last() == Some(&b'/') {
            called.pop();
        }
        text(&mut block[field::NAME], &called);
        for zero in [field::MODE, field::UID, field::GID, field::MTIME] {
            octal(&mut block[zero], 0)?;
        }
        octal(&mut block[field::SIZE], body.len() as u64)?;
        block[field::FLAG] = b'x';
        self.block(block)?;
        self.out.write_all(&body)?;
        Ok(self.out.write_all(&[0; BLOCK][..padding(body.len() as u64)])?)
    }

    /// Writes a header with its mark and checksum.
    fn block(&mut self, mut block: Block) -> Result<()> {
        block[field::MAGIC].copy_from_slice(b"ustar\x0000");
        block[field::CHECKSUM].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[field::CHECKSUM.start..field::CHECKSUM.end - 1], sum)?;
        Ok(self.out.write_all(&block)?)
    }
}

fn flag(kind: Kind) -> Result<u8> {
    Ok(match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Char => b'3',
        Kind::Block => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
        Kind::Other(other) => return Err(malformed(format!("an entry of type {other} is not written"))),
    })
}

/// Everything that a plain header has no room for. Of a path it may have room in two parts.
fn records(entry: &Entry) -> Records {
    let mut records = Records::new();
    for (key, value, room) in [("path", &entry.name, field::NAME), ("linkpath", &entry.link, field::LINK)] {
        if !is_ascii(value) || value.len() > room.len() {
            records.insert(key.into(), value.clone());
        }
    }
    for (key, value, room) in [
        ("uid", u64::from(entry.uid), field::UID),
        ("gid", u64::from(entry.gid), field::GID),
        ("size", entry.size, field::SIZE),
    ] {
        if !fits(room.len(), value) {
            records.insert(key.into(), value.to_string().into());
        }
    }
    if entry.mtime.nanos != 0 || u64::try_from(entry.mtime.secs).map_or(true, |s| !fits(12, s)) {
        records.insert("mtime".into(), time(entry.mtime).into());
    }
    for (key, value) in &entry.xattrs {
        records.insert([b"SCHILY.xattr.", &key[..]].concat(), value.clone());
    }
    records
}

fn numbers(block: &mut Block, entry: &Entry) -> Result<()> {
    // What does not fit stands in a record; here it is zero.
    let or_zero = |value: u64, room: usize| if fits(room, value) { value } else { 0 };
    octal(&mut block[field::MODE], u64::from(entry.mode & 0o7777))?;
    octal(&mut block[field::UID], or_zero(entry.uid.into(), field::UID.len()))?;
    octal(&mut block[field::GID], or_zero(entry.gid.into(), field::GID.len()))?;
    octal(&mut block[field::SIZE], or_zero(entry.size, field::SIZE.len()))?;
    let seconds = u64::try_from(entry.mtime.secs).unwrap_or(0);
    octal(&mut block[field::MTIME], or_zero(seconds, field::MTIME.len()))?;
    octal(&mut block[field::MAJOR], entry.device.0.into())?;
    octal(&mut block[field::MINOR], entry.device.1.into())
}

fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

/// Whether a number can be written with octal digits and a NUL.
fn fits(room: usize, value: u64) -> bool {
    value < 1 << (3 * (room - 1))
}

fn octal(field: &mut [u8], value: u64) -> Result<()> {
    if !fits(field.len(), value) {
        return Err(malformed(format!("{value} is too large for a header")));
    }
    let digits = format!("{value:0width$o}\0", width = field.len() - 1);
    field.copy_from_slice(digits.as_bytes());
    Ok(())
}

/// What is too long is cut: the whole stands in a record. No cut name ends in a slash, or some readers would take a file
/// for a directory.
fn text(field: &mut [u8], value: &[u8]) {
    let kept = value.len().min(field.len());
    field[..kept].copy_from_slice(&value[..kept]);
    if value.len() > kept && field[kept - 1] == b'/' {
        let end = field.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        field[end] = 0;
    }
}

fn is_ascii(value: &[u8]) -> bool {
    value.iter().all(|byte| (1..0x80).contains(byte))
}

fn ascii(value: &[u8]) -> Vec<u8> {
    value.iter().copied().filter(|byte| (1..0x80).contains(byte)).collect()
}

/// A long path in the two fields that USTAR has for it, where one of its slashes allows that.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= field::NAME.len() || !is_ascii(name) {
        return None;
    }
    let most = field::PREFIX.len() + 1;
    let end = if name.len() > most { most } else { name.len() - usize::from(name.ends_with(b"/")) };
    let slash = name[..end].iter().rposition(|byte| *byte == b'/').filter(|at| *at > 0)?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    let fits = !rest.is_empty() && rest.len() <= field::NAME.len() && prefix.len() <= field::PREFIX.len();
    fits.then_some((prefix, rest))
}

/// `dir/PaxHeaders.0/file`.
fn extension_name(name: &[u8]) -> Vec<u8> {
    let (dir, file) = match name.iter().rposition(|byte| *byte == b'/') {
        Some(at) => name.split_at(at + 1),
        None => (&[][..], name),
    };
    let mut called = [dir, b"PaxHeaders.0"].concat();
    if !file.is_empty() {
        called.push(b'/');
        called.extend(file);
    }
    called
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(body: &mut Vec<u8>, key: &[u8], value: &[u8]) -> Result<()> {
    if key.is_empty() || key.contains(&b'=') || key.contains(&0) {
        return Err(malformed(format!(
            "extended attribute {:?} is not written",
            String::from_utf8_lossy(key)
        )));
    }
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    body.extend(format!("{length} ").as_bytes());
    body.extend_from_slice(key);
    body.push(b'=');
    body.extend_from_slice(value);
    body.push(b'\n');
    Ok(())
}

/// `<seconds>[.<fraction>]`, without the fraction's last zeros.
fn time(time: Time) -> String {
    let Time { secs, nanos } = time;
    if nanos == 0 {
        return secs.to_string();
    }
    let text = match secs {
        // A quarter of a second before -1 is -1.25.
        ..0 => format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos),
        0.. => format!("{secs}.{nanos:09}"),
    };
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for (key, value, wanted) in [
            ("k", "v", "6 k=v\n"),
            ("path", "/etc/hosts", "19 path=/etc/hosts\n"),
            ("xxxx", "1", "9 xxxx=1\n"),
            ("xxx", "1", "8 xxx=1\n"),
        ] {
            let mut body = Vec::new();
            record(&mut body, key.as_bytes(), value.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(body).unwrap(), wanted);
        }
        let mut body = Vec::new();
        record(&mut body, b"k", &[b'v'; 95]).unwrap();
        assert_eq!(body.len(), 102);
        assert!(body.starts_with(b"102 "));
        assert!(record(&mut Vec::new(), b"a=b", b"").is_err());
    }

    #[test]
    fn long_names_are_split_where_go_splits_them() {
        // Cases of archive/tar's TestSplitUSTARPath.
        let r = |s: &str, n: usize| s.repeat(n).into_bytes();
        let cat = |parts: &[&[u8]]| parts.concat();
        for (name, wanted) in [
            (b"abc".to_vec(), None),
            (r("a", 100), None),
            (r("a", 101), None),
            (cat(&[&r("a", 100), b"/"]), None),
            (cat(&[&r("a", 155), b"/", &r("b", 100)]), Some((155, 100))),
            (cat(&[&r("a", 155), &r("/", 2)]), Some((155, 1))),
            (cat(&[b"test/", &r("a", 101)]), None),
            (cat(&[&r("a", 101), b"/b/"]), Some((101, 2))),
        ] {
            let found = split(&name).map(|(prefix, rest)| (prefix.len(), rest.len()));
            assert_eq!(found, wanted, "{}", String::from_utf8_lossy(&name));
        }
    }

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (secs, nanos, wanted) in [
            (1_350_244_992, 0, "1350244992"),
            (1_350_244_992, 300_000_000, "1350244992.3"),
            (1_350_244_992, 1, "1350244992.000000001"),
            (-1, 0, "-1"),
            (-1, 500_000_000, "-0.5"),
            (-2, 999_999_999, "-1.000000001"),
        ] {
            assert_eq!(time(Time { secs, nanos }), wanted);
        }
    }

    #[test]
    fn whatever_is_written_is_read_again() {
        let names = [
            "f",
            "ü",
            &"n".repeat(100),
            &"n".repeat(101),
            &format!("{}/f", "d".repeat(150)),
            &"x/".repeat(200),
        ];
        let xattrs =
            [(b"security.capability".to_vec(), b"\x01\0\n=".to_vec()), (b"user.x".to_vec(), b"y".to_vec())];
        let mut entries = Vec::new();
        for (at, name) in names.iter().enumerate() {
            for (kind, id, secs, nanos) in [
                (Kind::File, 7, 0, 0),
                (Kind::Symlink, 2_097_151, -5, 250_000_000),
                (Kind::Directory, 2_097_152, 1 << 34, 0),
            ] {
                entries.push(Entry {
                    name: name.as_bytes().to_vec(),
                    link: if kind == Kind::Symlink {
                        names[(at + 1) % names.len()].into()
                    } else {
                        Vec::new()
                    },
                    mode: 0o4751,
                    uid: id,
                    gid: id + 1,
                    size: if kind == Kind::File { 513 } else { 0 },
                    mtime: Time { secs, nanos },
                    xattrs: xattrs[..at % 3].to_vec(),
                    ..Entry::new(kind)
                });
            }
        }
        entries.retain(|entry| entry.kind != Kind::File || !entry.name.ends_with(b"/"));
        let device = Entry { name: b"dev".to_vec(), device: (4095, 1_048_575), ..Entry::new(Kind::Block) };
        entries.push(device);
        let mut writer = Writer::new(Vec::new());
        for entry in &entries {
            writer.entry(entry).unwrap();
            writer.body(&vec![b'b'; entry.size as usize]).unwrap();
        }
        let archive = writer.finish().unwrap();
        let mut reader = crate::tar::Reader::new(&archive[..]);
        for entry in &entries {
            assert_eq!(reader.next_entry().unwrap().as_ref(), Some(entry));
        }
        assert_eq!(reader.next_entry().unwrap(), None);
    }

    #[test]
    fn a_body_must_be_as_long_as_was_said() {
        let file = |size| Entry { name: b"f".to_vec(), size, ..Entry::new(Kind::File) };
        let mut writer = Writer::new(Vec::new());
        writer.entry(&file(3)).unwrap();
        assert!(writer.body(b"four").is_err());
        writer.body(b"two").unwrap();
        writer.entry(&file(1)).unwrap();
        assert!(writer.finish().is_err());
    }
}
