//! What the configuration disables and requires, and what follows from it.
//!
//! A disabled part is not listed, and calls to a disabled service answer `Unimplemented`. What stands on a disabled part
//! cannot be started either, and is listed with the reason, as upstream lists it.

use std::collections::BTreeMap;

use types::{Error, Result};

use super::{CONTENT, CRI, DIFFER, GRPC, Plugins, SERVER, TABLE, TRANSFER};
use crate::config::{Config, Proxy, ProxyKind};

impl Plugins {
    /// Reads what the configuration disables and requires. Returns remarks for the log, too.
    pub fn choose(config: &Config) -> Result<(Self, Vec<String>)> {
        // To disable a part of ours makes room for a proxy of its name; any other name is the proxy's own.
        let ours = |uri: &String| TABLE.iter().any(|plugin| plugin.uri() == *uri);
        let enabled = |proxy: &&Proxy| {
            let uri = proxy.uri();
            ours(&uri) || !config.disabled.contains(&uri)
        };
        let mut plugins = Self {
            disabled: [config.disabled.clone(), unwanted(config)].concat(),
            failed: BTreeMap::new(),
            found: BTreeMap::new(),
            proxies: config.proxies.iter().filter(enabled).cloned().collect(),
        };
        let mut remarks = plugins.keep_what_is_needed();
        plugins.names_are_taken_once()?;
        plugins.fail_what_depends_on_disabled();
        plugins.fail_without_differs(&config.differs);
        for (uri, why) in &config.cri.invalid {
            plugins.fail((*uri).to_owned(), why);
        }
        plugins.fail_without_parts_of_cri();
        remarks.extend(plugins.failed.iter().map(|(uri, why)| format!("failed to load plugin {uri}: {why}")));
        let missing: Vec<_> = config.required.iter().filter_map(|uri| plugins.lacks(uri)).collect();
        if missing.is_empty() { Ok((plugins, remarks)) } else { Err(Error::precondition(missing.join("; "))) }
    }

    /// Enables again what the daemon cannot do without.
    fn keep_what_is_needed(&mut self) -> Vec<String> {
        let replaced = !self.proxies(ProxyKind::Content).is_empty();
        let needed = |uri: &mut String| {
            let plugin = TABLE.iter().find(|plugin| plugin.uri() == *uri);
            plugin.is_some_and(|plugin| !(plugin.optional || replaced && plugin.kind == CONTENT))
        };
        let kept: Vec<_> = self.disabled.extract_if(.., needed).collect();
        kept.into_iter().map(|uri| format!("plugin {uri} cannot be disabled")).collect()
    }

    /// Two plugins of one type have two names, and of content stores there is one.
    fn names_are_taken_once(&self) -> Result<()> {
        for proxy in &self.proxies {
            let uri = proxy.uri();
            if self.running().any(|plugin| plugin.uri() == uri) {
                return Err(Error::precondition(format!("{uri}: plugin: id already registered")));
            }
            let local = format!("{CONTENT}.content");
            if proxy.kind == ProxyKind::Content && !self.disabled.contains(&local) {
                return Err(Error::precondition(format!(
                    "there can be one content store, not both {local} and {uri}: disable one of them"
                )));
            }
        }
        Ok(())
    }

    /// A part whose foundation is disabled cannot be started; nor can what stands on that part.
    fn fail_what_depends_on_disabled(&mut self) {
        for plugin in TABLE.iter().filter(|plugin| plugin.optional) {
            let missing = plugin.requires.iter().find(|kind| !self.has_kind(kind));
            if let Some(kind) = missing {
                self.fail(plugin.uri(), &format!("no plugins registered for {kind}: plugin: not found"));
            }
        }
    }

    fn fail_without_differs(&mut self, wanted: &[String]) {
        let Some(name) = wanted.iter().find(|name| !self.includes(&format!("{DIFFER}.{name}"))) else {
            return;
        };
        let why = format!("needed differ not loaded: {name}");
        for uri in [format!("{GRPC}.diff"), format!("{TRANSFER}.local"), format!("{GRPC}.transfer")] {
            self.fail(uri, &why);
        }
    }

    /// The CRI stands on two parts of one type.
    fn fail_without_parts_of_cri(&mut self) {
        for part in ["images", "runtime"].map(|id| format!("{CRI}.{id}")) {
            if !self.includes(&part) || self.failed.contains_key(&part) {
                self.fail(format!("{GRPC}.cri"), &format!("no plugin {part}: plugin: not found"));
            }
        }
    }

    fn fail(&mut self, uri: String, why: &str) {
        if !self.disabled.contains(&uri) {
            self.failed.entry(uri).or_insert_with(|| why.to_owned());
        }
    }

    /// Whether any part of a type runs.
    fn has_kind(&self, kind: &str) -> bool {
        self.running().any(|plugin| plugin.kind == kind && !self.failed.contains_key(&plugin.uri()))
            || self.proxies.iter().any(|proxy| proxy.kind.name() == kind)
    }

    fn includes(&self, uri: &str) -> bool {
        self.running().any(|plugin| plugin.uri() == uri)
            || self.proxies.iter().any(|proxy| proxy.uri() == uri)
    }

    /// Why a required plugin does not run.
    fn lacks(&self, uri: &str) -> Option<String> {
        match self.failed.get(uri) {
            Some(why) => Some(format!("load required plugin {uri}: {why}")),
            None => (!self.includes(uri)).then(|| format!("required plugin {uri} not included")),
        }
    }
}

/// Parts that nobody wants who does not say so.
fn unwanted(config: &Config) -> Vec<String> {
    let tcp = config.tcp.is_some() && config.cri.tcp;
    if tcp { Vec::new() } else { vec![format!("{SERVER}.grpc-tcp")] }
}
