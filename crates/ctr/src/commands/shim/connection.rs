//! ttrpc over a blocking socket: one call after the other.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use api::ttrpc::{self, Header, KeyValue, Kind, Request, Response};
use prost::Message;
use sha2::{Digest, Sha256};
use types::{Error, Result};

use super::Version;
use crate::go;

/// Where shims listen.
const DIRECTORY: &str = "/run/containerd/s";

/// The socket that a shim makes for daemon, namespace and id, given joined by slashes.
pub fn socket(place: &str) -> String {
    let hash = Sha256::digest(go::clean_path(place).as_bytes());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{DIRECTORY}/{hex}")
}

/// A connection to a shim.
pub struct Connection {
    stream: UnixStream,
    namespace: String,
    next: u32,
}

impl Connection {
    /// Connects to the first of `sockets` where somebody listens; a leading NUL makes an abstract one.
    pub fn open(sockets: &[String], namespace: &str) -> Result<Self> {
        let connect = |socket: &String| match socket.strip_prefix('\0') {
            Some(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).ok()?).ok(),
            None => UnixStream::connect(socket).ok(),
        };
        let refusal = || {
            let all = sockets.join(" ");
            Error::unavailable(format!("fail to connect to container shim with sockets: [{all}]"))
        };
        let stream = sockets.iter().find_map(connect).ok_or_else(refusal)?;
        Ok(Self { stream, namespace: namespace.into(), next: 1 })
    }

    /// How long writing and reading may take.
    pub fn limit(&self, limit: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(limit))?;
        Ok(self.stream.set_write_timeout(Some(limit))?)
    }

    /// Does one call of the Task service.
    pub fn call<R: Message + Default>(
        &mut self,
        version: Version,
        method: &str,
        request: &impl Message,
    ) -> Result<R> {
        self.call_service(version.service(), method, request)
    }

    /// Does one call of any service.
    pub fn call_service<R: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<R> {
        let stream = self.next;
        self.next += 2;
        let namespace = KeyValue { key: ttrpc::NAMESPACE.into(), value: self.namespace.clone() };
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload: request.encode_to_vec(),
            metadata: vec![namespace],
            ..Default::default()
        };
        let broken = |e: std::io::Error| Error::from(e).context(format!("call {method} of the shim"));
        self.stream.write_all(&ttrpc::frame(Kind::Request, stream, &request)?).map_err(broken)?;
        let answer = loop {
            let (header, bytes) = self.frame().map_err(broken)?;
            if header.kind == Kind::Response && header.stream == stream {
                break bytes;
            }
        };
        let response = Response::decode(answer.as_slice())
            .map_err(|e| Error::invalid(format!("decode answer to {method}: {e}")))?;
        if let Some(status) = response.status.filter(|status| status.code != 0) {
            let code = go::code(tonic::Code::from_i32(status.code));
            let text = format!("rpc error: code = {code} desc = {}", status.message);
            return Err(Error::new(api::status::class(status.code), text));
        }
        R::decode(response.payload.as_slice())
            .map_err(|e| Error::invalid(format!("decode answer to {method}: {e}")))
    }

    fn frame(&mut self) -> std::io::Result<(Header, Vec<u8>)> {
        let mut header = [0; ttrpc::HEADER];
        self.stream.read_exact(&mut header)?;
        let header = Header::decode(&header);
        if header.length > ttrpc::MAX_MESSAGE {
            return Err(std::io::Error::other("it answers more than a message may hold"));
        }
        let mut bytes = vec![0; header.length];
        self.stream.read_exact(&mut bytes)?;
        Ok((header, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_shims_make_it() {
        // printf %s /run/containerd/containerd.sock/default/c1 | sha256sum
        let wanted = "/run/containerd/s/d25aa4ef11a84e954e74a5bcff06557d0b6ea8d0c00243896f29826694bbd888";
        assert_eq!(socket("/run/containerd/containerd.sock/default/c1"), wanted);
        assert_eq!(socket("/run//containerd/x/.././containerd.sock/default/c1"), wanted);
    }

    #[test]
    fn an_answer_belongs_to_its_call_and_an_error_has_its_code() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let serving = std::thread::spawn(move || {
            let mut header = [0; ttrpc::HEADER];
            theirs.read_exact(&mut header).unwrap();
            let mut request = vec![0; Header::decode(&header).length];
            theirs.read_exact(&mut request).unwrap();
            let failed = ttrpc::response(Err(Error::not_found("container not created: not found")));
            // An answer to somebody else first.
            let other = Response::default();
            theirs.write_all(&ttrpc::frame(Kind::Response, 99, &other).unwrap()).unwrap();
            theirs.write_all(&ttrpc::frame(Kind::Response, 1, &failed).unwrap()).unwrap();
            Request::decode(request.as_slice()).unwrap()
        });
        let mut connection = Connection { stream: ours, namespace: "ns".into(), next: 1 };
        let error = connection.call::<()>(Version::V2, "Shutdown", &()).unwrap_err();
        let wanted = "rpc error: code = NotFound desc = container not created: not found";
        assert_eq!(error.to_string(), wanted);
        let request = serving.join().unwrap();
        assert_eq!(
            (request.service.as_str(), request.method.as_str()),
            ("containerd.task.v2.Task", "Shutdown")
        );
        assert_eq!(request.metadata[0].value, "ns");
    }
}
