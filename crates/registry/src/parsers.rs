//! The parsers of foreign text, for the fuzz targets in `fuzz/`: none of them may panic, whatever comes.

use std::path::Path;

use reqwest::Url;

use crate::auth::docker::DockerConfig;
use crate::{auth, hosts, transport};

/// `hosts.toml`: how many hosts it names.
pub fn hosts_toml(text: &str) -> usize {
    hosts::parse(text, Path::new("/hosts.toml")).map_or(0, |entries| entries.len())
}

/// `WWW-Authenticate`: how many challenges it has.
pub fn challenge(text: &str) -> usize {
    auth::challenge::parse(text).len()
}

/// A token server's answer: whether it has a token.
pub fn token(body: &[u8]) -> bool {
    auth::token::parse(body).is_ok()
}

/// Docker's `config.json`: whether it is one.
pub fn docker_config(body: &[u8]) -> bool {
    DockerConfig::parse(body).is_ok()
}

/// A `Location` seen at `base`: where it leads, if we go there.
pub fn location(base: &str, location: &str) -> Option<String> {
    transport::join(&Url::parse(base).ok()?, location).ok().map(String::from)
}
