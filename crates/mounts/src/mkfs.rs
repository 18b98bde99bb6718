//! `mkfs/…`: a filesystem that is made in a file where there is none, by options `X-containerd.mkfs.{size,fs,uuid}=…`.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, Mode, OFlags};
use types::mount::Mount;
use types::{Error, Result, ResultExt};

use crate::roots::{Place, Roots};

const PREFIX: &str = "X-containerd.mkfs.";

#[derive(Debug, PartialEq, Eq)]
struct Filesystem {
    size: u64,
    program: &'static str,
    uuid: Option<String>,
}

/// Makes the filesystem in the mount's source, unless there is a file already; the mount loses the options.
pub fn mkfs(mut mount: Mount, roots: &Roots) -> Result<Mount> {
    let place = roots.place(&mount.source, "mkfs")?;
    let wanted = parse(&mount.options)?;
    mount.options.retain(|option| !option.starts_with(PREFIX));
    if place.open(OFlags::PATH)?.is_none() {
        make(&place, &wanted).context(|| format!("failed format {:?}", mount.source))?;
    }
    Ok(mount)
}

fn parse(options: &[String]) -> Result<Filesystem> {
    let mut wanted = Filesystem { size: 0, program: "mkfs.ext4", uuid: None };
    for option in options.iter().filter_map(|option| option.strip_prefix(PREFIX)) {
        match option.split_once('=') {
            Some(("size", size)) => {
                wanted.size = bytes(size)
                    .ok_or_else(|| Error::invalid(format!("bad option size: invalid size: {size:?}")))?;
            }
            Some(("fs", fs)) => wanted.program = program(fs)?,
            Some(("uuid", uuid)) => wanted.uuid = Some(uuid.to_owned()),
            _ => return Err(Error::invalid(format!("unknown mount option {option}: invalid argument"))),
        }
    }
    if wanted.size == 0 {
        return Err(Error::invalid("mkfs requires mkfs.size option: invalid argument"));
    }
    Ok(wanted)
}

fn program(fs: &str) -> Result<&'static str> {
    match fs {
        "ext2" => Ok("mkfs.ext2"),
        "ext3" => Ok("mkfs.ext3"),
        "ext4" => Ok("mkfs.ext4"),
        "xfs" => Ok("mkfs.xfs"),
        _ => Err(Error::invalid(format!("unsupported filesystem {fs:?}: invalid argument"))),
    }
}

/// Bytes of `10`, `64k`, `1.5 GiB` and the like: powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let unit = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit);
    let power = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.parse::<u64>().ok()?.checked_mul(1 << power)?;
    let part = match fraction {
        "" => 0,
        // A part of a byte more or less is of no matter to a filesystem.
        digits => {
            (u128::from(digits.get(..9).unwrap_or(digits).parse::<u64>().ok()?) << power)
                / 10u128.pow(u32::try_from(digits.len().min(9)).ok()?)
        }
    };
    whole.checked_add(u64::try_from(part).ok()?)
}

fn make(place: &Place, wanted: &Filesystem) -> Result<()> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let file = File::from(place.open(flags)?.ok_or_else(|| Error::unavailable("its directory is gone"))?);
    let made = fill(&file, wanted);
    if made.is_err() {
        // Left behind it would pass for a filesystem the next time.
        let _ = rustix::fs::unlinkat(&place.parent, place.name(), AtFlags::empty());
    }
    made
}

fn fill(file: &File, wanted: &Filesystem) -> Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(0o640)).map_err(std::io::Error::from)?;
    file.set_len(wanted.size).context(|| format!("make room for {} bytes", wanted.size))?;
    let mut command = Command::new(wanted.program);
    command.arg("-q");
    match (&wanted.uuid, wanted.program) {
        (Some(uuid), "mkfs.xfs") => drop(command.arg("-m").arg(format!("uuid={uuid}"))),
        (Some(uuid), _) => drop(command.arg("-U").arg(uuid)),
        (None, _) => {}
    }
    // Our own descriptor: a path could lead elsewhere by now.
    command.arg(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    let done = command.stdin(Stdio::null()).output().context(|| format!("run {}", wanted.program))?;
    if done.status.success() {
        return Ok(());
    }
    let told = [done.stdout, done.stderr].concat();
    Err(Error::unknown(format!(
        "{} failed: {}: {}",
        wanted.program,
        String::from_utf8_lossy(&told).trim_end(),
        done.status
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(|option| format!("{PREFIX}{option}")).collect();
        Mount { source: source.to_owned(), options, ..Mount::default() }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, size) in [
            ("10", 10),
            ("64k", 65536),
            ("1.5GiB", 3 << 29),
            ("2 MB", 2 << 20),
            ("1.25m", 5 << 18),
            ("3b", 3),
        ] {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for bad in ["", "x", "1q", "-1", "1.x", "99999999p"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn bad_options_are_refused() {
        let top = tempfile::tempdir().unwrap();
        let roots = Roots(vec![top.path().to_owned()]);
        let source = top.path().join("fs.img");
        for bad in [&[][..], &["size=0"], &["size=1m", "fs=btrfs"], &["size=1m", "colour=red"], &["size"]] {
            let error = mkfs(mount(&source.to_string_lossy(), bad), &roots).unwrap_err();
            assert_eq!(error.class(), types::Class::InvalidArgument, "{bad:?}");
        }
        let error = mkfs(mount("/nowhere/fs.img", &["size=1m"]), &roots).unwrap_err();
        assert_eq!(error.class(), types::Class::Unimplemented);
    }

    #[test]
    fn a_filesystem_that_cannot_be_made_leaves_no_file() {
        let top = tempfile::tempdir().unwrap();
        let roots = Roots(vec![top.path().to_owned()]);
        let source = top.path().join("fs.img");
        // Too small for any filesystem, or mkfs.ext4 is not installed: either way it fails.
        mkfs(mount(&source.to_string_lossy(), &["size=10"]), &roots).unwrap_err();
        assert!(!source.exists());
    }

    #[test]
    fn a_file_that_is_there_is_left_as_it_is() {
        let top = tempfile::tempdir().unwrap();
        let source = top.path().join("fs.img");
        std::fs::write(&source, "kept").unwrap();
        let mount = mkfs(mount(&source.to_string_lossy(), &["size=1m"]), &Roots(vec![top.path().to_owned()]))
            .unwrap();
        assert!(mount.options.is_empty());
        assert_eq!(std::fs::read(&source).unwrap(), b"kept");
    }
}
