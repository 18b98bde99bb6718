//! Who asked on whose behalf: W3C's `traceparent` and `tracestate`.

use http::HeaderMap;

/// 16 bytes, not all zero.
pub type TraceId = [u8; 16];
/// 8 bytes, not all zero.
pub type SpanId = [u8; 8];

/// The caller's span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace that the call belongs to.
    pub trace: TraceId,
    /// The span that made the call.
    pub span: SpanId,
    /// Whether the caller records.
    pub sampled: bool,
    /// What vendors add, passed on.
    pub state: String,
}

impl Parent {
    /// The caller's span, if the headers tell one.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all("traceparent").iter();
        let parent = parents.next()?.to_str().ok()?;
        // Two would be a contradiction.
        if parents.next().is_some() {
            return None;
        }
        let state: Vec<_> =
            headers.get_all("tracestate").iter().filter_map(|state| state.to_str().ok()).collect();
        Self::parse(parent, state.join(","))
    }

    /// `version-trace-span-flags` in lower-case hexadecimal; a later version may add fields.
    fn parse(text: &str, state: String) -> Option<Self> {
        let mut fields = text.split('-');
        let [version] = bytes::<1>(fields.next()?)?;
        let trace = bytes::<16>(fields.next()?)?;
        let span = bytes::<8>(fields.next()?)?;
        let [flags] = bytes::<1>(fields.next()?)?;
        let odd = version == 0xff || version == 0 && fields.next().is_some();
        if odd || trace == [0; 16] || span == [0; 8] {
            return None;
        }
        Some(Self { trace, span, sampled: flags & 1 == 1, state })
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// As people and logs write it.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_caller_is_known_by_its_header() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", GOOD.parse().unwrap());
        headers.append("tracestate", "a=1".parse().unwrap());
        headers.append("tracestate", "b=2".parse().unwrap());
        let parent = Parent::read(&headers).unwrap();
        assert_eq!(hex(&parent.trace), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(hex(&parent.span), "b7ad6b7169203331");
        assert!(parent.sampled);
        assert_eq!(parent.state, "a=1,b=2");
        headers.append("traceparent", GOOD.parse().unwrap());
        assert_eq!(Parent::read(&headers), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[0-9a-f-]{0,60}|.*") {
            if let Some(parent) = Parent::parse(&text, String::new()) {
                let again = format!("-{}-{}-", hex(&parent.trace), hex(&parent.span));
                proptest::prop_assert!(text.contains(&again));
            }
        }
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        let parse = |text: &str| Parent::parse(text, String::new());
        assert!(!parse(&GOOD.replace("-01", "-00")).unwrap().sampled);
        assert!(parse(&format!("01{}-more", &GOOD[2..])).is_some(), "a later version");
        for odd in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            &GOOD.to_uppercase(),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-\u{e9}",
        ] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
