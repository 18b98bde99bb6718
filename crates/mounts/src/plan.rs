//! Which mounts of a list are ours to do; a pure decision.
//!
//! A type is `[transformation/]…kind`. The list is split at the last mount that needs us: everything before it is mounted
//! here, as it may refer to any of that; what is left is the system's. A mount that is only transformed is left to the
//! system in its new form, one that has a handler is not.

use types::mount::Mount;

/// A change of a mount before it is performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// Templates in source, target and options are filled in.
    Format,
    /// A filesystem is made in the source where there is none.
    Mkfs,
    /// Directories are made.
    Mkdir,
}

impl Transform {
    fn named(name: &str) -> Option<Self> {
        match name {
            "format" => Some(Self::Format),
            "mkfs" => Some(Self::Mkfs),
            "mkdir" => Some(Self::Mkdir),
            _ => None,
        }
    }
}

/// Who performs a mount that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// mount(2).
    System,
    /// A file becomes a block device.
    Loop,
}

/// What becomes of one mount of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// In this order.
    pub transforms: Vec<Transform>,
    /// The type without its transformations.
    pub kind: String,
    /// Who performs it, if it is performed here.
    pub handler: Handler,
}

/// What becomes of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One a mount.
    pub steps: Vec<Step>,
    /// How many of them are performed here. The next one is still transformed.
    pub ours: usize,
}

/// Splits `mounts`; none if nothing of it is ours. With `temporary` everything is. The types in `allowed`, such as `loop` or
/// `format/*`, are done by whoever gets the rest.
pub fn plan(mounts: &[Mount], temporary: bool, allowed: &[String]) -> Option<Plan> {
    let allows = |kind: &str| allowed.iter().any(|allowed| allowed == kind);
    let mut ours = None;
    let mut steps = Vec::with_capacity(mounts.len());
    for (at, mount) in mounts.iter().enumerate() {
        let mut kind = mount.kind.as_str();
        let mut transforms = Vec::new();
        while let Some((name, rest)) = kind.split_once('/') {
            let Some(transform) = Transform::named(name) else { break };
            if !allows(&format!("{name}/*")) && !allows(&mount.kind) {
                ours = Some(at);
            }
            transforms.push(transform);
            kind = rest;
        }
        let handler = if kind == "loop" { Handler::Loop } else { Handler::System };
        if temporary || (handler != Handler::System && !allows(kind)) {
            ours = Some(at + 1);
        }
        steps.push(Step { transforms, kind: kind.to_owned(), handler });
    }
    ours.map(|ours| Plan { steps, ours })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(kinds: &[&str], temporary: bool, allowed: &[&str]) -> Option<usize> {
        let mounts: Vec<_> =
            kinds.iter().map(|kind| Mount { kind: (*kind).to_owned(), ..Mount::default() }).collect();
        let allowed: Vec<_> = allowed.iter().map(|kind| (*kind).to_owned()).collect();
        plan(&mounts, temporary, &allowed).map(|plan| plan.ours)
    }

    #[test]
    fn plain_mounts_are_the_systems_business() {
        assert_eq!(ours(&["overlay"], false, &[]), None);
        assert_eq!(ours(&["bind", "unknown/overlay"], false, &[]), None);
        assert_eq!(ours(&[], true, &[]), None);
    }

    #[test]
    fn everything_up_to_the_last_special_mount_is_ours() {
        assert_eq!(ours(&["loop", "ext4"], false, &[]), Some(1));
        assert_eq!(ours(&["ext4", "ext4", "format/overlay"], false, &[]), Some(2));
        assert_eq!(ours(&["format/overlay", "bind"], false, &[]), Some(0));
        assert_eq!(ours(&["mkfs/loop"], false, &[]), Some(1));
        assert_eq!(ours(&["bind", "format/mkdir/overlay"], true, &[]), Some(2));
    }

    #[test]
    fn what_the_runtime_does_itself_is_left_to_it() {
        assert_eq!(ours(&["ext4", "format/overlay"], false, &["format/*"]), None);
        assert_eq!(ours(&["ext4", "format/overlay"], false, &["format/overlay"]), None);
        assert_eq!(ours(&["ext4", "format/mkdir/overlay"], false, &["format/*"]), Some(1));
        assert_eq!(ours(&["loop"], false, &["loop"]), None);
        assert_eq!(ours(&["loop", "format/overlay"], false, &["format/*"]), Some(1));
    }

    #[test]
    fn the_type_loses_its_transformations() {
        let mount = Mount { kind: "format/mkdir/overlay".to_owned(), ..Mount::default() };
        let step = plan(&[mount], false, &[]).unwrap().steps.remove(0);
        assert_eq!((step.kind.as_str(), step.handler), ("overlay", Handler::System));
        assert_eq!(step.transforms, [Transform::Format, Transform::Mkdir]);
    }
}
