//! `io.containerd.cri.v1.images`.

use std::collections::BTreeMap;
use std::time::Duration;

use ::cri::Auth;
use ::cri::config::Images;
use types::platform::Platform;

use super::{Cri, Section, Wrong, time};
use crate::services::deprecations::Deprecation;

/// Understands the section.
pub fn read(cri: &mut Cri, mut section: Section) -> Result<(), Wrong> {
    let default = Images::default();
    let snapshotter = section.string("snapshotter", "overlayfs");
    let runtime_snapshotters = platforms(&mut section, &snapshotter)?;
    let registry = registry(cri, section.section("registry"))?;
    // There is one model, and without keys there is nothing to decrypt with.
    drop(section.section("image_decryption"));
    let progress_timeout = time(
        &mut section,
        "image_pull_progress_timeout",
        "invalid image pull progress timeout",
        default.progress_timeout,
    )?;
    cri.settings.images = Images {
        runtime_snapshotters,
        disable_snapshot_annotations: section.boolean("disable_snapshot_annotations"),
        discard_unpacked_layers: section.boolean("discard_unpacked_layers"),
        pinned: section.texts("pinned_images"),
        max_concurrent_downloads: section
            .integer("max_concurrent_downloads", default.max_concurrent_downloads),
        progress_timeout,
        sync_fs: section.boolean("image_pull_with_sync_fs"),
        stats_period: Duration::from_secs(section.integer("stats_collect_period", 10_u32).into()),
        snapshotter,
        ..registry
    };
    Ok(())
}

/// The snapshotters of runtimes that have another than the rest.
fn platforms(section: &mut Section, usual: &str) -> Result<BTreeMap<String, String>, Wrong> {
    let mut runtimes = section.section("runtime_platforms");
    let mut snapshotters = BTreeMap::new();
    for name in runtimes.keys() {
        let mut runtime = runtimes.section(&name);
        let platform = runtime.string("platform", "");
        if !platform.is_empty() {
            let parsed = platform.parse::<Platform>();
            parsed.map_err(|why| format!("unable to parse platform {platform:?}: {why}"))?;
        }
        let snapshotter = runtime.string("snapshotter", "");
        let snapshotter = if snapshotter.is_empty() { usual.to_owned() } else { snapshotter };
        snapshotters.insert(name, snapshotter);
    }
    Ok(snapshotters)
}

/// How registries are reached: directories of hosts files, and what was there before them.
fn registry(cri: &mut Cri, mut section: Section) -> Result<Images, Wrong> {
    let path = section.string("config_path", "");
    let mirrors = mirrors(section.section("mirrors"));
    if !mirrors.is_empty() {
        if !path.is_empty() {
            return Err("`mirrors` cannot be set when `config_path` is provided".to_owned());
        }
        section.warn("`mirrors` is deprecated, please use `config_path` instead");
        cri.deprecated.push(Deprecation::CriRegistryMirrors);
    }
    let mut auths = BTreeMap::new();
    let mut configs = section.section("configs");
    let hosts = configs.keys();
    if !hosts.is_empty() {
        section.warn("`configs` is deprecated, please use `config_path` instead");
        cri.deprecated.push(Deprecation::CriRegistryConfigs);
    }
    for host in hosts {
        let mut config = configs.section(&host);
        if config.has("auth") {
            auths.insert(host, auth(config.section("auth")));
        }
    }
    let mut by_url = section.section("auths");
    let urls = by_url.keys();
    if !urls.is_empty() {
        section.warn("`auths` is deprecated, please use `ImagePullSecrets` instead");
        cri.deprecated.push(Deprecation::CriRegistryAuths);
    }
    for url in urls {
        let auth = auth(by_url.section(&url));
        auths.insert(host(&url).to_owned(), auth);
    }
    let hosts = if path.is_empty() && mirrors.is_empty() { Images::default().hosts } else { path };
    let headers = headers(section.section("headers"));
    cri.mirrors = mirrors;
    Ok(Images { hosts, auths, headers, ..Images::default() })
}

fn mirrors(mut section: Section) -> Vec<(String, Vec<String>)> {
    let hosts = section.keys().into_iter();
    hosts
        .map(|host| {
            let endpoints = section.section(&host).strings("endpoint", &[]);
            (host, endpoints)
        })
        .collect()
}

fn headers(mut section: Section) -> BTreeMap<String, Vec<String>> {
    let names = section.keys().into_iter();
    names
        .map(|name| {
            let values = section.strings(&name, &[]);
            (name, values)
        })
        .collect()
}

fn auth(mut section: Section) -> Auth {
    Auth::from(api::cri::AuthConfig {
        username: section.string("username", ""),
        password: section.string("password", ""),
        auth: section.string("auth", ""),
        identity_token: section.string("identitytoken", ""),
        ..api::cri::AuthConfig::default()
    })
}

/// The host of a URL, or a host.
fn host(url: &str) -> &str {
    match url.split_once("://") {
        Some((_, rest)) => rest.split('/').next().unwrap_or_default(),
        None => url,
    }
}
