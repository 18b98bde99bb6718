//! `containerd oci-hook`: stands in an OCI runtime's list of hooks, fills what the runtime tells about the container into
//! the arguments and environment of another program, and becomes that program.
//!
//! `{{id}}`, `{{bundle}}`, `{{rootfs}}`, `{{pid}}`, `{{status}}` and `{{annotation "key"}}` are filled in, as in Go's
//! templates; `{{-` and `-}}` take the blanks beside them away. Nothing else of that language is understood.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use types::{Error, Result, ResultExt};

/// What the runtime says on stdin (runtime-spec, `runtime.md#state`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    id: String,
    status: String,
    pid: i64,
    bundle: PathBuf,
    annotations: BTreeMap<String, String>,
}

/// As much of a bundle's `config.json` as is needed.
#[derive(Deserialize)]
struct Spec {
    root: Option<Root>,
}

#[derive(Deserialize)]
struct Root {
    #[serde(default)]
    path: PathBuf,
}

/// What templates are filled with.
struct Context {
    state: State,
    rootfs: PathBuf,
}

/// Becomes the program. Returns only if it cannot.
pub fn run(args: &[OsString]) -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context(|| "read state from stdin")?;
    let context = Context::read(&text)?;
    let mut args = args.iter().map(|arg| context.render(arg)).collect::<Result<Vec<_>>>()?.into_iter();
    let program = args.next().ok_or_else(|| Error::invalid("oci-hook needs the program to execute"))?;
    let mut command = Command::new(&program);
    command.args(args).env_clear();
    for (key, value) in std::env::vars_os() {
        command.env(key, context.render(&value)?);
    }
    Err(command.exec()).context(|| format!("execute {}", Path::new(&program).display()))
}

impl Context {
    fn read(state: &str) -> Result<Self> {
        let state: State =
            serde_json::from_str(state).map_err(|e| Error::invalid(format!("state on stdin: {e}")))?;
        let path = state.bundle.join("config.json");
        let spec = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
        let spec: Spec = serde_json::from_slice(&spec)
            .map_err(|e| Error::invalid(format!("read {}: {e}", path.display())))?;
        let root = spec.root.map(|root| root.path).unwrap_or_default();
        // An absolute path stays what it is.
        let rootfs = state.bundle.join(root);
        Ok(Self { state, rootfs })
    }

    /// Bytes that are no text have nothing to fill in.
    fn render(&self, source: &OsStr) -> Result<OsString> {
        let Some(mut rest) = source.to_str() else { return Ok(source.to_owned()) };
        let mut out = String::new();
        while let Some((before, action)) = rest.split_once("{{") {
            let (action, after) = action
                .split_once("}}")
                .ok_or_else(|| Error::invalid(format!("unclosed action in {rest:?}")))?;
            let (before, action) = match action.strip_prefix("- ") {
                Some(action) => (before.trim_end(), action),
                None => (before, action),
            };
            let (action, after) = match action.strip_suffix(" -") {
                Some(action) => (action, after.trim_start()),
                None => (action, after),
            };
            out.push_str(before);
            out.push_str(&self.value(action.trim())?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out.into())
    }

    fn value(&self, action: &str) -> Result<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Ok(match action {
            "id" => self.state.id.clone(),
            "bundle" => text(&self.state.bundle),
            "rootfs" => text(&self.rootfs),
            "pid" => self.state.pid.to_string(),
            "status" => self.state.status.clone(),
            action => {
                let key = action.strip_prefix("annotation ").and_then(|key| quoted(key.trim()));
                let key = key.ok_or_else(|| Error::invalid(format!("{{{{{action}}}}} is not understood")))?;
                self.state.annotations.get(&key).cloned().unwrap_or_default()
            }
        })
    }
}

/// What a Go string means.
fn quoted(text: &str) -> Option<String> {
    if let Some(raw) = text.strip_prefix('`') {
        return raw.strip_suffix('`').filter(|raw| !raw.contains('`')).map(str::to_owned);
    }
    // Keys of annotations need no more escapes than those of JSON.
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        let state = State {
            id: "c1".into(),
            status: "created".into(),
            pid: 7,
            bundle: "/b".into(),
            annotations: [("a.b/c".into(), "v".into())].into(),
        };
        Context { state, rootfs: "/b/rootfs".into() }
    }

    #[test]
    fn what_is_known_is_filled_in() {
        for (source, text) in [
            ("--id={{id}}", "--id=c1"),
            ("{{ bundle }}:{{rootfs}}:{{pid}}:{{status}}", "/b:/b/rootfs:7:created"),
            ("{{annotation \"a.b/c\"}}{{annotation `a.b/c`}}{{annotation \"none\"}}", "vv"),
            ("a {{- id -}} b", "ac1b"),
            ("plain }} text {", "plain }} text {"),
        ] {
            assert_eq!(context().render(source.as_ref()).unwrap(), text, "{source}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for source in ["{{", "{{nope}}", "{{annotation}}", "{{annotation x}}", "{{printf \"%d\" 1}}", "{{}}"]
        {
            assert!(context().render(source.as_ref()).is_err(), "{source}");
        }
    }

    #[test]
    fn a_relative_root_is_below_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().display();
        for (root, rootfs) in [("rootfs", format!("{bundle}/rootfs")), ("/abs", "/abs".to_owned())] {
            std::fs::write(dir.path().join("config.json"), format!(r#"{{"root":{{"path":"{root}"}}}}"#))
                .unwrap();
            let context = Context::read(&format!(r#"{{"id":"x","bundle":"{bundle}","extra":1}}"#)).unwrap();
            assert_eq!(context.rootfs, Path::new(&rootfs));
        }
    }
}
