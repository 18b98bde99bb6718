//! Who refers to a digest: the referrers API, or the tag that stands for it where a registry does not know the API.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT, LINK};
use reqwest::Url;
use types::oci::image::{Descriptor, Index, media};
use types::{Class, Digest, Error, Result};

use crate::endpoint::{Endpoint, Persistence, Request, answer};
use crate::failure::{Failure, Kind, together};
use crate::fetch::Fetcher;
use crate::hosts::Capability;
use crate::registry::Route;
use crate::transport::{join, origin};

/// The most pages of one answer.
const MOST_PAGES: usize = 16;

/// The most referrers of one digest.
const MOST: usize = 10_000;

impl Fetcher {
    /// Descriptors of what says that `digest` is its subject, of one of `artifact_types` if there are any. Nobody is no error.
    pub async fn referrers(&self, digest: &Digest, artifact_types: &[String]) -> Result<Vec<Descriptor>> {
        let route = self.registry().route(self.reference()).await?;
        let api: Vec<_> = route.able(&[Capability::Referrers]).collect();
        let mut failures = Vec::new();
        for (endpoint, persistence) in &api {
            match self.by_api(endpoint, &route, digest, (artifact_types, *persistence)).await {
                Ok(found) => return Ok(wanted(found, artifact_types)),
                Err(failure) => failures.push(failure),
            }
        }
        let tags: Vec<_> = if api.is_empty() { route.able(&[Capability::Resolve]).collect() } else { api };
        if tags.is_empty() {
            return Err(Error::not_found(format!("{}: no referrers hosts", self.reference().locator)));
        }
        for (endpoint, persistence) in tags {
            match self.by_tag(endpoint, &route, digest, persistence).await {
                Ok(found) => return Ok(wanted(found, artifact_types)),
                // The tag is the last word: without it there is nobody.
                Err(failure) if failure.class() == Class::NotFound => {
                    failures.retain(|f: &Failure| f.class() != Class::NotFound);
                    break;
                }
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() { Ok(Vec::new()) } else { Err(together(failures)) }
    }

    async fn by_api(
        &self,
        endpoint: &Arc<Endpoint>,
        route: &Route,
        digest: &Digest,
        (artifact_types, persistence): (&[String], Persistence),
    ) -> Result<Vec<Descriptor>, Failure> {
        let mut request = Request::new(Method::GET, &route.repository, format!("referrers/{digest}"));
        request.query = artifact_types.iter().map(|kind| ("artifactType".to_owned(), kind.clone())).collect();
        let mut found = Vec::new();
        let mut request = request.header(ACCEPT, media::OCI_INDEX);
        for _ in 0..MOST_PAGES {
            let answer = endpoint.expect(&request, persistence).await?;
            let here = answer.origin();
            let next = next_page(answer.response.url(), answer.response.headers().get(LINK))
                .map_err(|why| Failure::new(Kind::Refused, &here, why))?;
            let body = answer::read(endpoint.transport(), answer, self.registry().settings().limits.manifest)
                .await?;
            found.extend(index(&body, &here)?.manifests);
            if found.len() > MOST {
                let why = format!("says that more than {MOST} refer to {digest}");
                return Err(Failure::new(Kind::TooLarge, here, why));
            }
            let Some(next) = next else { return Ok(found) };
            request.url = Some(next);
        }
        let why = format!("sent more than {MOST_PAGES} pages of referrers");
        Err(Failure::new(Kind::TooLarge, endpoint.transport().origin(), why))
    }

    async fn by_tag(
        &self,
        endpoint: &Arc<Endpoint>,
        route: &Route,
        digest: &Digest,
        persistence: Persistence,
    ) -> Result<Vec<Descriptor>, Failure> {
        let tag = digest.as_str().replacen(':', "-", 1);
        let request = Request::new(Method::GET, &route.repository, format!("manifests/{tag}"));
        let request = request.header(ACCEPT, &format!("{}, */*", media::OCI_INDEX));
        let answer = endpoint.expect(&request, persistence).await?;
        let here = answer.origin();
        let body =
            answer::read(endpoint.transport(), answer, self.registry().settings().limits.manifest).await?;
        Ok(index(&body, &here)?.manifests)
    }
}

fn wanted(mut found: Vec<Descriptor>, artifact_types: &[String]) -> Vec<Descriptor> {
    found.retain(|d| artifact_types.is_empty() || artifact_types.contains(&d.artifact_type));
    found
}

fn index(body: &Bytes, origin: &str) -> Result<Index, Failure> {
    let lie = |why: String| Failure::new(Kind::Invalid, origin, format!("sent no index of referrers: {why}"));
    // A list would do for a structure otherwise.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(lie("no object".to_owned()));
    }
    serde_json::from_slice(body).map_err(|e| lie(e.to_string()))
}

/// The page behind `here`, if there is one: on the same host only.
fn next_page(here: &Url, link: Option<&http::HeaderValue>) -> Result<Option<Url>, String> {
    let Some(text) = link.and_then(|v| v.to_str().ok()) else { return Ok(None) };
    let Some((target, parameters)) = text.trim().strip_prefix('<').and_then(|t| t.split_once('>')) else {
        return Ok(None);
    };
    if !parameters.contains("rel=\"next\"") && !parameters.contains("rel=next") {
        return Ok(None);
    }
    let next = join(here, target)?;
    if origin(&next) != origin(here) {
        return Err("the next page of referrers is on another host".to_owned());
    }
    Ok(Some(next))
}
