//! A registry for tests that lies as it is told to: a real HTTP(S) server on 127.0.0.1 with the distribution's semantics.
//!
//! ```text
//!   let fake = Fake::start();
//!   let image = fake.add_image("library/x", "1", &[layer]);
//!   fake.fault(When::path("/blobs/").method("GET").times(1), Fault::Reset(100));
//!   ... pull fake.reference("library/x", "1") ...
//!   assert!(fake.requests().iter().all(|r| r.headers.get("authorization").is_none()));
//! ```
//!
//! It lives on a thread of its own, so that tests without a runtime can use it; dropping it ends it.

mod auth;
mod faults;
mod serve;
mod store;
mod tls;
mod upload;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::oneshot;
use types::Digest;
use types::oci::image::Descriptor;

pub use self::auth::Auth;
pub use self::faults::{Fault, When};
pub use self::store::{Image, Layer};
pub use self::tls::Certificate;

/// How a registry is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// With TLS, and what is wrong with it.
    pub tls: Option<Certificate>,
    /// Who may come in.
    pub auth: Auth,
    /// The realm of its challenges, instead of its own token server.
    pub realm: Option<String>,
    /// Whether it knows the referrers API.
    pub no_referrers: bool,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The beginning of the body of small requests; uploads are not kept here.
    pub body: Bytes,
}

/// The registry.
pub struct Fake {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What the registry's connections share.
struct State {
    setup: Setup,
    origin: String,
    store: Mutex<store::Store>,
    rules: Mutex<Vec<faults::Rule>>,
    seen: Mutex<Vec<Seen>>,
    served: Arc<AtomicU64>,
    tokens: Mutex<auth::Tokens>,
    ca: Option<String>,
    client: Option<(String, String)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    /// An honest registry without TLS and without authentication.
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    /// A registry as `setup` has it.
    ///
    /// # Panics
    /// If this machine has no port or no thread left: it is for tests.
    #[expect(clippy::expect_used, reason = "a test without its registry cannot go on")]
    pub fn with(setup: Setup) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port on 127.0.0.1");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("the listener's address");
        let tls = setup.tls.map(tls::Server::new);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(State {
            origin: format!("{scheme}://{address}"),
            ca: tls.as_ref().map(|t| t.ca.clone()),
            client: tls.as_ref().and_then(|t| t.client.clone()),
            setup,
            store: Mutex::default(),
            rules: Mutex::default(),
            seen: Mutex::default(),
            served: Arc::default(),
            tokens: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let shared = state.clone();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(wire::serve(listener, tls, shared, stopped));
        };
        let thread = std::thread::Builder::new().name("fake-registry".into()).spawn(serve);
        Self { address, state, stop: Some(stop), thread: Some(thread.expect("a thread")) }
    }

    /// `127.0.0.1:port`, as references name it.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:port`.
    pub fn origin(&self) -> &str {
        &self.state.origin
    }

    /// `127.0.0.1:port/repository:tag`.
    pub fn reference(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.address)
    }

    /// The authority that signed its certificate, in PEM. Of [`Certificate::UnknownAuthority`] it is another one.
    pub fn ca(&self) -> Option<&str> {
        self.state.ca.as_deref()
    }

    /// Certificate and key of a client that it believes, in PEM, where it wants one.
    pub fn client(&self) -> Option<(&str, &str)> {
        self.state.client.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()))
    }

    /// Puts a blob into `repository`.
    pub fn add_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        lock(&self.state.store).add_blob(repository, bytes.into())
    }

    /// Puts a manifest, an index or whatever `media_type` says into `repository`, under `tag` if there is one.
    pub fn add_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Descriptor {
        lock(&self.state.store).add_manifest(repository, tag, media_type, bytes.into())
    }

    /// Puts an image for this machine's platform into `repository`.
    pub fn add_image(&self, repository: &str, tag: &str, layers: &[Layer]) -> Image {
        lock(&self.state.store).add_image(repository, tag, layers)
    }

    /// Puts bytes under a path of no repository, for redirects and foreign layers.
    pub fn add_file(&self, path: &str, bytes: impl Into<Bytes>) {
        lock(&self.state.store).files.insert(path.to_owned(), bytes.into());
    }

    /// A blob that is there.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        lock(&self.state.store).blob(repository, digest)
    }

    /// Media type and content of the manifest under a tag or digest.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Bytes)> {
        lock(&self.state.store).manifest(repository, reference)
    }

    /// Removes a blob.
    pub fn remove_blob(&self, repository: &str, digest: &Digest) {
        lock(&self.state.store).remove_blob(repository, digest);
    }

    /// From now on, requests that match `when` suffer `fault`. Several faults of one request add up.
    pub fn fault(&self, when: When, fault: Fault) {
        lock(&self.state.rules).push(faults::Rule::new(when, fault));
    }

    /// From now on it is honest.
    pub fn heal(&self) {
        lock(&self.state.rules).clear();
    }

    /// Each token that was given out is no longer good.
    pub fn revoke_tokens(&self) {
        lock(&self.state.tokens).revoke();
    }

    /// All requests so far, those that suffered a fault included.
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    /// How many requests with `method` there were whose target contains `part`.
    pub fn count(&self, method: &str, part: &str) -> usize {
        lock(&self.state.seen).iter().filter(|r| r.method == method && r.target.contains(part)).count()
    }

    /// How many bytes of bodies have been sent so far, or are on their way.
    pub fn served(&self) -> u64 {
        self.state.served.load(Ordering::Relaxed)
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        lock(&self.state.seen).clear();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
