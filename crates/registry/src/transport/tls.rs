//! TLS as a host's files want it: rustls with aws-lc-rs, chosen here and nowhere else, so that no process-wide default is needed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use types::{Class, Error, Result, ResultExt};

use crate::hosts::Tls;
use crate::settings::Settings;

/// Whether the client's certificate may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// To the host that it was configured for.
    Shown,
    /// To anybody else, e.g. where the host redirects to.
    Hidden,
}

/// The configuration for a host whose files say `tls`. Reads files: blocks.
pub fn configure(settings: &Settings, tls: &Tls, identity: Identity) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::caused(Class::Internal, "choose TLS versions", e))?;
    let verifier: Arc<dyn ServerCertVerifier> = if tls.skip_verify.unwrap_or(settings.skip_verify) {
        Arc::new(Anybody { provider })
    } else {
        Arc::new(Verifier::new(settings, tls, provider)?)
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    // One connection per request under way: several layers on one HTTP/2 connection share one TCP window and one
    // stall (docs/decisions/0011).
    let mut config = match client_certificate(settings, tls).filter(|_| identity == Identity::Shown) {
        Some((certificate, key)) => {
            let (chain, key) = read_pair(&certificate, key.as_deref())?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| Error::caused(Class::InvalidArgument, unusable(&certificate), e))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The pair to show: the host's own first, then the one of the flags.
fn client_certificate(settings: &Settings, tls: &Tls) -> Option<(PathBuf, Option<PathBuf>)> {
    let flag = settings.client.clone().map(|(certificate, key)| (certificate, Some(key)));
    tls.client.first().cloned().or(flag)
}

fn unusable(path: &Path) -> String {
    format!("use client certificate {}", path.display())
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_pair(certificate: &Path, key: Option<&Path>) -> Result<Pair> {
    let chain = read_certificates(certificate)?;
    let key = key.unwrap_or(certificate);
    let pem = std::fs::read(key).context(|| format!("read client key {}", key.display()))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| {
        Error::caused(Class::InvalidArgument, format!("no private key in {}", key.display()), e)
    })?;
    Ok((chain, key))
}

/// The certificates of a PEM file, at least one.
fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path).context(|| format!("read certificates {}", path.display()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|e| {
        Error::caused(Class::InvalidArgument, format!("invalid certificates in {}", path.display()), e)
    })?;
    if found.is_empty() {
        return Err(Error::invalid(format!("no certificates in {}", path.display())));
    }
    Ok(found)
}

/// Believes in roots, and in a certificate that was itself configured as one.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    configured: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(settings: &Settings, tls: &Tls, provider: Arc<CryptoProvider>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let mut configured = Vec::new();
        match &settings.ca {
            Some(path) => configured.extend(read_certificates(path)?),
            None => {
                // What cannot be read of the system's store is no error: nobody may need it.
                let system = rustls_native_certs::load_native_certs().certs;
                roots.add_parsable_certificates(system.iter().cloned());
                configured.extend(system);
            }
        }
        for path in &tls.ca {
            let found = read_certificates(path)?;
            for certificate in &found {
                roots.add(certificate.clone()).map_err(|e| {
                    Error::caused(Class::InvalidArgument, format!("use authority {}", path.display()), e)
                })?;
            }
            configured.extend(found);
        }
        if settings.ca.is_some() {
            roots.add_parsable_certificates(configured.iter().cloned());
        }
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|e| {
                Error::caused(Class::FailedPrecondition, "no certificate authorities on this system", e)
            })?;
        Ok(Self { inner, configured })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let result =
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match result {
            // `openssl req -x509` makes certificates that are their own authority; Go accepts them where they were configured
            // as one, webpki never. Dates are checked before this error arises; the name is not.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if self.configured.iter().any(|known| known == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// `skip_verify`: whoever answers is believed, as long as it holds the key of the certificate it shows.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
