//! What the name of an entry means: which directory, which name in it, and whether it is a whiteout.

use types::Result;

use crate::tar::malformed;

const WHITEOUT: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The path of an entry below the root: no empty component, no `.`, no `..`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    /// Components joined by `/`; empty for the root.
    text: Vec<u8>,
    /// Where the last component begins.
    last: usize,
}

/// What the last component asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// The entry itself.
    Entry,
    /// What lower layers have under this name is gone.
    Whiteout(&'a [u8]),
    /// What lower layers have in this directory is gone.
    Opaque,
    /// AUFS's own bookkeeping.
    Ignored,
}

impl Path {
    /// Cleans a name lexically, as Go's `filepath.Clean`. One that leaves the root is refused: upstream would take
    /// `../x` for `x`, and no tool that builds layers writes it.
    pub(crate) fn parse(name: &[u8]) -> Result<Self> {
        if name.contains(&0) {
            return Err(malformed("a NUL in a name"));
        }
        let mut path = Self::default();
        for component in name.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." if path.text.is_empty() => return Err(malformed("the name leads out of the root")),
                b".." => path = Self::of(path.parent()),
                component => path.push(component),
            }
        }
        Ok(path)
    }

    fn of(text: &[u8]) -> Self {
        let last = text.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        Self { text: text.to_vec(), last }
    }

    pub(crate) fn push(&mut self, component: &[u8]) {
        if !self.text.is_empty() {
            self.text.push(b'/');
        }
        self.last = self.text.len();
        self.text.extend_from_slice(component);
    }

    /// The whole path.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.text
    }

    pub(crate) fn is_root(&self) -> bool {
        self.text.is_empty()
    }

    /// All but the last component; empty for the root.
    pub(crate) fn parent(&self) -> &[u8] {
        &self.text[..self.last.saturating_sub(1)]
    }

    /// The last component.
    pub(crate) fn name(&self) -> &[u8] {
        &self.text[self.last..]
    }

    /// Every directory above, nearest first, without the root.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.parent();
        std::iter::from_fn(move || {
            let current = Some(rest).filter(|r| !r.is_empty())?;
            rest = current.iter().rposition(|b| *b == b'/').map_or(&[], |at| &current[..at]);
            Some(current)
        })
    }

    /// What the name asks for, by the rules of the image-spec's layer.md.
    pub(crate) fn meaning(&self) -> Result<Meaning<'_>> {
        let name = self.name();
        if name == OPAQUE {
            return Ok(Meaning::Opaque);
        }
        if name.starts_with(META) {
            return Ok(Meaning::Ignored);
        }
        match name.strip_prefix(WHITEOUT) {
            None => Ok(Meaning::Entry),
            // The directory itself and the one above are no entries of it.
            Some(b"" | b"." | b"..") => {
                Err(malformed(format!("invalid whiteout name: {}", String::from_utf8_lossy(name))))
            }
            Some(hidden) => Ok(Meaning::Whiteout(hidden)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Path {
        Path::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_cleaned_lexically() {
        for (name, wanted) in [
            ("a/b", "a/b"),
            ("/a//b/", "a/b"),
            ("./a/./b", "a/b"),
            ("a/../b", "b"),
            ("a/b/../../c", "c"),
            ("", ""),
            (".", ""),
            ("/", ""),
            ("a/..", ""),
        ] {
            assert_eq!(parse(name).bytes(), wanted.as_bytes(), "{name}");
        }
        for bad in ["..", "../x", "/../x", "a/../../x", "a\0b"] {
            assert!(Path::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!((parse("a/b/c").parent(), parse("a/b/c").name()), (&b"a/b"[..], &b"c"[..]));
        assert_eq!((parse("c").parent(), parse("c").name()), (&b""[..], &b"c"[..]));
        assert_eq!(parse("a/b/c").ancestors().collect::<Vec<_>>(), [&b"a/b"[..], b"a"]);
    }

    #[test]
    fn forged_whiteouts_are_refused_and_auf_s_own_names_ignored() {
        assert_eq!(parse("d/.wh.x").meaning().unwrap(), Meaning::Whiteout(b"x"));
        assert_eq!(parse("d/.wh..x").meaning().unwrap(), Meaning::Whiteout(b".x"));
        assert_eq!(parse("d/.wh..wh..opq").meaning().unwrap(), Meaning::Opaque);
        assert_eq!(parse(".wh..wh.plnk").meaning().unwrap(), Meaning::Ignored);
        assert_eq!(parse(".wh..wh.aufs/").meaning().unwrap(), Meaning::Ignored);
        assert_eq!(parse("a.wh.b").meaning().unwrap(), Meaning::Entry);
        for bad in [".wh.", "d/.wh..", "d/.wh...", "d/.wh./"] {
            assert!(parse(bad).meaning().is_err(), "{bad}");
        }
        // A slash ends the component: this is `x` in a directory of that name, and no way up.
        assert_eq!(parse(".wh../x").bytes(), b".wh../x");
        assert_eq!(parse(".wh.../x").meaning().unwrap(), Meaning::Entry);
    }
}
