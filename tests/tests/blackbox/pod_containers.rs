//! Containers of pods as a kubelet has them: created, started, stopped and removed, twice and in any order; their logs, their
//! ends and the reasons for them; also where the daemon dies in between.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::cri as wire;
use containerd_tests::archive::{Image, Packing, base_layer};
use containerd_tests::tar::Entry;
use containerd_tests::{Cri, Kubelet, binaries, eventually, proc};
use tonic::Code;
use wire::ContainerState::{ContainerCreated, ContainerExited, ContainerRunning};

/// Runs calls at once; what each comes to.
async fn all<T: Send + 'static>(
    calls: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let running: Vec<_> = calls.map(tokio::spawn).collect();
    let mut ended = Vec::new();
    for call in running {
        ended.push(call.await.unwrap());
    }
    ended
}

#[test]
fn a_container_is_created_started_seen_stopped_and_removed_and_nothing_is_left() {
    let Some(kubelet) = Kubelet::start() else { return };
    let before = kubelet.cri.ledger();
    let id = kubelet.create("c", "echo hello; exec sleep 1000");
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let created = kubelet.status(&id);
    assert_eq!(created.state(), ContainerCreated);
    assert!(created.created_at > 0 && created.started_at == 0 && created.finished_at == 0);
    kubelet.try_start(&id).unwrap();
    let (running, info) = kubelet.verbose(&id[..12]).unwrap();
    assert_eq!(running.state(), ContainerRunning);
    assert!(running.started_at >= running.created_at);
    assert_eq!(running.image.unwrap().image, "docker.io/library/blackbox:latest");
    assert!(running.image_id.starts_with("sha256:"));
    assert_eq!(running.log_path, format!("{}/c.log", kubelet.pod_config.log_directory));
    assert_eq!(running.user.unwrap().linux.unwrap().uid, 0);
    assert_eq!(info["sandboxID"], kubelet.pod.as_str());
    assert_eq!(info["snapshotKey"], id.as_str());
    assert_eq!(
        (&info["snapshotter"], &info["runtimeType"]),
        (&"overlayfs".into(), &"io.containerd.runc.v2".into())
    );
    assert_eq!(info["runtimeSpec"]["process"]["args"][0], "sh");
    assert!(proc::alive(kubelet.pid(&id)));
    eventually("it is logged", || kubelet.log("c").ends_with(" stdout F hello\n"));
    // The name is taken.
    let again = kubelet.try_create(kubelet.config("c", "true")).unwrap_err();
    assert!(again.message().contains("failed to reserve container name"), "{again}");
    assert_eq!(kubelet.try_start(&id).unwrap_err().code(), Code::FailedPrecondition);
    for _ in 0..2 {
        kubelet.stop(&id, 0).unwrap();
    }
    let ended = kubelet.status(&id);
    assert_eq!((ended.state(), ended.exit_code, ended.reason.as_str()), (ContainerExited, 137, "Error"));
    assert!(ended.finished_at >= ended.started_at);
    for _ in 0..2 {
        kubelet.remove(&id).unwrap();
    }
    kubelet.stop(&id, 1).unwrap();
    assert_eq!(kubelet.verbose(&id).unwrap_err().code(), Code::NotFound);
    assert_eq!(kubelet.list(None), []);
    kubelet.cri.check_ledger(&before);
    let again = kubelet.create("c", "true");
    kubelet.remove(&again).unwrap();
}

#[test]
fn ends_are_told_with_codes_and_reasons() {
    let Some(kubelet) = Kubelet::start() else { return };
    for (name, script, code, reason) in [
        ("fine", "true", 0, "Completed"),
        ("wrong", "exit 7", 7, "Error"),
        ("killed", "kill -KILL $$", 137, "Error"),
    ] {
        let id = kubelet.run(name, script);
        let ended = kubelet.exits(&id);
        assert_eq!((ended.exit_code, ended.reason.as_str()), (code, reason), "{name}");
    }
    let mut missing = kubelet.config("missing", "");
    missing.command = vec!["/no/such/program".to_owned()];
    let id = kubelet.try_create(missing).unwrap();
    let refused = kubelet.try_start(&id).unwrap_err();
    let ended = kubelet.status(&id);
    assert_eq!((ended.state(), ended.exit_code, ended.reason.as_str()), (ContainerExited, 128, "StartError"));
    assert!(refused.message().contains("no such file"), "{refused}");
    assert_eq!(ended.message, refused.message());
}

#[test]
fn the_log_has_each_line_with_its_time_stream_and_tag() {
    let Some(kubelet) = Kubelet::start() else { return };
    let script = "echo one; echo two >&2; head -c 20000 /dev/zero | tr '\\0' x; echo; printf end";
    let id = kubelet.run("c", script);
    kubelet.exits(&id);
    let log = kubelet.log("c");
    let mut lines: Vec<Vec<&str>> = log.lines().map(|line| line.splitn(4, ' ').collect()).collect();
    lines.sort_by_key(|line| line[1] == "stderr");
    assert!(lines.iter().all(|line| types::time::parse_rfc3339(line[0]).is_some()), "{log}");
    let told: Vec<(&str, &str, usize)> = lines.iter().map(|line| (line[1], line[2], line[3].len())).collect();
    let expected = [
        ("stdout", "F", 3),
        ("stdout", "P", 16384),
        ("stdout", "F", 20000 - 16384),
        ("stdout", "P", 3),
        ("stderr", "F", 3),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_log_that_was_renamed_goes_on_in_a_new_file() {
    let Some(kubelet) = Kubelet::start() else { return };
    let id =
        kubelet.run("c", "echo before; while [ ! -e /go ]; do sleep 0.05; done; echo after; exec sleep 1000");
    eventually("it is logged", || kubelet.log("c").contains("before"));
    let path = PathBuf::from(&kubelet.pod_config.log_directory).join("c.log");
    fs::rename(&path, path.with_extension("1")).unwrap();
    let reopen = || {
        let request = wire::ReopenContainerLogRequest { container_id: id.clone() };
        kubelet.cri.call(kubelet.cri.client().reopen_container_log(request))
    };
    reopen().unwrap();
    assert_eq!(kubelet.log("c"), "");
    fs::write(format!("/proc/{}/root/go", kubelet.pid(&id)), "").unwrap();
    eventually("it is logged", || kubelet.log("c").contains("after"));
    assert!(!fs::read_to_string(path.with_extension("1")).unwrap().contains("after"));
    kubelet.stop(&id, 0).unwrap();
    let refused = reopen().unwrap_err();
    assert_eq!(refused.message(), "container is not running");
}

#[test]
fn a_container_that_ignores_its_stop_signal_is_killed_when_its_time_is_up() {
    let Some(kubelet) = Kubelet::start() else { return };
    let id = kubelet.run("c", "trap '' TERM; echo ready; while true; do sleep 0.1; done");
    eventually("it is ready", || kubelet.log("c").contains("ready"));
    let begun = Instant::now();
    kubelet.stop(&id, 1).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(10));
    assert_eq!(kubelet.status(&id).exit_code, 137);
}

#[test]
fn a_stop_whose_shim_breaks_off_comes_to_an_end() {
    let Some(kubelet) = Kubelet::start() else { return };
    let id = kubelet.run("c", "trap '' TERM; echo ready; while true; do sleep 0.1; done");
    eventually("it is ready", || kubelet.log("c").contains("ready"));
    let pid = kubelet.pid(&id);
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| kubelet.stop(&id, 50));
        std::thread::sleep(Duration::from_millis(100));
        kubelet.cri.shims().iter().for_each(|shim| proc::kill(shim.pid));
        let begun = Instant::now();
        stopping.join().unwrap().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    });
    assert_eq!(kubelet.status(&id).state(), ContainerExited);
    assert!(!proc::alive(pid));
    kubelet.remove(&id).unwrap();
}

#[test]
fn the_stop_signal_is_the_requests_or_the_images() {
    let Some(kubelet) = Kubelet::start() else { return };
    let script = "trap 'exit 3' USR1; trap 'exit 4' USR2; echo ready; while true; do sleep 0.05; done";
    let image = Image::named("docker.io/library/stops:1").layer(&base_layer(), Packing::Gzip);
    let image = image.config("StopSignal", "SIGUSR1".into());
    let archive = kubelet.cri.daemon.archive("stops.tar", &image.oci());
    kubelet.cri.daemon.ctr(&["-n", "k8s.io", "images", "import", &archive]).ok();
    kubelet.knows("docker.io/library/stops:1");
    for (name, signal, code) in [("image", 0, 3), ("request", wire::Signal::Sigusr2 as i32, 4)] {
        let mut config = kubelet.config(name, script);
        config.image.as_mut().unwrap().image = "docker.io/library/stops:1".to_owned();
        config.stop_signal = signal;
        let id = kubelet.try_create(config).unwrap();
        let told = if code == 3 { wire::Signal::Sigusr1 } else { wire::Signal::Sigusr2 };
        assert_eq!(kubelet.status(&id).stop_signal(), told);
        kubelet.try_start(&id).unwrap();
        eventually("it is ready", || kubelet.log(name).contains("ready"));
        kubelet.stop(&id, 20).unwrap();
        assert_eq!(kubelet.status(&id).exit_code, code);
    }
}

#[test]
fn a_frozen_container_is_stopped() {
    let Some(kubelet) = Kubelet::start() else { return };
    for (name, timeout) in [("asked", 20), ("killed", 0)] {
        let id = kubelet.run(name, "trap 'exit 3' TERM; echo ready; while true; do sleep 0.05; done");
        eventually("it is ready", || kubelet.log(name).contains("ready"));
        kubelet.cri.daemon.ctr(&["-n", "k8s.io", "tasks", "pause", &id]).ok();
        kubelet.stop(&id, timeout).unwrap();
        assert_eq!(kubelet.status(&id).exit_code, if timeout == 0 { 137 } else { 3 });
    }
}

#[test]
fn a_container_without_memory_has_ended_for_that_reason() {
    let Some(kubelet) = Kubelet::start() else { return };
    let eats = "x=a; while true; do x=$x$x; done";
    for (name, script) in [("init", eats.to_owned()), ("child", format!("sh -c '{eats}'; exit 5"))] {
        let mut config = kubelet.config(name, &script);
        let limits = wire::LinuxContainerResources {
            memory_limit_in_bytes: 16 << 20,
            memory_swap_limit_in_bytes: 16 << 20,
            ..Default::default()
        };
        config.linux.as_mut().unwrap().resources = Some(limits);
        let id = kubelet.try_create(config).unwrap();
        let told = kubelet.status(&id).resources.unwrap().linux.unwrap();
        assert_eq!(told.memory_limit_in_bytes, 16 << 20);
        kubelet.try_start(&id).unwrap();
        let ended = kubelet.exits(&id);
        assert_eq!(ended.reason, "OOMKilled", "{name} {}", ended.exit_code);
        assert_eq!(ended.exit_code, if name == "init" { 137 } else { 5 });
    }
}

#[test]
fn lists_are_filtered_by_id_pod_state_and_labels() {
    let Some(kubelet) = Kubelet::start() else { return };
    let (created, running) = (kubelet.create("a", "true"), kubelet.run("b", "exec sleep 1000"));
    let ids = |filter: wire::ContainerFilter| -> Vec<String> {
        kubelet.list(Some(filter)).into_iter().map(|container| container.id).collect()
    };
    assert_eq!(kubelet.list(None).len(), 2);
    let state = |state: wire::ContainerState| Some(wire::ContainerStateValue { state: state.into() });
    let filter = wire::ContainerFilter::default;
    assert_eq!(
        ids(wire::ContainerFilter { id: created[..10].to_owned(), ..filter() }),
        std::slice::from_ref(&created)
    );
    assert_eq!(
        ids(wire::ContainerFilter { state: state(ContainerRunning), ..filter() }),
        std::slice::from_ref(&running)
    );
    let label = BTreeMap::from([("name".to_owned(), "a".to_owned())]);
    assert_eq!(ids(wire::ContainerFilter { label_selector: label, ..filter() }), [created]);
    assert_eq!(
        ids(wire::ContainerFilter { pod_sandbox_id: kubelet.pod[..9].to_owned(), ..filter() }).len(),
        2
    );
    assert_eq!(ids(wire::ContainerFilter { pod_sandbox_id: "none".to_owned(), ..filter() }).len(), 0);
    let request = wire::StreamContainersRequest { filter: None };
    let streamed = kubelet.cri.block_on(async {
        let mut pieces = kubelet.cri.client().stream_containers(request).await.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(piece) = pieces.message().await.unwrap() {
            all.extend(piece.containers);
        }
        all
    });
    assert_eq!(streamed, kubelet.list(None));
}

#[test]
fn limits_are_changed_before_a_start_and_while_it_runs_or_not_at_all() {
    let Some(kubelet) = Kubelet::start() else { return };
    let id = kubelet.create("c", "exec sleep 1000");
    let limits = |bytes| wire::LinuxContainerResources { memory_limit_in_bytes: bytes, ..Default::default() };
    let told = || kubelet.status(&id).resources.unwrap().linux.unwrap().memory_limit_in_bytes;
    kubelet.update(&id, limits(64 << 20)).unwrap();
    assert_eq!(told(), 64 << 20);
    kubelet.try_start(&id).unwrap();
    let holds = || {
        let group = proc::cgroups(kubelet.cri.daemon.namespace());
        let group: Vec<_> = group.iter().filter(|path| path.ends_with(&id)).collect();
        let read = |file: &str| group.iter().find_map(|path| fs::read_to_string(path.join(file)).ok());
        let text = read("memory.limit_in_bytes").or_else(|| read("memory.max")).unwrap();
        text.trim().parse::<i64>().unwrap()
    };
    assert_eq!(holds(), 64 << 20);
    kubelet.update(&id, limits(128 << 20)).unwrap();
    assert_eq!((told(), holds()), (128 << 20, 128 << 20));
    // No kernel takes this, and nothing is changed then.
    let wrong = wire::LinuxContainerResources { cpuset_cpus: "9999".to_owned(), ..limits(32 << 20) };
    assert!(kubelet.update(&id, wrong).is_err());
    assert_eq!(told(), 128 << 20);
    let spec = kubelet.verbose(&id).unwrap().1["runtimeSpec"].clone();
    assert_eq!(spec["linux"]["resources"]["memory"]["limit"], 128 << 20);
}

#[test]
fn strings_that_are_hostile_are_refused_by_name_and_nothing_is_made() {
    let Some(kubelet) = Kubelet::start() else { return };
    let before = kubelet.cri.ledger();
    type Spoil = fn(&mut wire::ContainerConfig, &str);
    let fields: [(&str, Spoil); 5] = [
        ("metadata.name", |config, text| config.metadata.as_mut().unwrap().name = text.to_owned()),
        ("log_path", |config, text| config.log_path = text.to_owned()),
        ("image", |config, text| config.image.as_mut().unwrap().image = text.to_owned()),
        ("working_dir", |config, text| config.working_dir = text.to_owned()),
        ("mounts.container_path", |config, text| {
            let (container_path, host_path) = (text.to_owned(), "/tmp".to_owned());
            config.mounts = vec![wire::Mount { container_path, host_path, ..Default::default() }];
        }),
    ];
    let long = "x".repeat(1 << 20);
    for (field, spoil) in fields {
        for hostile in ["a\0b", "a\nb", "../../etc", &long] {
            let mut config = kubelet.config("c", "true");
            spoil(&mut config, hostile);
            let refused = kubelet.try_create(config).unwrap_err();
            if field == "image" && hostile == "../../etc" {
                assert_eq!(refused.code(), Code::NotFound, "{refused}");
                continue;
            }
            assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused}");
            assert!(refused.message().contains(field), "{field}: {refused}");
        }
    }
    let mut config = kubelet.config("c", "true");
    config.image.as_mut().unwrap().image = "docker.io/library/none:1".to_owned();
    let refused = kubelet.try_create(config).unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(
        refused.message().starts_with("failed to resolve image \"docker.io/library/none:1\""),
        "{refused}"
    );
    assert_eq!(kubelet.list(None), []);
    kubelet.cri.check_ledger(&before);
}

#[test]
fn names_that_collide_when_they_are_joined_are_not_taken_for_each_other() {
    let Some(kubelet) = Kubelet::start() else { return };
    kubelet.create("c_web", "true");
    let mut other = kubelet.config("c", "true");
    let mut pod = kubelet.pod_config.clone();
    pod.metadata.as_mut().unwrap().name = "web_web".to_owned();
    other.log_path = "other.log".to_owned();
    let request = wire::CreateContainerRequest {
        pod_sandbox_id: kubelet.pod.clone(),
        config: Some(other),
        sandbox_config: Some(pod),
    };
    let refused = kubelet.cri.call(kubelet.cri.client().create_container(request)).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("config.metadata.name"), "{refused}");
}

#[test]
fn volumes_of_an_image_begin_with_what_it_has_there_and_never_with_what_the_host_has() {
    let Some(kubelet) = Kubelet::start() else { return };
    let canary = kubelet.cri.daemon.dir().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "canary").unwrap();
    let outside = canary.display().to_string();
    let image = Image::named("docker.io/library/volumes:1").layer(&base_layer(), Packing::Gzip).layer(
        &[
            Entry::file("data/file", "of the image"),
            Entry::symlink("vol", &outside),
            Entry::symlink("dots", format!("../../../../../..{outside}")),
        ],
        Packing::Gzip,
    );
    let volumes = serde_json::json!({"/data": {}, "/vol": {}, "/dots": {}, format!("/../..{outside}"): {}});
    let image = image.config("Volumes", volumes);
    let archive = kubelet.cri.daemon.archive("volumes.tar", &image.oci());
    let name = "docker.io/library/volumes:1";
    kubelet.cri.daemon.ctr(&["-n", "k8s.io", "images", "import", &archive]).ok();
    kubelet.knows(name);
    let mut config = kubelet
        .config("c", "cat /data/file; echo; grep -rl canary /vol /dots /data; echo x > /data/new; true");
    config.image.as_mut().unwrap().image = name.to_owned();
    let id = kubelet.try_create(config).unwrap();
    let dir = kubelet.cri.root().join("containers").join(&id);
    let found = std::process::Command::new("grep").args(["-rl", "canary"]).arg(&dir).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    kubelet.try_start(&id).unwrap();
    let ended = kubelet.exits(&id);
    assert_eq!(ended.exit_code, 0, "{}", kubelet.log("c"));
    assert!(kubelet.log("c").ends_with(" stdout F of the image\n"), "{}", kubelet.log("c"));
    kubelet.remove(&id).unwrap();
    assert!(!dir.exists());
}

#[test]
fn many_containers_that_are_created_at_once_see_nothing_of_each_other() {
    let Some(kubelet) = Kubelet::start() else { return };
    let count = 16;
    let create = |n: usize| {
        let mut config = kubelet.config(&format!("c{n}"), "echo $MINE; exec sleep 1000");
        config.envs =
            vec![wire::KeyValue { key: "MINE".to_owned(), value: format!("value{n}").into_bytes() }];
        config.envs.push(wire::KeyValue { key: format!("ONLY{n}"), value: b"1".to_vec() });
        let request = wire::CreateContainerRequest {
            pod_sandbox_id: kubelet.pod.clone(),
            config: Some(config),
            sandbox_config: Some(kubelet.pod_config.clone()),
        };
        let mut client = kubelet.cri.client();
        async move {
            let id = client.create_container(request).await.unwrap().into_inner().container_id;
            client.start_container(wire::StartContainerRequest { container_id: id.clone() }).await.unwrap();
            id
        }
    };
    let ids = kubelet.cri.block_on(all((0..count).map(create)));
    for (n, id) in ids.iter().enumerate() {
        let environment = fs::read(format!("/proc/{}/environ", kubelet.pid(id))).unwrap();
        let environment = String::from_utf8(environment).unwrap();
        let only: Vec<&str> = environment.split('\0').filter(|pair| pair.starts_with("ONLY")).collect();
        assert_eq!(only, [format!("ONLY{n}=1")]);
        eventually("it is logged", || kubelet.log(&format!("c{n}")).ends_with(&format!("value{n}\n")));
    }
}

#[test]
fn the_same_calls_at_once_do_it_once() {
    let Some(kubelet) = Kubelet::start() else { return };
    let before = kubelet.cri.ledger();
    let id = kubelet.create("c", "exec sleep 1000");
    let started = kubelet.cri.block_on(all((0..10).map(|_| {
        let request = wire::StartContainerRequest { container_id: id.clone() };
        let mut client = kubelet.cri.client();
        async move { client.start_container(request).await.is_ok() }
    })));
    assert_eq!(started.iter().filter(|started| **started).count(), 1);
    let stopped = kubelet.cri.block_on(all((0..10).map(|_| {
        let request = wire::StopContainerRequest { container_id: id.clone(), timeout: 0 };
        let mut client = kubelet.cri.client();
        async move { client.stop_container(request).await.map(drop) }
    })));
    assert!(stopped.iter().all(Result::is_ok), "{stopped:?}");
    kubelet.cri.block_on(all((0..10).map(|_| {
        let request = wire::RemoveContainerRequest { container_id: id.clone() };
        let mut client = kubelet.cri.client();
        async move { client.remove_container(request).await.map(drop) }
    })));
    kubelet.remove(&id).unwrap();
    kubelet.cri.check_ledger(&before);
}

#[test]
fn a_daemon_that_died_finds_every_container_as_it_is() {
    let Some(kubelet) = Kubelet::start() else { return };
    let created = kubelet.create("created", "echo started");
    let running =
        kubelet.run("running", "echo before; while [ ! -e /go ]; do sleep 0.05; done; echo after; exit 6");
    let exited = kubelet.run("exited", "exit 3");
    kubelet.exits(&exited);
    let dying = kubelet.run("dying", "while [ ! -e /go ]; do sleep 0.05; done; exit 5");
    let pid = kubelet.pid(&dying);
    kubelet.cri.daemon.kill();
    fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
    eventually("it has ended", || !proc::alive(pid));
    kubelet.cri.launch();
    assert_eq!(kubelet.list(None).len(), 4);
    let code = |id: &str| (kubelet.status(id).state(), kubelet.status(id).exit_code);
    assert_eq!(code(&created), (ContainerCreated, 0));
    assert_eq!(code(&running), (ContainerRunning, 0));
    assert_eq!(code(&exited), (ContainerExited, 3));
    assert_eq!(code(&dying), (ContainerExited, 5));
    fs::write(format!("/proc/{}/root/go", kubelet.pid(&running)), "").unwrap();
    assert_eq!(kubelet.exits(&running).exit_code, 6);
    assert!(kubelet.log("running").ends_with(" stdout F after\n"), "{}", kubelet.log("running"));
    kubelet.try_start(&created).unwrap();
    assert_eq!(kubelet.exits(&created).exit_code, 0);
    kubelet.restart();
    assert_eq!(code(&running), (ContainerExited, 6));
    // The names are still theirs.
    assert!(kubelet.try_create(kubelet.config("running", "true")).is_err());
    kubelet.remove(&running).unwrap();
    kubelet.create("running", "true");
}

/// Instants at which the daemon is killed, and in which call.
const CREATE: [&str; 4] =
    ["cri-container-dirs", "cri-container-snapshot", "cri-container-status", "cri-container-record"];
const START: [&str; 4] = ["bundle-made", "cri-task-created", "started", "cri-task-started"];
const END: [&str; 2] = ["cri-container-snapshot-removed", "cri-container-records-removed"];

#[test]
fn a_daemon_that_is_killed_between_two_steps_leaves_nothing_that_the_kubelet_cannot_remove() {
    if binaries::beyond_upstream("it kills itself where it is told to") {
        return;
    }
    let Some(cri) = Cri::prepare_with_crash_points("") else { return };
    cri.launch();
    let kubelet = Kubelet::with(cri);
    let before = kubelet.cri.ledger();
    let points = [("create", &CREATE[..]), ("start", &START[..]), ("end", &END[..])];
    for (call, point) in
        points.iter().flat_map(|(call, points)| points.iter().map(move |point| (*call, *point)))
    {
        let made = (call != "create").then(|| kubelet.create("c", "exec sleep 1000"));
        if call == "end" {
            kubelet.try_start(made.as_ref().unwrap()).unwrap();
        }
        kubelet.cri.daemon.kill();
        kubelet.cri.launch_with(&[("CONTAINERD_RS_CRASH_AT", point)]);
        let died = match (call, &made) {
            ("start", Some(id)) => kubelet.try_start(id).is_err(),
            ("end", Some(id)) => kubelet.remove(id).is_err(),
            _ => kubelet.try_create(kubelet.config("c", "true")).is_err(),
        };
        assert!(died, "{point}");
        kubelet.cri.daemon.kill();
        kubelet.cri.launch();
        // What a kubelet does about it.
        for container in kubelet.list(None) {
            kubelet.stop(&container.id, 0).unwrap_or_else(|status| panic!("{point}: stop: {status}"));
            kubelet.remove(&container.id).unwrap_or_else(|status| panic!("{point}: remove: {status}"));
        }
        let again = kubelet.create("c", "true");
        kubelet.remove(&again).unwrap();
        eprintln!("{point}");
        let snapshots: Vec<String> = kubelet.cri.ledger().difference(&before).cloned().collect();
        // The pod's lease has those of containers that were never made.
        let left: Vec<&String> = snapshots.iter().filter(|line| !line.starts_with("row snapshots")).collect();
        if !left.is_empty() {
            kubelet.cri.check_ledger(&before);
        }
    }
    kubelet.cri.remove_pod(&kubelet.pod).unwrap();
    eventually("snapshots go with the pod", || {
        let left = kubelet.cri.ledger();
        !left.difference(&before).any(|line| line.starts_with("row snapshots"))
    });
}

#[test]
fn an_image_is_a_volume_that_all_containers_of_a_pod_share_and_none_can_change() {
    let Some(kubelet) = Kubelet::start() else { return };
    let name = "docker.io/library/files:1";
    let image = Image::named(name).layer(&base_layer(), Packing::Gzip);
    let image = image.layer(&[Entry::dir("sub"), Entry::file("sub/file", "in the image\n")], Packing::Gzip);
    let archive = kubelet.cri.daemon.archive("files.tar", &image.oci());
    kubelet.cri.daemon.ctr(&["-n", "k8s.io", "images", "import", &archive]).ok();
    kubelet.knows(name);
    let mount = |path: &str, readonly| wire::Mount {
        container_path: "/vol".to_owned(),
        image: Some(wire::ImageSpec { image: name.to_owned(), ..Default::default() }),
        image_sub_path: path.to_owned(),
        readonly,
        ..Default::default()
    };
    for (container, sub, file) in [("whole", "", "sub/file"), ("part", "sub", "file")] {
        let mut config = kubelet.config(container, &format!("cat /vol/{file}; ! touch /vol/new 2>/dev/null"));
        config.mounts = vec![mount(sub, true)];
        let id = kubelet.try_create(config).unwrap();
        kubelet.try_start(&id).unwrap();
        assert_eq!(kubelet.exits(&id).exit_code, 0, "{}", kubelet.log(container));
        assert!(kubelet.log(container).ends_with(" F in the image\n"), "{}", kubelet.log(container));
    }
    let volumes = || {
        let mounts = proc::mounts_below(&kubelet.cri.state().join("image-volumes"));
        mounts.len()
    };
    assert_eq!(volumes(), 1);
    let place = kubelet.cri.state().join("image-volumes").to_string_lossy().into_owned();
    let mounted = fs::read_to_string("/proc/self/mounts").unwrap();
    let volume = mounted.lines().find(|line| line.contains(&place)).unwrap();
    assert!(volume.contains("volatile"), "what is written there is synced for nobody: {volume}");
    // It is the same for the next daemon, which takes it away.
    kubelet.cri.daemon.kill();
    kubelet.cri.launch();
    for (sub, readonly, word) in
        [("", false, "readonly"), ("none", true, "subpath"), ("../..", true, "sub_path")]
    {
        let mut config = kubelet.config("refused", "true");
        config.mounts = vec![mount(sub, readonly)];
        let refused = kubelet.try_create(config).unwrap_err();
        assert!(refused.message().contains(word), "{refused}");
    }
    kubelet.cri.stop_pod(&kubelet.pod).unwrap();
    assert_eq!(volumes(), 0);
}

#[test]
fn a_volume_whose_daemon_is_killed_before_it_is_mounted_is_mounted_by_the_next_one_and_leaves_nothing() {
    if binaries::beyond_upstream("it kills itself where it is told to") {
        return;
    }
    let Some(cri) = Cri::prepare_with_crash_points("") else { return };
    cri.launch();
    cri.image();
    let before = cri.ledger();
    let kubelet = Kubelet::with(cri);
    let config = || {
        let mut config = kubelet.config("c", "! touch /vol/new 2>/dev/null");
        let image = wire::ImageSpec { image: kubelet.cri.image().to_owned(), ..Default::default() };
        config.mounts = vec![wire::Mount {
            container_path: "/vol".to_owned(),
            image: Some(image),
            readonly: true,
            ..Default::default()
        }];
        config
    };
    kubelet.cri.daemon.kill();
    kubelet.cri.launch_with(&[("CONTAINERD_RS_CRASH_AT", "cri-image-volume-snapshot")]);
    kubelet.try_create(config()).unwrap_err();
    eventually("the daemon dies", || kubelet.cri.daemon.ended().is_some());
    kubelet.cri.launch();
    let id = kubelet.try_create(config()).unwrap();
    kubelet.try_start(&id).unwrap();
    assert_eq!(kubelet.exits(&id).exit_code, 0);
    kubelet.cri.remove_pod(&kubelet.pod).unwrap();
    kubelet.cri.check_ledger(&before);
}

#[test]
fn a_container_goes_on_after_its_checkpoint_was_archived() {
    if std::env::var_os("CRIU_DIR").is_none() || binaries::beyond_upstream("criu is where the suite has it") {
        return;
    }
    let Some(kubelet) = Kubelet::start() else { return };
    let id = kubelet.run("c", "echo said; echo x > /written; while true; do sleep 0.1; done");
    eventually("it is ready", || kubelet.log("c").contains("said"));
    let location = kubelet.cri.daemon.dir().join("checkpoint.tar");
    let checkpoint = |id: &str, location: &str| {
        let request = wire::CheckpointContainerRequest {
            container_id: id.to_owned(),
            location: location.to_owned(),
            timeout: 0,
        };
        kubelet.cri.call(kubelet.cri.client().checkpoint_container(request)).map(drop)
    };
    checkpoint(&id, &location.to_string_lossy()).unwrap();
    assert_eq!(kubelet.status(&id).state(), ContainerRunning);
    assert!(proc::alive(kubelet.pid(&id)));
    let listed = std::process::Command::new("tar").arg("-tf").arg(&location).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for name in
        ["config.dump", "spec.dump", "status.dump", "status", "dump.log", "stats-dump", "container.log"]
    {
        assert!(listed.lines().any(|line| line == name), "{name}: {listed}");
    }
    assert!(listed.contains("checkpoint/inventory.img"), "{listed}");
    let changes = std::process::Command::new("sh")
        .args(["-c", "tar -xOf \"$0\" rootfs-diff.tar | tar -tzf -"])
        .arg(&location)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&changes.stdout).lines().any(|line| line == "written"), "{changes:?}");
    assert!(!kubelet.cri.root().join("containers").join(&id).join("ctrd-checkpoint").exists());
    assert_eq!(checkpoint(&id, "relative.tar").unwrap_err().code(), Code::InvalidArgument);
    kubelet.stop(&id, 0).unwrap();
    let refused = checkpoint(&id, &location.to_string_lossy()).unwrap_err();
    assert!(refused.message().contains("only CONTAINER_RUNNING containers can be checkpointed"), "{refused}");
}

#[test]
fn what_a_shim_of_another_kind_says_is_logged_by_the_daemon_and_goes_on_after_its_end() {
    let Some(kubelet) = Kubelet::with_upstreams_shim() else { return };
    let script = "echo one; echo two >&2; while [ ! -e /go ]; do sleep 0.05; done; echo three; exit 5";
    let id = kubelet.run("c", script);
    eventually("it is logged", || kubelet.log("c").contains(" stdout F one\n"));
    eventually("it is logged", || kubelet.log("c").contains(" stderr F two\n"));
    kubelet.restart();
    assert_eq!(kubelet.status(&id).state(), ContainerRunning);
    let path = PathBuf::from(&kubelet.pod_config.log_directory).join("c.log");
    fs::rename(&path, path.with_extension("1")).unwrap();
    let request = wire::ReopenContainerLogRequest { container_id: id.clone() };
    kubelet.cri.call(kubelet.cri.client().reopen_container_log(request)).unwrap();
    fs::write(format!("/proc/{}/root/go", kubelet.pid(&id)), "").unwrap();
    let ended = kubelet.exits(&id);
    assert_eq!((ended.exit_code, ended.reason.as_str()), (5, "Error"));
    assert!(kubelet.log("c").ends_with(" stdout F three\n"), "{}", kubelet.log("c"));
    kubelet.remove(&id).unwrap();
}

#[test]
fn a_container_goes_on_from_its_archive_or_an_image_of_it_in_the_place_of_an_image() {
    if std::env::var_os("CRIU_DIR").is_none() || binaries::beyond_upstream("criu is where the suite has it") {
        return;
    }
    let Some(cri) = Cri::prepare("") else { return };
    let path = cri.daemon.dir().join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    let line = "restrict_oom_score_adj = true\n";
    let more = format!("{line}enable_experimental_restore_via_create = true\n");
    fs::write(&path, text.replace(line, &more)).unwrap();
    cri.launch();
    let kubelet = Kubelet::with(cri);
    let script = "echo kept > /kept; n=0; while true; do n=$((n+1)); echo n $n; sleep 0.2; done";
    let id = kubelet.run("c", script);
    eventually("it counts", || kubelet.log("c").contains("n 3\n"));
    let location = kubelet.cri.daemon.dir().join("checkpoint.tar").to_string_lossy().into_owned();
    let request =
        wire::CheckpointContainerRequest { container_id: id.clone(), location: location.clone(), timeout: 0 };
    kubelet.cri.call(kubelet.cri.client().checkpoint_container(request)).unwrap();
    kubelet.remove(&id).unwrap();
    let name = "docker.io/test/checkpoint:1";
    let image = Image::named(name).raw_layer(fs::read(&location).unwrap(), Packing::Gzip);
    kubelet.import(name, &image.annotation("org.criu.checkpoint.container.name", "c"));
    let snapshots = || kubelet.cri.daemon.ctr(&["-n", "k8s.io", "snapshots", "list"]).ok().lines().count();
    let before = snapshots();
    for (again, place) in [("again", location.as_str()), ("from-image", name)] {
        let mut config = kubelet.config(again, "exit 9");
        config.image.as_mut().unwrap().image = place.to_owned();
        let id = kubelet.try_create(config).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(kubelet.status(&id).annotations["restored"], "true");
        let said = kubelet.log(again).lines().count();
        assert!(said >= 3, "{}", kubelet.log(again));
        kubelet.try_start(&id).unwrap();
        eventually("it counts on", || kubelet.log(again).lines().count() > said + 2);
        assert_eq!(kubelet.log(again).matches(" n 1\n").count(), 1, "{}", kubelet.log(again));
        let kept = format!("/proc/{}/root/kept", kubelet.pid(&id));
        assert_eq!(fs::read_to_string(kept).unwrap(), "kept\n");
        kubelet.remove(&id).unwrap();
        assert_eq!(snapshots(), before);
    }
    let mut config = kubelet.config("again", "exit 9");
    config.image.as_mut().unwrap().image.clone_from(&location);
    // One that is damaged leaves nothing.
    fs::write(&location, "no archive").unwrap();
    assert!(kubelet.try_create(config).is_err());
    assert_eq!(kubelet.list(None), []);
}
