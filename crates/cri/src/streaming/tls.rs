//! The server's certificate.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use types::{Class, Error, Result};

use crate::{config, tls};

/// Of the files.
const WHOSE: &str = "the stream server";

/// How to take connections, if not as they are.
pub fn acceptor(config: &config::Streaming, own: IpAddr) -> Result<Option<TlsAcceptor>> {
    let set = |path: &Path| !path.as_os_str().is_empty();
    let (chain, key) = match (config.tls, set(&config.certificate), set(&config.key)) {
        (false, false, false) => return Ok(None),
        (true, true, true) => (tls::certificates(&config.certificate, WHOSE)?, tls::key(&config.key, WHOSE)?),
        (true, false, false) => make(own)?,
        (true, true, false) => return Err(wrong("tls_key_file must be set")),
        (true, false, true) => return Err(wrong("tls_cert_file must be set")),
        (false, true, _) => return Err(wrong("tls_cert_file is set but enable_tls_streaming is not")),
        (false, false, true) => return Err(wrong("tls_key_file is set but enable_tls_streaming is not")),
    };
    let failed = |e| Error::caused(Class::InvalidArgument, "use the certificate of the stream server", e);
    let mut server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(failed)?;
    // SPDY begins with an upgrade, which HTTP/2 does not have.
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

fn wrong(what: &str) -> Error {
    Error::invalid(format!("x509_key_pair_streaming: {what}"))
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A certificate that nobody else has signed, for this machine's name and the address that is listened at.
fn make(own: IpAddr) -> Result<Pair> {
    let failed = |e| Error::caused(Class::Internal, "make a certificate for the stream server", e);
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().into_owned();
    let mut params = CertificateParams::new(vec![host.clone(), "localhost".to_owned()]).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, host);
    if !own.is_unspecified() {
        params.subject_alt_names.push(SanType::IpAddress(own));
    }
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())
        .map_err(|e| Error::internal(format!("make a key for the stream server: {e}")))?;
    Ok((vec![certificate.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pair_is_refused() {
        let own = IpAddr::from([127, 0, 0, 1]);
        let with = |tls, certificate: &str, key: &str| {
            let config = config::Streaming {
                tls,
                certificate: certificate.into(),
                key: key.into(),
                ..Default::default()
            };
            acceptor(&config, own).map(|acceptor| acceptor.is_some())
        };
        assert!(!with(false, "", "").unwrap());
        assert!(with(true, "", "").unwrap());
        for (tls, certificate, key) in
            [(true, "c", ""), (true, "", "k"), (false, "c", "k"), (false, "", "k"), (true, "/no/c", "/no/k")]
        {
            assert!(with(tls, certificate, key).is_err());
        }
    }
}
