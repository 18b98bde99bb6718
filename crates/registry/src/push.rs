//! Pushing: blobs first, then the manifests that refer to them.
//!
//! Only the first host that may be pushed to is used: what was pushed to another would be where nobody looks for it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use http::{Method, StatusCode};
use reqwest::Url;
use types::oci::image::Descriptor;
use types::reference::Reference;
use types::{Class, Digest, Error, Result, ResultExt};

use crate::endpoint::{Endpoint, Persistence, Request};
use crate::failure::{Failure, Kind, together};
use crate::hosts::Capability;
use crate::registry::{Registry, Route, checked_tag, digest_header};
use crate::repository::{is_path, scope};
use crate::transport::{Answer, Payload, Stream, join};

/// Opens the bytes of a blob from the beginning; called again when an upload has to be begun again.
pub type Source = Arc<dyn Fn() -> Stream + Send + Sync>;

/// Pushes to the repository of a reference. Cheap to clone.
#[derive(Clone)]
pub struct Pusher {
    registry: Registry,
    reference: Reference,
}

/// What became of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was sent.
    New,
    /// It was there, under this name.
    Exists,
}

/// What the registry says to a blob.
pub enum Offer {
    /// It is there.
    Exists,
    /// It was taken over from this repository.
    Mounted(String),
    /// It has to be sent.
    Wanted(Box<Upload>),
}

/// A blob that the registry waits for.
pub struct Upload {
    pusher: Pusher,
    blob: Descriptor,
    location: Url,
}

/// The most repositories that are tried for a mount: each may cost a round trip for a token.
const MOST_MOUNTS: usize = 3;

impl Pusher {
    pub(crate) fn new(registry: Registry, reference: Reference) -> Self {
        Self { registry, reference }
    }

    async fn host(&self) -> Result<(Arc<Route>, Arc<Endpoint>)> {
        let route = self.registry.route(&self.reference).await?;
        let found = route.able(&[Capability::Push]).next().map(|(endpoint, _)| endpoint.clone());
        let endpoint =
            found.ok_or_else(|| Error::not_found(format!("{}: no push hosts", self.reference.locator)))?;
        Ok((route, endpoint))
    }

    fn request(&self, route: &Route, method: Method, path: String) -> Request {
        let mut request = Request::new(method, &route.repository, path);
        request.scopes = vec![route.repository.scope("pull,push")];
        request
    }

    /// Puts the manifest or index `descriptor` under `tag`, or under its digest alone.
    pub async fn manifest(&self, descriptor: &Descriptor, bytes: Bytes, tag: Option<&str>) -> Result<Pushed> {
        let name = tag.map(checked_tag).transpose()?.map_or(descriptor.digest.to_string(), str::to_owned);
        let doing = || format!("push manifest {} to {}", descriptor.digest, self.reference.locator);
        self.put_manifest(descriptor, bytes, &name).await.map_err(denied).context(doing)
    }

    async fn put_manifest(&self, descriptor: &Descriptor, bytes: Bytes, name: &str) -> Result<Pushed> {
        let (route, endpoint) = self.host().await?;
        let path = format!("manifests/{name}");
        let accept = format!("{}, */*", descriptor.media_type);
        let head = self.request(&route, Method::HEAD, path.clone()).header(ACCEPT, &accept);
        if let Some(answer) = exists(&endpoint, &head).await? {
            let said = digest_header(answer.response.headers()).ok().flatten();
            if said.as_ref() == Some(&descriptor.digest)
                || (said.is_none() && name == descriptor.digest.as_str())
            {
                return Ok(Pushed::Exists);
            }
        }
        let mut put = self.request(&route, Method::PUT, path).header(CONTENT_TYPE, &descriptor.media_type);
        put.payload = Payload::Bytes(bytes);
        let answer = endpoint.expect(&put, Persistence::LastHost).await.map_err(one)?;
        confirmed(&answer, &descriptor.digest).map_err(one)?;
        Ok(Pushed::New)
    }

    /// Offers `blob`. The registry may take it over from one of `mount_from`, repositories on the same host that are known
    /// to have it, the most likely first.
    pub async fn blob(&self, blob: &Descriptor, mount_from: &[String]) -> Result<Offer> {
        let doing = || format!("push {} to {}", blob.digest, self.reference.locator);
        self.offer(blob, mount_from).await.map_err(denied).context(doing)
    }

    async fn offer(&self, blob: &Descriptor, mount_from: &[String]) -> Result<Offer> {
        if blob.size < 0 {
            return Err(Error::invalid(format!("{} has no size", blob.digest)));
        }
        let (route, endpoint) = self.host().await?;
        let head = self.request(&route, Method::HEAD, format!("blobs/{}", blob.digest));
        if exists(&endpoint, &head.header(ACCEPT, "*/*")).await?.is_some() {
            return Ok(Offer::Exists);
        }
        let begin = self.request(&route, Method::POST, "blobs/uploads/".to_owned());
        let own = route.repository.path.as_str();
        let candidates = mount_from.iter().filter(|from| *from != own && is_path(from)).take(MOST_MOUNTS);
        for from in candidates {
            let mut mount = begin.clone();
            mount.query = vec![("mount".into(), blob.digest.to_string()), ("from".into(), from.clone())];
            mount.scopes.push(scope(from, "pull"));
            // A repository that we may not see is no reason not to push.
            let Ok(answer) = endpoint.expect(&mount, Persistence::OthersFollow).await else { continue };
            return match answer.response.status() {
                StatusCode::CREATED => Ok(Offer::Mounted(from.clone())),
                _ => self.wanted(blob, &answer).map(|upload| Offer::Wanted(Box::new(upload))),
            };
        }
        let answer = endpoint.expect(&begin, Persistence::LastHost).await.map_err(one)?;
        match answer.response.status() {
            // As upstream: some registries have it all of a sudden.
            StatusCode::CREATED => Ok(Offer::Exists),
            _ => self.wanted(blob, &answer).map(|upload| Offer::Wanted(Box::new(upload))),
        }
    }

    /// Where the registry wants the upload. It may be elsewhere, without our credentials then.
    fn wanted(&self, blob: &Descriptor, answer: &Answer) -> Result<Upload> {
        let lie = |why: String| one(Failure::new(Kind::Refused, answer.origin(), format!("upload {why}")));
        let location = answer.response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
        let location = location.ok_or_else(|| lie("without a location".to_owned()))?;
        let location = join(answer.response.url(), location).map_err(lie)?;
        Ok(Upload { pusher: self.clone(), blob: blob.clone(), location })
    }
}

impl Upload {
    /// Sends the blob. An upload that breaks is begun again from the first byte, a few times.
    pub async fn send(self, source: Source) -> Result<()> {
        let Self { pusher, blob, mut location } = self;
        let doing = || format!("push {} to {}", blob.digest, pusher.reference.locator);
        let (route, endpoint) = pusher.host().await?;
        endpoint.transport().may_go(&location).map_err(|why| {
            one(Failure::new(Kind::Refused, endpoint.transport().origin(), format!("upload {why}")))
        })?;
        let limits = pusher.registry.settings().limits.clone();
        let mut attempt = 1;
        loop {
            location.query_pairs_mut().append_pair("digest", blob.digest.as_str());
            let mut put = pusher.request(&route, Method::PUT, String::new());
            put = put.header(CONTENT_TYPE, "application/octet-stream");
            put.url = Some(location);
            put.payload = Payload::Stream(u64::try_from(blob.size).unwrap_or(0), source.clone());
            // A broken upload is gone, and its location with it.
            let failure = match endpoint.expect(&put, Persistence::Once).await {
                Ok(answer) => return confirmed(&answer, &blob.digest).map_err(one).context(doing),
                Err(failure) => failure,
            };
            if !failure.is_transient() || attempt >= limits.attempts {
                return Err(denied(one(failure))).context(doing);
            }
            tokio::time::sleep(limits.wait(attempt, failure.retry_after)).await;
            attempt += 1;
            location = match pusher.offer(&blob, &[]).await.context(doing)? {
                Offer::Wanted(upload) => upload.location,
                Offer::Exists | Offer::Mounted(_) => return Ok(()),
            };
        }
    }
}

fn one(failure: Failure) -> Error {
    together(vec![failure])
}

/// The words that clients look for.
fn denied(error: Error) -> Error {
    if error.class() != Class::Unauthenticated {
        return error;
    }
    error.context("push access denied, repository does not exist or may require authorization")
}

/// The answer to a HEAD, if it is there. A host that does not let us look may still let us push.
async fn exists(endpoint: &Endpoint, head: &Request) -> Result<Option<Answer>> {
    let failure = match endpoint.expect(head, Persistence::LastHost).await {
        Ok(answer) => return Ok(Some(answer)),
        Err(failure) => failure,
    };
    match failure.kind {
        Kind::Status(StatusCode::NOT_FOUND) | Kind::Unauthenticated => Ok(None),
        _ => Err(one(failure)),
    }
}

/// A registry that says what it stored must have stored what was sent.
fn confirmed(answer: &Answer, digest: &Digest) -> Result<(), Failure> {
    let lie = |why: String| Failure::new(Kind::Invalid, answer.origin(), why);
    match digest_header(answer.response.headers()).map_err(lie)? {
        Some(said) if said != *digest => Err(lie(format!("got digest {said}, expected {digest}"))),
        _ => Ok(()),
    }
}
