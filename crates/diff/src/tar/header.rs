//! One header block.

use tar_core::Header;

use super::{BLOCK, Entry, Kind, Time, malformed};
use types::Result;

/// Which dialect a header is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// What a header block says by itself, before extensions.
pub(super) struct Raw {
    pub entry: Entry,
    pub flag: u8,
    pub format: Format,
    /// The size field: of the body in the archive.
    pub stored: i64,
}

/// Parses a block that is not all zeros.
pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Raw> {
    let header = Header::from_bytes(block);
    header.verify_checksum().map_err(|_| malformed("bad header checksum"))?;
    let old = header.as_ustar();
    let format = format(block);
    let mut entry = Entry {
        name: text(&old.name).to_vec(),
        kind: Kind::File,
        link: text(&old.linkname).to_vec(),
        mode: (number(&old.mode)? & 0o7777) as u32,
        uid: id(number(&old.uid)?)?,
        gid: id(number(&old.gid)?)?,
        size: 0,
        mtime: Time { secs: number(&old.mtime)?, nanos: 0 },
        atime: None,
        device: (0, 0),
        xattrs: Vec::new(),
        sparse: None,
    };
    let mut prefix: &[u8] = &[];
    match format {
        Format::V7 => {}
        Format::Ustar => prefix = text(&old.prefix),
        Format::Star => {
            prefix = text(&block[345..476]);
            entry.atime = Some(Time { secs: number(&block[476..488])?, nanos: 0 });
        }
        Format::Gnu => prefix = gnu_times(header, &mut entry),
    }
    if format != Format::V7 {
        entry.device = (device(number(&old.dev_major)?)?, device(number(&old.dev_minor)?)?);
    }
    if !prefix.is_empty() {
        entry.name = [prefix, b"/", &entry.name].concat();
    }
    let flag = old.typeflag[0];
    entry.kind = kind(flag);
    Ok(Raw { entry, flag, format, stored: number(&old.size)? })
}

fn format(block: &[u8; BLOCK]) -> Format {
    match (&block[257..263], &block[263..265], &block[508..512]) {
        (b"ustar\0", _, b"tar\0") => Format::Star,
        (b"ustar\0", _, _) => Format::Ustar,
        (b"ustar ", b" \0", _) => Format::Gnu,
        _ => Format::V7,
    }
}

/// GNU's access time. Go before 1.8 wrote a prefix in its place, which Go still reads: so do we.
fn gnu_times<'a>(header: &'a Header, entry: &mut Entry) -> &'a [u8] {
    let gnu = header.as_gnu();
    let time = |field: &[u8]| if field[0] == 0 { Ok(None) } else { number(field).map(Some) };
    match (time(&gnu.atime), time(&gnu.ctime)) {
        (Ok(atime), Ok(_)) => {
            entry.atime = atime.map(|secs| Time { secs, nanos: 0 });
            &[]
        }
        _ => Some(text(&header.as_ustar().prefix)).filter(|p| p.is_ascii()).unwrap_or(&[]),
    }
}

pub(super) fn kind(flag: u8) -> Kind {
    match flag {
        b'0' | 0 | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Char,
        b'4' => Kind::Block,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => Kind::Other(other),
    }
}

/// Types whose size field means nothing: no body follows.
pub(super) fn has_no_body(kind: Kind) -> bool {
    !matches!(kind, Kind::File | Kind::Other(_))
}

/// Up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or(&[])
}

/// A user or group id. Go cuts larger numbers to 32 bits when it calls chown; they are refused here.
pub(super) fn id(value: i64) -> Result<u32> {
    u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or_else(|| malformed(format!("owner {value}")))
}

fn device(value: i64) -> Result<u32> {
    u32::try_from(value).map_err(|_| malformed(format!("device number {value}")))
}

/// A numeric field, by Go's rules: base-256 if the first bit is set (two's complement), else octal.
pub(super) fn number(field: &[u8]) -> Result<i64> {
    if field.first().is_some_and(|b| b & 0x80 != 0) {
        return base256(field);
    }
    let padding = |b: &u8| matches!(b, b' ' | 0);
    let Some(start) = field.iter().position(|b| !padding(b)) else { return Ok(0) };
    let end = field.iter().rposition(|b| !padding(b)).map_or(start, |at| at + 1);
    let digits = text(&field[start..end]);
    let bad = || malformed(format!("number {:?}", String::from_utf8_lossy(field)));
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
    i64::from_str_radix(digits, 8).map_err(|_| bad())
}

fn base256(field: &[u8]) -> Result<i64> {
    let negative = field[0] & 0x40 != 0;
    let invert = if negative { 0xff } else { 0 };
    let mut value: u64 = 0;
    for (at, byte) in field.iter().enumerate() {
        let byte = (byte ^ invert) & if at == 0 { 0x7f } else { 0xff };
        if value >> 56 != 0 {
            return Err(malformed("number too large"));
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).map_err(|_| malformed("number too large"))?;
    Ok(if negative { !value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        // Cases of archive/tar's TestParseNumeric.
        for (field, wanted) in [
            (&b""[..], Some(0)),
            (b"\x80", Some(0)),
            (b"\x80\x00\x00", Some(0)),
            (b"\xbf", Some((1 << 6) - 1)),
            (b"\xff", Some(-1)),
            (b"\xff\xff", Some(-1)),
            (b"\xc0", Some(-(1 << 6))),
            (b"\x87\x76\xa2\x22\xeb\x8a\x72\x61", Some(537_795_476_381_659_745)),
            (b"\x80\x00\x00\x00\x07\x76\xa2\x22\xeb\x8a\x72\x61", Some(537_795_476_381_659_745)),
            (b"\xf7\x76\xa2\x22\xeb\x8a\x72\x61", Some(-615_126_028_225_187_231)),
            (b"\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"0000000\x00", Some(0)),
            (b" \x0000000\x00", Some(0)),
            (b"123\x00456\x00", Some(0o123)),
            (b"0123456789\x00", None),
            (b"01777777\x00", Some(0o1_777_777)),
            (b" 012 ", Some(0o12)),
            (b"-1", None),
            (b"+1", None),
        ] {
            assert_eq!(number(field).ok(), wanted, "{field:?}");
        }
    }
}
