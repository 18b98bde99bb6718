//! Regular expressions as Go reads them, where that differs from what Rust's library reads.
//!
//! | Go | here |
//! | --- | --- |
//! | `\d`, `\w`, `\s`, `\b` know ASCII | they know all scripts |
//! | in a class `[`, `&`, `~` and `-` are themselves | classes in classes, and operations on them |
//! | `\Q...\E` is literal | unknown |
//! | `\<`, `\>` are themselves | ends of words |

use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

/// The expression; `None` for one that is none.
pub fn compile(pattern: &str) -> Option<Regex> {
    Regex::new(&translate(pattern)).ok()
}

fn translate(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut out, &mut rest),
            '[' => class(&mut out, &mut rest),
            c => out.push(c),
        }
    }
    out
}

fn escape(out: &mut String, rest: &mut Peekable<Chars<'_>>) {
    match rest.next() {
        Some('d') => out.push_str("[0-9]"),
        Some('D') => out.push_str("[^0-9]"),
        Some('w') => out.push_str("[0-9A-Za-z_]"),
        Some('W') => out.push_str("[^0-9A-Za-z_]"),
        Some('s') => out.push_str(r"[\t\n\f\r ]"),
        Some('S') => out.push_str(r"[^\t\n\f\r ]"),
        Some('b') => out.push_str(r"(?-u:\b)"),
        Some('Q') => out.push_str(&regex::escape(&literal(rest))),
        Some(c @ ('<' | '>')) => out.push(c),
        Some(c) => out.extend(['\\', c]),
        // Neither takes it.
        None => out.push('\\'),
    }
}

/// What stands before `\E`, or the end.
fn literal(rest: &mut Peekable<Chars<'_>>) -> String {
    let mut text = String::new();
    while let Some(c) = rest.next() {
        if c == '\\' && rest.next_if_eq(&'E').is_some() {
            break;
        }
        text.push(c);
    }
    text
}

/// A class, after its bracket.
fn class(out: &mut String, rest: &mut Peekable<Chars<'_>>) {
    out.push('[');
    out.extend(rest.next_if_eq(&'^'));
    // First it stands for itself.
    if rest.next_if_eq(&']').is_some() {
        out.push_str(r"\]");
    }
    while let Some(c) = rest.next() {
        match c {
            ']' => {
                out.push(']');
                return;
            }
            '[' if rest.peek() == Some(&':') => named(out, rest),
            '[' | '&' | '~' => out.extend(['\\', c]),
            '\\' => match rest.next() {
                Some('d') => out.push_str("0-9"),
                Some('w') => out.push_str("0-9A-Za-z_"),
                Some('s') => out.push_str(r"\t\n\f\r "),
                Some(c) => out.extend(['\\', c]),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
}

/// `[:alpha:]`, after its bracket, or a bracket that only looks like it.
fn named(out: &mut String, rest: &mut Peekable<Chars<'_>>) {
    let ahead: String = rest.clone().take_while(|c| *c != ']').collect();
    if ahead.len() > 2 && ahead.ends_with(':') {
        out.push('[');
        out.extend(rest.by_ref().take(ahead.chars().count() + 1));
    } else {
        out.push_str(r"\[");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_reads_otherwise_is_read_as_go_reads_it() {
        for (pattern, matching, other) in [
            (r"^\d+$", "12", "١"),
            (r"^\w$", "a", "ü"),
            (r"^[\w.]+$", "a.b", "ü"),
            (r"^\D$", "x", "1"),
            (r"^[[]$", "[", "a"),
            ("^[]a]$", "]", "b"),
            ("^[a&&b]+$", "a&b", "c"),
            (r"^\Qa.b\E.$", "a.bc", "axbc"),
            (r"^[[:alpha:]]$", "a", "1"),
            (r"^\<x\>$", "<x>", "x"),
            (r"\bx", "a x", "ax"),
        ] {
            let regex = compile(pattern).unwrap_or_else(|| panic!("{pattern}"));
            assert!(regex.is_match(matching) && !regex.is_match(other), "{pattern}");
        }
        for bad in ["[", "(", "*", "a[b", r"\"] {
            assert!(compile(bad).is_none(), "{bad}");
        }
    }
}
