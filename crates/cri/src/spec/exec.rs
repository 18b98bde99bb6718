//! The process of an exec: the container's, with other arguments and perhaps a terminal.

use serde_json::Value;
use types::oci::spec::merge_env;
use types::{Any, Error, Result, any};

use super::document::Document;
use super::{base, capabilities, checks};

/// The process that runs `args` in the container with this spec. User, environment, capabilities, filters and labels are the
/// container's.
pub fn process(spec: &Value, args: &[String], tty: bool) -> Result<Value> {
    if args.is_empty() {
        return Err(Error::invalid("cmd: no command specified"));
    }
    args.iter().try_for_each(|arg| checks::text("cmd", arg))?;
    let process = spec.get("process").cloned().unwrap_or_default();
    let mut document = base::from_value(serde_json::json!({ "process": process }))?;
    capabilities::clear_inherited(&mut document);
    let Document { mut process, .. } = document;
    process.terminal = tty;
    if tty {
        process.env = merge_env(&process.env, &["TERM=xterm".to_owned()]);
    }
    process.args = args.to_vec();
    process.rest.remove("commandLine");
    serde_json::to_value(process).map_err(|e| Error::internal(format!("encode the process of an exec: {e}")))
}

/// A process as `tasks.exec` takes it.
pub fn process_any(process: &Value) -> Any {
    Any::new(any::RUNTIME_PROCESS, process.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_exec_is_as_confined_as_its_container_and_inherits_nothing() {
        let spec = json!({ "process": {
            "terminal": true, "args": ["sh"], "env": ["A=1", "TERM=dumb"], "cwd": "/w", "user": { "uid": 7, "gid": 8, "umask": 18 },
            "capabilities": { "bounding": ["CAP_KILL"], "inheritable": ["CAP_KILL"] },
            "noNewPrivileges": true, "apparmorProfile": "p", "selinuxLabel": "l", "oomScoreAdj": 900, "commandLine": "x",
            "scheduler": { "policy": "SCHED_OTHER" },
        } });
        let args = vec!["ps".to_owned()];
        let process = process(&spec, &args, false).unwrap();
        assert_eq!(
            process,
            json!({
                "args": ["ps"], "env": ["A=1", "TERM=dumb"], "cwd": "/w", "user": { "uid": 7, "gid": 8, "umask": 18 },
                "capabilities": { "bounding": ["CAP_KILL"] },
                "noNewPrivileges": true, "apparmorProfile": "p", "selinuxLabel": "l", "oomScoreAdj": 900,
                "scheduler": { "policy": "SCHED_OTHER" },
            })
        );
        let terminal = super::process(&spec, &args, true).unwrap();
        assert_eq!((&terminal["terminal"], &terminal["env"]), (&json!(true), &json!(["A=1", "TERM=xterm"])));
    }

    #[test]
    fn an_exec_needs_a_command() {
        assert!(process(&json!({}), &[], false).is_err());
        assert!(process(&json!({}), &["a\0".to_owned()], false).is_err());
    }
}
