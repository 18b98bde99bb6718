//! Fetching by descriptor.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, RANGE};
use http::{Method, StatusCode};
use reqwest::Url;
use types::digest::Hasher;
use types::oci::image::{Descriptor, media};
use types::reference::Reference;
use types::{Digest, Error, Result, ResultExt};

use crate::body::Body;
use crate::endpoint::{Endpoint, Persistence, Request, answer};
use crate::failure::{Failure, Kind, clean, together};
use crate::hosts::Capability;
use crate::registry::{MANIFESTS, Registry, Route};
use crate::span::{Span, checked, headers};
use crate::transport::Answer;

/// Fetches what the repository of a reference has. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    registry: Registry,
    reference: Reference,
}

impl Fetcher {
    pub(crate) fn new(registry: Registry, reference: Reference) -> Self {
        Self { registry, reference }
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The content of `blob` from byte `offset` on: manifests and blobs by media type, layers that must not be
    /// distributed from their `urls`. Bytes are as the registry sends them; their digest is the caller's to check.
    pub async fn open(&self, blob: &Descriptor, offset: u64) -> Result<Body> {
        let end = u64::try_from(blob.size).ok();
        if end.is_some_and(|end| offset > end) {
            return Err(Error::out_of_range(format!("offset {offset} is behind the end of {}", blob.digest)));
        }
        self.open_span(blob, Span { start: offset, end, bounded: false }).await
    }

    /// The bytes `range` of `blob`, for several connections side by side. A host that ignores ranges gives an
    /// error of class `Unimplemented`: fetch the whole with [`Self::open`] then.
    pub async fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Body> {
        let size = u64::try_from(blob.size).unwrap_or(0);
        if range.is_empty() || range.end > size {
            return Err(Error::out_of_range(format!("range {range:?} of {size} bytes of {}", blob.digest)));
        }
        self.open_span(blob, Span { start: range.start, end: Some(range.end), bounded: true }).await
    }

    async fn open_span(&self, blob: &Descriptor, span: Span) -> Result<Body> {
        let doing = || format!("fetch {} from {}", blob.digest, self.reference.locator);
        let mut body = Body::new(self.clone(), blob.clone(), span);
        body.connect().await.map_err(together).context(doing)?;
        Ok(body)
    }

    /// All of `blob`, whose size must not be over `limit`, checked against its digest and size. For manifests and configs.
    pub async fn fetch_all(&self, blob: &Descriptor, limit: u64) -> Result<Bytes> {
        let too_large = |size: String| {
            let what = format!("{} has {size}: the limit is {limit} bytes", blob.digest);
            Error::exhausted(what)
        };
        if u64::try_from(blob.size).is_ok_and(|size| size > limit) {
            return Err(too_large(format!("{} bytes", blob.size)));
        }
        let mut body = self.open(blob, 0).await?;
        let mut bytes = BytesMut::new();
        let mut hasher = Hasher::new(blob.digest.algorithm());
        while let Some(chunk) = body.chunk().await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(too_large("more than it may".to_owned()));
            }
            hasher.update(&chunk);
            bytes.extend_from_slice(&chunk);
        }
        let found = hasher.finish();
        if found != blob.digest {
            let what = format!("{} sent content with digest {found} for {}", body.host(), blob.digest);
            return Err(Error::data_loss(what));
        }
        Ok(bytes.freeze())
    }

    /// The descriptor of what has `digest`, when nothing else is known of it: a blob, or else a manifest.
    pub async fn describe(&self, digest: &Digest) -> Result<Descriptor> {
        let route = self.registry.route(&self.reference).await?;
        let mut failures = Vec::new();
        for kind in ["blobs", "manifests"] {
            for (endpoint, persistence) in route.able(&[Capability::Pull]) {
                let head = Request::new(Method::HEAD, &route.repository, format!("{kind}/{digest}"));
                match endpoint.expect(&head.header(ACCEPT, MANIFESTS), persistence).await {
                    Ok(answer) => return Ok(self.described(digest, kind, &answer)),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        let doing = || format!("look for {digest} in {}", self.reference.locator);
        Err(together(failures)).context(doing)
    }

    fn described(&self, digest: &Digest, kind: &str, answer: &Answer) -> Descriptor {
        let headers = answer.response.headers();
        let said = answer::content_type(headers).filter(|_| kind == "manifests");
        let mut found = Descriptor::new(said.unwrap_or("application/octet-stream"), digest.clone(), 0);
        // Without a size it is read to its end.
        found.size = answer::content_length(headers).and_then(|length| length.try_into().ok()).unwrap_or(-1);
        found
    }

    /// Asks each host that may be pulled from for `span` of `blob`, beginning with number `first`.
    pub(crate) async fn connect(
        &self,
        blob: &Descriptor,
        span: Span,
        first: usize,
    ) -> Result<(Answer, usize), Vec<Failure>> {
        let ours = |e: Error| vec![Failure::ours(self.reference.locator.clone(), &e)];
        let route = self.registry.route(&self.reference).await.map_err(ours)?;
        let mut failures = Vec::new();
        if is_foreign(&blob.media_type)
            && let Some(answer) = self.connect_foreign(&route, blob, span, &mut failures).await
        {
            return Ok((answer, first));
        }
        let hosts: Vec<_> = route.able(&[Capability::Pull]).collect();
        let count = hosts.len();
        for n in 0..count {
            let number = (first + n) % count;
            let (endpoint, _) = hosts[number];
            let persistence = if n + 1 == count { Persistence::LastHost } else { Persistence::OthersFollow };
            match self.connect_to(endpoint, &route, (blob, span), persistence).await {
                Ok(answer) => return Ok((answer, number)),
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() {
            return Err(ours(Error::not_found("no pull hosts")));
        }
        Err(failures)
    }

    async fn connect_to(
        &self,
        endpoint: &Arc<Endpoint>,
        route: &Route,
        (blob, span): (&Descriptor, Span),
        persistence: Persistence,
    ) -> Result<Answer, Failure> {
        let kind = if is_manifest(&blob.media_type) { "manifests" } else { "blobs" };
        let path = format!("{kind}/{}", blob.digest);
        let mut request = Request::new(Method::GET, &route.repository, path);
        request.headers = headers(blob, span);
        let answer = match endpoint.expect(&request, persistence).await {
            // A host that refuses a range which is there may still send the whole.
            Err(failure)
                if failure.kind == Kind::Status(StatusCode::RANGE_NOT_SATISFIABLE) && !span.bounded =>
            {
                request.headers.remove(RANGE);
                endpoint.expect(&request, persistence).await?
            }
            other => other?,
        };
        checked(answer, blob, span)
    }

    /// The first of the `urls` that answers.
    async fn connect_foreign(
        &self,
        route: &Route,
        blob: &Descriptor,
        span: Span,
        failures: &mut Vec<Failure>,
    ) -> Option<Answer> {
        let endpoint = route.endpoints.first()?;
        for text in blob.urls.iter().take(MOST_URLS) {
            let parsed = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let Some(mut url) = parsed else {
                let why = "the image names an URL that is neither http nor https";
                failures.push(Failure::new(Kind::Refused, clean(text, 128), why));
                continue;
            };
            let _ = url.set_username("");
            let _ = url.set_password(None);
            let transport = endpoint.transport();
            let answer = match transport.execute_foreign(url, headers(blob, span)).await {
                Ok(answer) if !answer.response.status().is_success() => {
                    Err(answer::unexpected(transport, answer, &Method::GET).await)
                }
                Ok(answer) => checked(answer, blob, span),
                Err(failure) => Err(failure),
            };
            match answer {
                Ok(answer) => return Some(answer),
                Err(failure) => failures.push(failure),
            }
        }
        None
    }
}

/// The most `urls` of one descriptor that are tried.
const MOST_URLS: usize = 8;

/// Whether registries keep it below `manifests`.
pub(crate) fn is_manifest(media_type: &str) -> bool {
    media::is_manifest(media_type) || media::is_index(media_type)
}

/// Whether it is a layer that registries may not have. Only for those are an image's `urls` followed: any other
/// descriptor could make us ask anybody for anything.
fn is_foreign(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
        || media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
}
