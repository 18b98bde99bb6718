//! Extended attributes by descriptor.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use types::{Result, ResultExt};

/// The names of the extended attributes of an open file; none where the filesystem has no such thing.
pub fn list_xattrs(file: impl AsFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    loop {
        let size = match rustix::fs::flistxattr_query(&file) {
            Ok(size) => size,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(io::Error::from(errno)).context(|| "list extended attributes"),
        };
        names.resize(size, 0);
        match rustix::fs::flistxattr(&file, &mut names[..]) {
            Ok(size) => names.truncate(size),
            // Somebody added one in between.
            Err(Errno::RANGE) => continue,
            Err(errno) => return Err(io::Error::from(errno)).context(|| "list extended attributes"),
        }
        return Ok(names
            .split(|b| *b == 0)
            .filter(|n| !n.is_empty())
            .filter_map(|n| CString::new(n).ok())
            .collect());
    }
}

/// The value of one extended attribute; `None` where there is none.
pub fn get_xattr(file: impl AsFd, name: &CStr) -> Result<Option<Vec<u8>>> {
    let doing = || format!("read extended attribute {name:?}");
    loop {
        let mut value = match rustix::fs::fgetxattr_query(&file, name) {
            Ok(size) => vec![0; size],
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(io::Error::from(errno)).context(doing),
        };
        match rustix::fs::fgetxattr(&file, name, &mut value[..]) {
            Ok(size) => {
                value.truncate(size);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) => {}
            Err(Errno::NODATA) => return Ok(None),
            Err(errno) => return Err(io::Error::from(errno)).context(doing),
        }
    }
}

/// Copies those extended attributes that `wanted` picks by name and that `to` does not have yet.
///
/// What the target's filesystem does not support is left out, as when the kernel copies a file up in an overlay.
pub fn copy_xattrs(from: impl AsFd, to: impl AsFd, wanted: impl Fn(&CStr) -> bool) -> Result<()> {
    for name in list_xattrs(&from)? {
        if !wanted(&name) {
            continue;
        }
        let Some(value) = get_xattr(&from, &name)? else { continue };
        match rustix::fs::fsetxattr(&to, &*name, &value, XattrFlags::CREATE) {
            Ok(()) | Err(Errno::EXIST | Errno::OPNOTSUPP) => {}
            Err(errno) => {
                return Err(io::Error::from(errno)).context(|| format!("set extended attribute {name:?}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_attributes_are_copied() {
        let top = tempfile::tempdir().unwrap();
        let a = std::fs::File::create(top.path().join("a")).unwrap();
        let b = std::fs::File::create(top.path().join("b")).unwrap();
        if rustix::fs::fsetxattr(&a, "user.one", b"1", XattrFlags::empty()).is_err() {
            eprintln!("skipped: no user attributes on {:?}", top.path());
            return;
        }
        rustix::fs::fsetxattr(&a, "user.two", b"", XattrFlags::empty()).unwrap();
        copy_xattrs(&a, &b, |name| name != c"user.one").unwrap();
        assert_eq!(list_xattrs(&b).unwrap(), [c"user.two".to_owned()]);
        assert_eq!(get_xattr(&b, c"user.two").unwrap(), Some(Vec::new()));
        assert_eq!(get_xattr(&b, c"user.one").unwrap(), None);
    }
}
