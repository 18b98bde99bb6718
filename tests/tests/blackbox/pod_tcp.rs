//! The CRI over TCP (`disable_tcp_service = false`): its services and no others, encrypted if that is set, for clients with a certificate
//! if that is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::cri as wire;
use containerd_tests::{Cri, eventually};
use grpc::cri::image_service_client::ImageServiceClient;
use grpc::cri::runtime_service_client::RuntimeServiceClient;
use grpc::version::version_client::VersionClient;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const TCP: &str = "plugins.'io.containerd.server.v1.grpc-tcp'";
const CRI: &str = "plugins.'io.containerd.grpc.v1.cri'";

/// A daemon whose CRI is to be served over TCP as well, which was not started yet.
fn prepared(keys: &str) -> Option<Cri> {
    let cri = Cri::prepare("")?;
    cri.set(TCP, &format!("address = '127.0.0.1:0'\n{keys}"));
    cri.set(CRI, "disable_tcp_service = false");
    Some(cri)
}

/// Where it listens.
fn address(cri: &Cri) -> Option<String> {
    let log = cri.daemon.log();
    let line = log.lines().rev().find(|line| line.contains("serving the CRI over TCP"))?;
    let at = line.find("127.0.0.1:")?;
    let end = line[at..].find(|c: char| !matches!(c, '0'..='9' | '.' | ':')).unwrap_or(line.len() - at);
    Some(line[at..at + end].to_owned())
}

fn plain(cri: &Cri) -> Channel {
    let address = format!("http://{}", address(cri).unwrap());
    cri.block_on(async { Endpoint::from_shared(address).unwrap().connect_lazy() })
}

#[test]
fn the_cri_and_nothing_else_is_served_over_tcp_where_that_is_set() {
    let Some(cri) = prepared("") else { return };
    cri.launch();
    let pod = cri.pod("web");
    let channel = plain(&cri);
    let mut runtime = RuntimeServiceClient::new(channel.clone());
    let list = cri.call(runtime.list_pod_sandbox(wire::ListPodSandboxRequest::default())).unwrap();
    assert_eq!(list.items[0].id, pod);
    let mut images = ImageServiceClient::new(channel.clone());
    cri.call(images.list_images(wire::ListImagesRequest::default())).unwrap();
    let other = cri.call(VersionClient::new(channel).version(())).unwrap_err();
    assert_eq!(other.code(), Code::Unimplemented);
    assert!(other.message().contains("unknown service containerd.services.version.v1.Version"), "{other}");
    // A client that goes in the middle of its call, or says nothing, is nobody's trouble.
    for says in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = std::net::TcpStream::connect(address(&cri).unwrap()).unwrap();
        std::io::Write::write_all(&mut stream, says).unwrap();
    }
    let request = wire::RemovePodSandboxRequest { pod_sandbox_id: pod };
    cri.call(runtime.remove_pod_sandbox(request)).unwrap();
    assert_eq!(cri.pods().unwrap(), []);
}

#[test]
fn nothing_is_served_over_tcp_where_it_is_not_wanted() {
    for (table, keys) in [(CRI, "disable_tcp_service = true"), (TCP, "address = ''")] {
        let Some(cri) = prepared("") else { return };
        cri.set(table, keys);
        cri.launch();
        assert_eq!(address(&cri), None, "{keys}");
    }
}

#[test]
fn an_address_that_is_taken_ends_the_daemon() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let Some(cri) = prepared("") else { return };
    let address = taken.local_addr().unwrap();
    cri.set(TCP, &format!("address = '{address}'"));
    let ended = cri.daemon.command().output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("TCP grpc endpoint"), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
    assert!(!cri.daemon.address().exists(), "its socket is gone with it");
}

/// An authority, and what it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Writes a certificate and its key.
    fn sign(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    fn client(&self, own: Option<&(PathBuf, PathBuf)>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

fn encrypted(cri: &Cri, config: ClientConfig) -> Channel {
    let address = address(cri).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connect = move |_| {
        let (address, connector) = (address.clone(), connector.clone());
        async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    };
    let endpoint = Endpoint::from_static("http://127.0.0.1");
    cri.block_on(async { endpoint.connect_with_connector_lazy(tower::service_fn(connect)) })
}

#[test]
fn who_has_no_certificate_of_the_authority_is_not_served_where_one_is_wanted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for wanted in [false, true] {
        let Some(cri) = Cri::prepare("") else { return };
        let dir = cri.daemon.dir();
        let (certificate, key) = authority.sign(dir, "server");
        std::fs::write(dir.join("ca.crt"), &authority.certificate).unwrap();
        let ca = if wanted { format!("\ntls_ca = {:?}", dir.join("ca.crt")) } else { String::new() };
        let keys = format!("address = '127.0.0.1:0'\ntls_cert = {certificate:?}\ntls_key = {key:?}{ca}");
        cri.set(TCP, &keys);
        cri.set(CRI, "disable_tcp_service = false");
        cri.launch();
        let ask = |channel: Channel| {
            let mut runtime = RuntimeServiceClient::new(channel);
            cri.call(runtime.list_pod_sandbox(wire::ListPodSandboxRequest::default())).is_ok()
        };
        let own = authority.sign(dir, "client");
        let forged = stranger.sign(dir, "stranger");
        assert!(ask(encrypted(&cri, authority.client(Some(&own)))));
        assert_eq!(ask(encrypted(&cri, authority.client(None))), !wanted);
        assert_eq!(ask(encrypted(&cri, authority.client(Some(&forged)))), !wanted);
        assert!(!ask(plain(&cri)), "whoever speaks in the clear is not answered");
        // Clients that never finish their handshake keep nobody else out.
        let silent: Vec<_> =
            (0..20).map(|_| std::net::TcpStream::connect(address(&cri).unwrap()).unwrap()).collect();
        assert!(ask(encrypted(&cri, authority.client(Some(&own)))));
        drop(silent);
    }
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_the_daemon_at_work_unless_the_listener_is_required() {
    let keys = "tls_cert = '/no/such/certificate'\ntls_key = '/no/such/key'";
    let Some(cri) = prepared(keys) else { return };
    cri.launch();
    assert_eq!(address(&cri), None);
    assert!(cri.daemon.log().contains("/no/such/certificate"));
    cri.pods().unwrap();
    cri.daemon.stop();
    eventually("its socket is gone", || !cri.daemon.address().exists());
    let path = cri.daemon.dir().join("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let required = format!("required_plugins = ['io.containerd.server.v1.grpc-tcp']\n{config}");
    std::fs::write(&path, required).unwrap();
    let ended = cri.daemon.command().output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("load required plugin"), "{said}");
}
