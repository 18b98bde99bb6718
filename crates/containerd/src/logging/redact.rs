//! Blots out what URLs may carry: name and password in front of the host, and everything behind the question mark
//! (presigned downloads).

use std::borrow::Cow;

/// What stands in place of a secret.
const BLOT: &str = "[REDACTED]";

/// `text` without secrets of URLs. Borrows unless there are any.
pub fn redact(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find("://") {
        let (before, url) = rest.split_at(place + 3);
        clean.push_str(before);
        let end = url
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '\\'))
            .unwrap_or(url.len());
        // A second URL may stand in the query of the first.
        let (whole, after) = url.split_at(end);
        let mut host_end = whole.find(['/', '?', '#']).unwrap_or(whole.len());
        // Or be the first one's host and path.
        if whole[..host_end].ends_with(':') && whole[host_end..].starts_with("//") {
            host_end -= 1;
        }
        let (authority, path) = whole.split_at(host_end);
        match authority.rsplit_once('@') {
            Some((_, host)) => clean.extend([BLOT, "@", host]),
            None => clean.push_str(authority),
        }
        rest = match path.find('?') {
            Some(query) => {
                clean.extend([&*redact(&path[..query]), "?", BLOT]);
                after
            }
            None => &url[host_end..],
        };
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::redact;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_stands_around_a_url_its_password_goes(before in ".*", user in "[^/?#@\\s\"'<>\\\\]*", after in ".*") {
            // A question mark in front would make the URL part of a query, which goes as a whole.
            let text = format!("{before}http://{user}:S3CRET@h/{after}");
            prop_assert!(!redact(&text).contains("S3CRET"), "{text:?} became {:?}", redact(&text));
        }
    }

    #[test]
    fn names_passwords_and_queries_are_blotted_out() {
        let cases = [
            ("plain a@b?c", "plain a@b?c"),
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("docker://h/i:tag@sha256:00", "docker://h/i:tag@sha256:00"),
            ("get https://u:p@h:5/x?sig=S", "get https://[REDACTED]@h:5/x?[REDACTED]"),
            (
                "\"http://u:p@x@h\": no; http://k?t=1 end",
                "\"http://[REDACTED]@h\": no; http://k?[REDACTED] end",
            ),
            ("a://b?u=c://d:e@f", "a://b?[REDACTED]"),
            ("://", "://"),
            ("://http://:p@h/", "://http://[REDACTED]@h/"),
            ("a://u:p@h://v:q@i/x://w:r@j?t", "a://[REDACTED]@h://[REDACTED]@i/x://[REDACTED]@j?[REDACTED]"),
            ("\u{e9}://\u{e9}@\u{e9}", "\u{e9}://[REDACTED]@\u{e9}"),
        ];
        for (text, clean) in cases {
            assert_eq!(redact(text), clean);
        }
    }
}
