//! What of requests and answers is shown: everything but bodies and secrets.

use http::header::{HeaderValue, LOCATION};
use reqwest::Response;

use super::{Call, Transport, origin};
use crate::failure::{clean, redacted};
use crate::settings::Note;

impl Transport {
    pub(super) fn note_request(&self, call: &Call) {
        tracing::debug!(method = %call.method, url = %redacted(&call.url), "request");
        let Some(trace) = &self.settings.trace else { return };
        let mut text = format!("{} {} HTTP/1.1\n", call.method, redacted(&call.url));
        for (name, value) in &call.headers {
            text.push_str(&header_line(name, value));
        }
        for name in call.private.keys() {
            text.push_str(&format!("{name}: REDACTED\n"));
        }
        trace.note(Note::Dump, &(text + "\n"));
    }

    pub(super) fn note_response(&self, response: &Response) {
        tracing::debug!(status = %response.status(), url = %redacted(response.url()), "answer");
        let Some(trace) = &self.settings.trace else { return };
        let remote = response.remote_addr().map_or_else(|| "a proxy".to_owned(), |a| a.to_string());
        trace.note(Note::Connection, &format!("{} answered from {remote}\n", origin(response.url())));
        let mut text = format!("{:?} {}\n", response.version(), response.status());
        for (name, value) in response.headers() {
            let location = (name == LOCATION).then(|| value.to_str().ok()?.parse().ok()).flatten();
            match location {
                Some(url) => text.push_str(&format!("{name}: {}\n", redacted(&url))),
                None => text.push_str(&header_line(name, value)),
            }
        }
        trace.note(Note::Dump, &(text + "\n"));
    }
}

fn header_line(name: &http::HeaderName, value: &HeaderValue) -> String {
    let secret = value.is_sensitive() || name == http::header::SET_COOKIE;
    let text = if secret { "REDACTED".into() } else { String::from_utf8_lossy(value.as_bytes()) };
    format!("{name}: {}\n", clean(&text, 1024))
}
