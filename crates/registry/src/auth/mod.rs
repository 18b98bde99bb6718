//! Answers the challenges of one host.
//!
//! ```text
//!   nothing sent ── 401 ──> challenge read, credentials asked ──> header or token sent ── 401 ──> asked or fetched again
//! ```
//!
//! What the host taught (its token server, our credentials) is kept for all requests of a pull; tokens are kept by scope
//! and fetched once even if ten layers want one at the same time. How often a request may be challenged is counted by
//! [`crate::endpoint`].

pub mod challenge;
pub mod credentials;
pub mod docker;
pub mod scopes;
pub mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use tokio::sync::OnceCell;

use self::challenge::{Challenge, Scheme};
use self::credentials::{Ask, Credential, Credentials};
use self::token::{Server, Token};
use crate::failure::{Failure, Kind, clean};
use crate::transport::{Transport, join};

/// Answers for one host.
pub struct Authorizer {
    transport: Arc<Transport>,
    credentials: Arc<dyn Credentials>,
    reference: String,
    learnt: Mutex<Learnt>,
}

/// What the host taught.
#[derive(Default)]
struct Learnt {
    method: Method,
    credential: Option<Credential>,
    /// How many credentials the host refused.
    refused: u32,
    /// Tokens by scope; a cell is filled by whoever comes first.
    tokens: HashMap<String, Arc<OnceCell<Token>>>,
}

/// How the host wants to be answered.
#[derive(Clone, Default, PartialEq)]
enum Method {
    #[default]
    Nothing,
    Header(HeaderValue),
    Token(Server, Vec<String>),
}

/// The most scopes whose tokens are kept; a pull has one, a push a handful.
const MOST_TOKENS: usize = 64;

impl Authorizer {
    /// Answers for the host of `transport` in what is done for `reference`.
    pub fn new(transport: Arc<Transport>, credentials: Arc<dyn Credentials>, reference: String) -> Self {
        Self { transport, credentials, reference, learnt: Mutex::default() }
    }

    fn learnt(&self) -> std::sync::MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the host wants to be answered, in a word.
    pub fn describe(&self) -> String {
        let learnt = self.learnt();
        let as_whom = if learnt.credential.is_some() { "with credentials" } else { "as nobody" };
        match &learnt.method {
            Method::Nothing => "none asked for".to_owned(),
            Method::Header(_) => "basic, with credentials".to_owned(),
            Method::Token(server, _) => {
                format!("bearer from {}, {as_whom}", crate::transport::origin(&server.realm))
            }
        }
    }

    /// The header for a request that needs `scopes`, as far as the host taught anything.
    pub async fn authorization(&self, scopes: &[String]) -> Result<Option<HeaderValue>, Failure> {
        let (server, scopes, credential, cell) = {
            let mut learnt = self.learnt();
            let (server, common) = match &learnt.method {
                Method::Nothing => return Ok(None),
                Method::Header(value) => return Ok(Some(value.clone())),
                Method::Token(server, common) => (server.clone(), common.clone()),
            };
            let scopes = scopes::union(scopes.iter().chain(&common));
            let key = scopes.join(" ");
            let expired = |cell: &Arc<OnceCell<Token>>| cell.get().is_some_and(|t| t.until <= Instant::now());
            if learnt.tokens.get(&key).is_some_and(expired) || learnt.tokens.len() >= MOST_TOKENS {
                learnt.tokens.remove(&key);
            }
            let cell = learnt.tokens.entry(key).or_default().clone();
            (server, scopes, learnt.credential.clone(), cell)
        };
        let fetch = || token::fetch(&self.transport, &server, &scopes, credential.as_ref());
        Ok(Some(cell.get_or_try_init(fetch).await?.header.clone()))
    }

    /// Takes note of a 401 to a request that was sent with `sent`. An error means that there is no other answer.
    pub async fn challenged(&self, headers: &HeaderMap, sent: Option<&HeaderValue>) -> Result<(), Failure> {
        let origin = self.transport.origin();
        let challenges = challenge::from_headers(headers);
        let Some(challenge) = challenges.first() else {
            let why = "authorization failed: the registry asks for no scheme that is known here";
            return Err(Failure::new(Kind::Unauthenticated, origin, why));
        };
        if let Some(sent) = sent {
            if self.forget(sent) == Forgot::Token {
                return Ok(());
            }
            self.learnt().refused += 1;
        }
        let (asked, refused) = (self.ask(headers).await?, self.learnt().refused);
        if refused > 0 && (asked.is_none() || asked == self.learnt().credential) {
            return Err(self.denied(headers));
        }
        let method = self.method(challenge, asked.as_ref())?;
        let mut learnt = self.learnt();
        learnt.method = method;
        learnt.credential = asked;
        learnt.tokens.clear();
        Ok(())
    }

    /// The failure of a request that was challenged once too often.
    pub fn denied(&self, headers: &HeaderMap) -> Failure {
        let challenges = challenge::from_headers(headers);
        let said = challenges.first().and_then(|c| c.parameters.get("error")).map(|e| clean(e, 64));
        let said = said.map_or_else(String::new, |said| format!("server message: {said}: "));
        Failure::new(Kind::Unauthenticated, self.transport.origin(), format!("{said}authorization failed"))
    }

    /// Forgets the token `sent`; somebody else may have done so before.
    fn forget(&self, sent: &HeaderValue) -> Forgot {
        let mut learnt = self.learnt();
        if !matches!(learnt.method, Method::Token(..)) || !sent.as_bytes().starts_with(b"Bearer ") {
            return Forgot::Credential;
        }
        learnt.tokens.retain(|_, cell| cell.get().is_none_or(|token| token.header != *sent));
        Forgot::Token
    }

    async fn ask(&self, headers: &HeaderMap) -> Result<Option<Credential>, Failure> {
        let challenge = headers.get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let refused = self.learnt().refused;
        let host = &self.transport.host().name;
        let ask = Ask { host, reference: &self.reference, challenge, refused };
        let answer = self.credentials.credentials(&ask).await;
        answer.map_err(|e| Failure::ours(self.transport.origin(), &e.context("ask for credentials")))
    }

    fn method(&self, challenge: &Challenge, credential: Option<&Credential>) -> Result<Method, Failure> {
        let failure = |kind, why: String| Failure::new(kind, self.transport.origin(), why);
        if let Some(Credential::Header(text)) = credential {
            let mut value = HeaderValue::from_str(text).map_err(|_| {
                failure(Kind::Unauthenticated, "the credentials are no valid header".to_owned())
            })?;
            value.set_sensitive(true);
            return Ok(Method::Header(value));
        }
        match (challenge.scheme, credential) {
            (Scheme::Basic, Some(Credential::Basic { user, secret })) => {
                Ok(Method::Header(token::basic(user, secret)))
            }
            (Scheme::Basic, _) => {
                let why = "authorization failed: no basic auth credentials";
                Err(failure(Kind::Unauthenticated, why.to_owned()))
            }
            (Scheme::Bearer, _) => {
                let get = |key: &str| challenge.parameters.get(key).cloned().unwrap_or_default();
                let realm = get("realm");
                if realm.is_empty() {
                    let why = "no realm specified for token auth challenge";
                    return Err(failure(Kind::Invalid, why.to_owned()));
                }
                let realm = join(&self.transport.root()?, &realm)
                    .and_then(|realm| self.transport.may_go(&realm).map(|()| realm))
                    .map_err(|why| failure(Kind::Refused, format!("token server {why}")))?;
                let scopes = get("scope").split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect();
                Ok(Method::Token(Server { realm, service: get("service") }, scopes))
            }
        }
    }
}

#[derive(PartialEq)]
enum Forgot {
    Token,
    Credential,
}
