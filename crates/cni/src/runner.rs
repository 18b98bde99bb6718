//! Who does what a plugin is for: its program, or what is built in here under its name.
//!
//! ```text
//!  ADD                  always: built in     never: the program     auto: the program, if it is there
//!  DEL, CHECK           who did ADD, as the entry says; if it says nothing, as ADD
//!  STATUS, GC, ...      as ADD
//! ```
//!
//! It matters who: Go's programs leave rules of iptables, ours of nf_tables, and neither knows the other's.

use std::path::PathBuf;

use serde_json::Value;
use types::{Result, ResultExt};

use crate::builtin::{self, Asked, Builtin, Delegate, Kind};
use crate::conf::{Network, Plugin};
use crate::plugin::{self, Environment, Limits, Program, Verb};

/// Who it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Runner {
    Program(PathBuf),
    Builtin(Kind),
}

/// A network's plugins with those who do it, in order.
pub(crate) type Chain<'a> = Vec<(&'a Plugin, Runner)>;

/// One call of a plugin.
pub(crate) struct Call<'a> {
    /// What errors begin with.
    pub doing: String,
    pub runner: &'a Runner,
    pub verb: Verb,
}

impl<'a> Call<'a> {
    pub fn of(plugin: &Plugin, runner: &'a Runner, verb: Verb) -> Self {
        Self { doing: failed(plugin, verb), runner, verb }
    }
}

/// What errors of a plugin begin with.
pub(crate) fn failed(plugin: &Plugin, verb: Verb) -> String {
    format!("plugin {} failed ({})", plugin.description(), verb.word())
}

/// All who can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Runners {
    /// Where programs are.
    pub dirs: Vec<PathBuf>,
    pub limits: Limits,
    pub builtin: Builtin,
}

impl Runners {
    /// Who does ADD for plugins of this type.
    pub fn find(&self, kind: &str) -> Result<Runner> {
        match (Kind::of(kind), self.builtin) {
            (Some(kind), Builtin::Always) => Ok(Runner::Builtin(kind)),
            (Some(built_in), Builtin::Auto) => match plugin::find(kind, &self.dirs) {
                Ok(path) => Ok(Runner::Program(path)),
                Err(error) if error.is_not_found() || self.dirs.is_empty() => Ok(Runner::Builtin(built_in)),
                Err(error) => Err(error),
            },
            (_, Builtin::Never) | (None, _) => plugin::find(kind, &self.dirs).map(Runner::Program),
        }
    }

    /// Finds all plugins of a network, before any is run.
    pub fn chain<'a>(&self, network: &'a Network) -> Result<Chain<'a>> {
        network.plugins().iter().map(|plugin| Ok((plugin, self.find(plugin.kind())?))).collect()
    }

    /// The same, with those that were built in at ADD, if that is known.
    pub fn chain_of<'a>(&self, network: &'a Network, built_in: Option<&[String]>) -> Result<Chain<'a>> {
        let Some(built_in) = built_in else { return self.chain(network) };
        let runner = |plugin: &Plugin| match Kind::of(plugin.kind()) {
            Some(kind) if built_in.iter().any(|name| name == plugin.kind()) => Ok(Runner::Builtin(kind)),
            // A program that is gone leaves rules that only it knows; the rest is done here.
            _ => plugin::find(plugin.kind(), &self.dirs)
                .map(Runner::Program)
                .or_else(|error| self.find(plugin.kind()).map_err(|_| error)),
        };
        network.plugins().iter().map(|plugin| Ok((plugin, runner(plugin)?))).collect()
    }

    /// Asks, and answers with what was said.
    pub async fn run(&self, call: Call<'_>, at: &Environment, question: &[u8]) -> Result<Vec<u8>> {
        let Call { doing, runner, verb } = call;
        match runner {
            Runner::Program(path) => {
                let program = Program { doing: &doing, path, dirs: &self.dirs, limits: self.limits };
                program.run(verb, at, question).await
            }
            Runner::Builtin(kind) => {
                let others = (self.limits.time, self.delegate(at.clone()));
                let answer = async {
                    let asked = Asked::new(verb, at.clone(), question, others)?;
                    let answer = builtin::run(*kind, asked).await?;
                    answer.map(|result| result.to_json()).transpose()
                };
                let json = answer.await.context(|| doing)?;
                Ok(json.map(|json| Value::Object(json).to_string().into_bytes()).unwrap_or_default())
            }
        }
    }

    /// How a plugin that is built in asks one that is a program.
    fn delegate(&self, environment: Environment) -> Delegate {
        let (dirs, limits) = (self.dirs.clone(), self.limits);
        let runtime = tokio::runtime::Handle::current();
        Box::new(move |kind, verb, question| {
            let path = plugin::find(kind, &dirs)?;
            let doing = format!("plugin type={kind:?} failed ({})", verb.word());
            let program = Program { doing: &doing, path: &path, dirs: &dirs, limits };
            runtime.block_on(program.run(verb, &environment, question))
        })
    }
}

/// Those of a chain that are.
pub(crate) fn built_in(chain: &Chain<'_>) -> Vec<String> {
    let built_in = chain.iter().filter(|(_, runner)| matches!(runner, Runner::Builtin(_)));
    built_in.map(|(plugin, _)| plugin.kind().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn who_does_it_is_who_did_it_before() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("bridge");
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let list = br#"{"name": "n", "plugins": [{"type": "bridge"}, {"type": "firewall"}]}"#;
        let network = Network::parse(list).unwrap();
        let of = |builtin| Runners { dirs: vec![dir.path().into()], limits: Limits::default(), builtin };
        let (bridge, firewall) = (Runner::Builtin(Kind::Bridge), Runner::Builtin(Kind::Firewall));
        let program = Runner::Program(program);
        let who = |chain: Chain<'_>| chain.into_iter().map(|(_, runner)| runner).collect::<Vec<_>>();
        assert_eq!(who(of(Builtin::Auto).chain(&network).unwrap()), [program.clone(), firewall.clone()]);
        assert_eq!(who(of(Builtin::Always).chain(&network).unwrap()), [bridge.clone(), firewall.clone()]);
        assert!(of(Builtin::Never).chain(&network).is_err());
        // Another rule since then, and what it says of a program that is gone.
        let both = ["bridge".to_owned(), "firewall".to_owned()];
        for builtin in [Builtin::Auto, Builtin::Always, Builtin::Never] {
            let chain = of(builtin).chain_of(&network, Some(&both)).unwrap();
            assert_eq!(who(chain), [bridge.clone(), firewall.clone()]);
        }
        let chain = of(Builtin::Always).chain_of(&network, Some(&[])).unwrap();
        assert_eq!(who(chain), [program, firewall]);
        let error = of(Builtin::Never).chain_of(&network, Some(&[])).unwrap_err().to_string();
        assert!(error.contains("failed to find plugin \"firewall\""), "{error}");
        assert!(of(Builtin::Always).find("calico").is_err());
    }
}
