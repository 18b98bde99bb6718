//! Where the server listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use tokio::net::TcpListener;
use types::{Class, Error, Result, ResultExt};

/// Listens at `address`, which is a name, a number, or empty for this machine's own address, and `port`.
pub async fn bind(address: &str, port: &str) -> Result<TcpListener> {
    let port: u16 = match port {
        "" => 0,
        port => {
            port.parse().map_err(|_| Error::invalid(format!("stream_server_port {port:?} is no port")))?
        }
    };
    let host = match address {
        "" => own()?.to_string(),
        address => address.trim_start_matches('[').trim_end_matches(']').to_owned(),
    };
    TcpListener::bind((host.as_str(), port)).await.context(|| format!("listen for streams at {host}:{port}"))
}

/// The address that this machine would call others from: a datagram socket is asked, which sends nothing.
fn own() -> Result<IpAddr> {
    // Documentation's own, which nobody has: what counts is the default route.
    let routes: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(203, 0, 113, 1).into()),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    ];
    let from = |(any, far): (IpAddr, IpAddr)| {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
        socket.connect(SocketAddr::new(far, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    routes.into_iter().find_map(from).ok_or_else(|| {
        let why = "failed to get stream server address: this machine has no default route";
        Error::new(Class::FailedPrecondition, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_names_or_numbers() {
        for address in ["127.0.0.1", "localhost"] {
            let listener = bind(address, "0").await.unwrap();
            assert!(listener.local_addr().unwrap().ip().is_loopback());
        }
        assert!(bind("127.0.0.1", "http").await.unwrap_err().to_string().contains("stream_server_port"));
        let taken = bind("127.0.0.1", "").await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind(taken).await.unwrap();
        let port = taken.port().to_string();
        assert!(bind("127.0.0.1", &port).await.unwrap_err().to_string().contains("listen for streams at"));
        drop(listener);
    }
}
