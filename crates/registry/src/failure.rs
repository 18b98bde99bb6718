//! Why a request to one host failed, and the error made of what all hosts said.
//!
//! An error names each host that was asked and its reason. What a registry says in it is cut short and freed of control
//! characters; queries of URLs, which carry signatures, and credentials never stand in it.

use std::error::Error as StdError;
use std::time::Duration;

use http::StatusCode;
use reqwest::Url;
use rustls::{CertificateError, InvalidMessage};
use types::{Class, Error};

/// What kind of failure it was: what to do next depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody there, or no such name.
    Connect,
    /// Somebody there who does not speak TLS.
    NoTls,
    /// The connection ended before TLS came about: by chance, or because nobody there speaks TLS.
    Cut,
    /// A certificate that is not to be believed, or TLS that did not come about.
    Tls,
    /// Nothing came in time.
    Timeout,
    /// The connection broke.
    Reset,
    /// The host answered with this status.
    Status(StatusCode),
    /// Nobody proved who we are.
    Unauthenticated,
    /// We do not go where it sends us.
    Refused,
    /// The answer is a lie or nonsense.
    Invalid,
    /// The answer is larger than a limit.
    TooLarge,
    /// The host cannot do it.
    Unsupported,
    /// It was not the host: a local file, the caller's body, a bug.
    Ours(Class),
}

/// Why a request to a host failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The kind.
    pub kind: Kind,
    /// Scheme, host and port that were asked.
    pub origin: String,
    /// The reason, for people.
    pub reason: String,
    /// How long the host wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure of `origin`.
    pub fn new(kind: Kind, origin: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { kind, origin: origin.into(), reason: clean(&reason.into(), 1024), retry_after: None }
    }

    /// A failure that is not the host's.
    pub fn ours(origin: impl Into<String>, error: &Error) -> Self {
        Self::new(Kind::Ours(error.class()), origin, error.to_string())
    }

    /// What became of sending a request or reading a body.
    pub fn transport(origin: impl Into<String>, error: reqwest::Error) -> Self {
        // Its text repeats the URL with its query.
        let error = error.without_url();
        let causes = causes(&error);
        if let Some(own) = causes.iter().find_map(|e| e.downcast_ref::<Error>()) {
            return Self::ours(origin, own);
        }
        let root = causes.last().map_or_else(String::new, ToString::to_string);
        if let Some(tls) = causes.iter().find_map(|e| e.downcast_ref::<rustls::Error>()) {
            let kind = if matches!(tls, rustls::Error::InvalidMessage(_)) { Kind::NoTls } else { Kind::Tls };
            return Self::new(kind, origin, format!("TLS: {}", describe(tls)));
        }
        // The innermost: those around it say no more than that something is other than it should be.
        let io =
            causes.iter().rev().find_map(|e| e.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
        let refused = io == Some(std::io::ErrorKind::PermissionDenied);
        let (kind, doing) = match () {
            () if error.is_timeout() && error.is_connect() => (Kind::Timeout, "connect: timed out"),
            () if error.is_timeout() => (Kind::Timeout, "timed out"),
            () if error.is_connect() && refused => (Kind::Refused, "connect"),
            () if error.is_connect() && io == Some(std::io::ErrorKind::UnexpectedEof) => (Kind::Cut, "TLS"),
            () if error.is_connect() && io == Some(std::io::ErrorKind::ConnectionReset) => {
                (Kind::NoTls, "connect")
            }
            () if error.is_connect() => (Kind::Connect, "connect"),
            () if error.is_builder() => (Kind::Invalid, "request"),
            () => (Kind::Reset, "connection broke"),
        };
        Self::new(kind, origin, format!("{doing}: {root}"))
    }

    /// Whether the same request may work in a moment.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            Kind::Timeout | Kind::Reset | Kind::Cut => true,
            Kind::Status(status) => matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// The class for a caller who cannot ask anybody else.
    pub fn class(&self) -> Class {
        match self.kind {
            Kind::Connect | Kind::NoTls | Kind::Cut | Kind::Reset => Class::Unavailable,
            Kind::Tls => Class::FailedPrecondition,
            Kind::Timeout => Class::DeadlineExceeded,
            Kind::Status(StatusCode::NOT_FOUND) => Class::NotFound,
            Kind::Status(StatusCode::FORBIDDEN) | Kind::Refused => Class::PermissionDenied,
            Kind::Status(StatusCode::UNAUTHORIZED) | Kind::Unauthenticated => Class::Unauthenticated,
            Kind::Status(StatusCode::TOO_MANY_REQUESTS) => Class::Unavailable,
            Kind::Status(status) if status.is_server_error() => Class::Unavailable,
            Kind::Status(_) => Class::Unknown,
            Kind::Invalid => Class::DataLoss,
            Kind::TooLarge => Class::ResourceExhausted,
            Kind::Unsupported => Class::Unimplemented,
            Kind::Ours(class) => class,
        }
    }

    /// How much it tells about why the whole failed: a host that has the image and does not give it tells more than one
    /// that does not know it, and that more than one that is not there.
    fn weight(&self) -> u8 {
        match self.kind {
            Kind::Connect | Kind::NoTls | Kind::Cut | Kind::Tls | Kind::Timeout | Kind::Reset => 1,
            Kind::Status(StatusCode::NOT_FOUND) => 2,
            Kind::Unsupported => 0,
            _ => 3,
        }
    }
}

/// One error out of what each host said, in the order in which they were asked. Its class is the most telling one's.
pub fn together(failures: Vec<Failure>) -> Error {
    let mut class = None;
    let mut text = String::new();
    let mut heaviest = None;
    for failure in &failures {
        if heaviest.is_none_or(|weight| failure.weight() > weight) {
            heaviest = Some(failure.weight());
            class = Some(failure.class());
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&failure.origin);
        text.push_str(": ");
        text.push_str(&failure.reason);
    }
    Error::new(class.unwrap_or(Class::NotFound), text)
}

/// An error and everything below it. `io::Error` hides what it wraps from `source`.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut found = vec![error];
    let mut next = Some(error);
    while let Some(error) = next {
        next = match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
        found.extend(next);
        if found.len() > 32 {
            break;
        }
    }
    found
}

fn describe(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "certificate signed by unknown authority".to_owned()
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "server gave HTTP response to HTTPS client".to_owned()
        }
        other => other.to_string(),
    }
}

/// `text` as it may stand in an error or a log: one line, at most `most` bytes, without what moves a terminal's cursor.
pub fn clean(text: &str, most: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= most {
            out.push('…');
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

/// An URL as it may stand in an error or a log: the values of its query are blotted out, but for the registry's name.
pub fn redacted(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.query().is_some() {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let mut query = url.query_pairs_mut();
        query.clear();
        for (key, value) in pairs {
            query.append_pair(&key, if key == "ns" || value.is_empty() { &value } else { "REDACTED" });
        }
        drop(query);
    }
    clean(url.as_str(), 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_each_host_and_has_the_most_telling_class() {
        let error = together(vec![
            Failure::new(Kind::Connect, "https://a", "connect: refused"),
            Failure::new(Kind::Status(StatusCode::FORBIDDEN), "https://b", "403 Forbidden"),
            Failure::new(Kind::Status(StatusCode::NOT_FOUND), "https://c", "not found"),
        ]);
        assert_eq!(error.class(), Class::PermissionDenied);
        assert_eq!(
            error.to_string(),
            "https://a: connect: refused; https://b: 403 Forbidden; https://c: not found"
        );
    }

    #[test]
    fn signatures_and_passwords_of_urls_are_blotted_out() {
        let url: Url = "https://user:pw@h/x?ns=docker.io&X-Amz-Signature=secret".parse().unwrap();
        assert_eq!(redacted(&url), "https://h/x?ns=docker.io&X-Amz-Signature=REDACTED");
    }

    #[test]
    fn what_a_registry_says_is_one_short_line() {
        assert_eq!(clean("a\nb\u{1b}[2J", 100), "a b [2J");
        assert!(clean(&"x".repeat(10_000), 64).len() < 80);
    }
}
