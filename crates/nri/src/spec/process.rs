//! What is adjusted of the process: variables, hooks, limits, priorities.

use serde_json::{Map, Value, json};
use types::{Error, Result};

use super::edit::{list, remove, set};
use crate::owners::removal;
use crate::wire::{
    Hook, Hooks, IoPrioClass, KeyValue, LinuxIoPriority, LinuxScheduler, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, PosixRlimit,
};

/// Variables: one that is there keeps its place.
pub fn env(spec: &mut Value, asked: &[KeyValue]) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let all = list(spec, "/process/env")?;
    let is = |had: &Value, key: &str| had.as_str().and_then(|text| text.split('=').next()) == Some(key);
    for variable in asked {
        let Some(key) = removal(&variable.key) else {
            let text = json!(format!("{}={}", variable.key, variable.value));
            match all.iter_mut().find(|had| is(had, &variable.key)) {
                Some(had) => *had = text,
                None => all.push(text),
            }
            continue;
        };
        // One that is set anew keeps its place, too.
        if !asked.iter().any(|other| other.key == key) {
            all.retain(|had| !is(had, key));
        }
    }
    Ok(())
}

/// Appends hooks.
pub fn hooks(spec: &mut Value, asked: &Hooks) -> Result<()> {
    for (kind, hooks) in [
        ("prestart", &asked.prestart),
        ("createRuntime", &asked.create_runtime),
        ("createContainer", &asked.create_container),
        ("startContainer", &asked.start_container),
        ("poststart", &asked.poststart),
        ("poststop", &asked.poststop),
    ] {
        if !hooks.is_empty() {
            list(spec, &format!("/hooks/{kind}"))?.extend(hooks.iter().map(hook));
        }
    }
    Ok(())
}

fn hook(hook: &Hook) -> Value {
    let mut made = Map::from_iter([("path".to_owned(), json!(hook.path))]);
    for (key, texts) in [("args", &hook.args), ("env", &hook.env)] {
        if !texts.is_empty() {
            made.insert(key.to_owned(), json!(texts));
        }
    }
    if let Some(timeout) = hook.timeout {
        made.insert("timeout".to_owned(), json!(timeout.value));
    }
    Value::Object(made)
}

/// Limits of the process, one of each type.
pub fn rlimits(spec: &mut Value, asked: &[PosixRlimit]) -> Result<()> {
    for limit in asked {
        let all = list(spec, "/process/rlimits")?;
        all.retain(|had| had.get("type").and_then(Value::as_str) != Some(&limit.r#type));
        all.push(json!({"type": limit.r#type, "hard": limit.hard, "soft": limit.soft}));
    }
    Ok(())
}

/// Of input and output. No class is none.
pub fn priority(spec: &mut Value, asked: Option<&LinuxIoPriority>) -> Result<()> {
    const AT: &str = "/process/ioPriority";
    let Some(asked) = asked else { return Ok(()) };
    let class = IoPrioClass::try_from(asked.class)
        .map_err(|_| Error::invalid(format!("I/O priority: unknown class {}", asked.class)))?;
    match class {
        IoPrioClass::IoprioClassNone => {
            remove(spec, AT);
            Ok(())
        }
        IoPrioClass::IoprioClassRt | IoPrioClass::IoprioClassBe | IoPrioClass::IoprioClassIdle => {
            set(spec, AT, json!({"class": class.as_str_name(), "priority": asked.priority}))
        }
    }
}

/// Of the processor. No policy is none.
pub fn scheduler(spec: &mut Value, asked: Option<&LinuxScheduler>) -> Result<()> {
    const AT: &str = "/process/scheduler";
    let Some(asked) = asked else { return Ok(()) };
    let unknown = |what: &str, number: i32| Error::invalid(format!("scheduler: unknown {what} {number}"));
    let policy = LinuxSchedulerPolicy::try_from(asked.policy).map_err(|_| unknown("policy", asked.policy))?;
    if policy == LinuxSchedulerPolicy::SchedNone {
        remove(spec, AT);
        return Ok(());
    }
    let flags = asked.flags.iter().map(|flag| {
        let flag = LinuxSchedulerFlag::try_from(*flag).map_err(|_| unknown("flag", *flag))?;
        Ok(json!(flag.as_str_name()))
    });
    let flags = flags.collect::<Result<Vec<_>>>()?;
    let mut made = Map::from_iter([("policy".to_owned(), json!(policy.as_str_name()))]);
    let numbers = [
        ("nice", json!(asked.nice)),
        ("priority", json!(asked.priority)),
        ("flags", Value::Array(flags)),
        ("runtime", json!(asked.runtime)),
        ("deadline", json!(asked.deadline)),
        ("period", json!(asked.period)),
    ];
    let said = |value: &Value| *value != json!(0) && *value != json!([]);
    made.extend(numbers.into_iter().filter(|(_, value)| said(value)).map(|(key, v)| (key.to_owned(), v)));
    set(spec, AT, Value::Object(made))
}
