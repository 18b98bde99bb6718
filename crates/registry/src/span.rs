//! What part of a blob is asked for, and whether an answer can be it.

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, HeaderMap, RANGE};
use http::{HeaderValue, StatusCode};
use types::oci::image::Descriptor;

use crate::endpoint::answer;
use crate::failure::{Failure, Kind, clean};
use crate::fetch::is_manifest;
use crate::transport::Answer;

/// Bytes from `start` up to `end`, if that is known, of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u64,
    /// The one behind the last.
    pub end: Option<u64>,
    /// Whether the server is to be told where to stop.
    pub bounded: bool,
}

/// The headers of a request for `span` of `blob`.
pub fn headers(blob: &Descriptor, span: Span) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let accept =
        if blob.media_type.is_empty() { "*/*".to_owned() } else { format!("{}, */*", blob.media_type) };
    let accept = HeaderValue::from_str(&accept).unwrap_or(HeaderValue::from_static("*/*"));
    headers.insert(ACCEPT, accept);
    // What is hashed is what is sent: an encoding on the way would only be undone again.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let range = match span {
        Span { start, end: Some(end), bounded: true } => format!("bytes={start}-{}", end - 1),
        Span { start: 0, .. } => return headers,
        Span { start, end: Some(end), .. } => format!("bytes={start}-{}", end.max(start + 1) - 1),
        Span { start, .. } => format!("bytes={start}-"),
    };
    if let Ok(range) = HeaderValue::from_str(&range) {
        headers.insert(RANGE, range);
    }
    headers
}

/// Whether `answer` can be the content that was asked for.
pub fn checked(answer: Answer, blob: &Descriptor, span: Span) -> Result<Answer, Failure> {
    let origin = answer.origin();
    let lie = |why: String| Failure::new(Kind::Invalid, &origin, why);
    let headers = answer.response.headers();
    let encoding = headers.get(CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        let why = format!("encoded the content as {:?}, which nobody asked for", clean(encoding, 32));
        return Err(lie(why));
    }
    let said = answer::content_type(headers).unwrap_or_default();
    if is_manifest(&blob.media_type) && is_manifest(said) && said != blob.media_type {
        return Err(lie(format!("sent {said:?} for {}, which is {:?}", blob.digest, blob.media_type)));
    }
    let length = answer::content_length(headers);
    let size = u64::try_from(blob.size).ok();
    match answer.response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let text = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
            if !range_matches(text, span, size) {
                return Err(lie(format!("sent the range {:?} instead of {span:?}", clean(text, 64))));
            }
        }
        _ if span.bounded => {
            let why = "ignores ranges: the whole blob was sent";
            return Err(Failure::new(Kind::Unsupported, &origin, why));
        }
        _ => {
            if let (Some(length), Some(size)) = (length, size)
                && length != size
            {
                return Err(lie(format!("sent {length} bytes for {}, which has {size}", blob.digest)));
            }
        }
    }
    Ok(answer)
}

/// Whether `Content-Range` is what `span` asked for.
fn range_matches(text: &str, span: Span, size: Option<u64>) -> bool {
    let Some((range, total)) = text.strip_prefix("bytes ").and_then(|t| t.split_once('/')) else {
        return false;
    };
    let Some((start, last)) = range.split_once('-') else { return false };
    let (Ok(start), Ok(last)) = (start.trim().parse::<u64>(), last.trim().parse::<u64>()) else {
        return false;
    };
    let total_fits = match (total.trim().parse::<u64>(), size) {
        (Ok(total), Some(size)) => total == size,
        _ => true,
    };
    let end_fits = span.end.is_none_or(|end| last.checked_add(1) == Some(end));
    start == span.start && end_fits && total_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_was_not_asked_for_is_a_lie() {
        let span = Span { start: 5, end: Some(10), bounded: true };
        assert!(range_matches("bytes 5-9/10", span, Some(10)));
        assert!(range_matches("bytes 5-9/*", span, Some(10)));
        for bad in [
            "bytes 4-9/10",
            "bytes 5-8/10",
            "bytes 5-9/11",
            "",
            "bytes 5/10",
            "items 5-9/10",
            "bytes 5-18446744073709551615/*",
        ] {
            assert!(!range_matches(bad, span, Some(10)), "{bad}");
        }
    }
}
