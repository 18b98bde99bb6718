//! Requests: what the token stands for, which protocol, and the upgrade. Answers to what cannot be are those of Kubernetes' server.

use std::pin::Pin;

use ::http::header::{CONNECTION, CONTENT_TYPE, HeaderName, UPGRADE};
use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use types::{Class, Error, Result};

use super::connection::Upgraded;
use super::server::Shared;
use super::tokens::Asked;
use super::websocket::{self, Codec};
use super::{command, forward};
use crate::tls::Socket;

/// Which protocols a client knows, in SPDY's case.
const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Which ones we know.
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";

/// Port-forward over SPDY.
const PORT_FORWARD: &str = "portforward.k8s.io";
/// The same in a WebSocket.
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";

/// What goes on after an upgrade.
pub type Work = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

type Answer = Response<Full<Bytes>>;

/// How streams are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// By SPDY; in messages of a WebSocket or not.
    Spdy {
        /// Whether it is in messages of a WebSocket.
        tunnel: bool,
        /// The version of the protocol in it.
        protocol: &'static str,
    },
    /// By channels of a WebSocket.
    Channels {
        /// How they are written.
        codec: Codec,
        /// The version of the protocol in it.
        protocol: &'static str,
    },
}

/// Answers a request, and hands over what is to be done after the upgrade.
pub async fn answer(
    request: Request<Incoming>,
    shared: &std::sync::Arc<Shared>,
    hand: &mpsc::Sender<Work>,
) -> Answer {
    let mut request = request;
    match begin(&request, shared) {
        Err(refused) => refused,
        Ok((asked, transport, switch)) => {
            let upgrade = hyper::upgrade::on(&mut request);
            let shared = std::sync::Arc::clone(shared);
            let work = async move {
                let upgraded = upgraded(upgrade.await)?;
                match asked {
                    Asked::Exec(request) => command::exec(upgraded, transport, request, &shared).await,
                    Asked::Attach(request) => command::attach(upgraded, transport, request, &shared).await,
                    Asked::PortForward(request) => forward::run(upgraded, transport, request, &shared).await,
                }
            };
            match hand.send(Box::pin(work)).await {
                Ok(()) => switch,
                Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "unable to upgrade"),
            }
        }
    }
}

fn upgraded(upgraded: hyper::Result<hyper::upgrade::Upgraded>) -> Result<Upgraded> {
    let upgraded = upgraded
        .map_err(|e| Error::caused(Class::Unavailable, "upgrade a streaming client's connection", e))?;
    match upgraded.downcast::<TokioIo<Socket>>() {
        Ok(parts) => Ok(Upgraded { socket: parts.io.into_inner(), early: parts.read_buf }),
        Err(_) => Err(Error::internal("upgrade a streaming client's connection: it is none of ours")),
    }
}

/// What is wanted, how, and the answer that says so; or the answer that refuses.
#[expect(clippy::result_large_err, reason = "an answer either way")]
fn begin(
    request: &Request<Incoming>,
    shared: &Shared,
) -> std::result::Result<(Asked, Transport, Answer), Answer> {
    let missing = || plain(StatusCode::NOT_FOUND, "404 page not found");
    let mut path = request.uri().path().trim_start_matches('/').split('/');
    let (Some(what), Some(token), None) = (path.next(), path.next(), path.next()) else {
        return Err(missing());
    };
    if !["exec", "attach", "portforward"].contains(&what) {
        return Err(missing());
    }
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"));
    }
    // Whatever comes of it, the token is used up.
    let asked = shared.tokens.fetch(token).ok_or_else(missing)?;
    let right = match asked {
        Asked::Exec(_) => what == "exec",
        Asked::Attach(_) => what == "attach",
        Asked::PortForward(_) => what == "portforward",
    };
    if !right {
        return Err(missing());
    }
    let (transport, switch) = if websocket::is_upgrade(request.headers()) {
        switch_to_websocket(request, what == "portforward")?
    } else {
        switch_to_spdy(request.headers(), what == "portforward")?
    };
    Ok((asked, transport, switch))
}

#[expect(clippy::result_large_err, reason = "an answer either way")]
fn switch_to_websocket(
    request: &Request<Incoming>,
    forward: bool,
) -> std::result::Result<(Transport, Answer), Answer> {
    const COMMAND: &[&str] = &[
        "",
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "v5.channel.k8s.io",
    ];
    const FORWARD: &[&str] = &["", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", TUNNELLED];
    if *request.method() != Method::GET {
        return Err(plain(StatusCode::METHOD_NOT_ALLOWED, "a websocket begins with GET"));
    }
    let supported = if forward { FORWARD } else { COMMAND };
    let Some(accept) = websocket::accept(request.headers()) else {
        return Err(plain(StatusCode::BAD_REQUEST, "not a websocket handshake of version 13"));
    };
    let protocol = websocket::protocol(request.headers(), supported).map_err(|asked| {
        let (asked, known) = (asked.join(" "), supported.join(" "));
        let why = format!("requested protocol(s) are not supported: [{asked}]; supports [{known}]");
        plain(StatusCode::FORBIDDEN, &why)
    })?;
    let transport = match protocol {
        TUNNELLED => Transport::Spdy { tunnel: true, protocol: PORT_FORWARD },
        "v5.channel.k8s.io" => Transport::Channels { codec: Codec::Closing, protocol },
        "base64.channel.k8s.io" | "v4.base64.channel.k8s.io" => {
            Transport::Channels { codec: Codec::Base64, protocol }
        }
        _ => Transport::Channels { codec: Codec::Binary, protocol },
    };
    let mut switch = switching("websocket");
    if let Ok(accept) = HeaderValue::try_from(accept) {
        switch.headers_mut().insert(::http::header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if !protocol.is_empty() {
        let protocol = HeaderValue::from_static(protocol);
        switch.headers_mut().insert(::http::header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok((transport, switch))
}

#[expect(clippy::result_large_err, reason = "an answer either way")]
fn switch_to_spdy(headers: &HeaderMap, forward: bool) -> std::result::Result<(Transport, Answer), Answer> {
    const COMMAND: &[&str] =
        &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
    let supported = if forward { &[PORT_FORWARD] } else { COMMAND };
    let protocol = negotiate(headers, supported)?;
    let has = |name: HeaderName, word: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.to_ascii_lowercase().contains(word)
    };
    if !has(CONNECTION, "upgrade") || !has(UPGRADE, "spdy/3.1") {
        return Err(plain(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request"));
    }
    let mut switch = switching(SPDY);
    switch.headers_mut().insert(VERSION, HeaderValue::from_static(protocol));
    Ok((Transport::Spdy { tunnel: false, protocol }, switch))
}

/// The client's first protocol that is `supported`.
#[expect(clippy::result_large_err, reason = "an answer either way")]
fn negotiate(headers: &HeaderMap, supported: &[&'static str]) -> std::result::Result<&'static str, Answer> {
    let bad = |why: &str| plain(StatusCode::BAD_REQUEST, &format!("unable to upgrade: header {why}"));
    if !headers.contains_key(VERSION) {
        let count = headers.len();
        return Err(bad(&format!(
            "X-Stream-Protocol-Version does not exist in request with {count} headers"
        )));
    }
    let values = headers.get_all(VERSION).iter().filter_map(|value| value.to_str().ok());
    let asked: Vec<&str> =
        values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty()).collect();
    if asked.is_empty() {
        return Err(bad("X-Stream-Protocol-Version contains no valid protocols"));
    }
    let find = |asked: &&str| supported.iter().find(|known| *known == asked).copied();
    asked.iter().find_map(find).ok_or_else(|| {
        let why = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            asked.join(" "),
            supported.join(" ")
        );
        let mut refused = plain(StatusCode::FORBIDDEN, &why);
        for known in supported {
            refused.headers_mut().append(ACCEPTED, HeaderValue::from_static(known));
        }
        refused
    })
}

fn switching(to: &'static str) -> Answer {
    let mut switch = Response::new(Full::default());
    *switch.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    switch.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    switch.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    switch
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::from(format!("{text}\n")));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    answer
}
