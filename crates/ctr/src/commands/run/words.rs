//! The small languages inside of `run`'s flags.

use types::oci::spec::{IdMapping, Mount, Namespace, Rlimit};
use types::{Error, Result};

use crate::go;

/// `type=bind,src=/a,dst=/b,options=rbind:ro`: a line of CSV.
pub fn mount(text: &str) -> Result<Mount> {
    let mut mount = Mount::default();
    for field in csv(text)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(Error::invalid("invalid mount specification: expected key=val"));
        };
        match key {
            "type" => mount.kind = value.into(),
            "source" | "src" => mount.source = value.into(),
            "destination" | "dst" => mount.destination = value.into(),
            "options" => mount.options = value.split(':').map(str::to_owned).collect(),
            _ => return Err(Error::invalid(format!("mount option {} not supported", go::quote(key)))),
        }
    }
    Ok(mount)
}

/// The fields of one line of CSV, as Go's `encoding/csv` reads it: a field that begins with a quote ends with one,
/// and two quotes in it are one.
fn csv(line: &str) -> Result<Vec<String>> {
    let bad = |why: &str| Error::invalid(format!("parse error on line 1, column 1: {why}"));
    let mut fields = Vec::new();
    let mut rest = line.lines().next().ok_or_else(|| Error::invalid("EOF"))?;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, behind) =
                rest.split_once(',').map_or((rest, None), |(field, behind)| (field, Some(behind)));
            if field.contains('"') {
                return Err(bad("bare \" in non-quoted field"));
            }
            fields.push(field.to_owned());
            match behind {
                Some(behind) => rest = behind,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut left = quoted;
        loop {
            let (text, behind) =
                left.split_once('"').ok_or_else(|| bad("extraneous or missing \" in quoted-field"))?;
            field.push_str(text);
            match behind.strip_prefix('"') {
                Some(behind) => {
                    field.push('"');
                    left = behind;
                }
                None => {
                    left = behind;
                    break;
                }
            }
        }
        fields.push(field);
        match left.strip_prefix(',') {
            Some(behind) => rest = behind,
            None if left.is_empty() => return Ok(fields),
            None => return Err(bad("extraneous or missing \" in quoted-field")),
        }
    }
}

/// `nstype:path`.
pub fn namespace(text: &str) -> Result<Namespace> {
    let Some((kind, path)) = text.split_once(':') else {
        return Err(Error::invalid(
            "joining a Linux namespace using --with-ns requires the format 'nstype:path'",
        ));
    };
    if !["pid", "network", "uts", "mount", "user", "ipc", "cgroup"].contains(&kind) {
        let text = format!("the Linux namespace type specified in --with-ns is not valid: {kind}");
        return Err(Error::invalid(text));
    }
    Ok(Namespace { kind: kind.into(), path: path.into() })
}

/// `container-id:host-id:size`.
pub fn id_mapping(text: &str) -> Result<IdMapping> {
    let parts: Vec<&str> = text.splitn(4, ':').collect();
    let [container, host, size] = parts[..] else {
        return Err(Error::invalid("user namespace mappings require the format `container-id:host-id:size`"));
    };
    let number = |what: &str, text: &str| {
        let parsed = match text.get(..2) {
            Some("0x" | "0X") => u32::from_str_radix(&text[2..], 16),
            Some("0b" | "0B") => u32::from_str_radix(&text[2..], 2),
            _ => text.parse(),
        };
        let bad =
            |e| Error::invalid(format!("invalid {what} for user namespace remapping: parsing {text:?}: {e}"));
        parsed.map_err(bad)
    };
    Ok(IdMapping {
        container: number("container id", container)?,
        host: number("host id", host)?,
        size: number("size", size)?,
    })
}

/// `soft[:hard]` of RLIMIT_NOFILE.
pub fn nofile(text: &str) -> Result<Rlimit> {
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let number = |part: &str| {
        part.parse().map_err(|_| {
            let why = format!("strconv.ParseUint: parsing {}: invalid syntax", go::quote(part));
            Error::invalid(format!("failed to parse rlimit-nofile {}: {why}", go::quote(text)))
        })
    };
    Ok(Rlimit { kind: "RLIMIT_NOFILE".into(), soft: number(soft)?, hard: number(hard)? })
}

/// Names of capabilities, which begin with `CAP_`.
pub fn capabilities(names: &[String]) -> Result<&[String]> {
    if names.iter().all(|name| name.starts_with("CAP_")) {
        Ok(names)
    } else {
        Err(Error::invalid("capabilities must be specified with 'CAP_' prefix"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_a_line_of_csv() {
        let bind = mount("type=bind,src=/tmp,dst=/host,options=rbind:ro").unwrap();
        assert_eq!(
            (bind.kind.as_str(), bind.source.as_str(), bind.destination.as_str()),
            ("bind", "/tmp", "/host")
        );
        assert_eq!(bind.options, ["rbind", "ro"]);
        assert_eq!(mount(r#""src=/a,b",dst=/c"#).unwrap().source, "/a,b");
        assert_eq!(mount("x=1").unwrap_err().to_string(), "mount option \"x\" not supported");
        assert_eq!(mount("x").unwrap_err().to_string(), "invalid mount specification: expected key=val");
        assert!(mount("").is_err() && mount("\"a").is_err() && mount("a\"b=c").is_err());
    }

    #[test]
    fn mappings_have_three_numbers() {
        assert_eq!(
            id_mapping("0:100000:65536").unwrap(),
            IdMapping { container: 0, host: 100_000, size: 65_536 }
        );
        for bad in ["0:1", "0:1:2:3", "a:1:2", "0:-1:2", "0:1:4294967296"] {
            assert!(id_mapping(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_namespace_has_a_known_type() {
        assert_eq!(namespace("network:/proc/1/ns/net").unwrap().path, "/proc/1/ns/net");
        assert!(namespace("network").is_err() && namespace("net:/x").is_err());
    }

    #[test]
    fn one_number_is_both_limits() {
        let limit = nofile("10").unwrap();
        assert_eq!((limit.soft, limit.hard), (10, 10));
        assert!(nofile("a:1").unwrap_err().to_string().contains("failed to parse rlimit-nofile \"a:1\""));
    }
}
