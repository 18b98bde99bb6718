//! Which levels are taken: pairs of categories, by how many pods and containers have them. Each of those holds a [`Level`]; after a
//! start of the daemon, as soon as it is known again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use types::{Error, Result};

use super::label::Label;

/// So many random pairs are tried before all are looked through.
const TRIES: u32 = 64;
/// As many categories as a policy has.
const MOST: u32 = 1024;
/// Of files that no container may touch.
const RESERVED: (u32, u32) = (MOST - 2, MOST - 1);

static TAKEN: Mutex<Taken> = Mutex::new(BTreeMap::new());

/// A level that is taken as long as this lives; or none.
#[derive(Debug, Default)]
pub struct Level(String);

impl Level {
    /// That of a label.
    pub fn of(label: &str) -> Self {
        let level = Label::parse(label).map(|label| label.level).unwrap_or_default();
        Self::hold(&mut taken(), level)
    }

    /// One of two of the first `range` categories that nobody has.
    pub(super) fn take(range: u32) -> Result<Self> {
        let range = if range == 0 { MOST } else { range.min(MOST) };
        let mut taken = taken();
        let free = |taken: &Taken, (low, high): (u32, u32)| {
            let level = format!("s0:c{low},c{high}");
            ((low, high) != RESERVED && !taken.contains_key(&level)).then_some(level)
        };
        let random = || {
            let (a, b) = (rand::random_range(0..range), rand::random_range(0..range));
            (a != b).then_some((a.min(b), a.max(b)))
        };
        let tried = (0..TRIES).filter_map(|_| random()).find_map(|pair| free(&taken, pair));
        let all = || (0..range).flat_map(|low| (low + 1..range).map(move |high| (low, high)));
        let found = tried.or_else(|| all().find_map(|pair| free(&taken, pair)));
        let exhausted = || Error::exhausted(format!("all levels of {range} SELinux categories are taken"));
        Ok(Self::hold(&mut taken, found.ok_or_else(exhausted)?))
    }

    fn hold(taken: &mut Taken, level: String) -> Self {
        if !level.is_empty() {
            *taken.entry(level.clone()).or_default() += 1;
        }
        Self(level)
    }

    /// As it stands in a label.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl Clone for Level {
    fn clone(&self) -> Self {
        Self::hold(&mut taken(), self.0.clone())
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        let mut taken = taken();
        match taken.get_mut(&self.0) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(taken.remove(&self.0)),
            None => {}
        }
    }
}

type Taken = BTreeMap<String, u32>;

fn taken() -> MutexGuard<'static, Taken> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_free_again_when_nobody_holds_it() {
        // Three pairs there are of three categories, and one more user of the first.
        let mut levels: Vec<Level> = (0..3).map(|_| Level::take(3).unwrap()).collect();
        let first = levels.remove(0);
        let text = first.text().to_owned();
        let (same, other) = (Level::of(&format!("a:b:c:{text}")), first.clone());
        drop(first);
        assert!(Level::take(3).is_err());
        drop((same, other));
        assert_eq!(Level::take(3).unwrap().text(), text);
        assert!(Level::take(1).is_err());
        assert_eq!(Level::of("a:b:c").text(), "");
    }
}
