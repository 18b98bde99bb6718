//! Certificates, good and bad.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

/// What is wrong with a registry's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Nothing.
    Good,
    /// It was good until 2020.
    Expired,
    /// It is another host's.
    WrongName,
    /// Nobody knows who signed it.
    UnknownAuthority,
    /// It is its own authority, as `openssl req -x509` makes them.
    SelfSigned,
    /// Nothing, but the client must show one, too.
    WantsClient,
}

/// What a registry with TLS needs.
pub struct Server {
    /// Takes connections.
    pub acceptor: TlsAcceptor,
    /// The authority that the client is told to believe in.
    pub ca: String,
    /// Certificate and key of a client.
    pub client: Option<(String, String)>,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

#[expect(clippy::expect_used, reason = "a test without its registry cannot go on")]
impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("an authority");
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    fn sign(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

#[expect(clippy::expect_used, reason = "a test without its registry cannot go on")]
impl Server {
    /// Makes the certificates.
    pub fn new(kind: Certificate) -> Self {
        let authority = Authority::new("the fake registry's authority");
        let name = if kind == Certificate::WrongName { "elsewhere.example" } else { "127.0.0.1" };
        let mut params =
            CertificateParams::new(vec![name.to_owned(), "localhost".to_owned()]).expect("names");
        if kind == Certificate::WrongName {
            params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        }
        if kind == Certificate::Expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let (chain, key, ca) = match kind {
            Certificate::SelfSigned => {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                let key = KeyPair::generate().expect("a key");
                let certificate = params.self_signed(&key).expect("a certificate").pem();
                (certificate.clone(), key.serialize_pem(), certificate)
            }
            Certificate::UnknownAuthority => {
                let (chain, key) = authority.sign(&params);
                (chain, key, Authority::new("another authority").pem)
            }
            _ => {
                let (chain, key) = authority.sign(&params);
                (chain, key, authority.pem.clone())
            }
        };
        let client = (kind == Certificate::WantsClient).then(|| {
            let mut params = CertificateParams::new(vec!["client".to_owned()]).expect("a name");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            authority.sign(&params)
        });
        let acceptor = acceptor(&chain, &key, client.is_some().then_some(&authority.pem));
        Self { acceptor, ca, client }
    }
}

#[expect(clippy::expect_used, reason = "a test without its registry cannot go on")]
fn acceptor(chain: &str, key: &str, clients: Option<&String>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("TLS versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            let der = CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate");
            roots.add(der).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let chain =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().expect("a chain");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let config = builder.with_single_cert(chain, key).expect("a certificate with its key");
    TlsAcceptor::from(Arc::new(config))
}
