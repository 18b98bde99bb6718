use std::cell::RefCell;

use super::*;
use crate::wire::*;

fn tools() -> Tools<'static> {
    Tools {
        inject: &|spec, names| set(spec, "/injected", json!(names)),
        block_io: &|class| match class {
            "slow" => Ok(json!({"weight": 10})),
            _ => Err(Error::not_found("no such class")),
        },
        propagation: &|path| match path.to_str() {
            Some("/shared") => Ok(Propagation::Shared),
            Some("/slave") => Ok(Propagation::Slave),
            _ => Ok(Propagation::Private),
        },
        without_hugepages: false,
    }
}

fn spec() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {"args": ["sh"], "env": ["A=1", "B=2"], "user": {"uid": 3, "gid": 4, "additionalGids": [5]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}], "oomScoreAdj": 7},
        "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/data/x", "source": "/s"}],
        "annotations": {"a": "1", "b": "2"},
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/n"}],
            "resources": {"memory": {"limit": 5}, "cpu": {"shares": 2}, "devices": [{"allow": false, "access": "rwm"}]},
            "sysctl": {"net.a": "1"},
            "unknown": true,
        },
        "unknown": {"kept": 1},
    })
}

fn adjusted(asked: &ContainerAdjustment) -> Value {
    let mut spec = spec();
    adjust(&mut spec, asked, &tools()).unwrap();
    spec
}

fn of_linux(linux: LinuxContainerAdjustment) -> ContainerAdjustment {
    ContainerAdjustment { linux: Some(linux), ..Default::default() }
}

fn owned<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

#[test]
fn an_adjustment_of_nothing_changes_nothing() {
    assert_eq!(adjusted(&ContainerAdjustment::default()), spec());
    let empty = LinuxContainerAdjustment {
        resources: Some(LinuxResources { memory: Some(Default::default()), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(adjusted(&of_linux(empty)), spec());
}

#[test]
fn variables_keep_their_places_and_go_when_marked() {
    let variable = |key: &str, value: &str| KeyValue { key: key.to_owned(), value: value.to_owned() };
    let env = vec![variable("-A", ""), variable("-B", ""), variable("B", "3"), variable("C", "4=5")];
    let spec = adjusted(&ContainerAdjustment { env, args: owned(["true"]), ..Default::default() });
    assert_eq!(spec["process"]["env"], json!(["B=3", "C=4=5"]));
    assert_eq!(spec["process"]["args"], json!(["true"]));
}

#[test]
fn annotations_and_sysctls_are_set_and_removed() {
    let map =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let linux =
        LinuxContainerAdjustment { sysctl: map(&[("-net.a", ""), ("net.b", "2")]), ..Default::default() };
    let asked = ContainerAdjustment {
        annotations: map(&[("-a", ""), ("-b", ""), ("b", "3"), ("c", "4")]),
        linux: Some(linux),
        ..Default::default()
    };
    let spec = adjusted(&asked);
    assert_eq!(spec["annotations"], json!({"b": "3", "c": "4"}));
    assert_eq!(spec["linux"]["sysctl"], json!({"net.b": "2"}));
}

#[test]
fn mounts_are_replaced_removed_and_sorted_by_depth() {
    let mount = |destination: &str, source: &str, options: &[&str]| Mount {
        destination: destination.to_owned(),
        source: source.to_owned(),
        r#type: "bind".to_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    let mounts = vec![mount("/data/x", "/new", &["ro"]), mount("/data", "/d", &[]), mount("-/proc", "", &[])];
    let spec = adjusted(&ContainerAdjustment { mounts, ..Default::default() });
    let there: Vec<_> = spec["mounts"].as_array().unwrap().iter().map(|m| m["destination"].clone()).collect();
    assert_eq!(there, [json!("/data"), json!("/data/x")]);
    assert_eq!(
        spec["mounts"][1],
        json!({"destination": "/data/x", "type": "bind", "source": "/new", "options": ["ro"]})
    );
    let propagated = |source: &str, how: &str| {
        let mounts = vec![mount("/m", source, &["rbind", how])];
        let mut spec = self::spec();
        let done = adjust(&mut spec, &ContainerAdjustment { mounts, ..Default::default() }, &tools());
        done.map(|()| spec["linux"]["rootfsPropagation"].clone())
    };
    assert_eq!(propagated("/shared", "rshared").unwrap(), json!("rshared"));
    assert_eq!(propagated("/slave", "rslave").unwrap(), json!("rslave"));
    assert_eq!(propagated("/other", "rprivate").unwrap(), Value::Null);
    assert!(propagated("/slave", "rshared").is_err());
    assert!(propagated("/other", "rslave").is_err());
    let nowhere = ContainerAdjustment { mounts: vec![mount("", "/s", &[])], ..Default::default() };
    assert!(adjust(&mut self::spec(), &nowhere, &tools()).is_err());
}

#[test]
fn hooks_rlimits_and_devices_of_vendors_are_added() {
    let hook = Hook { path: "/h".to_owned(), timeout: Some(OptionalInt { value: 5 }), ..Default::default() };
    let asked = ContainerAdjustment {
        hooks: Some(Hooks { create_runtime: vec![hook.clone()], poststop: vec![hook], ..Default::default() }),
        rlimits: vec![PosixRlimit { r#type: "RLIMIT_NOFILE".to_owned(), hard: 9, soft: 8 }],
        cdi_devices: vec![CdiDevice { name: "v/c=d".to_owned() }],
        ..Default::default()
    };
    let spec = adjusted(&asked);
    assert_eq!(spec["hooks"]["createRuntime"], json!([{"path": "/h", "timeout": 5}]));
    assert_eq!(spec["hooks"]["poststop"][0]["path"], "/h");
    assert_eq!(spec["process"]["rlimits"], json!([{"type": "RLIMIT_NOFILE", "hard": 9, "soft": 8}]));
    assert_eq!(spec["injected"], json!(["v/c=d"]));
}

#[test]
fn devices_come_with_the_right_to_use_them() {
    let device = |path: &str, kind: &str| LinuxDevice {
        path: path.to_owned(),
        r#type: kind.to_owned(),
        major: 8,
        minor: 1,
        file_mode: Some(OptionalFileMode { value: 0o660 }),
        ..Default::default()
    };
    let devices = vec![device("/dev/x", "b"), device("-/dev/y", ""), device("/dev/x", "c")];
    let spec = adjusted(&of_linux(LinuxContainerAdjustment { devices, ..Default::default() }));
    let expected = json!([{"path": "/dev/x", "type": "c", "major": 8, "minor": 1, "fileMode": 0o660}]);
    assert_eq!(spec["linux"]["devices"], expected);
    let rules = spec["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules[1], json!({"allow": true, "type": "b", "major": 8, "minor": 1, "access": "rwm"}));
    assert_eq!(rules[2]["access"], "rw");
}

#[test]
fn limits_are_set_one_by_one() {
    let resources = LinuxResources {
        memory: Some(LinuxMemory { limit: Some(OptionalInt64 { value: 9 }), ..Default::default() }),
        cpu: Some(LinuxCpu { cpus: "0-1".to_owned(), ..Default::default() }),
        hugepage_limits: vec![HugepageLimit { page_size: "2MB".to_owned(), limit: 4 }],
        unified: [("memory.high".to_owned(), "8".to_owned())].into(),
        pids: Some(LinuxPids { limit: 6 }),
        blockio_class: Some(OptionalString { value: "slow".to_owned() }),
        rdt_class: Some(OptionalString { value: "gold".to_owned() }),
        ..Default::default()
    };
    let linux =
        |resources| of_linux(LinuxContainerAdjustment { resources: Some(resources), ..Default::default() });
    let limits = adjusted(&linux(resources.clone()))["linux"].clone();
    let of = &limits["resources"];
    assert_eq!(of["memory"], json!({"limit": 9, "swap": 9}));
    assert_eq!(of["cpu"], json!({"shares": 2, "cpus": "0-1"}));
    assert_eq!(of["hugepageLimits"], json!([{"pageSize": "2MB", "limit": 4}]));
    assert_eq!((&of["unified"], &of["pids"]), (&json!({"memory.high": "8"}), &json!({"limit": 6})));
    assert_eq!((&of["blockIO"], &limits["intelRdt"]), (&json!({"weight": 10}), &json!({"closID": "gold"})));
    let unknown = Some(OptionalString { value: "unknown".to_owned() });
    let unknown = linux(LinuxResources { blockio_class: unknown, ..Default::default() });
    assert!(adjust(&mut spec(), &unknown, &tools()).is_err());
    let mut without = spec();
    let tools = Tools { without_hugepages: true, ..tools() };
    adjust(&mut without, &linux(resources), &tools).unwrap();
    assert_eq!(without["linux"]["resources"]["hugepageLimits"], Value::Null);
}

#[test]
fn what_is_said_of_the_process_and_of_its_namespaces_is_set() {
    let namespace =
        |kind: &str, path: &str| LinuxNamespace { r#type: kind.to_owned(), path: path.to_owned() };
    let linux = LinuxContainerAdjustment {
        oom_score_adj: Some(OptionalInt { value: -9 }),
        cgroups_path: "/cg".to_owned(),
        namespaces: vec![namespace("-network", ""), namespace("pid", "/p")],
        io_priority: Some(LinuxIoPriority { class: IoPrioClass::IoprioClassIdle.into(), priority: 3 }),
        scheduler: Some(LinuxScheduler {
            policy: LinuxSchedulerPolicy::SchedFifo.into(),
            priority: 4,
            flags: vec![LinuxSchedulerFlag::SchedFlagResetOnFork.into()],
            ..Default::default()
        }),
        seccomp_policy: Some(LinuxSeccomp {
            default_action: "SCMP_ACT_LOG".to_owned(),
            ..Default::default()
        }),
        net_devices: [("eth1".to_owned(), LinuxNetDevice { name: "e".to_owned() })].into(),
        memory_policy: Some(LinuxMemoryPolicy {
            mode: MpolMode::MpolBind.into(),
            nodes: "0".to_owned(),
            flags: vec![],
        }),
        rdt: Some(LinuxRdt { clos_id: Some(OptionalString { value: "x".to_owned() }), ..Default::default() }),
        ..Default::default()
    };
    let spec = adjusted(&of_linux(linux));
    let (process, linux) = (&spec["process"], &spec["linux"]);
    assert_eq!((&process["oomScoreAdj"], &linux["cgroupsPath"]), (&json!(-9), &json!("/cg")));
    assert_eq!(linux["namespaces"], json!([{"type": "pid", "path": "/p"}]));
    assert_eq!(process["ioPriority"], json!({"class": "IOPRIO_CLASS_IDLE", "priority": 3}));
    let expected = json!({"policy": "SCHED_FIFO", "priority": 4, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    assert_eq!(process["scheduler"], expected);
    assert_eq!(linux["seccomp"], json!({"defaultAction": "SCMP_ACT_LOG"}));
    assert_eq!(linux["netDevices"], json!({"eth1": {"name": "e"}}));
    assert_eq!(linux["memoryPolicy"], json!({"mode": "MPOL_BIND", "nodes": "0"}));
    assert_eq!(linux["intelRdt"], json!({"closID": "x"}));
    assert_eq!((&linux["unknown"], &spec["unknown"]), (&json!(true), &json!({"kept": 1})));
    let wrong = LinuxContainerAdjustment {
        io_priority: Some(LinuxIoPriority { class: 99, priority: 0 }),
        ..Default::default()
    };
    assert!(adjust(&mut self::spec(), &of_linux(wrong), &tools()).is_err());
}

#[test]
fn a_spec_that_is_described_says_what_was_adjusted() {
    let seen = RefCell::new(describe(&spec()));
    let container = seen.borrow();
    assert_eq!(container.env, ["A=1", "B=2"]);
    assert_eq!(container.mounts[1].source, "/s");
    assert_eq!(container.user.as_ref().unwrap().additional_gids, [5]);
    let linux = container.linux.as_ref().unwrap();
    assert_eq!(linux.oom_score_adj.unwrap().value, 7);
    assert_eq!(linux.namespaces[1].path, "/n");
    let resources = linux.resources.as_ref().unwrap();
    assert_eq!(resources.memory.unwrap().limit.unwrap().value, 5);
    assert!(resources.memory.unwrap().swap.is_none());
    assert_eq!(container.rlimits[0].hard, 1);
    assert_eq!(describe(&json!({})), Container { linux: Some(Default::default()), ..Default::default() });
    let policy = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_EQ"}]}]}}});
    let described = describe(&policy).linux.unwrap().seccomp_policy.unwrap();
    assert_eq!(seccomp(&described), policy["linux"]["seccomp"]);
}
