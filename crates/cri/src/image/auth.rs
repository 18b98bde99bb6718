//! Who a kubelet says that we are. Nothing here shows a secret.

use std::fmt;

use api::cri::AuthConfig;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use types::{Error, Result};

/// As it was said.
#[derive(Clone, Default, PartialEq)]
pub struct Auth(AuthConfig);

/// A name and its password, or without a name a token for which shorter ones are given out.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: Option<String>,
    /// Password or token.
    pub secret: String,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(…)")
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl From<AuthConfig> for Auth {
    fn from(auth: AuthConfig) -> Self {
        Self(auth)
    }
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Auth {
    /// What it means for a registry: nothing if it is for another one.
    pub fn login(&self, host: &str) -> Result<Option<Login>> {
        let auth = &self.0;
        if !auth.server_address.is_empty() && server(&auth.server_address)? != host {
            return Ok(None);
        }
        let login = |user: &str, secret: &str| {
            let user = (!user.is_empty()).then(|| user.to_owned());
            Ok(Some(Login { user, secret: secret.to_owned() }))
        };
        if !auth.username.is_empty() {
            return login(&auth.username, &auth.password);
        }
        if !auth.identity_token.is_empty() {
            return login("", &auth.identity_token);
        }
        if auth.auth.is_empty() {
            return Ok(None);
        }
        // What was decoded may be a secret: no error shows it.
        let decoded = BASE64.decode(&auth.auth).map_err(|_| Error::invalid("auth is no base64"))?;
        let decoded = String::from_utf8(decoded).map_err(|_| Error::invalid("invalid decoded auth"))?;
        let (user, secret) =
            decoded.split_once(':').ok_or_else(|| Error::invalid("invalid decoded auth: no colon"))?;
        login(user, secret.trim_matches('\0'))
    }
}

/// The host of an address, with its port.
fn server(address: &str) -> Result<&str> {
    // As Go reads it: without a scheme there is no host.
    let Some((_, rest)) = address.split_once("//") else { return Ok("") };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if host.contains(char::is_whitespace) {
        return Err(Error::invalid("parse server address: invalid character in host name"));
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(auth: AuthConfig) -> Option<(Option<String>, String)> {
        Auth(auth).login("r.io:5000").unwrap().map(|login| (login.user, login.secret))
    }

    #[test]
    fn what_is_said_first_counts_and_only_for_its_server() {
        let text = str::to_owned;
        let user = (Some(text("u")), text("p"));
        let basic = AuthConfig { username: text("u"), password: text("p"), ..AuthConfig::default() };
        assert_eq!(login(basic.clone()), Some(user.clone()));
        for (address, counts) in [
            ("https://r.io:5000", true),
            ("https://r.io:5000/v2/", true),
            ("http://u@r.io:5000/", true),
            ("https://r.io", false),
            ("r.io:5000", false),
        ] {
            let auth = AuthConfig { server_address: text(address), ..basic.clone() };
            assert_eq!(login(auth).is_some(), counts, "{address}");
        }
        let token = AuthConfig { identity_token: text("t"), auth: text("dTpw"), ..AuthConfig::default() };
        assert_eq!(login(token), Some((None, text("t"))));
        for auth in ["dTpw", "dTpwAAA=", "dTpwAAA"] {
            assert_eq!(login(AuthConfig { auth: text(auth), ..AuthConfig::default() }), Some(user.clone()));
        }
        assert_eq!(login(AuthConfig::default()), None);
        assert_eq!(login(AuthConfig { registry_token: text("t"), ..AuthConfig::default() }), None);
    }

    #[test]
    fn nothing_shows_a_secret() {
        for auth in ["UzNDUkVU", "S3CRET!", "/w=="] {
            let auth = Auth(AuthConfig { auth: auth.to_owned(), ..AuthConfig::default() });
            let error = auth.login("r.io").unwrap_err().to_string();
            assert!(!error.contains("S3CRET"), "{error}");
            assert_eq!(format!("{auth:?}"), "Auth(…)");
        }
        let login = Login { user: Some("u".to_owned()), secret: "S3CRET".to_owned() };
        assert!(!format!("{login:?}").contains("S3CRET"));
    }
}
