//! The handshake, as headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a request wants a WebSocket.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let upgrade =
        headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    upgrade && wants_upgrade(headers)
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONNECTION).iter();
    values.any(|value| value.as_bytes().to_ascii_lowercase().windows(7).any(|word| word == b"upgrade"))
}

/// What `Sec-WebSocket-Accept` has to be, if the client's handshake is complete.
pub fn accept(headers: &HeaderMap) -> Option<String> {
    let version = headers.get(SEC_WEBSOCKET_VERSION)?;
    let key = headers.get(SEC_WEBSOCKET_KEY)?.as_bytes();
    if version != "13" || STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(GUID);
    Some(STANDARD.encode(digest.finish()))
}

/// The client's first protocol that is `supported`. Who asks for none gets the one without a name. An error has what was asked.
pub fn protocol<'a>(headers: &HeaderMap, supported: &[&'a str]) -> Result<&'a str, Vec<String>> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut asked: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    asked.retain(|protocol| !protocol.is_empty());
    let find = |protocol: &str| supported.iter().find(|known| **known == protocol).copied();
    let found = if asked.is_empty() { find("") } else { asked.iter().find_map(|protocol| find(protocol)) };
    found.ok_or_else(|| asked.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        assert_eq!(accept(&headers), None);
        headers.insert(SEC_WEBSOCKET_VERSION, "13".parse().unwrap());
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert(SEC_WEBSOCKET_KEY, "c2hvcnQ=".parse().unwrap());
        assert_eq!(accept(&headers), None);
    }

    #[test]
    fn the_clients_first_protocol_that_we_know_is_taken() {
        let mut headers = HeaderMap::new();
        assert_eq!(protocol(&headers, &["", "a"]), Ok(""));
        assert_eq!(protocol(&headers, &["a"]), Err(Vec::new()));
        headers.append(SEC_WEBSOCKET_PROTOCOL, "x, b".parse().unwrap());
        headers.append(SEC_WEBSOCKET_PROTOCOL, "a".parse().unwrap());
        assert_eq!(protocol(&headers, &["", "a", "b"]), Ok("b"));
        assert_eq!(protocol(&headers, &[""]), Err(vec!["x".to_owned(), "b".to_owned(), "a".to_owned()]));
    }

    #[test]
    fn only_who_asks_for_it_gets_a_websocket() {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, "WebSocket".parse().unwrap());
        assert!(!is_upgrade(&headers));
        headers.insert(CONNECTION, "keep-alive, Upgrade".parse().unwrap());
        assert!(is_upgrade(&headers));
        headers.insert(UPGRADE, "SPDY/3.1".parse().unwrap());
        assert!(!is_upgrade(&headers));
    }
}
