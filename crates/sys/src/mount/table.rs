//! The mount table, `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use types::{Result, ResultExt};

/// One mount of this process's mount namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The mount's id, reused after it is gone.
    pub id: u32,
    /// The id of the mount it is on.
    pub parent: u32,
    /// `major:minor` of the filesystem.
    pub device: String,
    /// The directory of the filesystem that is shown.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Options of the mount: `rw`, `nosuid`…
    pub options: String,
    /// `shared:N`, `master:N`, `propagate_from:N`, `unbindable`.
    pub propagation: Vec<String>,
    /// The filesystem type.
    pub kind: String,
    /// Device or name.
    pub source: OsString,
    /// Options of the filesystem, comma separated.
    pub data: String,
}

/// The mounts of this process's mount namespace, in the kernel's order.
pub fn read() -> Result<Vec<Entry>> {
    let text = std::fs::read("/proc/self/mountinfo").context(|| "read the mount table")?;
    Ok(parse(&text))
}

/// Parses the table's text. Lines that are not of its form are skipped.
pub fn parse(text: &[u8]) -> Vec<Entry> {
    text.split(|byte| *byte == b'\n').filter_map(entry).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut entry = Entry {
        id: text(fields.next()?).parse().ok()?,
        parent: text(fields.next()?).parse().ok()?,
        device: text(fields.next()?),
        root: PathBuf::from(unescaped(fields.next()?)),
        target: PathBuf::from(unescaped(fields.next()?)),
        options: text(fields.next()?),
        ..Entry::default()
    };
    loop {
        match fields.next()? {
            b"-" => break,
            tag => entry.propagation.push(text(tag)),
        }
    }
    entry.kind = text(fields.next()?);
    entry.source = unescaped(fields.next()?);
    entry.data = unescaped(fields.next()?).to_string_lossy().into_owned();
    Some(entry)
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// The kernel writes space, tab, newline, backslash and hash as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_manual_page_is_understood() {
        let line =
            b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n";
        let entries = parse(line);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].target, PathBuf::from("/mnt 2"));
        assert_eq!(entries[0].propagation, ["master:1", "shared:7"]);
        assert_eq!((entries[0].kind.as_str(), entries[0].data.as_str()), ("ext3", "rw,errors=continue"));
    }

    #[test]
    fn the_tables_own_root_is_found() {
        assert!(read().unwrap().iter().any(|entry| entry.target == std::path::Path::new("/")));
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            parse(&text);
        }

        #[test]
        fn escapes_are_undone(name in "[a-z \t\\\\#]{0,20}") {
            let escaped: String = name.bytes().map(|b| match b {
                b' ' | b'\t' | b'\\' | b'#' => format!("\\{b:03o}"),
                b => char::from(b).to_string(),
            }).collect();
            let line = format!("1 2 3:4 / /{escaped} rw - tmpfs tmpfs rw");
            proptest::prop_assert_eq!(&parse(line.as_bytes())[0].target, &PathBuf::from(format!("/{name}")));
        }
    }
}
