//! Requests and the specs that containerd 2.3.4 makes of them, side by side with ours. `corpus/*.json` was written by upstream's own
//! code (`buildContainerSpec`, `sandboxContainerSpec` and the options after them) on a machine with cgroup v1: the spec of the first
//! case in full, of the others what differs from it (RFC 7386). Where we differ on purpose, `ours` says so.

use std::path::Path;

use api::cri::{ContainerConfig, Mount, PodSandboxConfig};
use serde::Deserialize;
use serde_json::Value;
use types::oci::ImageConfig;
use types::oci::image::ConfigSection;

use super::*;

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n";
const GROUP: &str = "root:x:0:\nweb:x:1001:\nwheel:x:10:root,web\nlog:x:44:web\n";

#[derive(Deserialize)]
struct Corpus<T> {
    base: Value,
    cases: Vec<Case<T>>,
}

#[derive(Deserialize)]
struct Case<T> {
    name: String,
    #[serde(flatten)]
    request: T,
    /// What differs from the base.
    #[serde(default)]
    spec: Value,
    /// What upstream says instead.
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct OfContainer {
    config: ContainerConfig,
    pod: PodSandboxConfig,
    image: ConfigSection,
    extra: Vec<Mount>,
    handler: HandlerText,
    settings: SettingsText,
}

#[derive(Deserialize)]
struct OfSandbox {
    pod: PodSandboxConfig,
    image: ConfigSection,
    netns: String,
    pod_annotations: Vec<String>,
    settings: SettingsText,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HandlerText {
    pod_annotations: Vec<String>,
    container_annotations: Vec<String>,
    without_devices: bool,
    all_allowed: bool,
    cgroup_writable: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SettingsText {
    disable_proc_mount: bool,
    unset_seccomp_profile: String,
    device_ownership: bool,
    ports: bool,
    icmp: bool,
}

impl HandlerText {
    fn handler(self) -> Handler {
        Handler {
            pod_annotations: self.pod_annotations,
            container_annotations: self.container_annotations,
            privileged_without_host_devices: self.without_devices,
            privileged_without_host_devices_all_devices_allowed: self.all_allowed,
            cgroup_writable: self.cgroup_writable,
            ..Handler::default()
        }
    }
}

impl SettingsText {
    fn settings(self) -> Runtime {
        Runtime {
            disable_proc_mount: self.disable_proc_mount,
            unset_seccomp_profile: self.unset_seccomp_profile,
            device_ownership: self.device_ownership,
            unprivileged_ports: self.ports,
            unprivileged_icmp: self.icmp,
            ..Runtime::default()
        }
    }
}

fn machine() -> Machine {
    let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"].map(str::to_owned).to_vec();
    Machine { seccomp: true, swap: true, capabilities, ..Machine::default() }
}

fn rootfs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::fs::write(dir.path().join("etc/passwd"), PASSWD).unwrap();
    std::fs::write(dir.path().join("etc/group"), GROUP).unwrap();
    dir
}

fn of_container(request: OfContainer, rootfs: &Path) -> Result<Value> {
    on(request, rootfs, &machine())
}

fn on(request: OfContainer, rootfs: &Path, machine: &Machine) -> Result<Value> {
    let image = ImageConfig { config: request.image, ..ImageConfig::default() };
    let settings = request.settings.settings();
    let asked = request.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let asked = asked.and_then(|security| security.selinux_options.as_ref());
    let labels = labels(asked, "", &settings, machine)?;
    let file = |name: &str| Path::new("/nowhere").join(name);
    let files = Files {
        hostname: file("hostname"),
        hosts: file("hosts"),
        resolv_conf: file("resolv.conf"),
        shm: file("shm"),
    };
    let mounts = [of_pod(&files, &request.config), request.extra].concat();
    let user = user::resolve_in(&sys::mount::View::of_directory(rootfs)?, &image, &request.config)?;
    container(&Container {
        id: "c1",
        pod: &pod::Record { id: "p1".to_owned(), ..pod::Record::default() },
        pod_config: &request.pod,
        pod_pid: 42,
        target_pid: None,
        config: &request.config,
        image: &image,
        image_name: "docker.io/library/x:1",
        handler: &request.handler.handler(),
        settings: &settings,
        mounts,
        user,
        labels: &labels,
        recursive_read_only: true,
        machine,
    })
}

fn of_sandbox(request: OfSandbox, rootfs: &Path) -> Result<Value> {
    let image = ImageConfig { config: request.image, ..ImageConfig::default() };
    let mount = types::mount::Mount {
        kind: "bind".to_owned(),
        source: rootfs.display().to_string(),
        ..types::mount::Mount::default()
    };
    let settings = request.settings.settings();
    let asked = request.pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let asked = asked.and_then(|security| security.selinux_options.as_ref());
    let labels = labels(asked, "", &settings, &machine())?;
    sandbox(&Sandbox {
        id: "p1",
        config: &request.pod,
        netns: &request.netns,
        user_namespace: None,
        pause: Pause::Image(&image, &[mount]),
        image_name: crate::config::PAUSE_IMAGE,
        handler: &Handler { pod_annotations: request.pod_annotations, ..Handler::default() },
        settings: &settings,
        files: Path::new("/test/root/sandboxes/p1"),
        shm: Path::new("/test/state/sandboxes/p1/shm"),
        labels: &labels,
        machine: &machine(),
    })
}

/// Where two values differ. The default filter is that of the machine on which the corpus was written.
fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    if path.ends_with(".seccomp") && cfg!(not(target_arch = "x86_64")) {
        return;
    }
    if let (Value::Object(a), Value::Object(b)) = (ours, theirs) {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for key in keys {
            let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
            differences(&format!("{path}.{key}"), &of(a), &of(b), found);
        }
    } else if ours != theirs {
        found.push(format!("{path}:\n ours   {ours}\n theirs {theirs}"));
    }
}

/// RFC 7386.
fn patched(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut map = target.as_object().cloned().unwrap_or_default();
    for (key, change) in patch {
        if change.is_null() {
            map.remove(key);
        } else {
            let had = map.get(key).cloned().unwrap_or_default();
            map.insert(key.clone(), patched(&had, change));
        }
    }
    Value::Object(map)
}

fn compare<T>(corpus: Corpus<T>, make: impl Fn(T, &Path) -> Result<Value>) {
    let rootfs = rootfs();
    let mut failures = Vec::new();
    for case in corpus.cases {
        let made = make(case.request, rootfs.path());
        match made {
            Ok(made) if case.error.is_empty() => {
                let expected = patched(&corpus.base, &case.spec);
                differences(&case.name, &made, &expected, &mut failures);
            }
            Ok(made) => failures.push(format!("{}:\n ours   {made}\n theirs {}", case.name, case.error)),
            Err(error) if case.error.is_empty() => failures.push(format!("{}:\n ours   {error}", case.name)),
            Err(error) => {
                let text = error.to_string();
                if !text.contains(&case.error) {
                    failures.push(format!("{}:\n ours   {text}\n theirs {}", case.name, case.error));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn containers_are_as_upstream_makes_them() {
    compare(serde_json::from_str(include_str!("corpus/containers.json")).unwrap(), of_container);
}

#[test]
fn sandboxes_are_as_upstream_makes_them() {
    compare(serde_json::from_str(include_str!("corpus/sandboxes.json")).unwrap(), of_sandbox);
}

#[test]
fn on_cgroup_v2_a_container_has_a_namespace_of_cgroups_unless_it_is_privileged() {
    let made = |privileged| {
        let corpus: Corpus<OfContainer> =
            serde_json::from_str(include_str!("corpus/containers.json")).unwrap();
        let name = if privileged { "privileged" } else { "plain" };
        let request = corpus.cases.into_iter().find(|case| case.name == name).unwrap().request;
        let machine = Machine { cgroup2: true, ..machine() };
        on(request, rootfs().path(), &machine).unwrap()
    };
    let has = |spec: &Value| {
        spec["linux"]["namespaces"].as_array().unwrap().iter().any(|namespace| namespace["type"] == "cgroup")
    };
    assert!(has(&made(false)) && !has(&made(true)));
}

#[test]
fn the_built_in_pause_can_do_nothing_and_is_nobody() {
    let pause = runtime::Pause { program: "/bin/shim".into(), rootfs: "/pause/rootfs".into() };
    let spec = sandbox(&Sandbox {
        id: "p1",
        config: &PodSandboxConfig { hostname: "h".to_owned(), ..PodSandboxConfig::default() },
        netns: "/run/netns/n",
        user_namespace: None,
        pause: Pause::Builtin(&pause),
        image_name: "",
        handler: &Handler::default(),
        settings: &Runtime::default(),
        files: Path::new("/files"),
        shm: Path::new("/shm"),
        labels: &Labels::default(),
        machine: &machine(),
    })
    .unwrap();
    let process = &spec["process"];
    assert_eq!((&process["args"][0], &process["user"]["uid"]), (&"/pause".into(), &65535.into()));
    assert_eq!(
        (&process["capabilities"], &process["noNewPrivileges"]),
        (&serde_json::json!({}), &true.into())
    );
    assert_eq!((&spec["root"]["path"], &spec["root"]["readonly"]), (&"/pause/rootfs".into(), &true.into()));
    let mounts = spec["mounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["destination"] == "/pause").unwrap();
    assert!(mount["source"] == "/bin/shim" && mount["options"].as_array().unwrap().contains(&"ro".into()));
    assert_eq!(spec["annotations"]["io.kubernetes.cri.podsandbox.image-name"], crate::config::PAUSE_IMAGE);
}
