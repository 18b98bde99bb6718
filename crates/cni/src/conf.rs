//! A network: its name, its version, its plugins in order.
//!
//! ```text
//!  .conflist          {"cniVersion": ..., "name": ..., "plugins": [{"type": ...}, ...]}
//!  .conf, .json       one plugin with a name; becomes a list of one
//! ```

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use types::{Error, Result, ResultExt};

use crate::names;
use crate::result::AddResult;
use crate::version::{self, Version};

/// The largest configuration that is read.
pub(crate) const LARGEST: u64 = 1 << 20;

/// A network.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    name: String,
    cni_version: String,
    number: Version,
    /// Whether CHECK asks nobody.
    pub disable_check: bool,
    /// Whether GC asks nobody.
    pub disable_gc: bool,
    /// Whether plugins in a directory of the network's name count, too.
    pub(crate) inlined_only: bool,
    pub(crate) plugins: Vec<Plugin>,
    source: Vec<u8>,
}

/// A plugin of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    kind: String,
    capabilities: BTreeMap<String, bool>,
    pub(crate) config: Map<String, Value>,
}

impl Network {
    /// A list of plugins. It may have none, if those of its directory count.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let list = object(bytes).context(|| "error parsing configuration list")?;
        Self::of_list(&list, bytes).context(|| "error parsing configuration list")
    }

    /// A single plugin, which becomes a list of one.
    pub fn parse_single(bytes: &[u8]) -> Result<Self> {
        let config = object(bytes).context(|| "error parsing configuration")?;
        let text = |key: &str| match config.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Null) | None => Ok(String::new()),
            Some(other) => Err(Error::invalid(format!("error parsing configuration: {key} is {other}"))),
        };
        let (name, version) = (text("name")?, text("cniVersion")?);
        let list = json!({"name": name, "cniVersion": version, "plugins": [config]});
        Self::parse(list.to_string().as_bytes())
    }

    fn of_list(list: &Map<String, Value>, source: &[u8]) -> Result<Self> {
        let name = match list.get("name") {
            Some(Value::String(name)) => name.clone(),
            None => return Err(Error::invalid("no name")),
            Some(other) => return Err(Error::invalid(format!("invalid name {other}"))),
        };
        names::network(&name)?;
        let cni_version = chosen_version(list)?;
        let number = cni_version.parse()?;
        let inlined_only = truth(list, "loadOnlyInlinedPlugins")?;
        let plugins = match list.get("plugins") {
            None if inlined_only => {
                return Err(Error::invalid("`loadOnlyInlinedPlugins` is true, and no 'plugins' key"));
            }
            None => Vec::new(),
            Some(Value::Array(plugins)) if plugins.is_empty() => {
                return Err(Error::invalid("no plugins in list"));
            }
            Some(Value::Array(plugins)) => {
                let parsed = plugins.iter().enumerate().map(|(at, plugin)| {
                    Plugin::of(plugin).context(|| format!("failed to parse plugin config {at}"))
                });
                parsed.collect::<Result<_>>()?
            }
            Some(_) => return Err(Error::invalid("invalid 'plugins' type")),
        };
        Ok(Self {
            name,
            cni_version,
            number,
            disable_check: truth(list, "disableCheck")?,
            disable_gc: truth(list, "disableGC")?,
            inlined_only,
            plugins,
            source: source.to_vec(),
        })
    }

    /// The configuration as the cache had it: a list, or from older programs a single plugin.
    pub(crate) fn kept(bytes: &[u8]) -> Result<Self> {
        let is_list = object(bytes)?.contains_key("plugins");
        if is_list { Self::parse(bytes) } else { Self::parse_single(bytes) }
    }

    /// Adds plugins that stand in files of their own. From now on the source has them, too, so that whoever reads the
    /// cache needs no directory.
    pub(crate) fn extend(&mut self, plugins: Vec<Plugin>) -> Result<()> {
        if plugins.is_empty() {
            return Ok(());
        }
        self.plugins.extend(plugins);
        let mut list = object(&self.source)?;
        let all = self.plugins.iter().map(|plugin| Value::Object(plugin.config.clone())).collect();
        list.insert("plugins".into(), Value::Array(all));
        list.insert("loadOnlyInlinedPlugins".into(), true.into());
        self.source = Value::Object(list).to_string().into_bytes();
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that its plugins are asked in, as it was written.
    pub fn cni_version(&self) -> &str {
        &self.cni_version
    }

    /// The same as a number.
    pub(crate) fn version(&self) -> Version {
        self.number
    }

    /// Its plugins, in the order of ADD.
    pub fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// The bytes that it was read from; for a single plugin the list that it became.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// What `plugin` gets for its standard input: its configuration with the network's name and version, the result so
    /// far, and of `capabilities` what it declares.
    pub(crate) fn question(
        &self,
        plugin: &Plugin,
        previous: Option<&AddResult>,
        capabilities: &Map<String, Value>,
    ) -> Result<Vec<u8>> {
        let mut more = Map::new();
        if let Some(previous) = previous {
            more.insert("prevResult".into(), Value::Object(previous.to_json()?));
        }
        let declared = capabilities.iter().filter(|(name, _)| plugin.has(name));
        let declared: Map<_, _> = declared.map(|(name, value)| (name.clone(), value.clone())).collect();
        if !declared.is_empty() {
            more.insert("runtimeConfig".into(), Value::Object(declared));
        }
        self.ask(plugin, more)
    }

    /// `plugin`'s configuration with the network's name and version, and with `more`.
    pub(crate) fn ask(&self, plugin: &Plugin, more: Map<String, Value>) -> Result<Vec<u8>> {
        let mut config = plugin.config.clone();
        config.insert("name".into(), self.name.clone().into());
        config.insert("cniVersion".into(), self.cni_version.clone().into());
        config.extend(more);
        serde_json::to_vec(&config).map_err(|error| Error::internal(format!("encode configuration: {error}")))
    }
}

impl Plugin {
    /// A plugin's own configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::of(&Value::Object(object(bytes).context(|| "error parsing configuration")?))
    }

    fn of(value: &Value) -> Result<Self> {
        let bad = |why: String| Error::invalid(format!("error parsing configuration: {why}"));
        let Value::Object(config) = value else { return Err(bad(format!("a plugin is no {value}"))) };
        let kind = match config.get("type") {
            Some(Value::String(kind)) if !kind.is_empty() => kind.clone(),
            Some(Value::String(_) | Value::Null) | None => return Err(bad("missing 'type'".into())),
            Some(other) => return Err(bad(format!("type is {other}"))),
        };
        names::plugin(&kind)?;
        let capabilities = match config.get("capabilities") {
            None => BTreeMap::new(),
            Some(value) => Option::<BTreeMap<String, bool>>::deserialize(value)
                .map_err(|error| bad(format!("capabilities: {error}")))?
                .unwrap_or_default(),
        };
        Ok(Self { kind, capabilities, config: config.clone() })
    }

    /// Its program's name.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The capabilities that it declares.
    pub fn capabilities(&self) -> impl Iterator<Item = &str> {
        self.capabilities.iter().filter(|(_, has)| **has).map(|(name, _)| name.as_str())
    }

    fn has(&self, capability: &str) -> bool {
        self.capabilities.get(capability).copied().unwrap_or_default()
    }

    /// As errors name it.
    pub(crate) fn description(&self) -> String {
        match self.config.get("name") {
            Some(Value::String(name)) if !name.is_empty() => format!("type={:?} name={name:?}", self.kind),
            _ => format!("type={:?}", self.kind),
        }
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|error| Error::invalid(error.to_string()))
}

/// `true`, or the word.
fn truth(list: &Map<String, Value>, key: &str) -> Result<bool> {
    match list.get(key) {
        None => Ok(false),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(Error::invalid(format!("invalid value {other} for {key}"))),
    }
}

/// Of `cniVersion` and `cniVersions` the newest that is spoken here.
fn chosen_version(list: &Map<String, Value>) -> Result<String> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(Error::invalid(format!("invalid version {other}"))),
    };
    let single = list.get("cniVersion").map(text).transpose()?;
    let several = match list.get("cniVersions") {
        None => return Ok(single.unwrap_or_default()),
        Some(Value::Array(several)) => several.iter().map(text).collect::<Result<Vec<_>>>()?,
        Some(other) => return Err(Error::invalid(format!("invalid type for cniVersions: {other}"))),
    };
    let newest: Version = version::CURRENT.parse()?;
    let mut spoken = Vec::new();
    for text in several.into_iter().chain(single.clone().filter(|text| !text.is_empty())) {
        let number: Version = text.parse()?;
        if number <= newest {
            spoken.push((number, text));
        }
    }
    spoken.sort();
    Ok(spoken.pop().map_or(single.unwrap_or_default(), |(_, text)| text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Result<Network> {
        Network::parse(text.as_bytes())
    }

    #[track_caller]
    fn refused(text: &str) -> String {
        network(text).unwrap_err().to_string()
    }

    #[test]
    fn a_list_has_a_name_a_version_and_plugins() {
        let text = r#"{"name":"n","cniVersion":"1.0.0","disableCheck":"True","plugins":[{"type":"a"},{"type":"b"}]}"#;
        let list = network(text).unwrap();
        assert_eq!((list.name(), list.cni_version(), list.source()), ("n", "1.0.0", text.as_bytes()));
        assert!(list.disable_check && !list.disable_gc);
        assert_eq!(list.plugins().iter().map(Plugin::kind).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_single_plugin_becomes_a_list() {
        let single = br#"{"name":"n","cniVersion":"0.3.1","type":"bridge","mtu":9007199254740993}"#;
        let list = Network::parse_single(single).unwrap();
        assert_eq!((list.name(), list.cni_version(), list.plugins().len()), ("n", "0.3.1", 1));
        assert_eq!(list.plugins[0].config["mtu"], 9_007_199_254_740_993_i64);
        assert_eq!(list.plugins[0].description(), r#"type="bridge" name="n""#);
        assert_eq!(Network::kept(single).unwrap().plugins, list.plugins);
        assert_eq!(Network::kept(list.source()).unwrap().plugins, list.plugins);
    }

    #[test]
    fn of_several_versions_the_newest_that_is_spoken_counts() {
        let version = |versions: &str| {
            network(&format!(r#"{{"name":"n",{versions},"plugins":[{{"type":"a"}}]}}"#))
                .map(|list| list.cni_version)
        };
        assert_eq!(version(r#""cniVersions":["0.4.0","1.1.0","1.0.0"]"#).unwrap(), "1.1.0");
        assert_eq!(version(r#""cniVersions":["9.0.0"],"cniVersion":"0.4.0""#).unwrap(), "0.4.0");
        assert_eq!(version(r#""cniVersions":["9.0.0"]"#).unwrap(), "");
        assert!(version(r#""cniVersions":["x"]"#).is_err() && version(r#""cniVersions":"1.0.0""#).is_err());
        assert!(version(r#""cniVersion":7"#).is_err() && version(r#""cniVersion":"x""#).is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(refused("[]").starts_with("error parsing configuration list: "));
        assert_eq!(refused("{}"), "error parsing configuration list: no name");
        let name = refused(r#"{"name":"../x"}"#);
        assert!(name.ends_with("invalid characters found in network name; ../x"), "{name}");
        assert!(refused(r#"{"name":"n","plugins":[]}"#).ends_with("no plugins in list"));
        assert!(refused(r#"{"name":"n","loadOnlyInlinedPlugins":true}"#).ends_with("no 'plugins' key"));
        let kind = refused(r#"{"name":"n","plugins":[{"type":"../../bin/sh"}]}"#);
        assert!(
            kind.ends_with("failed to parse plugin config 0: invalid plugin name: ../../bin/sh"),
            "{kind}"
        );
        assert!(refused(r#"{"name":"n","plugins":[{}]}"#).ends_with("missing 'type'"));
        for bad in [
            r#"{"name":7}"#,
            r#"{"name":"n","plugins":{}}"#,
            r#"{"name":"n","plugins":[7]}"#,
            r#"{"name":"n","plugins":[{"type":7}]}"#,
            r#"{"name":"n","disableGC":"maybe"}"#,
            r#"{"name":"n","plugins":[{"type":"a","capabilities":["dns"]}]}"#,
        ] {
            refused(bad);
        }
        refused(&format!(r#"{{"name":"n","plugins":[{}"#, "[".repeat(100_000)));
    }

    #[test]
    fn a_plugin_gets_only_the_capabilities_that_it_declares() {
        let text = r#"{"name":"n","cniVersion":"1.0.0","plugins":[
            {"type":"a","capabilities":{"mac":true,"ips":false},"ipam":{"type":"x"}},{"type":"b"}]}"#;
        let list = network(text).unwrap();
        let given = json!({"mac": "aa", "ips": ["10.0.0.1"], "dns": {}});
        let asked = |at: usize, previous: Option<&AddResult>| -> Value {
            let question = list.question(&list.plugins[at], previous, given.as_object().unwrap());
            serde_json::from_slice(&question.unwrap()).unwrap()
        };
        let wanted = json!({"type": "a", "capabilities": {"mac": true, "ips": false}, "ipam": {"type": "x"},
            "name": "n", "cniVersion": "1.0.0", "runtimeConfig": {"mac": "aa"}});
        assert_eq!(asked(0, None), wanted);
        let previous = AddResult::parse(b"{}", "1.0.0").unwrap();
        let wanted =
            json!({"type": "b", "name": "n", "cniVersion": "1.0.0", "prevResult": {"cniVersion": "1.0.0"}});
        assert_eq!(asked(1, Some(&previous)), wanted);
    }

    #[test]
    fn plugins_of_a_directory_are_in_the_source_afterwards() {
        let mut list = network(r#"{"name":"n","cniVersion":"1.1.0","plugins":[{"type":"a"}]}"#).unwrap();
        list.extend(vec![Plugin::parse(br#"{"type":"b"}"#).unwrap()]).unwrap();
        let again = Network::parse(list.source()).unwrap();
        assert!(again.inlined_only);
        assert_eq!(again.plugins, list.plugins);
    }
}
