//! What mounts are made of, where that is plain directories.

use std::path::PathBuf;

use types::mount::Mount;

use crate::extract::in_user_namespace;

/// One bind mount of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub source: PathBuf,
    pub read_only: bool,
}

/// One overlay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    pub upper: Option<PathBuf>,
    /// Topmost first.
    pub lowers: Vec<PathBuf>,
}

/// Mounts that are nothing but one plain bind mount.
pub(crate) fn bind(mounts: &[Mount]) -> Option<Bind> {
    let [mount] = mounts else { return None };
    let bind = mount.kind == "bind" || mount.kind == "rbind";
    let plain = |option: &String| matches!(option.as_str(), "bind" | "rbind" | "rw" | "ro");
    (bind && mount.target.is_empty() && mount.options.iter().all(plain)).then(|| Bind {
        source: PathBuf::from(&mount.source),
        read_only: mount.options.iter().any(|option| option == "ro"),
    })
}

/// Mounts that are nothing but one plain overlay.
pub(crate) fn overlay(mounts: &[Mount]) -> Option<Overlay> {
    let [mount] = mounts else { return None };
    // Device 0:0 cannot be made in a user namespace, and `userxattr` keeps its marks elsewhere.
    if mount.kind != "overlay" || !mount.target.is_empty() || in_user_namespace() {
        return None;
    }
    let (mut upper, mut lowers) = (None, Vec::new());
    for option in &mount.options {
        match option.split_once('=').unwrap_or((option, "")) {
            ("upperdir", dir) => upper = Some(PathBuf::from(unescape(dir))),
            ("lowerdir", dirs) => lowers = split_dirs(dirs),
            ("lowerdir+", dir) => lowers.push(PathBuf::from(dir)),
            ("workdir" | "index" | "volatile" | "rw" | "ro", _) => {}
            // An option that may change what the files below mean.
            _ => return None,
        }
    }
    Some(Overlay { upper, lowers })
}

/// The directory that makes `upper` out of `lower`, where both are stacks of directories and `upper` has one more. With
/// `index` on, files that did not change share inodes with such that did.
pub(crate) fn upper_of(lower: &[Mount], upper: &[Mount]) -> Option<PathBuf> {
    let indexed = |option: &String| option.starts_with("index=") && option != "index=off";
    if upper.iter().any(|mount| mount.options.iter().any(indexed)) {
        return None;
    }
    let mut dirs = dirs(upper)?;
    let top = dirs.remove(0);
    (dirs == self::dirs(lower)? && !dirs.is_empty()).then_some(top)
}

/// The directories that are stacked, topmost first.
pub(crate) fn dirs(mounts: &[Mount]) -> Option<Vec<PathBuf>> {
    let dirs = match bind(mounts) {
        Some(bind) => vec![bind.source],
        None => {
            let Overlay { upper, lowers } = overlay(mounts)?;
            upper.into_iter().chain(lowers).collect()
        }
    };
    (!dirs.is_empty()).then_some(dirs)
}

/// Splits at colons; a backslash takes the next character's meaning away.
fn split_dirs(dirs: &str) -> Vec<PathBuf> {
    let mut all = vec![String::new()];
    let mut chars = dirs.chars();
    while let Some(char) = chars.next() {
        match (char, all.last_mut()) {
            (':', _) => all.push(String::new()),
            ('\\', Some(last)) => last.extend(chars.next()),
            (char, Some(last)) => last.push(char),
            (_, None) => {}
        }
    }
    all.retain(|dir| !dir.is_empty());
    all.into_iter().map(PathBuf::from).collect()
}

fn unescape(dir: &str) -> String {
    let mut chars = dir.chars();
    let mut plain = String::new();
    while let Some(char) = chars.next() {
        plain.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Vec<Mount> {
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        vec![Mount { kind: kind.into(), source: source.into(), target: String::new(), options }]
    }

    fn overlay_of(options: &[&str]) -> Vec<Mount> {
        mount("overlay", "overlay", options)
    }

    #[test]
    fn an_overlay_is_known_only_if_its_options_are() {
        let mounts = overlay_of(&["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/b\\:c:/a"]);
        let wanted = Overlay { upper: Some("/u".into()), lowers: vec!["/b:c".into(), "/a".into()] };
        assert_eq!(overlay(&mounts), Some(wanted));
        assert_eq!(overlay(&overlay_of(&["lowerdir=/a:/b"])).unwrap().upper, None);
        assert_eq!(overlay(&overlay_of(&["upperdir=/u", "lowerdir=/b", "userxattr"])), None);
    }

    #[test]
    fn a_bind_mount_is_known_only_if_it_is_plain() {
        let of = |option: &str| mount("bind", "/x", &[option, "rbind"]);
        assert_eq!(bind(&of("rw")), Some(Bind { source: "/x".into(), read_only: false }));
        assert!(bind(&of("ro")).unwrap().read_only);
        assert_eq!(bind(&of("uidmap=0:1:1")), None);
    }

    #[test]
    fn the_upper_directory_is_a_guide_only_on_top_of_the_very_same_layers() {
        let (two, one) = (overlay_of(&["lowerdir=/b:/a"]), mount("bind", "/a", &["ro", "rbind"]));
        let active = |lower: &str| overlay_of(&["index=off", "workdir=/w", "upperdir=/u", lower]);
        assert_eq!(upper_of(&two, &active("lowerdir=/b:/a")), Some("/u".into()));
        assert_eq!(upper_of(&one, &active("lowerdir=/a")), Some("/u".into()));
        assert_eq!(upper_of(&one, &two), Some("/b".into()));
        assert_eq!(upper_of(&one, &active("lowerdir=/b:/a")), None);
        assert_eq!(upper_of(&two, &active("lowerdir=/a:/b")), None);
        assert_eq!(upper_of(&two, &two), None);
        assert_eq!(upper_of(&[], &one), None);
        assert_eq!(upper_of(&one, &overlay_of(&["index=on", "upperdir=/u", "lowerdir=/a"])), None);
    }
}
