//! Where a registry may send us.

use std::net::IpAddr;

use reqwest::Url;

use super::origin;
use super::reach::Policy;
use crate::failure::clean;

/// An address in `url` itself is checked here, a name when it is resolved.
pub fn allowed(url: &Url, policy: Policy) -> Result<(), String> {
    let host = url.host_str().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) if !policy.allows(ip) => {
            Err(format!("leads to {}, which is not to be reached from here", origin(url)))
        }
        _ => Ok(()),
    }
}

/// Where `location` leads from `base`: http or https, never from https to http, without a user's name.
pub fn join(base: &Url, location: &str) -> Result<Url, String> {
    let mut url = base.join(location).map_err(|_| "invalid location".to_owned())?;
    match (base.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err(format!("leaves https for {}", origin(&url))),
        (_, other) => {
            return Err(format!("leads to {:?}, which is neither http nor https", clean(other, 32)));
        }
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("location without a host".to_owned());
    }
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_never_leaves_http_nor_https() {
        let base: Url = "https://r.example/v2/x".parse().unwrap();
        for bad in [
            "file:///etc/passwd",
            "http://r.example/v2/x",
            "unix:/run/x",
            "ftp://h/",
            "https://",
            "gopher://h/",
        ] {
            assert!(join(&base, bad).is_err(), "{bad}");
        }
        assert_eq!(join(&base, "/y?a=b").unwrap().as_str(), "https://r.example/y?a=b");
        assert_eq!(join(&base, "https://u:p@c.example/#f").unwrap().as_str(), "https://c.example/");
        let plain: Url = "http://r.example/".parse().unwrap();
        assert!(join(&plain, "http://c.example/").is_ok());
    }
}
