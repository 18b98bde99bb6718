//! One request over the wire: the client that sends it, and how long its answer may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use http::Method;
use http::header::{CONTENT_LENGTH, HeaderValue, USER_AGENT};
use reqwest::{Client, Response, redirect};
use types::{Class, Error, Result};

use super::reach::{self, Policy};
use super::tls::{self, Identity};
use super::{Call, Payload, Transport, origin};
use crate::failure::{Failure, Kind};
use crate::repository::is_localhost;

impl Transport {
    /// One request, one answer.
    pub(super) async fn once(&self, call: &Call) -> Result<Response, Failure> {
        let here = origin(&call.url);
        let client = if self.is_elsewhere(&call.url) {
            let policy = (self.policy)(self.reach());
            self.away.get_or_try_init(|| self.client(Identity::Hidden, Some(policy))).await?
        } else {
            self.own.get_or_try_init(|| self.client(Identity::Shown, None)).await?
        };
        let sent = Arc::new(AtomicU64::new(0));
        let request = self.build(client, call, &sent).map_err(|e| Failure::transport(&here, e))?;
        self.note_request(call);
        let sending = client.execute(request);
        tokio::pin!(sending);
        let mut before = 0;
        let response = loop {
            match tokio::time::timeout(self.settings.limits.headers, &mut sending).await {
                Ok(result) => break result.map_err(|e| Failure::transport(&here, e))?,
                Err(_) => {
                    let now = sent.load(Ordering::Relaxed);
                    if now == before {
                        let waited = self.settings.limits.headers;
                        return Err(Failure::new(
                            Kind::Timeout,
                            here,
                            format!("no answer within {waited:?}"),
                        ));
                    }
                    before = now;
                }
            }
        };
        self.note_response(&response);
        Ok(response)
    }

    fn build(
        &self,
        client: &Client,
        call: &Call,
        sent: &Arc<AtomicU64>,
    ) -> reqwest::Result<reqwest::Request> {
        let mut headers = call.headers.clone();
        headers.extend(call.private.clone());
        if !headers.contains_key(USER_AGENT) {
            let agent = self.settings.user_agent.clone().unwrap_or_else(default_agent);
            if let Ok(agent) = HeaderValue::from_str(&agent) {
                headers.insert(USER_AGENT, agent);
            }
        }
        let builder = client.request(call.method.clone(), call.url.clone());
        let builder = match &call.payload {
            Payload::Empty => {
                if call.method != Method::GET && call.method != Method::HEAD {
                    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                }
                builder
            }
            Payload::Bytes(bytes) => builder.body(bytes.clone()),
            Payload::Stream(size, open) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(*size));
                let sent = sent.clone();
                let counted = open().inspect(move |chunk| {
                    let bytes = chunk.as_ref().map_or(0, Bytes::len);
                    sent.fetch_add(bytes as u64, Ordering::Relaxed);
                });
                builder.body(reqwest::Body::wrap_stream(counted))
            }
        };
        builder.headers(headers).build()
    }

    /// A client that goes to the host (no policy) or to strangers.
    pub(super) async fn client(&self, identity: Identity, policy: Option<Policy>) -> Result<Client, Failure> {
        let (settings, tls) = (self.settings.clone(), self.host.tls.clone());
        let read = tokio::task::spawn_blocking(move || tls::configure(&settings, &tls, identity));
        let failed = |e: &Error| Failure::ours(self.host.origin(), e);
        let tls = read
            .await
            .map_err(|e| failed(&Error::caused(Class::Internal, "read certificates", e)))?
            .map_err(|e| failed(&e))?;
        let dial = self.host.dial_timeout.unwrap_or(self.settings.limits.connect);
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(dial);
        if let Some(policy) = policy {
            builder = builder.dns_resolver(reach::resolver(policy));
        }
        // As Go: this machine is never asked for through a proxy.
        if is_localhost(&self.host.name) {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|e| Failure::transport(self.host.origin(), e))
    }
}

/// What we call ourselves, as upstream does: some registries let only known names in.
fn default_agent() -> String {
    format!("containerd/{}", types::version::VERSION)
}
