//! The registry as a whole: references to hosts, names to descriptors.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use http::header::{ACCEPT, HeaderMap};
use tokio::sync::OnceCell;
use types::oci::image::{Descriptor, media};
use types::reference::Reference;
use types::{Class, Digest, Error, Result};

use crate::auth::credentials::Credentials;
use crate::endpoint::{Endpoint, Persistence, Request, answer};
use crate::failure::{Failure, Kind, clean, together};
use crate::fetch::Fetcher;
use crate::hosts::{self, Capability, Considered};
use crate::push::Pusher;
use crate::repository::Repository;
use crate::settings::Settings;
use crate::transport::Answer;

/// What is asked for when a name is resolved, as upstream asks.
pub const MANIFESTS: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// Everything that one pull or push needs to know of registries. Cheap to clone.
///
/// Made for one pull or push: files about hosts are read with the first request and kept, as are tokens.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Arc<Settings>,
    credentials: Arc<dyn Credentials>,
    routes: Mutex<HashMap<String, Arc<OnceCell<Arc<Route>>>>>,
}

/// The hosts of one repository, in the order in which they are asked.
pub struct Route {
    /// The repository.
    pub repository: Repository,
    /// Its hosts.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Which files were looked at.
    pub considered: Vec<Considered>,
}

impl Route {
    /// The hosts that can do all of `capabilities`, and whether others follow each.
    pub fn able<'a>(
        &'a self,
        capabilities: &'a [Capability],
    ) -> impl Iterator<Item = (&'a Arc<Endpoint>, Persistence)> + 'a {
        let able: Vec<_> = self.endpoints.iter().filter(|e| e.host().can(capabilities)).collect();
        let last = able.len().saturating_sub(1);
        let persistence = move |n| if n == last { Persistence::LastHost } else { Persistence::OthersFollow };
        able.into_iter().enumerate().map(move |(n, endpoint)| (endpoint, persistence(n)))
    }
}

impl Registry {
    /// Registries as `settings` has them. Nothing is read yet.
    pub fn new(settings: Settings, credentials: Arc<dyn Credentials>) -> Result<Self> {
        let inner = Inner { settings: Arc::new(settings), credentials, routes: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The settings.
    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Fetches from the repository of `reference`.
    pub fn fetcher(&self, reference: &Reference) -> Fetcher {
        Fetcher::new(self.clone(), reference.clone())
    }

    /// Pushes to the repository of `reference`.
    pub fn pusher(&self, reference: &Reference) -> Pusher {
        Pusher::new(self.clone(), reference.clone())
    }

    /// The hosts of the repository of `reference`.
    pub(crate) async fn route(&self, reference: &Reference) -> Result<Arc<Route>> {
        let repository = Repository::of(reference)?;
        let cell = {
            let mut routes = self.inner.routes.lock().unwrap_or_else(PoisonError::into_inner);
            routes.entry(reference.locator.clone()).or_default().clone()
        };
        cell.get_or_try_init(|| self.read_route(repository, reference)).await.cloned()
    }

    async fn read_route(&self, repository: Repository, reference: &Reference) -> Result<Arc<Route>> {
        let (settings, host) = (self.inner.settings.clone(), repository.host.clone());
        let found = tokio::task::spawn_blocking(move || hosts::lookup(&settings, &host))
            .await
            .map_err(|e| Error::caused(Class::Internal, "read registry files", e))??;
        let endpoint = |host| {
            let (settings, credentials) = (self.inner.settings.clone(), self.inner.credentials.clone());
            Arc::new(Endpoint::new(settings, host, repository.clone(), credentials, reference.to_string()))
        };
        let endpoints = found.list.into_iter().map(endpoint).collect();
        Ok(Arc::new(Route { repository: repository.clone(), endpoints, considered: found.considered }))
    }

    /// The name and the descriptor behind `reference`.
    ///
    /// Only hosts that may resolve are asked for a tag; a digest is asked of all that may be pulled from. The descriptor
    /// is what a registry says; only a fetch verifies it.
    pub async fn resolve(&self, reference: &Reference) -> Result<(String, Descriptor)> {
        let route = self.route(reference).await?;
        let object = object(reference)?;
        let capabilities: &[Capability] = match &reference.digest {
            Some(_) => &[Capability::Pull],
            None => &[Capability::Pull, Capability::Resolve],
        };
        let mut paths = vec![format!("manifests/{object}")];
        if reference.digest.is_some() {
            // Very old registries know manifests by digest only as blobs.
            paths.push(format!("blobs/{object}"));
        }
        let mut failures = Vec::new();
        for path in paths {
            let mut absent = true;
            for (endpoint, persistence) in route.able(capabilities) {
                let found =
                    self.resolve_at(endpoint, &route.repository, &path, (persistence, reference)).await;
                match found {
                    Ok(descriptor) => return Ok((reference.to_string(), descriptor)),
                    Err(failure) => {
                        absent &= failure.class() == Class::NotFound;
                        failures.push(failure);
                    }
                }
            }
            if !absent {
                break;
            }
        }
        if failures.is_empty() {
            return Err(Error::not_found(format!("{reference}: no resolve hosts")));
        }
        Err(denied(together(failures)))
    }

    async fn resolve_at(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        path: &str,
        (persistence, reference): (Persistence, &Reference),
    ) -> Result<Descriptor, Failure> {
        let accept = self.settings().headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or(MANIFESTS);
        let head = Request::new(Method::HEAD, repository, path).header(ACCEPT, accept);
        let answer = endpoint.expect(&head, persistence).await?;
        let from_head = described(&answer, reference.digest.as_ref())?;
        let descriptor = match from_head {
            Some(descriptor) => descriptor,
            None => {
                let get = Request { method: Method::GET, ..head };
                let answer = endpoint.expect(&get, persistence).await?;
                self.described_by_content(endpoint, answer, reference.digest.as_ref()).await?
            }
        };
        let most = self.settings().limits.manifest;
        if u64::try_from(descriptor.size).unwrap_or(u64::MAX) > most {
            let why = format!(
                "rejecting {} byte manifest: the limit max_manifest_size is {most} bytes",
                descriptor.size
            );
            return Err(Failure::new(Kind::TooLarge, endpoint.transport().origin(), why));
        }
        Ok(descriptor)
    }

    async fn described_by_content(
        &self,
        endpoint: &Endpoint,
        answer: Answer,
        wanted: Option<&Digest>,
    ) -> Result<Descriptor, Failure> {
        let origin = answer.origin();
        let media_type = media_type(&answer)?;
        let body = answer::read(endpoint.transport(), answer, self.settings().limits.manifest).await?;
        let media_type = media_type.unwrap_or_else(|| declared(&body));
        let digest = match wanted {
            Some(wanted) => wanted.clone(),
            None => Digest::of(&body),
        };
        refuse_schema1(&media_type, &origin)?;
        Ok(Descriptor::new(media_type, digest, body.len() as u64))
    }
}

/// What a registry is asked for: the digest, or the tag.
pub(crate) fn object(reference: &Reference) -> Result<String> {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => Ok(digest.to_string()),
        (None, Some(tag)) => checked_tag(tag).map(str::to_owned),
        (None, None) => Err(Error::invalid("object required")),
    }
}

/// Text that names no tag must not reach an URL.
pub(crate) fn checked_tag(tag: &str) -> Result<&str> {
    let plain = tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let dots = tag.bytes().all(|b| b == b'.');
    if tag.is_empty() || tag.len() > 128 || !plain || dots {
        return Err(Error::invalid(format!("invalid tag {:?}", clean(tag, 128))));
    }
    Ok(tag)
}

/// The words that clients look for where a registry does not say whether it lacks the image or us.
fn denied(error: Error) -> Error {
    if error.class() != Class::Unauthenticated {
        return error;
    }
    error.context("pull access denied, repository does not exist or may require authorization")
}

/// The descriptor in the head of an answer, if all of it is there.
fn described(answer: &Answer, wanted: Option<&Digest>) -> Result<Option<Descriptor>, Failure> {
    let headers = answer.response.headers();
    let said = digest_header(headers).map_err(|why| Failure::new(Kind::Invalid, answer.origin(), why))?;
    if let (Some(said), Some(wanted)) = (&said, wanted)
        && said.algorithm() == wanted.algorithm()
        && said != wanted
    {
        let why = format!("says that {wanted} has the digest {said}");
        return Err(Failure::new(Kind::Invalid, answer.origin(), why));
    }
    let media_type = media_type(answer)?;
    let size = answer::content_length(headers);
    let digest = wanted.cloned().or(said);
    Ok(match (media_type, digest, size) {
        (Some(media_type), Some(digest), Some(size)) => Some(Descriptor::new(media_type, digest, size)),
        _ => None,
    })
}

/// `Docker-Content-Digest`.
pub(crate) fn digest_header(headers: &HeaderMap) -> Result<Option<Digest>, String> {
    let Some(value) = headers.get("docker-content-digest") else { return Ok(None) };
    let text = value.to_str().unwrap_or("\u{fffd}");
    text.parse().map(Some).map_err(|_| format!("{:?} in header not a valid digest", clean(text, 160)))
}

fn media_type(answer: &Answer) -> Result<Option<String>, Failure> {
    let media_type = answer::content_type(answer.response.headers());
    refuse_schema1(media_type.unwrap_or_default(), &answer.origin())?;
    Ok(media_type.map(str::to_owned))
}

/// Docker's first manifests are not content-addressed; upstream gave them up in 2.0. Some registries call them plain text.
fn refuse_schema1(media_type: &str, origin: &str) -> Result<(), Failure> {
    if !media_type.starts_with("application/vnd.docker.distribution.manifest.v1")
        && media_type != "text/plain"
    {
        return Ok(());
    }
    let why = format!(
        "media type {media_type:?} (Docker image manifest schema 1) is no longer supported, rebuild the image as {:?} or {:?}",
        media::DOCKER_MANIFEST,
        media::OCI_MANIFEST
    );
    Err(Failure::new(Kind::Unsupported, origin, why))
}

/// What a manifest says that it is.
fn declared(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Declared {
        #[serde(rename = "mediaType", default)]
        media_type: String,
    }
    let declared = serde_json::from_slice::<Declared>(body).map(|d| d.media_type).unwrap_or_default();
    clean(&declared, 256)
}
