//! Patterns of annotations: Go's `path.Match`. `*` and `?` are anything but a slash, `[a-z]` and `[^a-z]` classes, a backslash
//! quotes. A pattern that is malformed matches nothing.

/// Whether `pattern` matches all of `text`.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    from(&pattern, &text).unwrap_or(false)
}

/// `None` where the pattern is malformed.
fn from(pattern: &[char], text: &[char]) -> Option<bool> {
    // Where the last star was, and how much of the text it takes: tried again with more when the rest does not match.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let next = match (pattern.get(p), text.get(t)) {
            (None, None) => return Some(true),
            (Some('*'), _) => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            (None, Some(_)) | (Some(_), None) => None,
            (Some(_), Some(c)) => one(&pattern[p..], *c)?,
        };
        match (next, star) {
            (Some(taken), _) => (p, t) = (p + taken, t + 1),
            (None, Some((after, at))) if text.get(at).is_some_and(|c| *c != '/') => {
                star = Some((after, at + 1));
                (p, t) = (after, at + 1);
            }
            (None, _) => return Some(false),
        }
    }
}

/// How much of the pattern one character takes, if it matches. `None` outside where the pattern is malformed.
fn one(pattern: &[char], c: char) -> Option<Option<usize>> {
    match *pattern.first()? {
        '?' => Some((c != '/').then_some(1)),
        '[' => class(pattern, c),
        '\\' => Some((*pattern.get(1)? == c).then_some(2)),
        p => Some((p == c).then_some(1)),
    }
}

fn class(pattern: &[char], c: char) -> Option<Option<usize>> {
    let negated = pattern.get(1) == Some(&'^');
    let mut at = if negated { 2 } else { 1 };
    let (mut found, mut ranges) = (false, 0);
    while ranges == 0 || *pattern.get(at)? != ']' {
        let low = bound(pattern, &mut at)?;
        let mut high = low;
        if pattern.get(at) == Some(&'-') {
            at += 1;
            high = bound(pattern, &mut at)?;
        }
        found |= (low..=high).contains(&c);
        ranges += 1;
    }
    Some((found != negated).then_some(at + 1))
}

fn bound(pattern: &[char], at: &mut usize) -> Option<char> {
    let quoted = *pattern.get(*at)? == '\\';
    if quoted {
        *at += 1;
    }
    let c = *pattern.get(*at)?;
    if !quoted && (c == '-' || c == ']') {
        return None;
    }
    *at += 1;
    Some(c)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_are_gos() {
        for (pattern, text, expected) in [
            ("io.example.*", "io.example.a", true),
            ("io.example.*", "io.example.a/b", false),
            ("*.example/*", "io.example/b", true),
            ("*", "", true),
            ("*", "a/b", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]a]", "]", false),
            ("[-x]", "x", false),
            ("[a", "a", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a\\", "a", false),
            ("*a*b", "xaybzb", true),
            ("a*b*c", "abxbxcx", false),
            ("", "", true),
            ("ab", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        assert!(!matches(&"*a".repeat(40), &"a".repeat(20_000).replace("aaaaaaaaaa", "b")));
    }
}
