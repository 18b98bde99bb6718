//! `WWW-Authenticate`: what a registry wants (RFC 9110, 11.6.1), read from whatever it says.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// The schemes we can answer, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// A token from a token server.
    Bearer,
    /// Name and password.
    Basic,
}

/// One challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Its scheme.
    pub scheme: Scheme,
    /// Its parameters, names in lower case.
    pub parameters: BTreeMap<String, String>,
}

/// The most of a header that is looked at.
const MOST: usize = 16 << 10;

/// The challenges of `headers` that we can answer, best first.
pub fn from_headers(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
    let mut found: Vec<_> = values.flat_map(parse).collect();
    found.sort_by_key(|challenge| challenge.scheme);
    found
}

/// The challenges of one header's text. What makes no sense ends it.
pub fn parse(text: &str) -> Vec<Challenge> {
    let text = text.get(..MOST).unwrap_or(text);
    let mut rest = text;
    let mut found: Vec<Option<Challenge>> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let behind = after.trim_start_matches([' ', '\t']);
        if let (Some(value), Some(current)) = (behind.strip_prefix('='), found.last_mut()) {
            let Some((value, after)) = token_or_quoted(value.trim_start_matches([' ', '\t'])) else { break };
            if let Some(challenge) = current {
                challenge.parameters.entry(word.to_ascii_lowercase()).or_insert(value);
            }
            rest = after;
        } else {
            let scheme = match word.to_ascii_lowercase().as_str() {
                "bearer" => Some(Scheme::Bearer),
                "basic" => Some(Scheme::Basic),
                _ => None,
            };
            // A scheme we do not know still owns the parameters behind it.
            found.push(scheme.map(|scheme| Challenge { scheme, parameters: BTreeMap::new() }));
            rest = after;
        }
    }
    found.into_iter().flatten().collect()
}

fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_graphic() && !"\"(),/:;<=>?@[]\\{}".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

fn token_or_quoted(text: &str) -> Option<(String, &str)> {
    let Some(inside) = text.strip_prefix('"') else {
        // Some registries do not quote their realm: an URL is no token, so it goes up to the comma.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => {
                escaped = false;
                value.push(c);
            }
            '\\' => escaped = true,
            '"' => return Some((value, &inside[at + 1..])),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'a>(challenge: &'a Challenge, name: &str) -> &'a str {
        challenge.parameters.get(name).map_or("", String::as_str)
    }

    #[test]
    fn a_bearer_challenge_has_realm_service_and_scope() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let found = parse(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].scheme, Scheme::Bearer);
        assert_eq!(get(&found[0], "realm"), "https://auth.docker.io/token");
        assert_eq!(get(&found[0], "scope"), "repository:a/b:pull,push");
    }

    #[test]
    fn several_challenges_may_share_a_header() {
        let found =
            parse(r#"Negotiate abc==, Basic realm="x \"y\"", bearer Realm=https://h/t , service = s"#);
        assert_eq!(found.iter().map(|c| c.scheme).collect::<Vec<_>>(), [Scheme::Basic, Scheme::Bearer]);
        assert_eq!(get(&found[0], "realm"), "x \"y\"");
        assert_eq!(get(&found[1], "realm"), "https://h/t");
        assert_eq!(get(&found[1], "service"), "s");
    }

    #[test]
    fn nonsense_is_no_challenge_and_ends() {
        for text in ["", ",", "=", "Bearer realm=\"x", "Digest a=b", "\u{0}", "Bearer ,,,=,"] {
            assert!(parse(text).iter().all(|c| c.parameters.is_empty()), "{text}");
        }
        assert!(parse(&"Basic ".repeat(10_000)).len() <= MOST);
    }
}
