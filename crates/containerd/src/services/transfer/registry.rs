//! A registry at one end of a transfer: how the client wants it to be reached, who it says that it is, and what it wants to see.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::any;
use api::containerd::types::transfer as wire;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use images::export::Output as _;
use registry::{Ask, Credential, Credentials, Limits, Note, Scheme, Settings, Trace};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use types::reference::Reference;
use types::{Class, Error, Namespace, Result, ResultExt};

use super::bytestream::ByteWriter;
use crate::config;
use crate::services::streaming::{Stream, Streams};

/// Notes about HTTP that may wait for a client to read them.
const AHEAD: usize = 1024;

/// How long the end of a transfer waits for them.
const LATE: Duration = Duration::from_secs(2);

/// A registry and a name there.
pub struct Registry {
    /// The name as the client wrote it.
    pub name: String,
    /// The same in its parts.
    pub reference: Reference,
    /// The way there.
    pub client: registry::Registry,
    notes: Option<Notes>,
}

impl Registry {
    /// Understands what the client wants, and takes up its streams. `house` has the limits, and the directory of hosts where
    /// the client names none.
    pub fn open(
        streams: &Streams,
        namespace: &Namespace,
        wanted: wire::OciRegistry,
        house: &config::Transfer,
    ) -> Result<Self> {
        let wire::OciRegistry { reference: name, resolver } = wanted;
        let resolver = resolver.unwrap_or_default();
        let reference = Reference::parse(&name).context(|| format!("invalid reference {name:?}"))?;
        let take = |id: &str| (!id.is_empty()).then(|| streams.take(namespace, id)).transpose();
        let asked = take(&resolver.auth_stream)?;
        let logs = take(&resolver.logs_stream)?;
        let notes = Notes::wanted(resolver.http_debug(), logs);
        let hosts = if resolver.host_dir.is_empty() { &house.hosts } else { &resolver.host_dir };
        let settings = Settings {
            config_path: directories(hosts),
            default_scheme: scheme(&resolver.default_scheme)?,
            headers: headers(&resolver)?,
            trace: notes.as_ref().map(|notes| Arc::clone(&notes.trace) as Arc<dyn Trace>),
            limits: limits(house),
            ..Settings::default()
        };
        let credentials: Arc<dyn Credentials> = match asked {
            Some(stream) => Arc::new(Asked { stream: Mutex::new((stream, 0)), name: name.clone() }),
            None => Arc::new(registry::Anonymous),
        };
        Ok(Self { name, reference, client: registry::Registry::new(settings, credentials)?, notes })
    }

    /// The registry of an image that the CRI pulls.
    pub fn of_cri(
        request: &cri::PullRequest,
        house: &config::Transfer,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Self> {
        let name = request.reference.clone();
        let reference = Reference::parse(&name).context(|| format!("invalid reference {name:?}"))?;
        let mut headers = HeaderMap::new();
        for (name, values) in &request.headers {
            for value in values {
                add_header(&mut headers, name, value)?;
            }
        }
        let settings = Settings {
            config_path: directories(&request.hosts),
            headers,
            limits: limits(house),
            ..Settings::default()
        };
        let client = registry::Registry::new(settings, credentials)?;
        Ok(Self { name, reference, client, notes: None })
    }

    /// As upstream calls it in what it tells.
    pub fn shown(&self) -> String {
        format!("OCI Registry ({})", self.name)
    }

    /// Ends what the client was told about HTTP, when it has been sent.
    pub async fn finish(self) {
        let Self { client, notes, .. } = self;
        // It holds the trace.
        drop(client);
        if let Some(Notes { trace, writing: Some(writing) }) = notes {
            drop(trace);
            // A pull that was cut off may hold it for a moment.
            drop(tokio::time::timeout(LATE, writing).await);
        }
    }
}

/// The directories of a list with colons.
pub fn directories(list: &str) -> Vec<PathBuf> {
    list.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect()
}

fn limits(house: &config::Transfer) -> Limits {
    let default = Limits::default();
    let manifest = if house.max_manifest_size == 0 { default.manifest } else { house.max_manifest_size };
    Limits { manifest, ..default }
}

fn scheme(text: &str) -> Result<Option<Scheme>> {
    match text {
        "" => Ok(None),
        "http" => Ok(Some(Scheme::Http)),
        "https" => Ok(Some(Scheme::Https)),
        other => Err(Error::invalid(format!("default scheme {other:?} is neither http nor https"))),
    }
}

fn headers(resolver: &wire::RegistryResolver) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &resolver.headers {
        add_header(&mut headers, name, value)?;
    }
    Ok(headers)
}

fn add_header(headers: &mut HeaderMap, name: &str, value: &str) -> Result<()> {
    let bad = || Error::invalid(format!("header {name:?} is none that a request can have"));
    let name: HeaderName = name.parse().map_err(|_| bad())?;
    headers.append(name, HeaderValue::from_str(value).map_err(|_| bad())?);
    Ok(())
}

/// Credentials that the client is asked for, one question at a time.
struct Asked {
    /// And how many answers are still to come; those to questions that nobody waits for any more are thrown away.
    stream: Mutex<(Stream, usize)>,
    name: String,
}

#[async_trait]
impl Credentials for Asked {
    async fn credentials(&self, ask: &Ask<'_>) -> Result<Option<Credential>> {
        // It has no better answer than the one that was refused.
        if ask.refused > 0 {
            return Ok(None);
        }
        let question = wire::AuthRequest {
            host: ask.host.to_owned(),
            reference: self.name.clone(),
            wwwauthenticate: vec![ask.challenge.to_owned()],
        };
        let mut held = self.stream.lock().await;
        let (stream, owed) = &mut *held;
        let gone = || Error::new(Class::Canceled, "the client that knows the credentials has gone");
        stream.sender.send(Ok(any::to_wire(any::pack(&question)))).await.map_err(|_| gone())?;
        *owed += 1;
        loop {
            let answer = stream.received.message().await.map_err(|_| gone())?.ok_or_else(gone)?;
            *owed -= 1;
            if *owed == 0 {
                return answered(any::unpack(&any::from_wire(answer))?);
            }
        }
    }
}

fn answered(answer: wire::AuthResponse) -> Result<Option<Credential>> {
    let kind = answer.auth_type();
    let wire::AuthResponse { secret, username: user, .. } = answer;
    Ok(match kind {
        wire::AuthType::None => None,
        wire::AuthType::Credentials if user.is_empty() && secret.is_empty() => None,
        wire::AuthType::Credentials => Some(Credential::Basic { user, secret }),
        // What Go's client says if it knows nothing.
        wire::AuthType::Refresh if secret.is_empty() => None,
        wire::AuthType::Refresh => Some(Credential::RefreshToken(secret)),
        wire::AuthType::Header => Some(Credential::Header(secret)),
    })
}

/// What is seen of HTTP, on its way to the client or to the log.
struct Notes {
    trace: Arc<Chosen>,
    writing: Option<JoinHandle<()>>,
}

/// Which notes are wanted, and where they go.
struct Chosen {
    dump: bool,
    connections: bool,
    /// The client; without one it is the log.
    client: Option<mpsc::Sender<Bytes>>,
}

impl Notes {
    fn wanted(kind: wire::HttpDebug, logs: Option<Stream>) -> Option<Self> {
        let (dump, connections) = match kind {
            wire::HttpDebug::Disabled => return None,
            wire::HttpDebug::Debug => (true, false),
            wire::HttpDebug::Trace => (false, true),
            wire::HttpDebug::Both => (true, true),
        };
        let (client, writing) = match logs {
            Some(stream) => {
                let (sender, notes) = mpsc::channel(AHEAD);
                (Some(sender), Some(tokio::spawn(write(stream, notes))))
            }
            None => (None, None),
        };
        Some(Self { trace: Arc::new(Chosen { dump, connections, client }), writing })
    }
}

impl Trace for Chosen {
    fn note(&self, kind: Note, text: &str) {
        let wanted = match kind {
            Note::Dump => self.dump,
            Note::Connection => self.connections,
        };
        match &self.client {
            _ if !wanted => {}
            // Nothing waits for a client that does not read: it misses some.
            Some(client) => drop(client.try_send(Bytes::copy_from_slice(text.as_bytes()))),
            None => text.lines().for_each(|line| tracing::info!("{line}")),
        }
    }
}

async fn write(stream: Stream, mut notes: mpsc::Receiver<Bytes>) {
    let mut writer = ByteWriter::new(stream);
    while let Some(note) = notes.recv().await {
        if writer.write(note).await.is_err() {
            return;
        }
    }
    writer.finish().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_clients_are_understood_and_empty_ones_are_none() {
        let answer = |kind: wire::AuthType, user: &str, secret: &str| {
            let (username, secret) = (user.to_owned(), secret.to_owned());
            answered(wire::AuthResponse { auth_type: kind.into(), secret, username, expire_at: None })
                .unwrap()
        };
        let basic = Credential::Basic { user: "u".into(), secret: "s".into() };
        assert_eq!(answer(wire::AuthType::Credentials, "u", "s"), Some(basic));
        assert_eq!(answer(wire::AuthType::Refresh, "", "t"), Some(Credential::RefreshToken("t".into())));
        assert_eq!(
            answer(wire::AuthType::Header, "", "Bearer x"),
            Some(Credential::Header("Bearer x".into()))
        );
        for kind in [wire::AuthType::None, wire::AuthType::Credentials, wire::AuthType::Refresh] {
            assert_eq!(answer(kind, "", ""), None);
        }
    }

    #[test]
    fn what_a_client_asks_for_is_checked() {
        assert_eq!(directories("/a::/b"), [PathBuf::from("/a"), "/b".into()]);
        assert!(directories("").is_empty());
        assert!(scheme("ftp").is_err() && scheme("").unwrap().is_none());
        let with = |name: &str, value: &str| {
            let headers = [(name.to_owned(), value.to_owned())].into();
            super::headers(&wire::RegistryResolver { headers, ..Default::default() })
        };
        assert_eq!(with("X-Meta", "1").unwrap().len(), 1);
        assert!(with("a b", "1").is_err() && with("a", "1\n2").is_err());
    }
}
