//! Where the output of a process goes, as a client's URI says it, and the line that stands for output that was lost.
//!
//! ```text
//!  (empty)                                              nowhere
//!  /run/x/1-stdout, fifo:///run/x/1-stdout              a FIFO that the client reads
//!  file:///var/log/x.log?max-size=10m&max-file=3&format=json   a file that grows
//!  file:///var/log/pods/x/0.log?format=cri&max-line=16384      lines for the kubelet, which rotates itself
//!  binary:///usr/bin/logger?key=value                   a program that reads descriptors 3 and 4
//!  binary-v2:///usr/bin/logger?key=value                the same, which must say that it is ready
//! ```
//!
//! Read as Go reads URLs: the path is percent-decoded, a host is ignored, and so are keys that nobody knows.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Nowhere.
    None,
    /// A FIFO, or another file that is there already.
    Path(PathBuf),
    /// A file that is added to.
    File(LogFile),
    /// A program.
    Program(Program),
}

/// A file that output is added to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Its path.
    pub path: PathBuf,
    /// What is written for a piece of output.
    pub format: Format,
    /// When a new file is begun; never without it.
    pub rotation: Option<Rotation>,
    /// Where lines have a form: after so many bytes a line is written in parts. Without it none ever is.
    pub max_line: Option<u32>,
}

/// What is written for a piece of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The bytes as they are, as upstream.
    #[default]
    Raw,
    /// Lines of Kubernetes: time, stream, `F` or `P` for a part, text. The directory is the kubelet's to make.
    Cri,
    /// Lines of Docker's json-file: `log`, `stream`, `time`.
    Json,
}

/// When a new file is begun, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file of so many bytes takes no further line.
    pub max_size: u64,
    /// How many files there are, the one that is written included: `x`, `x.1`, `x.2`, the oldest last.
    pub max_files: u32,
}

/// How many files are kept where only their size is given, as the kubelet's default.
const MAX_FILES: u32 = 5;

/// A longer line is written in parts, as Kubernetes and Docker expect.
pub const MAX_LINE: u32 = 16 << 10;

/// A program that takes output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
    /// Its arguments, without its name.
    pub args: Vec<String>,
    /// Whether it must write a byte before it closes descriptor 5; to close it is enough for older ones.
    pub says_ready: bool,
}

impl Output {
    /// Reads a URI.
    pub fn parse(uri: &str) -> Result<Self> {
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Ok(if uri.is_empty() { Self::None } else { Self::Path(uri.into()) });
        };
        match scheme {
            "fifo" => Ok(Self::Path(rest.into())),
            "file" => {
                let (path, query) = place(uri, rest)?;
                LogFile::new(path, &query).map(Self::File)
            }
            "binary" | "binary-v2" => {
                let (path, query) = place(uri, rest)?;
                Ok(Self::Program(Program { path, args: args(query), says_ready: scheme == "binary-v2" }))
            }
            scheme => Err(Error::unknown(format!("unknown STDIO scheme {scheme}"))),
        }
    }
}

impl LogFile {
    fn new(path: PathBuf, query: &[(String, String)]) -> Result<Self> {
        let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let bad = |key: &str, value: &str| Error::invalid(format!("log file: bad {key} {value:?}"));
        let format = match value("format") {
            None | Some("" | "raw") => Format::Raw,
            Some("cri") => Format::Cri,
            Some("json" | "json-file") => Format::Json,
            Some(other) => return Err(bad("format", other)),
        };
        let files = match value("max-file") {
            None => None,
            Some(text) => Some(text.parse().ok().filter(|n| *n > 0).ok_or_else(|| bad("max-file", text))?),
        };
        let rotation = match value("max-size") {
            None if files.is_some_and(|n| n > 1) => {
                return Err(Error::invalid("log file: max-file needs max-size"));
            }
            // As Docker writes "without bound".
            None | Some("-1") => None,
            Some(text) => {
                let max_size = size(text).filter(|n| *n > 0).ok_or_else(|| bad("max-size", text))?;
                Some(Rotation { max_size, max_files: files.unwrap_or(MAX_FILES) })
            }
        };
        let max_line = match value("max-line") {
            None => Some(MAX_LINE),
            Some(text) => {
                let number: i64 = text.parse().map_err(|_| bad("max-line", text))?;
                // As upstream reads `max_container_log_line_size`: what is no size is no bound.
                u32::try_from(number).ok().filter(|max| *max > 0)
            }
        };
        Ok(Self { path, format, rotation, max_line })
    }

    /// Without a form and without rotation.
    pub fn plain(path: PathBuf) -> Self {
        Self { path, format: Format::Raw, rotation: None, max_line: Some(MAX_LINE) }
    }

    /// The URI of a log of Kubernetes; `max_line` as the configuration's `max_container_log_line_size`.
    pub fn cri_uri(path: &Path, max_line: i64) -> String {
        let mut uri = String::from("file://");
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                    uri.push(char::from(*byte));
                }
                byte => uri.push_str(&format!("%{byte:02X}")),
            }
        }
        format!("{uri}?format=cri&max-line={max_line}")
    }
}

/// The URI of output that nobody keeps, and that can still be attached to.
pub const UNKEPT: &str = "file:///dev/null";

/// Bytes, with `k`, `m`, `g` (or `K`, `KB`, `KiB`, ...) for powers of 1024, as Docker reads sizes.
pub fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The path and the query behind `scheme://`.
fn place(uri: &str, rest: &str) -> Result<(PathBuf, Vec<(String, String)>)> {
    let bad = |why: &str| Error::invalid(format!("STDIO uri {uri:?}: {why}"));
    let rest = rest.split('#').next().unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let start = path.find('/').ok_or_else(|| bad("no absolute path"))?;
    let path = unescape(path.get(start..).unwrap_or_default(), Plus::Itself);
    let path = path.filter(|path| !path.contains(&0)).ok_or_else(|| bad("bad path"))?;
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |part| unescape(part, Plus::Blank).and_then(|bytes| String::from_utf8(bytes).ok());
        let read = text(key).zip(text(value)).filter(|(k, v)| !k.contains('\0') && !v.contains('\0'));
        pairs.push(read.ok_or_else(|| bad("bad query"))?);
    }
    Ok((OsString::from_vec(path).into(), pairs))
}

/// Each key followed by its first value.
fn args(query: Vec<(String, String)>) -> Vec<String> {
    let mut args: Vec<(String, String)> = Vec::new();
    for (key, value) in query {
        if !args.iter().any(|(known, _)| *known == key) {
            args.push((key, value));
        }
    }
    args.into_iter().flat_map(|(key, value)| [key, value]).collect()
}

/// What a plus stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Itself,
    Blank,
}

fn unescape(text: &str, plus: Plus) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|d| u8::try_from(d).ok());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            b'+' if plus == Plus::Blank => b' ',
            byte => byte,
        });
    }
    Some(plain)
}

const MARK: (&str, &str) =
    ("[containerd-rs] ", " bytes of output lost: nobody took them, or they could not be written");

/// The line, without its end, that stands for `bytes` that were lost.
pub fn lost_mark(bytes: u64) -> String {
    format!("{}{bytes}{}", MARK.0, MARK.1)
}

/// How many bytes were lost where `line` is such a mark.
pub fn parse_lost_mark(line: &str) -> Option<u64> {
    line.strip_prefix(MARK.0)?.strip_suffix(MARK.1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(uri: &str) -> LogFile {
        match Output::parse(uri).unwrap() {
            Output::File(file) => file,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_fifos_and_nothing_is_nowhere() {
        assert_eq!(Output::parse("").unwrap(), Output::None);
        assert_eq!(Output::parse("/run/a b%20").unwrap(), Output::Path("/run/a b%20".into()));
        assert_eq!(Output::parse("fifo:///run/x").unwrap(), Output::Path("/run/x".into()));
        assert!(Output::parse("http://x/y").unwrap_err().to_string().contains("unknown STDIO scheme http"));
    }

    #[test]
    fn a_file_may_have_a_format_and_be_rotated() {
        let plain = file("file:///var/log/a%20b.log");
        assert_eq!(plain.path, PathBuf::from("/var/log/a b.log"));
        assert_eq!((plain.format, plain.rotation), (Format::Raw, None));
        let full = file("file:///x?max-size=10m&format=cri&max-file=3&unknown=1");
        assert_eq!(full.format, Format::Cri);
        assert_eq!(full.rotation, Some(Rotation { max_size: 10 << 20, max_files: 3 }));
        assert_eq!(file("file:///x?max-size=1KiB").rotation, Some(Rotation { max_size: 1024, max_files: 5 }));
        for bad in
            ["?max-size=x", "?max-size=0", "?max-file=0&max-size=1", "?max-file=2", "?format=xml", "?%zz=1"]
        {
            assert!(Output::parse(&format!("file:///x{bad}")).is_err(), "{bad}");
        }
        assert!(Output::parse("file://relative").is_err());
    }

    #[test]
    fn a_log_of_kubernetes_is_found_again_whatever_its_name() {
        for name in ["/var/log/pods/a_b-c_1/d/0.log", "/x/a b%?&#=+\u{e4}.log"] {
            let log = file(&LogFile::cri_uri(Path::new(name), 4096));
            assert_eq!((log.path.as_path(), log.format), (Path::new(name), Format::Cri));
            assert_eq!((log.max_line, log.rotation), (Some(4096), None));
        }
        assert_eq!(file(&LogFile::cri_uri(Path::new("/x"), -1)).max_line, None);
        assert_eq!(file(&LogFile::cri_uri(Path::new("/x"), 0)).max_line, None);
        assert_eq!(file("file:///x?format=cri").max_line, Some(MAX_LINE));
        assert!(Output::parse("file:///x?max-line=1k").is_err());
        assert_eq!(file(UNKEPT), LogFile::plain("/dev/null".into()));
    }

    #[test]
    fn a_program_gets_each_key_and_its_first_value() {
        let uri = "binary:///usr/bin/nerdctl?_LOG=%2Fvar%2Flib&flag&x=1+2&x=3";
        let Output::Program(program) = Output::parse(uri).unwrap() else { panic!() };
        assert_eq!(program.path, PathBuf::from("/usr/bin/nerdctl"));
        assert_eq!(program.args, ["_LOG", "/var/lib", "flag", "", "x", "1 2"]);
        assert!(!program.says_ready);
        let Output::Program(program) = Output::parse("binary-v2:///l").unwrap() else { panic!() };
        assert!(program.says_ready && program.args.is_empty());
    }

    #[test]
    fn a_mark_is_found_again_and_other_lines_are_none() {
        assert_eq!(parse_lost_mark(&lost_mark(1234)), Some(1234));
        assert_eq!(parse_lost_mark("[containerd-rs] x"), None);
        assert_eq!(parse_lost_mark(""), None);
    }
}
