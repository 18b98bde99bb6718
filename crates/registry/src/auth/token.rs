//! A token server's answers: short-lived tokens for a scope (docs.docker.com/registry/spec/auth).

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use reqwest::Url;

use super::credentials::Credential;
use crate::endpoint::answer;
use crate::failure::{Failure, Kind};
use crate::transport::{Answer, Call, Payload, Transport, origin};

/// Where tokens are had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its URL, checked.
    pub realm: Url,
    /// For whom it gives them out.
    pub service: String,
}

/// A token as it is sent.
#[derive(Clone, Debug)]
pub struct Token {
    /// The `Authorization` header.
    pub header: HeaderValue,
    /// When it ends.
    pub until: Instant,
}

/// The most bytes of an answer.
const MOST: u64 = 1 << 20;

/// How long a token without a lifetime is kept, as the specification says.
const LIFETIME: Duration = Duration::from_secs(60);

/// Fetches a token for `scopes`.
pub async fn fetch(
    transport: &Transport,
    server: &Server,
    scopes: &[String],
    credential: Option<&Credential>,
) -> Result<Token, Failure> {
    let Some(credential) = credential else {
        return read(transport, execute(transport, get(server, scopes, None)).await?).await;
    };
    let answer = execute(transport, post(server, scopes, credential)).await?;
    // Registries that know no POST say so in many ways; those are upstream's (GCR, Artifactory, ACR, docker's own).
    if matches!(answer.response.status().as_u16(), 400 | 401 | 404 | 405) {
        return read(transport, execute(transport, get(server, scopes, Some(credential))).await?).await;
    }
    read(transport, answer).await
}

async fn execute(transport: &Transport, mut call: Call) -> Result<Answer, Failure> {
    // Configured headers are the registry's: a token server elsewhere does not see them.
    if origin(&call.url) == transport.origin() {
        let own = transport.host().headers.iter().map(|(k, v)| (k.clone(), v.clone()));
        let mut private: HeaderMap = own.collect();
        private.extend(call.private);
        call.private = private;
    }
    transport.execute(call).await
}

fn get(server: &Server, scopes: &[String], credential: Option<&Credential>) -> Call {
    let mut url = server.realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if !server.service.is_empty() {
            query.append_pair("service", &server.service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
    }
    let mut private = HeaderMap::new();
    let basic = match credential {
        Some(Credential::Basic { user, secret }) => Some(basic(user, secret)),
        Some(Credential::RefreshToken(token)) => Some(basic("", token)),
        Some(Credential::Header(_)) | None => None,
    };
    if let Some(basic) = basic {
        private.insert(AUTHORIZATION, basic);
    }
    Call { method: Method::GET, url, headers: HeaderMap::new(), private, payload: Payload::Empty }
}

fn post(server: &Server, scopes: &[String], credential: &Credential) -> Call {
    // A form is encoded as a query is.
    let mut form = server.realm.clone();
    {
        let mut pairs = form.query_pairs_mut();
        pairs.clear();
        if !scopes.is_empty() {
            pairs.append_pair("scope", &scopes.join(" "));
        }
        pairs.append_pair("service", &server.service).append_pair("client_id", "containerd-client");
        match credential {
            Credential::Basic { user, secret } => {
                pairs.append_pair("grant_type", "password");
                pairs.append_pair("username", user).append_pair("password", secret);
            }
            Credential::RefreshToken(token) | Credential::Header(token) => {
                pairs.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token);
            }
        }
    }
    let body = Bytes::from(form.query().unwrap_or_default().to_owned());
    let mut headers = HeaderMap::new();
    let kind = "application/x-www-form-urlencoded; charset=utf-8";
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let (method, url) = (Method::POST, server.realm.clone());
    Call { method, url, headers, private: HeaderMap::new(), payload: Payload::Bytes(body) }
}

/// `Basic …`.
pub fn basic(user: &str, secret: &str) -> HeaderValue {
    let text = format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")));
    // Base64 is always a valid header.
    let mut value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

async fn read(transport: &Transport, answer: Answer) -> Result<Token, Failure> {
    let here = answer.origin();
    let status = answer.response.status();
    if !status.is_success() {
        let mut failure = answer::unexpected(transport, answer, &Method::GET).await;
        failure.reason = format!("fetch a token: {}", failure.reason);
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            failure.kind = Kind::Unauthenticated;
            failure.reason.push_str(": authorization failed");
        }
        return Err(failure);
    }
    let body = answer::read(transport, answer, MOST).await.map_err(|mut failure| {
        failure.reason = format!("fetch a token: {}", failure.reason);
        failure
    })?;
    parse(&body).map_err(|why| Failure::new(Kind::Invalid, here, format!("fetch a token: {why}")))
}

/// The token in a server's answer.
pub fn parse(body: &[u8]) -> Result<Token, String> {
    let answer: serde_json::Value =
        serde_json::from_slice(body).map_err(|_| "the answer is not JSON".to_owned())?;
    let text = |key: &str| answer.get(key).and_then(|v| v.as_str()).filter(|v| !v.is_empty());
    let token = text("access_token")
        .or_else(|| text("token"))
        .ok_or("authorization server did not include a token in the response")?;
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "the token has characters that no header has".to_owned())?;
    header.set_sensitive(true);
    let lifetime = answer.get("expires_in").and_then(serde_json::Value::as_u64).filter(|s| *s > 0);
    let lifetime = lifetime.map_or(LIFETIME, |s| Duration::from_secs(s.min(24 * 3600)));
    // Not on the last second: the request that carries it takes its time, too.
    let until = Instant::now() + lifetime - (lifetime / 10).min(Duration::from_secs(10));
    Ok(Token { header, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_either_key_and_never_printed() {
        for body in [r#"{"token":"t"}"#, r#"{"access_token":"t","token":"x","expires_in":300}"#] {
            let token = parse(body.as_bytes()).unwrap();
            assert_eq!(token.header.to_str().unwrap(), "Bearer t");
            assert!(!format!("{token:?}").contains("Bearer"), "{token:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for body in ["", "{}", "[]", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, r#"{"token":1}"#] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
        let long = parse(br#"{"token":"t","expires_in":18446744073709551615}"#).unwrap();
        assert!(long.until <= Instant::now() + Duration::from_secs(24 * 3600));
    }
}
