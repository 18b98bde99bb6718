//! One request to one host of a registry: credentials, bounded retries, waits.
//!
//! ```text
//!   send ── 401 ──> challenged, at most twice ──> send again
//!     │ └── 408, 429, 5xx, silence, a broken connection ──> wait (Retry-After, bounded; jitter) ──> send again
//!     └──── anything else ──> the caller
//! ```
//!
//! While other hosts follow, they are asked rather than this one again: a mirror that is down costs one request.

pub mod answer;

use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use reqwest::Url;
use types::Result;

use crate::auth::Authorizer;
use crate::auth::credentials::Credentials;
use crate::failure::{Failure, Kind};
use crate::hosts::Host;
use crate::repository::Repository;
use crate::settings::Settings;
use crate::transport::{Answer, Call, Payload, Transport, origin};

/// Whether others can be asked if this host fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// They can: move on quickly.
    OthersFollow,
    /// They cannot: try as often as the limits allow.
    LastHost,
    /// They cannot, and the same request cannot be sent again.
    Once,
}

/// What is asked of a host about a repository.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Below the repository: `manifests/latest`.
    pub path: String,
    /// Behind it.
    pub query: Vec<(String, String)>,
    /// Instead of both, where a registry sent us.
    pub url: Option<Url>,
    /// What the request is about.
    pub headers: HeaderMap,
    /// The body.
    pub payload: Payload,
    /// The scopes that it needs.
    pub scopes: Vec<String>,
}

impl Request {
    /// A request about `path` of `repository` that needs to pull.
    pub fn new(method: Method, repository: &Repository, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            url: None,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            scopes: vec![repository.scope("pull")],
        }
    }

    /// With another header; text that is no header is left out.
    pub fn header(mut self, name: http::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// A host of a registry, for one repository.
pub struct Endpoint {
    transport: Arc<Transport>,
    authorizer: Authorizer,
    settings: Arc<Settings>,
    repository: Repository,
}

/// How often a request may be challenged: to learn how, and once more because a token ran out.
const CHALLENGES: u32 = 2;

impl Endpoint {
    /// `host` for `repository`, as `reference` has it.
    pub fn new(
        settings: Arc<Settings>,
        host: Host,
        repository: Repository,
        credentials: Arc<dyn Credentials>,
        reference: String,
    ) -> Self {
        let transport = Arc::new(Transport::new(settings.clone(), host));
        let authorizer = Authorizer::new(transport.clone(), credentials, reference);
        Self { transport, authorizer, settings, repository }
    }

    /// The host.
    pub fn host(&self) -> &Host {
        self.transport.host()
    }

    /// The way to the host.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Who answers its challenges.
    pub fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// Sends `request`; any status but those that are tried again comes back.
    pub async fn send(&self, request: &Request, persistence: Persistence) -> Result<Answer, Failure> {
        let mut request = request.clone();
        let (mut attempt, mut challenges) = (0, 0);
        loop {
            attempt += 1;
            let (answer, sent) = match self.once(&request).await {
                Err(failure) if failure.is_transient() && attempt < self.attempts(&failure, persistence) => {
                    self.pause(attempt, &failure).await;
                    continue;
                }
                other => other?,
            };
            let status = answer.response.status();
            if status == StatusCode::UNAUTHORIZED && !answer.away && self.is_own(&request) {
                challenges += 1;
                let headers = answer.response.headers();
                if challenges > CHALLENGES {
                    return Err(self.authorizer.denied(headers));
                }
                self.authorizer.challenged(headers, sent.as_ref()).await?;
                attempt -= 1;
                continue;
            }
            let head = request.method == Method::HEAD && request.path.starts_with("manifests/");
            if status == StatusCode::METHOD_NOT_ALLOWED && head {
                request.method = Method::GET;
                continue;
            }
            let failure = Failure {
                retry_after: answer::retry_after(answer.response.headers()),
                ..Failure::new(Kind::Status(status), answer.origin(), String::new())
            };
            if !failure.is_transient() || attempt >= self.attempts(&failure, persistence) {
                return Ok(answer);
            }
            self.pause(attempt, &failure).await;
        }
    }

    /// Sends `request`; a status above 299 is a failure.
    pub async fn expect(&self, request: &Request, persistence: Persistence) -> Result<Answer, Failure> {
        let answer = self.send(request, persistence).await?;
        if answer.response.status().is_success() {
            return Ok(answer);
        }
        Err(self.unexpected(answer, request).await)
    }

    /// The failure that `answer` to `request` is. A 403 to a HEAD has no body: what it would say is asked for.
    pub async fn unexpected(&self, answer: Answer, request: &Request) -> Failure {
        let status = answer.response.status();
        let failure = answer::unexpected(&self.transport, answer, &request.method).await;
        if status != StatusCode::FORBIDDEN || request.method != Method::HEAD {
            return failure;
        }
        let get = Request { method: Method::GET, ..request.clone() };
        match self.send(&get, Persistence::OthersFollow).await {
            Ok(answer) if answer.response.status() == status => {
                answer::unexpected(&self.transport, answer, &request.method).await
            }
            _ => failure,
        }
    }

    async fn once(&self, request: &Request) -> Result<(Answer, Option<HeaderValue>), Failure> {
        let url = self.url(request)?;
        let mut private = HeaderMap::new();
        let mut authorization = None;
        if self.is_own(request) {
            let host = &self.transport.host().headers;
            for (name, value) in self.settings.headers.iter().chain(host) {
                if name != ACCEPT {
                    private.append(name.clone(), value.clone());
                }
            }
            authorization = self.authorizer.authorization(&request.scopes).await?;
            if let Some(value) = &authorization {
                private.insert(AUTHORIZATION, value.clone());
            }
        }
        let (method, headers) = (request.method.clone(), request.headers.clone());
        let call = Call { method, url, headers, private, payload: request.payload.clone() };
        Ok((self.transport.execute(call).await?, authorization))
    }

    /// Whether `request` goes to the host itself, and not to where it sent us.
    fn is_own(&self, request: &Request) -> bool {
        request.url.as_ref().is_none_or(|url| origin(url) == self.transport.origin())
    }

    fn url(&self, request: &Request) -> Result<Url, Failure> {
        if let Some(url) = &request.url {
            return Ok(url.clone());
        }
        let mut url = self.transport.root()?;
        let host = self.transport.host();
        url.set_path(&format!("{}/{}/{}", host.path, self.repository.path, request.path));
        let proxy = host.is_proxy_of(&self.repository.host);
        if proxy || !request.query.is_empty() {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(&request.query);
            if proxy {
                query.append_pair("ns", &self.repository.host);
            }
        }
        Ok(url)
    }

    fn attempts(&self, failure: &Failure, persistence: Persistence) -> u32 {
        let busy = matches!(failure.kind, Kind::Status(status) if matches!(status.as_u16(), 408 | 429));
        match persistence {
            Persistence::LastHost => self.settings.limits.attempts,
            Persistence::OthersFollow if busy => self.settings.limits.attempts.min(2),
            Persistence::OthersFollow | Persistence::Once => 1,
        }
    }

    async fn pause(&self, attempt: u32, failure: &Failure) {
        let wait = self.settings.limits.wait(attempt, failure.retry_after);
        tracing::debug!(origin = %failure.origin, reason = %failure.reason, ?wait, "request is tried again");
        tokio::time::sleep(wait).await;
    }
}
