//! What pods and containers use, as a kubelet asks for it; and whether the runtime is ready, and with what.

use std::time::{Duration, Instant};

use api::cri as wire;
use containerd_tests::cri::RUNTIME;
use containerd_tests::{Cri, Kubelet, eventually, proc};

/// A pod with one container that uses a processor and has written a file.
fn busy(cri: &Cri) -> (String, String) {
    let image = cri.image();
    let known = wire::ImageStatusRequest {
        image: Some(wire::ImageSpec { image: image.to_owned(), ..Default::default() }),
        verbose: false,
    };
    eventually("the image is known", || {
        cri.call(cri.images().image_status(known.clone())).unwrap().image.is_some()
    });
    let pod = cri.pod("busy");
    let script = "dd if=/dev/zero of=/written bs=1M count=2 2>/dev/null; while :; do :; done";
    let config = wire::ContainerConfig {
        metadata: Some(wire::ContainerMetadata { name: "loop".into(), attempt: 0 }),
        image: Some(wire::ImageSpec { image: image.to_owned(), ..Default::default() }),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        labels: [("name".to_owned(), "loop".to_owned())].into(),
        linux: Some(wire::LinuxContainerConfig::default()),
        ..Default::default()
    };
    let request = wire::CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(config),
        sandbox_config: Some(cri.pod_config("busy")),
    };
    let container = cri.call(cri.client().create_container(request)).unwrap().container_id;
    let start = wire::StartContainerRequest { container_id: container.clone() };
    cri.call(cri.client().start_container(start)).unwrap();
    (pod, container)
}

fn container_stats(cri: &Cri, id: &str) -> wire::ContainerStats {
    let request = wire::ContainerStatsRequest { container_id: id.to_owned() };
    cri.call(cri.client().container_stats(request)).unwrap().stats.unwrap()
}

#[test]
fn a_container_that_works_uses_processors_memory_and_its_root_filesystem() {
    let Some(cri) = Cri::start() else { return };
    let (pod, container) = busy(&cri);
    eventually("two measurements make a rate", || {
        let cpu = container_stats(&cri, &container[..12]).cpu.unwrap();
        cpu.usage_core_nano_seconds.unwrap().value > 0
            && cpu.usage_nano_cores.is_some_and(|rate| rate.value > 0)
    });
    let stats = container_stats(&cri, &container);
    assert_eq!(stats.attributes.unwrap().labels["name"], "loop");
    let memory = stats.memory.unwrap();
    assert!(memory.usage_bytes.unwrap().value >= memory.working_set_bytes.unwrap().value);
    eventually("what was written is measured", || {
        container_stats(&cri, &container).writable_layer.unwrap().used_bytes.unwrap().value >= 2 << 20
    });
    let list = |filter: wire::ContainerStatsFilter| {
        let request = wire::ListContainerStatsRequest { filter: Some(filter.clone()) };
        let listed = cri.call(cri.client().list_container_stats(request)).unwrap().stats;
        let request = wire::StreamContainerStatsRequest { filter: Some(filter) };
        let mut stream = cri.call(cri.client().stream_container_stats(request)).unwrap();
        let first = cri.block_on(async { stream.message().await.unwrap() });
        assert_eq!(first.map_or(0, |first| first.container_stats.len()), listed.len());
        listed.len()
    };
    let of_pod =
        |id: &str| wire::ContainerStatsFilter { pod_sandbox_id: id.to_owned(), ..Default::default() };
    assert_eq!((list(of_pod(&pod[..10])), list(of_pod("none"))), (1, 0));
    let labelled = [("name".to_owned(), "other".to_owned())].into();
    assert_eq!(list(wire::ContainerStatsFilter { label_selector: labelled, ..Default::default() }), 0);
}

#[test]
fn a_rate_is_of_the_time_since_a_measurement_that_is_as_old_as_is_set() {
    for (period, remembers) in [("1h", true), ("1ms", false)] {
        let Some(cri) = Cri::prepare("") else { return };
        cri.set(RUNTIME, &format!("stats_collect_period = {period:?}\nstats_retention_period = '2h'"));
        cri.launch();
        let kubelet = Kubelet::with(cri);
        let id = kubelet.run("c", "while [ ! -e /stop ]; do :; done; exec sleep 1000");
        let used = || {
            let cpu = container_stats(&kubelet.cri, &id).cpu.unwrap();
            let rate = cpu.usage_nano_cores.map(|rate| rate.value);
            (cpu.usage_core_nano_seconds.unwrap().value, rate)
        };
        eventually("it works", || used().1.is_some_and(|rate| rate > 1_000_000));
        kubelet.sync(&id, "touch /stop", 0).unwrap();
        let rests = std::cell::Cell::new((0, Instant::now()));
        // Longer than twice the second that holds where nothing is set.
        eventually("it has rested for a while", || {
            let now = used().0;
            if now != rests.get().0 {
                rests.set((now, Instant::now()));
            }
            rests.get().1.elapsed() > Duration::from_millis(2500)
        });
        let rate = used().1.unwrap();
        assert_eq!(rate > 0, remembers, "{period}: {rate}");
    }
}

/// What the files of a container's group say, of version 1 or 2.
fn told(cri: &Cri, id: &str, first: &str, second: &str) -> String {
    let mut groups = proc::cgroups(cri.daemon.namespace());
    groups.retain(|group| group.ends_with(id));
    let files: Vec<_> = [first, second]
        .into_iter()
        .flat_map(|file| groups.iter().map(move |group| group.join(file)))
        .collect();
    files.iter().find_map(|file| std::fs::read_to_string(file).ok()).unwrap_or_else(|| panic!("no {first}"))
}

#[test]
fn metrics_of_a_container_are_what_its_group_says() {
    const MIB: u64 = 1 << 20;
    let Some(kubelet) = Kubelet::start() else { return };
    let cri = &kubelet.cri;
    // Shared memory counts as that of the container that has written it.
    let script = "dd if=/dev/zero of=/dev/shm/held bs=1M count=24 2>/dev/null; sleep 1000 & \
                  while [ ! -e /stop ]; do :; done; echo rests; wait";
    let id = kubelet.run("c", script);
    let metrics = || {
        let listed = cri.call(cri.client().list_pod_sandbox_metrics(wire::ListPodSandboxMetricsRequest {}));
        listed.unwrap().pod_metrics.remove(0).container_metrics.remove(0).metrics
    };
    let value = |name: &str| {
        let all = metrics();
        let metric = all.iter().find(|metric| metric.name == name);
        metric.unwrap_or_else(|| panic!("no {name}")).value.unwrap().value
    };
    eventually("it has used a processor for two seconds", || value("container_cpu_usage_seconds_total") >= 2);
    assert!(value("container_cpu_user_seconds_total") + value("container_cpu_system_seconds_total") >= 1);
    kubelet.sync(&id, "touch /stop", 0).unwrap();
    eventually("it rests", || kubelet.log("c").ends_with(" rests\n"));
    let cpu = told(cri, &id, "cpuacct.usage", "cpu.stat");
    let cpu = match cpu.lines().find_map(|line| line.strip_prefix("usage_usec ")) {
        Some(microseconds) => microseconds.parse::<u64>().unwrap() / 1_000_000,
        None => cpu.trim().parse::<u64>().unwrap() / 1_000_000_000,
    };
    assert_eq!(value("container_cpu_usage_seconds_total"), cpu);
    let memory: u64 = told(cri, &id, "memory.usage_in_bytes", "memory.current").trim().parse().unwrap();
    let usage = value("container_memory_usage_bytes");
    assert!(usage.abs_diff(memory) < 2 * MIB, "{usage} {memory}");
    for name in ["usage_bytes", "working_set_bytes", "cache"] {
        let value = value(&format!("container_memory_{name}"));
        assert!((24 * MIB..24 * MIB + 16 * MIB).contains(&value), "{name}: {value}");
    }
    let rss = value("container_memory_rss");
    assert!(rss > 0 && rss < 8 * MIB, "{rss}: shared memory is no program's own");
    assert_eq!((value("container_processes"), value("container_threads")), (2, 2));
    // What a kubelet asks for says the same.
    let stats = container_stats(cri, &id).memory.unwrap();
    assert!(stats.usage_bytes.unwrap().value.abs_diff(memory) < 2 * MIB);
    assert!(stats.rss_bytes.unwrap().value.abs_diff(rss) < 2 * MIB);
}

/// The sum of what a file says of all devices behind a key: `8:0 Write 7` of version 1, `8:0 wbytes=7` of version 2.
fn written(text: &str) -> u64 {
    let second = text.split_whitespace().filter_map(|word| word.strip_prefix("wbytes=")?.parse::<u64>().ok());
    let first = text.lines().filter_map(|line| line.split_once(" Write ")?.1.parse::<u64>().ok());
    first.chain(second).sum()
}

#[test]
fn what_a_container_has_written_to_devices_is_in_its_metrics() {
    let Some(kubelet) = Kubelet::start() else { return };
    let cri = &kubelet.cri;
    // Past the cache: whose the pages are that are written later, version 1 does not know.
    let script = "dd if=/dev/zero of=/direct bs=1M count=4 oflag=direct && echo written || echo failed; exec sleep 1000";
    let id = kubelet.run("c", script);
    let said = |word: &str| kubelet.log("c").contains(&format!(" stdout F {word}\n"));
    eventually("it says how it went", || said("written") || said("failed"));
    let log = kubelet.log("c");
    if said("failed") {
        return eprintln!("skipped: this filesystem knows no direct writes: {log}");
    }
    let of_group = || written(&told(cri, &id, "blkio.throttle.io_service_bytes_recursive", "io.stat"));
    if of_group() == 0 {
        return eprintln!("skipped: this kernel counts no devices of groups");
    }
    let metrics = || {
        let listed = cri.call(cri.client().list_pod_sandbox_metrics(wire::ListPodSandboxMetricsRequest {}));
        listed.unwrap().pod_metrics.remove(0).container_metrics.remove(0).metrics
    };
    let sum = |name: &str, label: Option<&str>| -> u64 {
        let named = metrics().into_iter().filter(|metric| metric.name == name);
        let chosen =
            named.filter(|metric| label.is_none_or(|label| metric.label_values.iter().any(|l| l == label)));
        chosen.map(|metric| metric.value.unwrap().value).sum()
    };
    eventually("it is measured", || sum("container_fs_writes_bytes_total", None) >= 4 << 20);
    assert_eq!(sum("container_fs_writes_bytes_total", None), of_group());
    assert!(sum("container_fs_writes_total", None) > 0);
    if !is_unified() {
        assert_eq!(sum("container_blkio_device_usage_total", Some("Write")), of_group());
    }
}

fn is_unified() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// `total` of a line of a file of pressure, in nanoseconds.
fn waited(text: &str, kind: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(kind)).unwrap();
    let total = line.split_whitespace().find_map(|word| word.strip_prefix("total="));
    total.unwrap().parse::<u64>().unwrap() * 1000
}

#[test]
fn on_cgroup_v2_a_container_tells_how_long_it_has_waited() {
    if !is_unified() || std::fs::read("/proc/pressure/cpu").is_err() {
        return eprintln!("skipped: no cgroup v2, or a kernel that measures no pressure");
    }
    let Some(kubelet) = Kubelet::start() else { return };
    let cri = &kubelet.cri;
    let mut config = kubelet.config("c", "while :; do :; done");
    let resources =
        wire::LinuxContainerResources { cpu_period: 100_000, cpu_quota: 10_000, ..Default::default() };
    config.linux.as_mut().unwrap().resources = Some(resources);
    let id = kubelet.run_config(config);
    let some = |psi: Option<wire::PsiStats>| psi.unwrap().some.unwrap();
    eventually("it has waited for a second", || {
        some(container_stats(cri, &id).cpu.unwrap().psi).total > 1_000_000_000
    });
    let before = waited(&told(cri, &id, "none", "cpu.pressure"), "some");
    let stats = container_stats(cri, &id);
    let after = waited(&told(cri, &id, "none", "cpu.pressure"), "some");
    let cpu = some(stats.cpu.unwrap().psi);
    assert!((before..=after).contains(&cpu.total), "{before} {} {after}", cpu.total);
    assert!(cpu.avg10 > 0.0);
    assert!(stats.memory.unwrap().psi.is_some() && stats.io.unwrap().psi.is_some());
}

#[test]
fn what_of_a_container_is_in_swap_is_told() {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() < 2 {
        return eprintln!("skipped: this machine has no swap");
    }
    const MIB: i64 = 1 << 20;
    let Some(kubelet) = Kubelet::start() else { return };
    let cri = &kubelet.cri;
    // More than it may have in memory, which goes where there is room.
    let mut config =
        kubelet.config("c", "dd if=/dev/zero of=/dev/shm/held bs=1M count=40 && echo held; exec sleep 1000");
    let resources = wire::LinuxContainerResources {
        memory_limit_in_bytes: 24 * MIB,
        memory_swap_limit_in_bytes: 96 * MIB,
        ..Default::default()
    };
    config.linux.as_mut().unwrap().resources = Some(resources);
    let id = kubelet.run_config(config);
    eventually("it holds more than fits", || kubelet.log("c").ends_with(" held\n"));
    let swap = container_stats(cri, &id).swap.unwrap();
    let (used, available) = (swap.swap_usage_bytes.unwrap().value, swap.swap_available_bytes.unwrap().value);
    assert!(used > 8 << 20, "{used}");
    assert_eq!(used + available, 72 << 20, "its limit is of both together");
}

#[test]
fn a_pod_has_interfaces_and_what_its_containers_use() {
    let Some(cri) = Cri::start() else { return };
    let (pod, container) = busy(&cri);
    let request = wire::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let stats = cri.call(cri.client().pod_sandbox_stats(request.clone())).unwrap().stats.unwrap();
    let linux = stats.linux.unwrap();
    assert_eq!(linux.containers[0].attributes.as_ref().unwrap().id, container);
    assert_eq!(linux.network.unwrap().default_interface.unwrap().name, "eth0");
    assert!(linux.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    assert!(linux.process.unwrap().process_count.unwrap().value >= 1);
    let listed = cri.call(cri.client().list_pod_sandbox_stats(wire::ListPodSandboxStatsRequest::default()));
    assert_eq!(listed.unwrap().stats.len(), 1);
    let descriptors = cri.call(cri.client().list_metric_descriptors(wire::ListMetricDescriptorsRequest {}));
    let descriptors = descriptors.unwrap().descriptors;
    let metrics =
        cri.call(cri.client().list_pod_sandbox_metrics(wire::ListPodSandboxMetricsRequest {})).unwrap();
    let [metrics] = &metrics.pod_metrics[..] else { panic!("{metrics:?}") };
    assert_eq!((metrics.pod_sandbox_id.as_str(), metrics.metrics.len()), (pod.as_str(), 8));
    let of_container = &metrics.container_metrics[0];
    assert_eq!(of_container.container_id, container);
    for metric in metrics.metrics.iter().chain(&of_container.metrics) {
        let described = descriptors.iter().find(|descriptor| descriptor.name == metric.name);
        assert_eq!(
            described.expect(&metric.name).label_keys.len(),
            metric.label_values.len(),
            "{}",
            metric.name
        );
    }
    let value = |name: &str| {
        let metric = of_container.metrics.iter().find(|metric| metric.name == name);
        metric.unwrap_or_else(|| panic!("no {name}")).value.unwrap().value
    };
    assert!(value("container_file_descriptors") > 0 && value("container_memory_usage_bytes") > 0);
    cri.stop_pod(&pod).unwrap();
    assert!(cri.call(cri.client().pod_sandbox_stats(request)).is_err());
}

fn status(cri: &Cri) -> wire::StatusResponse {
    cri.call(cri.client().status(wire::StatusRequest { verbose: true })).unwrap()
}

fn condition(status: &wire::StatusResponse, kind: &str) -> wire::RuntimeCondition {
    let conditions = &status.status.as_ref().unwrap().conditions;
    conditions.iter().find(|condition| condition.r#type == kind).unwrap().clone()
}

#[test]
fn the_runtime_is_ready_and_says_why_pods_have_no_network() {
    let Some(cri) = Cri::start() else { return };
    let ready = status(&cri);
    assert!(condition(&ready, "RuntimeReady").status && condition(&ready, "NetworkReady").status);
    let names: Vec<_> = ready.runtime_handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(names, ["", "runc"]);
    assert!(ready.features.unwrap().supplemental_groups_policy);
    let json = |key: &str| serde_json::from_str::<serde_json::Value>(&ready.info[key]).unwrap();
    assert_eq!(json("config")["containerd"]["defaultRuntimeName"], "runc");
    assert!(json("cniconfig")["Networks"].as_array().unwrap().len() >= 2);
    assert_eq!(
        (ready.info["lastCNILoadStatus"].as_str(), ready.info["lastCNILoadStatus.default"].as_str()),
        ("OK", "OK")
    );
    std::fs::remove_dir_all(cri.cni().join("net.d")).unwrap();
    let gone = status(&cri);
    let network = condition(&gone, "NetworkReady");
    assert!(!network.status);
    assert_eq!(network.reason, "NetworkPluginNotReady");
    assert!(
        network.message.starts_with("Network plugin returns error: cni plugin not initialized"),
        "{network:?}"
    );
}

#[test]
fn the_addresses_of_a_node_fill_the_template_of_a_network() {
    let template = tempfile::NamedTempFile::new().unwrap();
    let text = r#"{"name": "t", "cniVersion": "1.0.0", "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "subnet": "{{.PodCIDR}}"}}]}"#;
    std::fs::write(template.path(), text).unwrap();
    let Some(cri) = Cri::prepare("") else { return };
    let path = cri.daemon.dir().join("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let key = format!("conf_template = {:?}\nconf_dir", template.path());
    std::fs::write(&path, config.replacen("conf_dir", &key, 1)).unwrap();
    let network = cri.cni().join("net.d");
    std::fs::remove_dir_all(&network).unwrap();
    cri.launch();
    let update = |cidr: &str| {
        let network_config = Some(wire::NetworkConfig { pod_cidr: cidr.to_owned() });
        let runtime_config = Some(wire::RuntimeConfig { network_config });
        cri.call(cri.client().update_runtime_config(wire::UpdateRuntimeConfigRequest { runtime_config }))
    };
    assert!(update("nonsense").is_err());
    update("10.99.0.0/24").unwrap();
    let written = std::fs::read_to_string(network.join("10-containerd-net.conflist")).unwrap();
    assert!(written.contains("\"subnet\": \"10.99.0.0/24\""), "{written}");
    update("10.98.0.0/24").unwrap();
    assert_eq!(std::fs::read_to_string(network.join("10-containerd-net.conflist")).unwrap(), written);
}

#[test]
fn what_will_go_away_is_told_unless_nobody_wants_to_know() {
    let section = "[plugins.'io.containerd.cri.v1.images'.registry.mirrors.'r.invalid']\nendpoint = ['http://127.0.0.1:1']\n";
    let Some(cri) = Cri::configured(section) else { return };
    let told = condition(&status(&cri), "ContainerdHasNoDeprecationWarnings");
    assert!(!told.status && told.message.contains("cri-registry-mirrors"), "{told:?}");
    assert_eq!(told.reason, "ContainerdHasDeprecationWarnings");
    let Some(cri) = Cri::prepare(section) else { return };
    let warnings = ["cri-registry-mirrors", "cgroup-v1"].map(|id| format!("io.containerd.deprecation/{id}"));
    cri.set(RUNTIME, &format!("ignore_deprecation_warnings = {warnings:?}"));
    cri.launch();
    let told = condition(&status(&cri), "ContainerdHasNoDeprecationWarnings");
    assert!(told.status && told.message.is_empty(), "{told:?}");
}

#[test]
fn a_kubelet_learns_who_keeps_the_groups_of_pods() {
    let Some(cri) = Cri::start() else { return };
    let answer = cri.call(cri.client().runtime_config(wire::RuntimeConfigRequest {})).unwrap();
    assert_eq!(answer.linux.unwrap().cgroup_driver(), wire::CgroupDriver::Cgroupfs);
}
