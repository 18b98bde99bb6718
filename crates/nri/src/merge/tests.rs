use super::*;
use crate::wire::{
    ContainerEviction, ContainerUpdate, Hook, Hooks, KeyValue, LinuxContainerUpdate, LinuxCpu, LinuxMemory,
    LinuxNamespace, Mount, OptionalInt64, OptionalUInt64, PosixRlimit, UpdateContainerResponse,
};

fn container() -> Container {
    Container {
        id: "c".to_owned(),
        env: vec!["A=1".to_owned(), "B=2".to_owned()],
        mounts: vec![mount("/data", "/old")],
        ..Container::default()
    }
}

fn creation() -> Creation {
    Creation::new(PodSandbox::default(), container())
}

fn mount(destination: &str, source: &str) -> Mount {
    Mount { destination: destination.to_owned(), source: source.to_owned(), ..Mount::default() }
}

fn variable(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.to_owned() }
}

fn adjusting(adjust: ContainerAdjustment) -> CreateContainerResponse {
    CreateContainerResponse { adjust: Some(adjust), ..CreateContainerResponse::default() }
}

fn env(variables: &[(&str, &str)]) -> CreateContainerResponse {
    let env = variables.iter().map(|(key, value)| variable(key, value)).collect();
    adjusting(ContainerAdjustment { env, ..ContainerAdjustment::default() })
}

fn limit(bytes: i64) -> LinuxResources {
    let limit = Some(OptionalInt64 { value: bytes });
    LinuxResources {
        memory: Some(LinuxMemory { limit, ..LinuxMemory::default() }),
        ..LinuxResources::default()
    }
}

fn shares(value: u64) -> LinuxResources {
    let shares = Some(OptionalUInt64 { value });
    LinuxResources { cpu: Some(LinuxCpu { shares, ..LinuxCpu::default() }), ..LinuxResources::default() }
}

fn update(id: &str, resources: LinuxResources, ignore_failure: bool) -> ContainerUpdate {
    let linux = Some(LinuxContainerUpdate { resources: Some(resources) });
    ContainerUpdate { container_id: id.to_owned(), linux, ignore_failure }
}

#[test]
fn the_next_plugin_sees_what_the_one_before_has_done() {
    let mut creation = creation();
    creation.add(env(&[("B", "3"), ("C", "4"), ("-A", "")]), "10-a").unwrap();
    assert_eq!(creation.request.container.as_ref().unwrap().env, ["B=3", "C=4"]);
    creation.add(env(&[("D", "5")]), "20-b").unwrap();
    let all: Vec<_> = creation.adjustment().env.iter().map(|v| v.key.as_str()).collect();
    assert_eq!(all, ["-A", "B", "C", "D"]);
}

#[test]
fn a_variable_of_two_plugins_is_a_conflict_unless_it_was_removed() {
    let mut creation = creation();
    creation.add(env(&[("X", "1")]), "10-a").unwrap();
    let error = creation.clone().add(env(&[("X", "2")]), "20-b").unwrap_err().to_string();
    assert_eq!(error, r#"plugins "20-b" and "10-a" both tried to set Env X"#);
    creation.add(env(&[("-X", ""), ("X", "2")]), "20-b").unwrap();
    let all: Vec<_> = creation.adjustment().env.iter().map(|v| (v.key.as_str(), v.value.as_str())).collect();
    assert_eq!(all, [("-X", ""), ("X", "2")]);
}

#[test]
fn a_mount_is_replaced_by_where_it_is() {
    let mut creation = creation();
    let mounts = vec![mount("-/data", ""), mount("/more", "/m"), mount("/data", "/new")];
    creation.add(adjusting(ContainerAdjustment { mounts, ..Default::default() }), "10-a").unwrap();
    let seen = &creation.request.container.as_ref().unwrap().mounts;
    assert_eq!(*seen, [mount("/more", "/m"), mount("/data", "/new")]);
    let again = ContainerAdjustment { mounts: vec![mount("/more", "/n")], ..Default::default() };
    assert!(creation.add(adjusting(again), "20-b").is_err());
}

#[test]
fn annotations_and_sysctls_that_are_removed_stay_removed() {
    let mut creation = creation();
    let one = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let adjust = |annotations, sysctl| {
        let linux = Some(LinuxContainerAdjustment { sysctl, ..Default::default() });
        adjusting(ContainerAdjustment { annotations, linux, ..Default::default() })
    };
    creation.add(adjust(one("k", "v"), one("net.a", "1")), "10-a").unwrap();
    creation.add(adjust(one("-k", ""), one("-net.a", "")), "20-b").unwrap();
    let adjusted = creation.adjustment();
    assert_eq!(adjusted.annotations, one("-k", ""));
    assert_eq!(adjusted.linux.as_ref().unwrap().sysctl, one("-net.a", ""));
    assert!(creation.request.container.as_ref().unwrap().annotations.is_empty());
    assert!(creation.add(adjust(one("k", "w"), Default::default()), "30-c").is_err());
}

#[test]
fn hooks_add_up_and_single_things_have_one_owner() {
    let mut creation = creation();
    let hook = Hook { path: "/bin/h".to_owned(), ..Hook::default() };
    let adjust = || {
        let hooks = Some(Hooks { prestart: vec![hook.clone()], ..Hooks::default() });
        ContainerAdjustment { hooks, ..Default::default() }
    };
    creation.add(adjusting(adjust()), "10-a").unwrap();
    creation.add(adjusting(adjust()), "20-b").unwrap();
    assert_eq!(creation.adjustment().hooks.as_ref().unwrap().prestart.len(), 2);
    assert_eq!(crate::owners::owner(Some(&creation.owners()), "c", Field::OciHooks), Some("10-a,20-b"));
    let linux = |path: &str| {
        let linux = LinuxContainerAdjustment { cgroups_path: path.to_owned(), ..Default::default() };
        adjusting(ContainerAdjustment { linux: Some(linux), ..Default::default() })
    };
    creation.add(linux("/a"), "10-a").unwrap();
    assert!(creation.add(linux("/b"), "20-b").is_err());
}

#[test]
fn arguments_are_taken_over_by_an_empty_first_one() {
    let mut creation = creation();
    let args = |args: &[&str]| {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        adjusting(ContainerAdjustment { args, ..Default::default() })
    };
    creation.add(args(&["a"]), "10-a").unwrap();
    assert!(creation.clone().add(args(&["b"]), "20-b").is_err());
    creation.add(args(&["", "b", "c"]), "20-b").unwrap();
    assert_eq!(creation.adjustment().args, ["b", "c"]);
}

#[test]
fn namespaces_limits_and_rlimits_have_one_owner_each() {
    let mut creation = creation();
    let namespace = LinuxNamespace { r#type: "-uts".to_owned(), path: String::new() };
    let adjust = |resources| {
        let linux = Some(LinuxContainerAdjustment { resources: Some(resources), ..Default::default() });
        adjusting(ContainerAdjustment { linux, ..Default::default() })
    };
    let namespaces = LinuxContainerAdjustment { namespaces: vec![namespace], ..Default::default() };
    let namespaces = adjusting(ContainerAdjustment { linux: Some(namespaces), ..Default::default() });
    creation.add(namespaces.clone(), "10-a").unwrap();
    assert!(creation.clone().add(namespaces, "20-b").is_err());
    creation.add(adjust(limit(1)), "10-a").unwrap();
    creation.add(adjust(shares(2)), "20-b").unwrap();
    assert!(creation.clone().add(adjust(limit(3)), "30-c").is_err());
    let resources = creation.adjustment().linux.as_ref().unwrap().resources.as_ref().unwrap();
    assert_eq!(resources.memory.unwrap().limit.unwrap().value, 1);
    assert_eq!(resources.cpu.as_ref().unwrap().shares.unwrap().value, 2);
    let rlimits = || vec![PosixRlimit { r#type: "RLIMIT_NOFILE".to_owned(), hard: 1, soft: 1 }];
    let rlimits = || adjusting(ContainerAdjustment { rlimits: rlimits(), ..Default::default() });
    creation.add(rlimits(), "10-a").unwrap();
    assert!(creation.add(rlimits(), "20-b").is_err());
}

#[test]
fn other_containers_are_updated_once_and_the_one_that_is_made_is_not() {
    let mut creation = creation();
    let answer = |update| CreateContainerResponse { update: vec![update], ..Default::default() };
    creation.add(answer(update("x", limit(1), true)), "10-a").unwrap();
    creation.add(answer(update("x", shares(2), false)), "20-b").unwrap();
    assert!(creation.clone().add(answer(update("x", limit(3), false)), "30-c").is_err());
    creation.add(answer(update("x", limit(3), true)), "30-c").unwrap();
    assert!(creation.clone().add(answer(update("c", limit(3), true)), "30-c").is_err());
    let evict = vec![ContainerEviction { container_id: "y".to_owned(), reason: "r".to_owned() }];
    creation.add(CreateContainerResponse { evict, ..Default::default() }, "30-c").unwrap();
    let (evictions, updates) = creation.finish().1.finish();
    assert_eq!((evictions.len(), updates.len()), (1, 1));
    let (memory, all) = (updates[0].linux.clone().unwrap().resources.unwrap(), &updates[0]);
    assert_eq!(memory.memory.unwrap().limit.unwrap().value, 1);
    assert!(!all.ignore_failure);
}

#[test]
fn an_update_is_changed_on_its_way() {
    let mut updating = Updating::new(PodSandbox::default(), container(), limit(7));
    let answer =
        |updates: Vec<ContainerUpdate>| UpdateContainerResponse { update: updates, evict: Vec::new() };
    assert!(updating.clone().finish().0.is_none(), "nobody has changed anything");
    updating.add(answer(vec![update("c", shares(5), false), update("x", limit(1), false)]), "10-a").unwrap();
    assert_eq!(
        updating.request.linux_resources.as_ref().unwrap().cpu.as_ref().unwrap().shares.unwrap().value,
        5
    );
    assert!(updating.clone().add(answer(vec![update("c", shares(6), false)]), "20-b").is_err());
    updating.add(answer(vec![update("c", limit(8), false)]), "20-b").unwrap();
    let (resources, others) = updating.finish();
    assert_eq!(resources.unwrap().memory.unwrap().limit.unwrap().value, 8);
    assert_eq!(others.finish().1.len(), 1);
}
