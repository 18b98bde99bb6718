//! What a spec says, for plugins.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::wire::{
    Container, Hook, Hooks, HugepageLimit, IoPrioClass, LinuxContainer, LinuxCpu, LinuxDevice,
    LinuxDeviceCgroup, LinuxIoPriority, LinuxMemory, LinuxNamespace, LinuxNetDevice, LinuxPids, LinuxRdt,
    LinuxResources, LinuxScheduler, LinuxSchedulerFlag, LinuxSchedulerPolicy, LinuxSeccomp, LinuxSeccompArg,
    LinuxSyscall, Mount, OptionalBool, OptionalFileMode, OptionalInt, OptionalInt64, OptionalRepeatedString,
    OptionalString, OptionalUInt32, OptionalUInt64, PosixRlimit, User,
};

/// A container as its spec has it. Who calls adds ids, labels and state.
pub fn describe(spec: &Value) -> Container {
    let process = &spec["process"];
    Container {
        annotations: map(&spec["annotations"]),
        args: texts(&process["args"]),
        env: texts(&process["env"]),
        mounts: all(&spec["mounts"], |mount| Mount {
            destination: text(&mount["destination"]),
            r#type: text(&mount["type"]),
            source: text(&mount["source"]),
            options: texts(&mount["options"]),
        }),
        hooks: hooks(&spec["hooks"]),
        linux: Some(linux(spec)),
        rlimits: all(&process["rlimits"], |limit| PosixRlimit {
            r#type: text(&limit["type"]),
            hard: limit["hard"].as_u64().unwrap_or_default(),
            soft: limit["soft"].as_u64().unwrap_or_default(),
        }),
        user: process.get("user").map(|user| User {
            uid: small(&user["uid"]).unwrap_or_default(),
            gid: small(&user["gid"]).unwrap_or_default(),
            additional_gids: all(&user["additionalGids"], |gid| small(gid).unwrap_or_default()),
        }),
        ..Container::default()
    }
}

fn linux(spec: &Value) -> LinuxContainer {
    let (process, linux) = (&spec["process"], &spec["linux"]);
    LinuxContainer {
        namespaces: namespaces(spec),
        devices: all(&linux["devices"], |device| LinuxDevice {
            path: text(&device["path"]),
            r#type: text(&device["type"]),
            major: device["major"].as_i64().unwrap_or_default(),
            minor: device["minor"].as_i64().unwrap_or_default(),
            file_mode: small(&device["fileMode"]).map(|value| OptionalFileMode { value }),
            uid: small(&device["uid"]).map(|value| OptionalUInt32 { value }),
            gid: small(&device["gid"]).map(|value| OptionalUInt32 { value }),
        }),
        resources: resources(spec),
        oom_score_adj: process["oomScoreAdj"].as_i64().map(|value| OptionalInt { value }),
        cgroups_path: text(&linux["cgroupsPath"]),
        io_priority: priority(&process["ioPriority"]),
        seccomp_profile: None,
        seccomp_policy: present(&linux["seccomp"]).map(seccomp),
        sysctl: map(&linux["sysctl"]),
        net_devices: entries(&linux["netDevices"], |device| LinuxNetDevice { name: text(&device["name"]) }),
        scheduler: present(&process["scheduler"]).map(scheduler),
        rdt: present(&linux["intelRdt"]).map(|rdt| LinuxRdt {
            clos_id: Some(OptionalString { value: text(&rdt["closID"]) }),
            schemata: Some(OptionalRepeatedString { value: texts(&rdt["schemata"]) }),
            enable_monitoring: Some(OptionalBool {
                value: rdt["enableMonitoring"].as_bool().unwrap_or_default(),
            }),
            remove: false,
        }),
    }
}

/// The namespaces of a spec.
pub fn namespaces(spec: &Value) -> Vec<LinuxNamespace> {
    let namespace = |namespace: &Value| LinuxNamespace {
        r#type: text(&namespace["type"]),
        path: text(&namespace["path"]),
    };
    all(&spec["linux"]["namespaces"], namespace)
}

/// The limits of a spec.
pub fn resources(spec: &Value) -> Option<LinuxResources> {
    let resources = present(&spec["linux"]["resources"])?;
    let signed = |value: &Value| value.as_i64().map(|value| OptionalInt64 { value });
    let unsigned = |value: &Value| value.as_u64().map(|value| OptionalUInt64 { value });
    let truth = |value: &Value| value.as_bool().map(|value| OptionalBool { value });
    Some(LinuxResources {
        memory: present(&resources["memory"]).map(|memory| LinuxMemory {
            limit: signed(&memory["limit"]),
            reservation: signed(&memory["reservation"]),
            swap: signed(&memory["swap"]),
            kernel: signed(&memory["kernel"]),
            kernel_tcp: signed(&memory["kernelTCP"]),
            swappiness: unsigned(&memory["swappiness"]),
            disable_oom_killer: truth(&memory["disableOOMKiller"]),
            use_hierarchy: truth(&memory["useHierarchy"]),
        }),
        cpu: present(&resources["cpu"]).map(|cpu| LinuxCpu {
            shares: unsigned(&cpu["shares"]),
            quota: signed(&cpu["quota"]),
            period: unsigned(&cpu["period"]),
            realtime_runtime: signed(&cpu["realtimeRuntime"]),
            realtime_period: unsigned(&cpu["realtimePeriod"]),
            cpus: text(&cpu["cpus"]),
            mems: text(&cpu["mems"]),
        }),
        hugepage_limits: all(&resources["hugepageLimits"], |limit| HugepageLimit {
            page_size: text(&limit["pageSize"]),
            limit: limit["limit"].as_u64().unwrap_or_default(),
        }),
        unified: map(&resources["unified"]),
        devices: all(&resources["devices"], |rule| LinuxDeviceCgroup {
            allow: rule["allow"].as_bool().unwrap_or_default(),
            r#type: text(&rule["type"]),
            major: signed(&rule["major"]),
            minor: signed(&rule["minor"]),
            access: text(&rule["access"]),
        }),
        pids: present(&resources["pids"])
            .map(|pids| LinuxPids { limit: pids["limit"].as_i64().unwrap_or_default() }),
        ..LinuxResources::default()
    })
}

fn hooks(hooks: &Value) -> Option<Hooks> {
    let of = |kind: &str| {
        all(&hooks[kind], |hook| Hook {
            path: text(&hook["path"]),
            args: texts(&hook["args"]),
            env: texts(&hook["env"]),
            timeout: hook["timeout"].as_i64().map(|value| OptionalInt { value }),
        })
    };
    present(hooks).map(|_| Hooks {
        prestart: of("prestart"),
        create_runtime: of("createRuntime"),
        create_container: of("createContainer"),
        start_container: of("startContainer"),
        poststart: of("poststart"),
        poststop: of("poststop"),
    })
}

fn priority(priority: &Value) -> Option<LinuxIoPriority> {
    let class = IoPrioClass::from_str_name(priority["class"].as_str()?)?;
    Some(LinuxIoPriority { class: class.into(), priority: int(&priority["priority"]) })
}

fn scheduler(scheduler: &Value) -> LinuxScheduler {
    let policy = scheduler["policy"].as_str().and_then(LinuxSchedulerPolicy::from_str_name);
    let flag = |flag: &Value| flag.as_str().and_then(LinuxSchedulerFlag::from_str_name).map(i32::from);
    let flags = scheduler["flags"].as_array();
    LinuxScheduler {
        policy: policy.unwrap_or_default().into(),
        nice: int(&scheduler["nice"]),
        priority: int(&scheduler["priority"]),
        flags: flags.into_iter().flatten().filter_map(flag).collect(),
        runtime: scheduler["runtime"].as_u64().unwrap_or_default(),
        deadline: scheduler["deadline"].as_u64().unwrap_or_default(),
        period: scheduler["period"].as_u64().unwrap_or_default(),
    }
}

fn seccomp(policy: &Value) -> LinuxSeccomp {
    LinuxSeccomp {
        default_action: text(&policy["defaultAction"]),
        default_errno: small(&policy["defaultErrnoRet"]).map(|value| OptionalUInt32 { value }),
        architectures: texts(&policy["architectures"]),
        flags: texts(&policy["flags"]),
        listener_path: text(&policy["listenerPath"]),
        listener_metadata: text(&policy["listenerMetadata"]),
        syscalls: all(&policy["syscalls"], |syscall| LinuxSyscall {
            names: texts(&syscall["names"]),
            action: text(&syscall["action"]),
            errno_ret: small(&syscall["errnoRet"]).map(|value| OptionalUInt32 { value }),
            args: all(&syscall["args"], |argument| LinuxSeccompArg {
                index: small(&argument["index"]).unwrap_or_default(),
                value: argument["value"].as_u64().unwrap_or_default(),
                value_two: argument["valueTwo"].as_u64().unwrap_or_default(),
                op: text(&argument["op"]),
            }),
        }),
    }
}

/// Something, and not an empty one of it.
fn present(value: &Value) -> Option<&Value> {
    Some(value).filter(|value| value.as_object().is_some_and(|map| !map.is_empty()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    all(value, text)
}

fn all<T>(list: &Value, one: impl Fn(&Value) -> T) -> Vec<T> {
    list.as_array().into_iter().flatten().map(one).collect()
}

fn map(value: &Value) -> BTreeMap<String, String> {
    entries(value, text)
}

fn entries<T>(value: &Value, one: impl Fn(&Value) -> T) -> BTreeMap<String, T> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), one(value))).collect()
}

fn small(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|value| value.try_into().ok())
}

fn int(value: &Value) -> i32 {
    value.as_i64().and_then(|value| value.try_into().ok()).unwrap_or_default()
}
