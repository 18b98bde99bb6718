//! File name patterns as Go's `filepath.Glob` reads them: `*`, `?`, `[a-z]`, `[^a]` and `\` in every component.

use std::path::{Component, Path, PathBuf};

/// The files that match, sorted. What cannot be read has none.
pub fn files(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let Component::Normal(name) = component else {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        };
        let name = name.to_string_lossy();
        if name.contains(['*', '?', '[', '\\']) {
            let pattern: Vec<char> = name.chars().collect();
            found = found.iter().flat_map(|dir| entries(dir, &pattern)).collect();
        } else {
            found.iter_mut().for_each(|path| path.push(name.as_ref()));
            found.retain(|path| path.symlink_metadata().is_ok());
        }
    }
    found
}

fn entries(dir: &Path, pattern: &[char]) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| {
            let name: Vec<char> = entry.file_name().to_string_lossy().chars().collect();
            matches(pattern, &name)
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Whether the whole name matches. A pattern that is malformed matches nothing.
fn matches(pattern: &[char], name: &[char]) -> bool {
    // After a mismatch the last star takes one character more; going back further can never help.
    let (mut at, mut star) = ((0, 0), None);
    loop {
        let (p, n) = at;
        if pattern.get(p) == Some(&'*') {
            star = Some((p + 1, n));
            at = (p + 1, n);
            continue;
        }
        match (pattern.get(p), name.get(n)) {
            (None, None) => return true,
            (Some(_), Some(character)) => {
                if let Some(len) = one(&pattern[p..], *character) {
                    at = (p + len, n + 1);
                    continue;
                }
            }
            _ => {}
        }
        match star {
            Some((p, n)) if n < name.len() => {
                star = Some((p, n + 1));
                at = (p, n + 1);
            }
            _ => return false,
        }
    }
}

/// How much of the pattern matches `character`, if it does.
fn one(pattern: &[char], character: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['\\', escaped, ..] => (*escaped == character).then_some(2),
        ['[', '^', rest @ ..] => class(rest, character).and_then(|(len, found)| (!found).then_some(len + 2)),
        ['[', rest @ ..] => class(rest, character).and_then(|(len, found)| found.then_some(len + 1)),
        // Without something behind it this is malformed.
        ['\\'] | [] => None,
        [first, ..] => (*first == character).then_some(1),
    }
}

/// The length of a class behind its bracket, and whether `character` is in it.
fn class(pattern: &[char], character: char) -> Option<(usize, bool)> {
    let (mut at, mut found) = (0, false);
    while at == 0 || pattern.get(at) != Some(&']') {
        let (low, next) = literal(pattern, at)?;
        let (high, next) =
            if pattern.get(next) == Some(&'-') { literal(pattern, next + 1)? } else { (low, next) };
        found |= (low..=high).contains(&character);
        at = next;
    }
    Some((at + 1, found))
}

fn literal(pattern: &[char], at: usize) -> Option<(char, usize)> {
    match *pattern.get(at)? {
        '\\' => Some((*pattern.get(at + 1)?, at + 2)),
        character => Some((character, at + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn match_text(pattern: &str, name: &str) -> bool {
        matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
    }

    #[test]
    fn patterns_are_gos() {
        for (pattern, name) in [
            ("*.toml", "a.toml"),
            ("*a*b*", "xxaxxbxx"),
            ("[0-9][^a].to?l", "7b.toml"),
            ("\\*", "*"),
            ("*", ""),
            ("a*b*c", "abbbcbc"),
            ("ä*", "äö"),
        ] {
            assert!(match_text(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.toml", "a.tom"),
            ("[0-9", "7"),
            ("a", "b"),
            ("[^a]", "a"),
            ("\\", "\\"),
            ("", "a"),
            ("[", "["),
        ] {
            assert!(!match_text(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!match_text(&pattern, &"a".repeat(5000)));
    }

    #[test]
    fn a_star_may_stand_in_every_component() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["b/x.toml", "a/y.toml", "a/z.txt"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = files(&dir.path().join("*/*.toml"));
        assert_eq!(found, [dir.path().join("a/y.toml"), dir.path().join("b/x.toml")]);
        assert!(files(&dir.path().join("c/*")).is_empty());
    }
}
