//! What a shim's `start` is told on stdin, and what it answers on stdout.
//!
//! Three generations answer: protobuf (2.3), JSON (2.0 to 2.2, and 1.7), the plain address (before). All become a
//! [`Bootstrap`], which is kept in the bundle as `bootstrap.json`, in the JSON that upstream writes there.

use std::collections::BTreeMap;

use api::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult, Extension, LogLevel};
use prost::Message;
use serde::{Deserialize, Serialize};
use types::{Any, Error, Result};

/// The newest task API that we speak.
pub(crate) const NEWEST: i32 = 3;

/// How to reach a shim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bootstrap {
    /// The version of the task API: 2 or 3.
    #[serde(default)]
    pub(crate) version: i32,
    /// `unix:///path`, or another scheme of upstream's dialers.
    #[serde(default)]
    pub(crate) address: String,
    /// `ttrpc` or `grpc`.
    #[serde(default)]
    pub(crate) protocol: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    capabilities: Vec<i32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

impl Bootstrap {
    /// The address alone, as shims before 1.7 answered.
    pub(crate) fn plain(address: &str) -> Self {
        Self { version: 2, address: address.to_owned(), protocol: "ttrpc".to_owned(), ..Self::default() }
    }

    /// One that is told in words, and is one that we speak.
    pub(crate) fn new(protocol: &str, address: &str, version: i32) -> Result<Self> {
        let (protocol, address) = (protocol.to_owned(), address.to_owned());
        Self { version, address, protocol, ..Self::default() }.check()
    }

    /// Reads an answer of any generation, or a `bootstrap.json`.
    pub(crate) fn parse(answer: &[u8]) -> Result<Self> {
        let bootstrap = match BootstrapResult::decode(answer) {
            // Text is no protobuf, but only because its first bytes are unlucky as tags: ask for sense as well.
            Ok(result) if !result.address.is_empty() && !result.protocol.is_empty() => Self {
                version: result.version,
                address: result.address,
                protocol: result.protocol,
                capabilities: result.capabilities,
                metadata: result.metadata,
            },
            _ => Self::parse_text(answer)?,
        };
        bootstrap.check()
    }

    fn parse_text(answer: &[u8]) -> Result<Self> {
        let text = answer.trim_ascii();
        if let Ok(bootstrap) = serde_json::from_slice::<Self>(text)
            && bootstrap.version >= 2
        {
            return Ok(bootstrap);
        }
        if text.is_empty() {
            return Err(Error::unknown("shim answered nothing"));
        }
        let address = std::str::from_utf8(text)
            .ok()
            .filter(|address| {
                !address.is_empty() && !address.starts_with('{') && !address.contains(char::is_whitespace)
            })
            .ok_or_else(|| Error::unknown(format!("not an address: {:?}", String::from_utf8_lossy(text))))?;
        Ok(Self::plain(address))
    }

    fn check(self) -> Result<Self> {
        if self.version > NEWEST {
            return Err(Error::unimplemented(format!(
                "unsupported shim version ({}): not implemented",
                self.version
            )));
        }
        if self.version < 2 {
            return Err(Error::unimplemented(format!(
                "containerd client supports only v2 and v3 TTRPC task client (got {})",
                self.version
            )));
        }
        match self.protocol.to_ascii_lowercase().as_str() {
            "ttrpc" => Ok(self),
            "grpc" => {
                Err(Error::unimplemented("shims that speak grpc are not supported yet: not implemented"))
            }
            _ => Err(Error::unknown(format!("unexpected protocol: {:?}", self.protocol))),
        }
    }

    /// Whether the shim has a service that not all have.
    pub(crate) fn has(&self, service: &str) -> bool {
        self.metadata.contains_key(service)
    }

    /// The text of `bootstrap.json`.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::internal(format!("encode bootstrap.json: {e}")))
    }
}

/// What `start` reads from its stdin.
pub(crate) struct Params<'a> {
    pub(crate) id: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) debug: bool,
    pub(crate) ttrpc_address: &'a str,
    pub(crate) grpc_address: &'a str,
    pub(crate) binary: &'a str,
    pub(crate) socket_dir: Option<&'a str>,
    pub(crate) options: Option<&'a Any>,
}

impl Params<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let level = if self.debug { LogLevel::Debug } else { LogLevel::Info };
        BootstrapParams {
            instance_id: self.id.to_owned(),
            namespace: self.namespace.to_owned(),
            log_level: level.into(),
            containerd_version: types::version::VERSION.to_owned(),
            containerd_ttrpc_address: self.ttrpc_address.to_owned(),
            containerd_grpc_address: self.grpc_address.to_owned(),
            containerd_binary: self.binary.to_owned(),
            extensions: self
                .options
                .iter()
                .map(|options| Extension { value: Some(api::any::to_wire((*options).clone())) })
                .collect(),
            socket_dir: self.socket_dir.map(str::to_owned),
        }
        .encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use types::Class;

    use super::*;

    #[test]
    fn each_generation_of_answers_is_understood() {
        let protobuf = BootstrapResult {
            version: 3,
            address: "unix:///run/containerd/s/0a".into(),
            protocol: "ttrpc".into(),
            ..Default::default()
        }
        .encode_to_vec();
        let json = br#"{"version":3,"address":"unix:///run/containerd/s/0a","protocol":"ttrpc"}"#;
        assert_eq!(Bootstrap::parse(&protobuf).unwrap(), Bootstrap::parse(json).unwrap());
        let plain = Bootstrap::parse(b"unix:///run/containerd/s/0a\n").unwrap();
        assert_eq!(plain, Bootstrap::plain("unix:///run/containerd/s/0a"));
        for address in ["/containerd-shim/abc.sock", "vsock://3:1024", "unix:///a", "@abstract"] {
            assert_eq!(Bootstrap::parse(address.as_bytes()).unwrap().address, address);
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bad in [&b""[..], b"\n", b"{", b"{}", b"usage: shim [flags]", b"\xff\xfe", br#"{"version":1}"#] {
            assert!(Bootstrap::parse(bad).is_err(), "{bad:?}");
        }
        let newer = br#"{"version":4,"address":"unix:///a","protocol":"ttrpc"}"#;
        let error = Bootstrap::parse(newer).unwrap_err();
        assert_eq!(error.class(), Class::Unimplemented);
        assert_eq!(error.to_string(), "unsupported shim version (4): not implemented");
    }

    #[test]
    fn bootstrap_json_is_what_upstream_writes() {
        let bootstrap = Bootstrap { version: 3, ..Bootstrap::plain("unix:///a") };
        let json = bootstrap.to_json().unwrap();
        assert_eq!(json, br#"{"version":3,"address":"unix:///a","protocol":"ttrpc"}"#);
        assert_eq!(Bootstrap::parse(&json).unwrap(), bootstrap);
    }
}
