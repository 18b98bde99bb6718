//! Lies, and when they are told.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Which requests suffer.
#[derive(Clone, Debug, Default)]
pub struct When {
    part: String,
    method: Option<String>,
    skip: usize,
    times: Option<usize>,
}

impl When {
    /// Those whose path and query contain `part`; all if it is empty.
    pub fn path(part: impl Into<String>) -> Self {
        Self { part: part.into(), ..Self::default() }
    }

    /// Only those with this method.
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only after so many of them passed.
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// Only so many of them.
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }
}

/// What becomes of the answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status with an error's JSON.
    Status(u16),
    /// This status with these headers and an error's JSON.
    Answer(u16, Vec<(&'static str, String)>),
    /// Another body, with its own length.
    Body(Bytes),
    /// Another header.
    Header(&'static str, String),
    /// No such header.
    NoHeader(&'static str),
    /// No `Content-Length`: the body is sent in chunks.
    Chunked,
    /// So many bytes, then the connection is closed, though more were announced.
    Truncate(u64),
    /// So many bytes, then the connection is reset.
    Reset(u64),
    /// So many bytes more than there are, in chunks.
    Extra(u64),
    /// After so many bytes nothing for so long, then the rest.
    Stall(u64, Duration),
    /// Pieces of so many bytes with a pause after each.
    Slow(u64, Duration),
    /// Zeros for ever.
    Endless,
    /// Nothing for so long, not even a head.
    Hang(Duration),
    /// A redirect.
    Redirect(u16, String),
    /// Ranges are ignored.
    IgnoreRange,
    /// `Content-Range` says another start.
    WrongRange,
    /// A range's bytes are others.
    WrongRangeBytes,
    /// Each range is refused with 416.
    RefuseRange,
    /// The content is said to be encoded.
    Encoding(&'static str),
}

/// A fault and how often its requests came.
pub struct Rule {
    when: When,
    fault: Fault,
    matched: usize,
}

impl Rule {
    /// A rule that nothing matched yet.
    pub fn new(when: When, fault: Fault) -> Self {
        Self { when, fault, matched: 0 }
    }

    /// The fault, if this request has to suffer.
    pub fn applies(&mut self, method: &str, target: &str) -> Option<Fault> {
        let when = &self.when;
        if !target.contains(&when.part) || when.method.as_deref().is_some_and(|m| m != method) {
            return None;
        }
        self.matched += 1;
        let number = self.matched.checked_sub(when.skip + 1)?;
        when.times.is_none_or(|times| number < times).then(|| self.fault.clone())
    }
}

/// How a body goes out.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// End after so many bytes, and whether by a reset.
    pub end: Option<(u64, bool)>,
    /// A pause after so many bytes.
    pub stall: Option<(u64, Duration)>,
    /// Pieces and pauses.
    pub slow: Option<(u64, Duration)>,
    /// Zeros behind it; `u64::MAX` is for ever.
    pub extra: u64,
}

/// An answer before it goes out.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// How the body goes out.
    pub delivery: Delivery,
}

impl Reply {
    /// An answer with a body.
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = body.into();
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(body.len()))]);
        Self { status, headers, body, delivery: Delivery::default() }
    }

    /// An error as the distribution's specification has it.
    pub fn error(status: u16, code: &str) -> Self {
        let body =
            format!(r#"{{"errors":[{{"code":"{code}","message":"the fake registry says {status}"}}]}}"#);
        Self::new(status, body).header("content-type", "application/json")
    }

    /// With another header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            self.headers.insert(name, value);
        }
        self
    }

    /// The reply after `fault`.
    pub fn suffer(mut self, fault: Fault) -> Self {
        match fault {
            Fault::Status(status) => return Self::error(status, "FAKE"),
            Fault::Answer(status, headers) => {
                let reply = Self::error(status, "FAKE");
                return headers.into_iter().fold(reply, |reply, (name, value)| reply.header(name, &value));
            }
            Fault::Body(body) => {
                self.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                self.body = body;
            }
            Fault::Header(name, value) => return self.header(name, &value),
            Fault::NoHeader(name) => drop(self.headers.remove(name)),
            Fault::Chunked => drop(self.headers.remove(CONTENT_LENGTH)),
            Fault::Truncate(bytes) => self.delivery.end = Some((bytes, false)),
            Fault::Reset(bytes) => self.delivery.end = Some((bytes, true)),
            Fault::Extra(bytes) => {
                self.headers.remove(CONTENT_LENGTH);
                self.delivery.extra = bytes;
            }
            Fault::Stall(bytes, pause) => self.delivery.stall = Some((bytes, pause)),
            Fault::Slow(bytes, pause) => self.delivery.slow = Some((bytes, pause)),
            Fault::Endless => {
                self.headers.remove(CONTENT_LENGTH);
                self.delivery.extra = u64::MAX;
            }
            Fault::Redirect(status, location) => {
                return Self::new(status, Bytes::new()).header(LOCATION.as_str(), &location);
            }
            Fault::WrongRange => {
                let value = format!("bytes 0-{}/{}", self.body.len().saturating_sub(1), self.body.len());
                return self.header(CONTENT_RANGE.as_str(), &value);
            }
            Fault::WrongRangeBytes if self.status == StatusCode::PARTIAL_CONTENT => {
                self.body = self.body.iter().map(|b| b ^ 0x55).collect();
            }
            Fault::RefuseRange if self.status == StatusCode::PARTIAL_CONTENT => {
                return Self::error(416, "UNSUPPORTED");
            }
            Fault::Encoding(name) => return self.header(CONTENT_ENCODING.as_str(), name),
            Fault::Hang(_) | Fault::IgnoreRange | Fault::WrongRangeBytes | Fault::RefuseRange => {}
        }
        self
    }
}

/// Cuts `reply` to the range that `headers` ask for.
pub fn ranged(mut reply: Reply, headers: &HeaderMap) -> Reply {
    let size = reply.body.len();
    let asked = headers.get(RANGE).and_then(|v| v.to_str().ok()).and_then(|text| {
        let (start, end) = text.strip_prefix("bytes=")?.split_once('-')?;
        let start: usize = start.parse().ok()?;
        let last = if end.is_empty() { size.saturating_sub(1) } else { end.parse().ok()? };
        Some((start, last.min(size.saturating_sub(1))))
    });
    let Some((start, last)) = asked else { return reply };
    if start >= size || last < start {
        return Reply::error(416, "UNSUPPORTED");
    }
    let kind = reply.headers.get(CONTENT_TYPE).cloned();
    let body = reply.body.slice(start..=last);
    reply = Reply::new(206, body).header("content-range", &format!("bytes {start}-{last}/{size}"));
    if let Some(kind) = kind {
        reply.headers.insert(CONTENT_TYPE, kind);
    }
    reply
}
