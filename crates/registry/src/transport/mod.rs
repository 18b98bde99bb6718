//! Requests to one host over TLS and proxies, and to wherever it redirects.
//!
//! Redirects are followed here, by hand: at most a few, never from https to http, never to another scheme, never where
//! [`reach`] forbids it. Once a request has left the host's origin, it carries only what the request is about (`Accept`,
//! `Range`); credentials, configured headers and the client's certificate stay behind, even if it comes back.

mod client;
mod notes;
pub mod reach;
mod redirect;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::header::{HeaderMap, LOCATION};
use http::{Method, StatusCode};
use reqwest::{Client, Response, Url};
use tokio::sync::OnceCell;
use types::Result;

use self::reach::{Policy, Reach};
use self::redirect::allowed;
use self::tls::Identity;
use crate::failure::{Failure, Kind};
use crate::hosts::{Host, Tls};
use crate::repository::is_localhost;
use crate::settings::{Scheme, Settings};

pub use self::redirect::join;

/// Bytes on their way out.
pub type Stream = BoxStream<'static, Result<Bytes>>;

/// The body of a request, which can be sent again.
#[derive(Clone, Default)]
pub enum Payload {
    /// None.
    #[default]
    Empty,
    /// These bytes.
    Bytes(Bytes),
    /// As many bytes as said, from the beginning each time.
    Stream(u64, Arc<dyn Fn() -> Stream + Send + Sync>),
}

/// A request as it goes to the host itself.
#[derive(Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Where to; on the host's origin unless a registry sent us there.
    pub url: Url,
    /// What the request is about: goes along wherever it is redirected.
    pub headers: HeaderMap,
    /// What only the host may see.
    pub private: HeaderMap,
    /// The body.
    pub payload: Payload,
}

/// What came back.
pub struct Answer {
    /// Head and body.
    pub response: Response,
    /// Whether it came from another origin than the one that was asked.
    pub away: bool,
}

impl Answer {
    /// Who answered: scheme, host and port.
    pub fn origin(&self) -> String {
        origin(self.response.url())
    }
}

/// Scheme, host and port of `url`.
pub fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Sends requests to one host, and to where it redirects. Connections are kept for the next request.
pub struct Transport {
    settings: Arc<Settings>,
    host: Host,
    own: OnceCell<Client>,
    away: OnceCell<Client>,
    /// Where it may send us, by its own reach.
    policy: fn(Reach) -> Policy,
    /// Whether it turned out that the host speaks no TLS.
    plain: AtomicBool,
    /// How far away the host is, as [`Reach`] in numbers; `UNKNOWN` before the first answer.
    reach: AtomicU8,
}

const UNKNOWN: u8 = u8::MAX;

impl Transport {
    /// The way to `host`. Connects with the first request.
    pub fn new(settings: Arc<Settings>, host: Host) -> Self {
        let reach = AtomicU8::new(if is_localhost(&host.name) { Reach::Loopback as u8 } else { UNKNOWN });
        let (own, away, plain) = (OnceCell::new(), OnceCell::new(), AtomicBool::new(false));
        Self { settings, host, own, away, policy: Policy::redirect, plain, reach }
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The scheme that the host turned out to speak.
    pub fn scheme(&self) -> Scheme {
        if self.plain.load(Ordering::Relaxed) { Scheme::Http } else { self.host.scheme }
    }

    /// How long a body may bring nothing.
    pub fn idle(&self) -> Duration {
        self.settings.limits.idle
    }

    /// The root of the host, without a path.
    pub fn root(&self) -> Result<Url, Failure> {
        let text = format!("{}://{}/", self.scheme().as_str(), self.host.name);
        Url::parse(&text).map_err(|_| Failure::new(Kind::Invalid, &text, "invalid host"))
    }

    /// Scheme, host and port as the host turned out to be spoken to.
    pub fn origin(&self) -> String {
        self.root().map_or_else(|_| self.host.origin(), |root| origin(&root))
    }

    /// How far away the host is, as far as known.
    pub fn reach(&self) -> Reach {
        match self.reach.load(Ordering::Relaxed) {
            n if n == Reach::Loopback as u8 => Reach::Loopback,
            n if n == Reach::Private as u8 => Reach::Private,
            _ => Reach::Public,
        }
    }

    /// Sends `call` and follows redirects. Dropping it ends the request.
    pub async fn execute(&self, mut call: Call) -> Result<Answer, Failure> {
        let home = origin(&call.url);
        let mut away = false;
        for _ in 0..=self.settings.limits.redirects {
            let response = match self.once(&call).await {
                Err(failure) if self.falls_back(&call, &failure) => {
                    self.plain.store(true, Ordering::Relaxed);
                    // Cannot fail: both are special schemes.
                    let _ = call.url.set_scheme("http");
                    return Box::pin(self.execute(call)).await;
                }
                other => other?,
            };
            self.note_reach(&response);
            let Some(next) = self.next_hop(&call, &response, &home)? else {
                return Ok(Answer { response, away });
            };
            away |= origin(&next) != home;
            if away {
                call.private.clear();
            }
            call.url = next;
        }
        let most = self.settings.limits.redirects;
        Err(Failure::new(Kind::Refused, home, format!("stopped after {most} redirects")))
    }

    fn falls_back(&self, call: &Call, failure: &Failure) -> bool {
        let no_tls = matches!(failure.kind, Kind::NoTls | Kind::Cut);
        no_tls && self.host.fallback && call.url.scheme() == "https" && !self.is_elsewhere(&call.url)
    }

    /// Whether `url` is not on the host, and must not see what is the host's.
    fn is_elsewhere(&self, url: &Url) -> bool {
        let own = |scheme: &str| Url::parse(&format!("{scheme}://{}/", self.host.name)).ok();
        let same = |root: Option<Url>| root.is_some_and(|root| origin(&root) == origin(url));
        !same(own(self.host.scheme.as_str())) && !same(own(self.scheme().as_str()))
    }

    fn note_reach(&self, response: &Response) {
        if self.reach.load(Ordering::Relaxed) != UNKNOWN || self.is_elsewhere(response.url()) {
            return;
        }
        if let Some(address) = response.remote_addr() {
            self.reach.store(Reach::of(address.ip()) as u8, Ordering::Relaxed);
        }
    }

    /// Where `response` redirects to, if it does.
    fn next_hop(&self, call: &Call, response: &Response, home: &str) -> Result<Option<Url>, Failure> {
        let status = response.status();
        let keeps_method = matches!(status.as_u16(), 307 | 308);
        if !keeps_method && !matches!(status.as_u16(), 301..=303) {
            return Ok(None);
        }
        let here = origin(response.url());
        let refused = |why: String| Failure::new(Kind::Refused, &here, why);
        let reading = call.method == Method::GET || call.method == Method::HEAD;
        if !reading && !keeps_method {
            return Err(refused(format!("{status} for a {} request cannot be followed", call.method)));
        }
        let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
        let location = location.ok_or_else(|| refused(format!("{status} without a location")))?;
        let next = join(response.url(), location).map_err(refused)?;
        if origin(&next) != *home {
            self.may_go(&next).map_err(|why| refused(format!("redirect {why}")))?;
        }
        Ok(Some(next))
    }

    /// Whether the host may send us to `url`.
    pub fn may_go(&self, url: &Url) -> Result<(), String> {
        if self.is_elsewhere(url) { allowed(url, (self.policy)(self.reach())) } else { Ok(()) }
    }

    /// Gets `url`, which an image names, as somebody who knows nothing of the registry.
    pub async fn execute_foreign(&self, url: Url, headers: HeaderMap) -> Result<Answer, Failure> {
        let policy = Policy::urls(self.reach());
        allowed(&url, policy).map_err(|why| Failure::new(Kind::Refused, origin(&url), why))?;
        let stranger = Host {
            scheme: if url.scheme() == "http" { Scheme::Http } else { Scheme::Https },
            name: url.authority().to_owned(),
            path: String::new(),
            capabilities: Vec::new(),
            tls: Tls::default(),
            headers: HeaderMap::new(),
            dial_timeout: None,
            fallback: false,
        };
        let mut transport = Self::new(self.settings.clone(), stranger);
        // A stranger's redirects must not lead further inside than the stranger may be.
        transport.policy = Policy::urls;
        transport.reach.store(self.reach() as u8, Ordering::Relaxed);
        let client = transport.client(Identity::Hidden, Some(policy)).await?;
        let _ = transport.own.set(client);
        let call =
            Call { method: Method::GET, url, headers, private: HeaderMap::new(), payload: Payload::Empty };
        Box::pin(transport.execute(call)).await
    }
}

/// A status as an answer's line has it.
pub fn status_text(status: StatusCode) -> String {
    status
        .canonical_reason()
        .map_or_else(|| status.as_u16().to_string(), |r| format!("{} {r}", status.as_u16()))
}
