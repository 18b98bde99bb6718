//! The verbs, for one network and one container.
//!
//! ```text
//!  ADD      check all names, find all plugins | intent | plugin 1 -> plugin 2 -> ... | entry
//!             a plugin fails: DEL, and the first error is told
//!  DEL      plugin n -> ... -> plugin 1 | no entry       with the configuration and the arguments of ADD
//!  CHECK    plugin 1 -> plugin 2 -> ...                  with the result of ADD
//!  GC       DEL of entries that nobody claims | each plugin is told who is claimed
//! ```
//!
//! DEL stops at the first plugin that fails, as libcni does: the one that would give an address back must not run while
//! rules of another one still lead to it. Done again it goes on.
//!
//! Cancel safety: a program that runs is killed, and what is built in comes to its end. What it has done stays, and the entry tells of it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tracing::warn;
use types::{Class, Error, Result, ResultExt};

use crate::builtin::Builtin;
use crate::cache::{Cache, Entry, Key};
use crate::conf::{Network, Plugin};
use crate::names;
use crate::plugin::{Environment, Limits, Verb};
use crate::result::AddResult;
use crate::runner::{Call, Chain, Runner, Runners, built_in, failed};
use crate::version::{self, WITH_CHECK, WITH_STATUS};

/// Where upstream keeps what was added.
pub const CACHE: &str = "/var/lib/cni";

/// A container's end of a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachment {
    /// The container's id.
    pub container: String,
    /// The path of its network namespace; empty where that is gone.
    pub netns: String,
    /// The interface in it.
    pub interface: String,
    /// CNI_ARGS.
    pub arguments: Vec<(String, String)>,
    /// What plugins are told that declare it, by capability.
    pub capabilities: Map<String, Value>,
}

impl Attachment {
    fn check(&self, network: &Network) -> Result<Key> {
        names::container(&self.container)?;
        names::network(network.name())?;
        names::interface(&self.interface)?;
        self.arguments.iter().try_for_each(|(key, value)| names::argument(key, value))?;
        if self.netns.contains('\0') {
            return Err(Error::invalid(format!("invalid network namespace {:?}", self.netns)));
        }
        Ok(Key {
            network: network.name().into(),
            container: self.container.clone(),
            interface: self.interface.clone(),
        })
    }

    fn environment(&self) -> Environment {
        let pairs: Vec<String> = self.arguments.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Environment {
            container: self.container.clone(),
            netns: self.netns.clone(),
            interface: self.interface.clone(),
            arguments: pairs.join(";"),
        }
    }

    /// What an entry says of its attachment, in this network namespace.
    fn of(entry: &Entry, netns: &str) -> Self {
        let pair = |[key, value]: &[String; 2]| (key.clone(), value.clone());
        Self {
            container: entry.container_id.clone(),
            netns: netns.into(),
            interface: entry.if_name.clone(),
            arguments: entry.cni_args.iter().map(pair).collect(),
            capabilities: entry.capability_args.clone(),
        }
    }
}

/// Who runs plugins.
#[derive(Clone, Debug)]
pub struct Cni {
    cache: Cache,
    runners: Runners,
}

impl Cni {
    /// With plugins in `dirs` and what was added below `cache`.
    pub fn new(dirs: Vec<PathBuf>, cache: &Path, limits: Limits) -> Self {
        let runners = Runners { dirs, limits, builtin: Builtin::default() };
        Self { cache: Cache::new(cache), runners }
    }

    /// The same, with other plugins built in.
    #[must_use]
    pub fn with_builtin(self, builtin: Builtin) -> Self {
        Self { runners: Runners { builtin, ..self.runners }, ..self }
    }

    /// See [`crate::Networks::sweep`].
    pub fn sweep(&self) {
        self.cache.sweep();
    }

    /// Attaches a container, or changes nothing that can be taken back.
    pub async fn add(&self, network: &Network, at: &Attachment) -> Result<AddResult> {
        let key = at.check(network)?;
        let chain = self.runners.chain(network)?;
        self.remove_earlier_life(network, &key, at).await;
        let mut entry = Entry {
            config: network.source().to_vec(),
            netns: at.netns.clone(),
            cni_args: at.arguments.iter().map(|(key, value)| [key.clone(), value.clone()]).collect(),
            capability_args: at.capabilities.clone(),
            builtin: Some(built_in(&chain)),
            ..Entry::of(&key)
        };
        self.cache.write(&entry)?;
        let added = self.add_chain(network, &chain, at).await.and_then(|result| {
            entry.result = Some(result.to_json()?);
            self.cache.write(&entry)?;
            Ok(result)
        });
        match added {
            Ok(result) => Ok(result),
            Err(error) => Err(self.taken_back(network, at, error).await),
        }
    }

    /// Takes back what was added in part; the error says if that did not work, too.
    pub(crate) async fn taken_back(&self, network: &Network, at: &Attachment, error: Error) -> Error {
        match self.del(network, at).await {
            Ok(()) => error,
            Err(left) => error.context(format!("network {} stays in part ({left})", network.name())),
        }
    }

    async fn add_chain(&self, network: &Network, chain: &Chain<'_>, at: &Attachment) -> Result<AddResult> {
        let mut result = None;
        for (plugin, program) in chain {
            let question = network.question(plugin, result.as_ref(), &at.capabilities)?;
            let answer =
                self.runners.run(Call::of(plugin, program, Verb::Add), &at.environment(), &question).await?;
            let parsed = AddResult::parse(&answer, network.cni_version());
            result = Some(parsed.context(|| failed(plugin, Verb::Add))?);
        }
        result.ok_or_else(|| Error::invalid(format!("network {} has no plugins", network.name())))
    }

    /// A container has one network namespace in its life. An entry for another one is left of an earlier container of this
    /// name that nobody detached; its addresses would be refused to this one.
    async fn remove_earlier_life(&self, network: &Network, key: &Key, at: &Attachment) {
        let Ok(Some(entry)) = self.cache.read(key) else { return };
        if entry.netns == at.netns {
            return;
        }
        if let Err(error) = self.del(network, &Attachment::of(&entry, "")).await {
            warn!(network = network.name(), container = at.container, %error, "what is left of an earlier container stays");
        }
    }

    /// Detaches a container. It may be done again, and for what was never added.
    pub async fn del(&self, network: &Network, at: &Attachment) -> Result<()> {
        let key = at.check(network)?;
        let entry = self.cache.read(&key).unwrap_or_else(|error| {
            warn!(network = network.name(), container = at.container, %error, "a cached result is as none");
            None
        });
        let kept = entry.as_ref().and_then(|entry| Network::kept(&entry.config).ok());
        let kept = kept.filter(|kept| kept.name() == network.name());
        // A plugin of back then may be gone from the node; what stands there now is the best there is.
        let as_added = |network| {
            self.runners.chain_of(network, entry.as_ref().and_then(|entry| entry.builtin.as_deref()))
        };
        let (network, chain) = match kept.as_ref().map(|kept| (kept, as_added(kept))) {
            Some((kept, Ok(chain))) if !chain.is_empty() => (kept, chain),
            _ => (network, as_added(network)?),
        };
        let as_added = entry.as_ref().map(|entry| Attachment::of(entry, &at.netns));
        let previous = entry.and_then(|entry| previous(network, entry));
        self.del_chain(network, &chain, as_added.as_ref().unwrap_or(at), previous).await?;
        self.cache.remove(&key)
    }

    async fn del_chain(
        &self,
        network: &Network,
        chain: &Chain<'_>,
        at: &Attachment,
        previous: Option<AddResult>,
    ) -> Result<()> {
        for (plugin, program) in chain.iter().rev() {
            let question = network.question(plugin, previous.as_ref(), &at.capabilities)?;
            self.runners.run(Call::of(plugin, program, Verb::Del), &at.environment(), &question).await?;
        }
        Ok(())
    }

    /// Whether a container is attached as ADD has left it.
    pub async fn check(&self, network: &Network, at: &Attachment) -> Result<()> {
        let key = at.check(network)?;
        if network.version() < WITH_CHECK {
            let text = format!(
                "configuration version {:?} does not support the CHECK command",
                network.cni_version()
            );
            return Err(Error::unimplemented(text));
        }
        if network.disable_check {
            return Ok(());
        }
        let entry = self.cache.read(&key)?;
        let built_in = entry.as_ref().and_then(|entry| entry.builtin.clone());
        let result = entry.and_then(|entry| entry.result).map(AddResult::kept).transpose()?;
        let result = result.map(|result| result.to(network.cni_version())).transpose()?;
        for (plugin, runner) in self.runners.chain_of(network, built_in.as_deref())? {
            let question = network.question(plugin, result.as_ref(), &at.capabilities)?;
            self.runners.run(Call::of(plugin, &runner, Verb::Check), &at.environment(), &question).await?;
        }
        Ok(())
    }

    /// Whether a network can take containers now. Before 1.1.0 nobody can be asked.
    pub async fn status(&self, network: &Network) -> Result<()> {
        if network.version() < WITH_STATUS {
            return Ok(());
        }
        for (plugin, runner) in self.runners.chain(network)? {
            let question = network.ask(plugin, Map::new())?;
            self.runners
                .run(Call::of(plugin, &runner, Verb::Status), &Environment::default(), &question)
                .await?;
        }
        Ok(())
    }

    /// Removes what belongs to no container of `claimed` (ids and interfaces). Those of others who use this network and
    /// this cache must be among them. Goes on after an error and tells of all.
    pub async fn gc(&self, network: &Network, claimed: &[(String, String)]) -> Result<()> {
        if network.disable_gc {
            return Ok(());
        }
        let mut errors = Vec::new();
        let is_claimed = |entry: &Entry| {
            claimed.iter().any(|(id, name)| *id == entry.container_id && *name == entry.if_name)
        };
        for entry in self.cache.list(None)? {
            if entry.network_name != network.name() || is_claimed(&entry) {
                continue;
            }
            let at = Attachment::of(&entry, &entry.netns);
            let deleted = self
                .del(network, &at)
                .await
                .context(|| format!("failed to delete stale attachment {} {}", at.container, at.interface));
            errors.extend(deleted.err());
        }
        if network.version() >= WITH_STATUS {
            let claimed = claimed.iter().map(|(id, name)| json!({"containerID": id, "ifname": name}));
            let claimed = Value::Array(claimed.collect());
            for plugin in network.plugins() {
                errors.extend(self.gc_plugin(network, plugin, &claimed).await.err());
            }
        }
        all(errors)
    }

    async fn gc_plugin(&self, network: &Network, plugin: &Plugin, claimed: &Value) -> Result<()> {
        let mut more = Map::new();
        // The specification had the second name, programs have the first one.
        for name in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            more.insert(name.into(), claimed.clone());
        }
        let question = network.ask(plugin, more)?;
        let runner = self.runners.find(plugin.kind())?;
        self.runners
            .run(Call::of(plugin, &runner, Verb::Gc), &Environment::default(), &question)
            .await
            .map(drop)
    }

    /// The versions that a plugin speaks.
    pub async fn versions(&self, kind: &str) -> Result<Vec<String>> {
        let runner = self.runners.find(kind)?;
        if let Runner::Builtin(_) = runner {
            return Ok(version::SUPPORTED.map(str::to_owned).to_vec());
        }
        // Very old plugins look at these even for VERSION.
        let dummy = || "dummy".to_owned();
        let at = Environment { netns: dummy(), interface: dummy(), ..Environment::default() };
        let question = json!({"cniVersion": version::CURRENT}).to_string();
        let call =
            Call { doing: format!("plugin {kind} failed (version)"), runner: &runner, verb: Verb::Version };
        let early = |versions: &[&str]| Ok(versions.iter().map(|text| (*text).to_owned()).collect());
        let answer = match self.runners.run(call, &at, question.as_bytes()).await {
            Err(error) if error.to_string().ends_with("unknown CNI_COMMAND: VERSION") => {
                return early(&["0.1.0"]);
            }
            answer => answer?,
        };
        let bad = |what: &str| Error::unknown(format!("decoding version info: {what}"));
        let info: Value = serde_json::from_slice(&answer).map_err(|error| bad(&error.to_string()))?;
        let supported: Vec<String> = match info.get("supportedVersions") {
            None | Some(Value::Null) => Vec::new(),
            Some(list) => serde_json::from_value(list.clone()).map_err(|error| bad(&error.to_string()))?,
        };
        match info.get("cniVersion").and_then(Value::as_str) {
            None | Some("") => Err(bad("missing field cniVersion")),
            Some("0.2.0") if supported.is_empty() => early(&["0.1.0", "0.2.0"]),
            Some(_) if supported.is_empty() => Err(bad("missing field supportedVersions")),
            Some(_) => Ok(supported),
        }
    }

    /// Whether all plugins of a network are there and speak its version; the capabilities that they declare.
    pub async fn validate(&self, network: &Network) -> Result<Vec<String>> {
        let version = if network.cni_version().is_empty() { "0.1.0" } else { network.cni_version() };
        let mut errors = Vec::new();
        for plugin in network.plugins() {
            match self.versions(plugin.kind()).await {
                Ok(versions) if versions.iter().any(|known| known == version) => {}
                Ok(_) => {
                    let kind = plugin.kind();
                    let text = format!("plugin {kind} does not support config version {version:?}");
                    errors.push(Error::precondition(text));
                }
                Err(error) => errors.push(error),
            }
        }
        all(errors)?;
        let mut declared: Vec<String> =
            network.plugins().iter().flat_map(Plugin::capabilities).map(str::to_owned).collect();
        declared.sort();
        declared.dedup();
        Ok(declared)
    }

    /// What a container is attached to, as far as it was written down.
    pub fn attachments(&self, container: &str) -> Result<Vec<Entry>> {
        self.cache.list(Some(container))
    }

    /// Detaches what an entry tells of, without its network standing anywhere else.
    pub(crate) async fn del_entry(&self, entry: &Entry, netns: &str) -> Result<()> {
        let doing = || format!("read the cached configuration of network {}", entry.network_name);
        let network = Network::kept(&entry.config).context(doing)?;
        self.del(&network, &Attachment::of(entry, netns)).await
    }
}

/// What plugins of DEL are told of ADD; nothing, if the version cannot say it or it cannot be read.
fn previous(network: &Network, entry: Entry) -> Option<AddResult> {
    let result = entry.result.filter(|_| network.version() >= WITH_CHECK)?;
    let converted = AddResult::kept(result).and_then(|result| result.to(network.cni_version()));
    converted.inspect_err(|error| warn!(network = network.name(), %error, "a cached result is as none")).ok()
}

/// Several errors as one, with the class of the first.
pub(crate) fn all(errors: Vec<Error>) -> Result<()> {
    let class = errors.first().map_or(Class::Unknown, Error::class);
    let mut errors = errors.into_iter();
    match (errors.next(), errors.as_slice()) {
        (None, _) => Ok(()),
        (Some(only), []) => Err(only),
        (Some(first), rest) => {
            let texts: Vec<String> = std::iter::once(&first).chain(rest).map(Error::to_string).collect();
            Err(Error::new(class, texts.join("; ")))
        }
    }
}
