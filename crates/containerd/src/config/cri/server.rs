//! `io.containerd.grpc.v1.cri`: the server of exec, attach and port-forward; whether the CRI itself is served over TCP.

use ::cri::config::Streaming;

use super::{Cri, Section, Wrong, time};

/// Understands the section.
pub fn read(cri: &mut Cri, mut section: Section) -> Result<(), Wrong> {
    cri.tcp = !section.boolean("disable_tcp_service");
    let mut pair = section.section("x509_key_pair_streaming");
    let (certificate, key) = (pair.string("tls_cert_file", ""), pair.string("tls_key_file", ""));
    let tls = section.boolean("enable_tls_streaming");
    let wrong = match (tls, certificate.is_empty(), key.is_empty()) {
        (true, false, true) => Some("must set X509KeyPairStreaming.TLSKeyFile"),
        (true, true, false) => Some("must set X509KeyPairStreaming.TLSCertFile"),
        (false, false, _) => {
            Some("X509KeyPairStreaming.TLSCertFile is set but EnableTLSStreaming is not set")
        }
        (false, _, false) => Some("X509KeyPairStreaming.TLSKeyFile is set but EnableTLSStreaming is not set"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        return Err(format!("invalid stream server configuration: {wrong}"));
    }
    let idle =
        time(&mut section, "stream_idle_timeout", "invalid stream idle timeout", Streaming::default().idle)?;
    cri.settings.streaming = Streaming {
        address: section.string("stream_server_address", ""),
        port: section.string("stream_server_port", ""),
        idle,
        tls,
        certificate: certificate.into(),
        key: key.into(),
    };
    Ok(())
}
