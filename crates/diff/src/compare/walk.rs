//! Two trees side by side, in the order in which a layer names what differs.
//!
//! Names are compared byte by byte, each directory before what is in it. Where the upper tree is an overlay whose lower
//! layers are the lower tree, its upper directory is the guide: only what that names can differ. Where it hides what is
//! below (opaque), or shows what was elsewhere (redirect), all names count again.

use std::cmp::Ordering;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::AtomicBool;

use types::Result;

use super::same::{check, same};
use super::tree::{Found, Tree, names};

/// Directories above this deep are kept open while what is in them is compared.
const KEPT_OPEN: usize = 64;

/// What happened to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is new.
    Added,
    /// It is another, or has other attributes.
    Modified,
    /// It is the same, and has other names which may not be.
    Same,
    /// It is gone.
    Deleted,
}

/// Who is told: what happened, to which path, and what is there now.
pub(super) type Each<'a> = dyn FnMut(Change, &[u8], Option<Found<'_>>) -> Result<()> + 'a;

/// What is compared.
pub(super) struct Trees {
    pub lower: Tree,
    pub upper: Tree,
    /// The upper directory of the overlay that `upper` is.
    pub guide: Option<Tree>,
}

/// Which of the trees have a directory.
#[derive(Clone, Copy)]
struct Sides {
    lower: bool,
    guided: bool,
}

/// A directory that is being compared.
struct Level {
    path: Vec<u8>,
    sides: Sides,
    open: Option<Open>,
    names: std::vec::IntoIter<CString>,
}

/// Its descriptors.
struct Open {
    lower: Option<OwnedFd>,
    upper: Option<OwnedFd>,
    guide: Option<OwnedFd>,
}

impl Trees {
    /// Calls `each` for everything that differs.
    pub(super) fn compare(&self, cancel: &AtomicBool, each: &mut Each<'_>) -> Result<()> {
        let root = Sides { lower: true, guided: self.guide.is_some() };
        let mut levels = vec![self.enter(Vec::new(), root)?];
        while let Some(level) = levels.last_mut() {
            check(cancel)?;
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            if level.open.is_none() {
                level.open = Some(self.open(&level.path, level.sides)?);
            }
            let Some(below) = level.step(&name, cancel, each)? else { continue };
            let path = level.child(&name);
            if levels.len() > KEPT_OPEN {
                levels.iter_mut().for_each(|level| level.open = None);
            }
            levels.push(self.enter(path, below)?);
        }
        Ok(())
    }

    fn open(&self, path: &[u8], sides: Sides) -> Result<Open> {
        let lower = if sides.lower { self.lower.dir(path)? } else { None };
        let guide = match &self.guide {
            Some(guide) if sides.guided => guide.dir(path)?,
            _ => None,
        };
        Ok(Open { lower, upper: self.upper.dir(path)?, guide })
    }

    fn enter(&self, path: Vec<u8>, mut sides: Sides) -> Result<Level> {
        let open = self.open(&path, sides)?;
        sides.guided = match &open.guide {
            Some(guide) => !hides(guide)?,
            None => false,
        };
        let names = match &open.guide {
            Some(guide) if sides.guided => names(guide)?,
            _ => {
                let all = |dir: &Option<OwnedFd>| dir.as_ref().map_or(Ok(Vec::new()), names);
                union(all(&open.lower)?, all(&open.upper)?)
            }
        };
        Ok(Level { path, sides, open: Some(open), names: names.into_iter() })
    }
}

impl Level {
    fn child(&self, name: &CString) -> Vec<u8> {
        if self.path.is_empty() {
            return name.to_bytes().to_vec();
        }
        [&self.path[..], b"/", name.to_bytes()].concat()
    }

    /// Compares one name; answers with what to compare below it.
    fn step(&self, name: &CString, cancel: &AtomicBool, each: &mut Each<'_>) -> Result<Option<Sides>> {
        let Some(open) = &self.open else { return Ok(None) };
        let (before, now) = (find(&open.lower, name)?, find(&open.upper, name)?);
        let path = self.child(name);
        let change = match (&before, &now) {
            (None, None) => return Ok(None),
            (Some(_), None) => Change::Deleted,
            (None, Some(_)) => Change::Added,
            (Some(before), Some(now)) if !same(before, now, cancel)? => Change::Modified,
            (Some(_), Some(_)) => Change::Same,
        };
        // What is the same and has no other name is not worth a word.
        if change != Change::Same || now.is_some_and(|now| now.link().is_some()) {
            each(change, &path, now)?;
        }
        let below = now.is_some_and(|now| now.is_dir());
        let lower = before.is_some_and(|before| before.is_dir());
        Ok(below.then_some(Sides { lower, guided: self.sides.guided && lower }))
    }
}

fn find<'a>(dir: &'a Option<OwnedFd>, name: &'a CStr) -> Result<Option<Found<'a>>> {
    dir.as_ref().map_or(Ok(None), |dir| Found::find(dir.as_fd(), name))
}

/// Whether what overlayfs shows of a directory is more than what is in it and what is below at the same path.
fn hides(dir: &OwnedFd) -> Result<bool> {
    for mark in [c"trusted.overlay.opaque", c"trusted.overlay.redirect"] {
        if sys::fs::get_xattr(dir, mark)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The names in either list, once, in order.
fn union(one: Vec<CString>, two: Vec<CString>) -> Vec<CString> {
    let mut all = Vec::with_capacity(one.len().max(two.len()));
    let (mut one, mut two) = (one.into_iter().peekable(), two.into_iter().peekable());
    loop {
        let order = match (one.peek(), two.peek()) {
            (Some(left), Some(right)) => left.cmp(right),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return all,
        };
        if order != Ordering::Greater {
            all.extend(one.next());
        }
        if order != Ordering::Less {
            let other = two.next();
            if order == Ordering::Greater {
                all.extend(other);
            }
        }
    }
}
