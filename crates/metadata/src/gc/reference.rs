//! The labels `containerd.io/gc.…`: how things say what they keep, or by what they are kept.
//!
//! | label (a name may follow behind `.` or `/`)          | value                       | meaning                            |
//! | ---------------------------------------------------- | --------------------------- | ---------------------------------- |
//! | `gc.root…`                                           | anything                    | it stays                           |
//! | `gc.ref.content`, `gc.ref.image`, `gc.ref.<kind>`    | digest, name, id            | it keeps that                      |
//! | `gc.ref.snapshot.<snapshotter>`                      | key                         | it keeps that snapshot             |
//! | `gc.bref.container`, `.content`, `.image`            | id, digest, name            | that keeps it                      |
//! | `gc.bref.snapshot.<snapshotter>`                     | key                         | that snapshot keeps it             |
//! | `gc.cond.snapshot.<snapshotter>`                     | `usedat<24h,…\|key`         | it keeps the snapshot if one holds |
//! | `gc.cond.value-usedat…`                              | a time (RFC 3339)           | what such conditions look at       |
//! | `gc.expire`                                          | a time (RFC 3339)           | until when a lease or image stays  |
//! | `gc.flat`                                            | anything                    | a lease keeps what it names only   |

use std::time::{Duration, SystemTime};

use types::duration;
use types::time::parse_rfc3339;

use super::node::Kind;

/// What all these labels begin with.
const PREFIX: &str = "containerd.io/gc.";
/// A lease with this label keeps what it names, and not what that refers to.
pub(super) const FLAT: &str = "containerd.io/gc.flat";

/// What a label says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reference<'a> {
    /// Whatever has it stays.
    Root,
    /// Whatever has it keeps this.
    To(Target<'a>),
    /// This keeps whatever has it.
    From(Target<'a>),
    /// Whatever has it keeps this snapshot, under a condition.
    If(Condition, Target<'a>),
    /// When a snapshot was used.
    UsedAt(SystemTime),
}

/// A thing of the same namespace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Target<'a> {
    pub(super) kind: Kind,
    pub(super) group: &'a str,
    pub(super) key: &'a str,
}

/// How long ago a snapshot was used, at most or at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Condition {
    UsedWithin(Duration),
    UsedBefore(Duration),
}

impl Condition {
    pub(super) fn holds(self, used: SystemTime, now: SystemTime) -> bool {
        // Used in the future is used just now.
        let ago = now.duration_since(used).unwrap_or_default();
        match self {
            Self::UsedWithin(limit) => ago < limit,
            Self::UsedBefore(limit) => ago > limit,
        }
    }
}

/// Calls `each` for what a label says. `others` are the kinds of collectibles, as in `gc.ref.<kind>`.
pub(super) fn read<'a>(
    label: &'a str,
    value: &'a str,
    others: &[&'a str],
    each: &mut dyn FnMut(Reference<'a>),
) {
    let Some(rest) = label.strip_prefix(PREFIX) else { return };
    if rest.starts_with("root") {
        return each(Reference::Root);
    }
    if let Some(rest) = rest.strip_prefix("ref.") {
        if let Some(target) = target(rest, value, others) {
            each(Reference::To(target));
        }
    } else if let Some(rest) = rest.strip_prefix("bref.") {
        if let Some(target) = target(rest, value, &[]) {
            each(Reference::From(target));
        } else if named(rest, "container") {
            each(Reference::From(Target { kind: Kind::Container, group: "", key: value }));
        }
    } else if rest.starts_with("cond.value-usedat") {
        if let Some(used) = parse_rfc3339(value) {
            each(Reference::UsedAt(used));
        }
    } else if let Some(snapshotter) = rest.strip_prefix("cond.snapshot") {
        conditions(snapshotter, value, each);
    }
}

/// When something with this value of `gc.expire` ends; `None` if it is no time, and so never.
pub(super) fn expiry(value: &str) -> Option<SystemTime> {
    parse_rfc3339(value)
}

fn target<'a>(rest: &'a str, key: &'a str, others: &[&'a str]) -> Option<Target<'a>> {
    if let Some(snapshotter) = rest.strip_prefix("snapshot.") {
        return Some(Target { kind: Kind::Snapshot, group: before_slash(snapshotter), key });
    }
    for (name, kind) in [("content", Kind::Content), ("image", Kind::Image)] {
        if named(rest, name) {
            return Some(Target { kind, group: "", key });
        }
    }
    let group = others.iter().find(|other| named(rest, other))?;
    Some(Target { kind: Kind::Other, group, key })
}

/// Whether `rest` is `name`, or `name` with a name of its own behind it.
fn named(rest: &str, name: &str) -> bool {
    rest.strip_prefix(name).is_some_and(|behind| behind.is_empty() || behind.starts_with(['.', '/']))
}

fn before_slash(text: &str) -> &str {
    text.split('/').next().unwrap_or_default()
}

fn conditions<'a>(snapshotter: &'a str, value: &'a str, each: &mut dyn FnMut(Reference<'a>)) {
    let Some((all, key)) = value.split_once('|') else { return };
    let group = before_slash(snapshotter.trim_start_matches(['.', '/']));
    for condition in all.split(',').filter_map(condition) {
        each(Reference::If(condition, Target { kind: Kind::Snapshot, group, key }));
    }
}

/// `usedat<24h` or `usedat>24h`. Anything else means nothing, as upstream has it.
fn condition(text: &str) -> Option<Condition> {
    let (name, rest) = text.split_at_checked(text.find(['!', '<', '>', '='])?)?;
    let limit = duration::parse(rest.get(1..)?)?;
    match (name, rest.as_bytes().first()?) {
        ("usedat", b'<') => Some(Condition::UsedWithin(limit)),
        ("usedat", b'>') => Some(Condition::UsedBefore(limit)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says<'a>(label: &'a str, value: &'a str) -> Vec<Reference<'a>> {
        let mut all = Vec::new();
        read(label, value, &["mount"], &mut |reference| all.push(reference));
        all
    }

    fn target<'a>(kind: Kind, group: &'a str, key: &'a str) -> Target<'a> {
        Target { kind, group, key }
    }

    #[test]
    fn references_are_read_with_and_without_names() {
        for (label, kind, group) in [
            ("containerd.io/gc.ref.content", Kind::Content, ""),
            ("containerd.io/gc.ref.content.l.0", Kind::Content, ""),
            ("containerd.io/gc.ref.content/config", Kind::Content, ""),
            ("containerd.io/gc.ref.image.base", Kind::Image, ""),
            ("containerd.io/gc.ref.snapshot.overlayfs", Kind::Snapshot, "overlayfs"),
            ("containerd.io/gc.ref.snapshot.overlayfs/x.y", Kind::Snapshot, "overlayfs"),
            ("containerd.io/gc.ref.mount", Kind::Other, "mount"),
            ("containerd.io/gc.ref.mount.m", Kind::Other, "mount"),
        ] {
            assert_eq!(says(label, "v"), [Reference::To(target(kind, group, "v"))], "{label}");
        }
        for nothing in [
            "containerd.io/gc.ref.contents",
            "containerd.io/gc.ref.snapshot",
            "containerd.io/gc.ref.container",
            "containerd.io/gc.ref.",
            "containerd.io/gc.expire",
            "containerd.io/gc.",
            "gc.ref.content",
        ] {
            assert_eq!(says(nothing, "v"), [], "{nothing}");
        }
    }

    #[test]
    fn roots_and_back_references_are_read() {
        for root in ["containerd.io/gc.root", "containerd.io/gc.root.x", "containerd.io/gc.rootless"] {
            assert_eq!(says(root, "x"), [Reference::Root], "{root}");
        }
        for (label, kind, group) in [
            ("containerd.io/gc.bref.container", Kind::Container, ""),
            ("containerd.io/gc.bref.container/c", Kind::Container, ""),
            ("containerd.io/gc.bref.content.x", Kind::Content, ""),
            ("containerd.io/gc.bref.image", Kind::Image, ""),
            ("containerd.io/gc.bref.snapshot.native/x", Kind::Snapshot, "native"),
        ] {
            assert_eq!(says(label, "v"), [Reference::From(target(kind, group, "v"))], "{label}");
        }
        assert_eq!(says("containerd.io/gc.bref.containers", "v"), []);
        assert_eq!(says("containerd.io/gc.bref.mount", "v"), []);
    }

    #[test]
    fn conditions_are_read_and_hold() {
        let hour = Duration::from_secs(3600);
        let label = "containerd.io/gc.cond.snapshot.overlayfs/x";
        let to = target(Kind::Snapshot, "overlayfs", "k|2");
        assert_eq!(
            says(label, "usedat<1h,other=3,usedat!=2h,usedat<=3h,usedat>2h,junk|k|2"),
            [
                Reference::If(Condition::UsedWithin(hour), to),
                Reference::If(Condition::UsedBefore(2 * hour), to)
            ]
        );
        assert_eq!(says(label, "usedat<1h"), [], "no key");
        let now = SystemTime::now();
        let used = now - hour;
        assert!(
            Condition::UsedWithin(2 * hour).holds(used, now) && !Condition::UsedWithin(hour).holds(used, now)
        );
        assert!(
            Condition::UsedBefore(hour / 2).holds(used, now) && !Condition::UsedBefore(hour).holds(used, now)
        );
        assert!(Condition::UsedWithin(hour).holds(now + hour, now));
        let at = "2026-11-21T10:00:00Z";
        assert_eq!(
            says("containerd.io/gc.cond.value-usedat.me", at),
            [Reference::UsedAt(parse_rfc3339(at).unwrap())]
        );
        assert_eq!(says("containerd.io/gc.cond.value-usedat", "yesterday"), []);
    }
}
