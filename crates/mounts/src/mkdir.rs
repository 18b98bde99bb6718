//! `mkdir/…`: directories that must be there before a mount, as options `X-containerd.mkdir.path=DIR[:MODE[:UID:GID]]`.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use types::mount::Mount;
use types::{Error, Result, ResultExt};

use crate::roots::Roots;

const PREFIX: &str = "X-containerd.mkdir.";

#[derive(Debug, PartialEq, Eq)]
struct Directory {
    path: String,
    mode: u32,
    owner: Option<(u32, u32)>,
}

/// Makes the directories that the options name; the mount loses these options.
pub fn mkdir(mut mount: Mount, roots: &Roots) -> Result<Mount> {
    let wanted: Vec<Directory> = mount
        .options
        .iter()
        .filter_map(|option| option.strip_prefix(PREFIX).map(|rest| parse(rest, option)))
        .collect::<Result<_>>()?;
    for directory in &wanted {
        make(directory, roots).context(|| format!("failed to create directory {:?}", directory.path))?;
    }
    mount.options.retain(|option| !option.starts_with(PREFIX));
    Ok(mount)
}

fn parse(option: &str, whole: &str) -> Result<Directory> {
    let bad = || Error::invalid(format!("invalid mkdir option {whole:?}: invalid argument"));
    let parts: Vec<&str> = option.strip_prefix("path=").ok_or_else(bad)?.split(':').collect();
    let number = |what: &str, text: &str| {
        text.parse::<u32>().map_err(|_| Error::invalid(format!("invalid {what} {text:?}: invalid argument")))
    };
    let mode = |text: &str| {
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| mode & !0o777 == 0)
            .ok_or_else(|| Error::invalid(format!("invalid mode {text}: invalid argument")))
    };
    let (path, mode, owner) = match *parts.as_slice() {
        [path] => (path, 0o700, None),
        [path, bits] => (path, mode(bits)?, None),
        [path, bits, uid, gid] => (path, mode(bits)?, Some((number("uid", uid)?, number("gid", gid)?))),
        _ => return Err(bad()),
    };
    Ok(Directory { path: path.to_owned(), mode, owner })
}

fn make(wanted: &Directory, roots: &Roots) -> Result<()> {
    let place = roots.place(&wanted.path, "mkdir")?;
    // Nobody else may enter before mode and owner are as they should be.
    let made = match rustix::fs::mkdirat(&place.parent, place.name(), Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(std::io::Error::from(errno).into()),
    };
    let finished = place
        .open(OFlags::RDONLY | OFlags::DIRECTORY)
        .and_then(|found| found.ok_or_else(|| Error::unavailable("it was removed meanwhile")))
        .and_then(|directory| finish(&directory, wanted));
    if finished.is_err() && made {
        // Empty and ours; the error is the one to tell.
        let _ = rustix::fs::unlinkat(&place.parent, place.name(), AtFlags::REMOVEDIR);
    }
    finished
}

fn finish(directory: impl AsFd, wanted: &Directory) -> Result<()> {
    if let Some((uid, gid)) = wanted.owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(&directory, Some(uid), Some(gid)).map_err(std::io::Error::from)?;
    }
    Ok(rustix::fs::fchmod(&directory, Mode::from_raw_mode(wanted.mode)).map_err(std::io::Error::from)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn directories_get_their_mode_and_owner_and_the_mount_loses_the_option() {
        let top = tempfile::tempdir().unwrap();
        let roots = Roots(vec![top.path().to_owned()]);
        let path = top.path().join("d");
        let me = std::fs::metadata(top.path()).unwrap();
        let option = format!("{PREFIX}path={}:751:{}:{}", path.display(), me.uid(), me.gid());
        let mount = Mount { options: vec!["index=off".to_owned(), option], ..Mount::default() };
        for _ in 0..2 {
            assert_eq!(mkdir(mount.clone(), &roots).unwrap().options, ["index=off"]);
            let made = std::fs::metadata(&path).unwrap();
            assert!(made.is_dir() && made.mode() & 0o777 == 0o751 && made.uid() == me.uid());
        }
    }

    #[test]
    fn bad_options_are_refused_before_anything_is_made() {
        let top = tempfile::tempdir().unwrap();
        let roots = Roots(vec![top.path().to_owned()]);
        let good = format!("{PREFIX}path={}", top.path().join("d").display());
        for bad in
            ["path", "path=/a:9", "path=/a:1777", "path=/a:700:1", "path=/a:700:x:1", "path=/a:700:1:2:3"]
        {
            let mount = Mount { options: vec![good.clone(), format!("{PREFIX}{bad}")], ..Mount::default() };
            assert_eq!(mkdir(mount, &roots).unwrap_err().class(), types::Class::InvalidArgument, "{bad}");
        }
        assert!(!top.path().join("d").exists());
    }
}
