//! Who may come in, and the token server.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::faults::Reply;
use super::{State, lock};

/// Who may come in.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Everybody.
    #[default]
    Open,
    /// Whoever has this name and password.
    Basic(String, String),
    /// Whoever has a token; the token server gives one to whoever has this name and password, or to everybody.
    Bearer(Option<(String, String)>),
    /// Nobody: each request is challenged with this header.
    Never(String),
}

/// Tokens that were given out, with their scopes.
#[derive(Default)]
pub struct Tokens {
    valid: HashMap<String, Vec<String>>,
    count: usize,
}

impl Tokens {
    /// Ends them all.
    pub fn revoke(&mut self) {
        self.valid.clear();
    }

    fn issue(&mut self, scopes: Vec<String>) -> String {
        self.count += 1;
        let token = format!("fake-token-{}", self.count);
        self.valid.insert(token.clone(), scopes);
        token
    }
}

fn basic(user: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")))
}

/// The challenge for a request that may not come in.
pub fn check(state: &State, headers: &HeaderMap, repository: &str, action: &str) -> Option<Reply> {
    let sent = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let challenge = match &state.setup.auth {
        Auth::Open => return None,
        Auth::Never(challenge) => challenge.clone(),
        Auth::Basic(user, secret) if sent == basic(user, secret) => return None,
        Auth::Basic(..) => r#"Basic realm="fake""#.to_owned(),
        Auth::Bearer(_) => {
            let token = sent.strip_prefix("Bearer ").unwrap_or_default();
            let allowed = |scope: &String| {
                let actions = scope.strip_prefix(&format!("repository:{repository}:"));
                actions.is_some_and(|actions| actions.split(',').any(|a| a == action))
            };
            if lock(&state.tokens).valid.get(token).is_some_and(|scopes| scopes.iter().any(allowed)) {
                return None;
            }
            let own = format!("{}/token", state.origin);
            let realm = state.setup.realm.as_ref().unwrap_or(&own);
            format!(r#"Bearer realm="{realm}",service="fake",scope="repository:{repository}:{action}""#)
        }
    };
    Some(Reply::error(401, "UNAUTHORIZED").header("www-authenticate", &challenge))
}

/// The token server: GET with a password in the header, POST with a form.
pub fn token(
    state: &State,
    headers: &HeaderMap,
    query: &[(String, String)],
    form: &[(String, String)],
) -> Reply {
    let get = |pairs: &[(String, String)], name: &str| {
        pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    if let Auth::Bearer(Some((user, secret))) = &state.setup.auth {
        let sent = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let by_form = get(form, "username") == *user && get(form, "password") == *secret;
        let by_refresh = get(form, "refresh_token") == *secret;
        if sent != basic(user, secret) && !by_form && !by_refresh {
            return Reply::error(401, "UNAUTHORIZED");
        }
    }
    let pairs = if form.is_empty() { query } else { form };
    let scopes = pairs.iter().filter(|(key, _)| key == "scope");
    let scopes = scopes.flat_map(|(_, value)| value.split(' ').map(str::to_owned)).collect();
    let token = lock(&state.tokens).issue(scopes);
    let body = format!(r#"{{"token":"{token}","access_token":"{token}","expires_in":300}}"#);
    Reply::new(200, body).header("content-type", "application/json")
}
