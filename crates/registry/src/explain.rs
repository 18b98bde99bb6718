//! What a pull of a reference would do, for `ctr registry explain`: which files count, which hosts are asked in what order,
//! with what TLS and as whom, and what each answers.

use std::fmt;
use std::path::PathBuf;

use http::Method;
use http::header::ACCEPT;
use types::Result;
use types::reference::Reference;

use crate::endpoint::{Endpoint, Persistence, Request};
use crate::hosts::Host;
use crate::registry::{MANIFESTS, Registry, digest_header, object};
use crate::settings::{Scheme, Settings};
use crate::transport::status_text;

/// What a pull of a reference would do.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The reference, complete.
    pub reference: String,
    /// Directories and files that were looked for, in order, and whether they are there.
    pub files: Vec<(PathBuf, bool)>,
    /// The hosts in the order in which they are asked.
    pub hosts: Vec<Explained>,
}

/// What is known about one host.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Where its API is.
    pub url: String,
    /// What it may be used for.
    pub capabilities: Vec<&'static str>,
    /// The registry that it is asked for with `ns=`, if it is a mirror.
    pub namespace: Option<String>,
    /// How it is spoken to.
    pub tls: String,
    /// Names of headers that it gets from its files.
    pub headers: Vec<String>,
    /// How it wants us to prove who we are.
    pub auth: String,
    /// What it answered to the question for the manifest, or why it did not.
    pub answer: Result<String, String>,
}

impl Registry {
    /// Asks each host for the manifest behind `reference`, and tells what came of it.
    pub async fn explain(&self, reference: &Reference) -> Result<Explanation> {
        let route = self.route(reference).await?;
        let path = format!("manifests/{}", object(reference)?);
        let mut hosts = Vec::new();
        for endpoint in &route.endpoints {
            let head = Request::new(Method::HEAD, &route.repository, &path).header(ACCEPT, MANIFESTS);
            let answer = ask(endpoint, &head).await;
            let host = endpoint.host();
            let proxy = host.is_proxy_of(&route.repository.host);
            hosts.push(Explained {
                url: format!("{}{}", endpoint.transport().origin(), host.path),
                capabilities: host.capabilities.iter().map(|c| c.as_str()).collect(),
                namespace: proxy.then(|| route.repository.host.clone()),
                tls: tls(self.settings(), host, endpoint.transport().scheme()),
                headers: host.headers.keys().map(ToString::to_string).collect(),
                auth: endpoint.authorizer().describe(),
                answer,
            });
        }
        let files = route.considered.iter().map(|c| (c.path.clone(), c.found)).collect();
        Ok(Explanation { reference: reference.to_string(), files, hosts })
    }
}

async fn ask(endpoint: &Endpoint, head: &Request) -> Result<String, String> {
    let answer = endpoint.expect(head, Persistence::OthersFollow).await.map_err(|f| f.reason)?;
    let status = status_text(answer.response.status());
    let digest = digest_header(answer.response.headers())?;
    let digest = digest.map_or_else(|| "no digest".to_owned(), |d| d.to_string());
    let from = if answer.away { format!(" from {}", answer.origin()) } else { String::new() };
    Ok(format!("{status}, {digest}{from}"))
}

fn tls(settings: &Settings, host: &Host, scheme: Scheme) -> String {
    if scheme == Scheme::Http {
        return if host.fallback { "none: https was tried first".to_owned() } else { "none".to_owned() };
    }
    let mut parts = Vec::new();
    if host.tls.skip_verify.unwrap_or(settings.skip_verify) {
        parts.push("any certificate".to_owned());
    } else if let Some(ca) = &settings.ca {
        parts.push(format!("certificates signed by {}", ca.display()));
    } else {
        parts.push("certificates that this system believes".to_owned());
    }
    parts.extend(host.tls.ca.iter().map(|path| format!("or signed by {}", path.display())));
    parts.extend(host.tls.client.first().map(|(path, _)| format!("shows {}", path.display())));
    parts.join(", ")
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.reference)?;
        writeln!(f, "files:")?;
        if self.files.is_empty() {
            writeln!(f, "  none: no directory of hosts is configured")?;
        }
        for (path, found) in &self.files {
            writeln!(f, "  {} {}", if *found { "found  " } else { "missing" }, path.display())?;
        }
        for (number, host) in self.hosts.iter().enumerate() {
            writeln!(f, "host {}: {}", number + 1, host.url)?;
            writeln!(f, "  capabilities: {}", host.capabilities.join(", "))?;
            if let Some(namespace) = &host.namespace {
                writeln!(f, "  mirror: asked with ns={namespace}")?;
            }
            writeln!(f, "  tls: {}", host.tls)?;
            if !host.headers.is_empty() {
                writeln!(f, "  headers: {}", host.headers.join(", "))?;
            }
            writeln!(f, "  auth: {}", host.auth)?;
            match &host.answer {
                Ok(answer) => writeln!(f, "  answer: {answer}")?,
                Err(reason) => writeln!(f, "  failed: {reason}")?,
            }
        }
        Ok(())
    }
}
