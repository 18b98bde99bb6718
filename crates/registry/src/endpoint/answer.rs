//! What a host answered, read with bounds.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use http::{Method, StatusCode};
use serde::Deserialize;

use crate::failure::{Failure, Kind, clean, redacted};
use crate::transport::{Answer, Transport, status_text};

/// The most bytes of an error's body that are looked at.
const MOST_OF_AN_ERROR: u64 = 64 << 10;

/// How long an error's body may take: it is only for people.
const ERROR_TIME: Duration = Duration::from_secs(5);

/// How long a whole small answer (a token, a manifest) may take.
const WHOLE_TIME: Duration = Duration::from_secs(60);

/// The whole body of a small answer, at most `most` bytes.
pub async fn read(transport: &Transport, answer: Answer, most: u64) -> Result<Bytes, Failure> {
    let here = answer.origin();
    let too_large = || {
        let why = format!("the answer is larger than the limit of {most} bytes");
        Failure::new(Kind::TooLarge, here.clone(), why)
    };
    if content_length(answer.response.headers()).is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let collecting = async {
        let mut response = answer.response;
        let mut body = BytesMut::new();
        loop {
            let idle = transport.idle();
            match tokio::time::timeout(idle, response.chunk()).await {
                Err(_) => {
                    return Err(Failure::new(Kind::Timeout, &here, format!("nothing came for {idle:?}")));
                }
                Ok(Err(e)) => return Err(Failure::transport(&here, e)),
                Ok(Ok(None)) => return Ok(body.freeze()),
                Ok(Ok(Some(chunk))) if body.len() as u64 + chunk.len() as u64 > most => {
                    return Err(too_large());
                }
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            }
        }
    };
    let late = || Failure::new(Kind::Timeout, &here, format!("the answer took longer than {WHOLE_TIME:?}"));
    tokio::time::timeout(WHOLE_TIME, collecting).await.unwrap_or_else(|_| Err(late()))
}

/// The failure that an answer with an unwanted status is, with what the registry says about it.
pub async fn unexpected(transport: &Transport, answer: Answer, method: &Method) -> Failure {
    let (status, url, here) = (answer.response.status(), answer.response.url().clone(), answer.origin());
    let retry_after = retry_after(answer.response.headers());
    let mut reason = match status {
        StatusCode::NOT_FOUND => format!("content at {} not found", redacted(&url)),
        _ => {
            let status = status_text(status);
            format!("unexpected status from {method} request to {}: {status}", redacted(&url))
        }
    };
    let reading = tokio::time::timeout(ERROR_TIME, read(transport, answer, MOST_OF_AN_ERROR));
    if let Ok(Ok(body)) = reading.await {
        let said = message(&body);
        if !said.is_empty() {
            reason = format!("{reason}: {said}");
        }
    }
    Failure { retry_after, ..Failure::new(Kind::Status(status), here, reason) }
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What a registry says in the body of an error (distribution-spec, error codes). Anything else is nobody's business:
/// it may be a page of a proxy.
fn message(body: &[u8]) -> String {
    let Ok(errors) = serde_json::from_slice::<Errors>(body) else { return String::new() };
    let said = errors.errors.iter().take(3).map(|e| match (e.code.as_str(), e.message.as_str()) {
        ("", message) => message.to_owned(),
        (code, "") => code.to_lowercase().replace('_', " "),
        (code, message) => format!("{}: {message}", code.to_lowercase().replace('_', " ")),
    });
    clean(&said.collect::<Vec<_>>().join(", "), 512)
}

/// How long a host wants to be left alone: so many seconds, or until a date by its own clock, where it tells that.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let now = text(DATE).and_then(date).unwrap_or_else(SystemTime::now);
    // A date that has passed is now.
    Some(date(asked)?.duration_since(now).unwrap_or_default())
}

/// `Content-Length`, which for a HEAD is not the length of what comes.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `Content-Type` without its parameters.
pub fn content_type(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media = text.split(';').next().unwrap_or_default().trim();
    (!media.is_empty()).then_some(media)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_until_a_date_of_the_hosts_own_clock() {
        let asked = |after: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, after.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (after, wait) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:49:47 1994", Some(10)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(asked(after, date), wait, "{after}");
        }
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:40 GMT", None), Some(0));
    }

    #[test]
    fn a_registrys_errors_are_told_and_pages_of_proxies_are_not() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\nway"},{"code":"NAME_UNKNOWN"}]}"#;
        assert_eq!(message(body), "denied: no way, name unknown");
        assert_eq!(message(b"<html>"), "");
        assert_eq!(message(b"{}"), "");
    }
}
