//! Lists, streams and events as a kubelet follows a node by them: a stream says what the list says, filters choose, and every change
//! of a container is told with what it is of.

use std::time::Duration;

use api::cri as wire;
use api::cri::ContainerEventType as Event;
use containerd_tests::archive::{Image, Packing, base_layer};
use containerd_tests::{Cri, Kubelet, binaries, command};
use tonic::{Streaming, transport::Channel};

type Runtime = grpc::cri::runtime_service_client::RuntimeServiceClient<Channel>;

/// All messages of a stream that ends.
fn all<T>(cri: &Cri, mut stream: Streaming<T>) -> Vec<T> {
    cri.block_on(async {
        let mut all = Vec::new();
        while let Some(piece) = stream.message().await.unwrap() {
            all.push(piece);
        }
        all
    })
}

#[test]
fn the_version_is_the_programs_and_that_of_the_interface() {
    let Some(cri) = Cri::start() else { return };
    let answer = cri.call(cri.client().version(wire::VersionRequest::default())).unwrap();
    let said = command::Invocation::new({
        let mut program = std::process::Command::new(&binaries::tested().daemon);
        program.arg("--version");
        program
    });
    let said = said.ok();
    assert_eq!(said.split_whitespace().nth(2), Some(answer.runtime_version.as_str()), "{said}");
    let rest = (&*answer.version, &*answer.runtime_name, &*answer.runtime_api_version);
    assert_eq!(rest, ("0.1.0", "containerd", "v1"));
}

#[test]
fn images_are_listed_and_streamed_alike_and_a_filter_chooses_one() {
    let Some(cri) = Cri::start() else { return };
    let kubelet = Kubelet::with(cri);
    let names =
        ["docker.io/library/blackbox:latest", "docker.io/library/other:1", "docker.io/library/third:1"];
    for (number, name) in names.iter().enumerate().skip(1) {
        let image = Image::named(*name).layer(&base_layer(), Packing::Gzip);
        kubelet.import(name, &image.config("User", number.to_string().into()));
    }
    let cri = &kubelet.cri;
    let list = |name: Option<&str>| {
        let image = name.map(|name| wire::ImageSpec { image: name.to_owned(), ..Default::default() });
        let filter = name.map(|_| wire::ImageFilter { image });
        let listed = cri.call(cri.images().list_images(wire::ListImagesRequest { filter: filter.clone() }));
        let listed = listed.unwrap().images;
        let stream = cri.call(cri.images().stream_images(wire::StreamImagesRequest { filter })).unwrap();
        let streamed: Vec<_> = all(cri, stream).into_iter().flat_map(|piece| piece.images).collect();
        assert_eq!(listed, streamed, "{name:?}");
        let mut tags: Vec<_> = listed.into_iter().flat_map(|image| image.repo_tags).collect();
        tags.sort();
        tags
    };
    assert_eq!(list(None), names);
    assert_eq!(list(Some("")), names);
    if !binaries::beyond_upstream("upstream does not look at the filter of a list of images") {
        assert_eq!(list(Some(names[1])), [names[1]]);
        assert_eq!(list(Some("docker.io/library/none:1")), [""; 0]);
    }
}

#[test]
fn usage_of_pods_is_listed_and_streamed_alike_and_filters_choose() {
    let Some(kubelet) = Kubelet::start() else { return };
    let cri = &kubelet.cri;
    let container = kubelet.run("c", "exec sleep 1000");
    let other = kubelet.pod(cri.pod_config("other"), "").unwrap().pod;
    let list = |filter: wire::PodSandboxStatsFilter| {
        let request = wire::ListPodSandboxStatsRequest { filter: Some(filter.clone()) };
        let listed = cri.call(cri.client().list_pod_sandbox_stats(request)).unwrap().stats;
        let request = wire::StreamPodSandboxStatsRequest { filter: Some(filter) };
        let stream = cri.call(cri.client().stream_pod_sandbox_stats(request)).unwrap();
        let streamed: Vec<_> =
            all(cri, stream).into_iter().flat_map(|piece| piece.pod_sandbox_stats).collect();
        let about = |stats: Vec<wire::PodSandboxStats>| {
            let of = |stats: wire::PodSandboxStats| {
                let containers = stats.linux.unwrap().containers.into_iter();
                (
                    stats.attributes.unwrap(),
                    containers.map(|of| of.attributes.unwrap().id).collect::<Vec<_>>(),
                )
            };
            let mut about: Vec<_> = stats.into_iter().map(of).collect();
            about.sort_by(|a, b| a.0.id.cmp(&b.0.id));
            about
        };
        let (listed, streamed) = (about(listed), about(streamed));
        assert_eq!(listed, streamed);
        listed.into_iter().map(|(pod, containers)| (pod.id, containers)).collect::<Vec<_>>()
    };
    let filter = wire::PodSandboxStatsFilter::default;
    let of_id = |id: &str| wire::PodSandboxStatsFilter { id: id.to_owned(), ..filter() };
    let of_app = |app: &str| wire::PodSandboxStatsFilter {
        label_selector: [("app".to_owned(), app.to_owned())].into(),
        ..filter()
    };
    let (web, other) = ((kubelet.pod.clone(), vec![container]), (other, vec![]));
    assert_eq!(list(filter()).len(), 2);
    assert_eq!(list(of_id(&web.0[..10])), std::slice::from_ref(&web));
    assert_eq!(list(of_app("other")), [other]);
    assert_eq!(list(of_app("web")), [web]);
    assert_eq!(list(of_id("none")), []);
}

#[test]
fn metrics_of_pods_are_listed_and_streamed_alike() {
    let Some(kubelet) = Kubelet::start() else { return };
    let cri = &kubelet.cri;
    let mut config = kubelet.config("c", "exec sleep 1000");
    config.linux.get_or_insert_default().resources = Some(wire::LinuxContainerResources {
        cpu_shares: 512,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    });
    let container = kubelet.run_config(config);
    kubelet.pod(cri.pod_config("other"), "").unwrap();
    let names = |pods: Vec<wire::PodSandboxMetrics>| {
        let name = |metric: &wire::Metric| metric.name.clone();
        let of = |pod: &wire::PodSandboxMetrics| {
            let containers: Vec<(String, Vec<String>)> = pod
                .container_metrics
                .iter()
                .map(|of| (of.container_id.clone(), of.metrics.iter().map(name).collect()))
                .collect();
            (pod.pod_sandbox_id.clone(), pod.metrics.iter().map(name).collect::<Vec<_>>(), containers)
        };
        let mut names: Vec<_> = pods.iter().map(of).collect();
        names.sort();
        names
    };
    let listed = cri.call(cri.client().list_pod_sandbox_metrics(wire::ListPodSandboxMetricsRequest {}));
    let listed = listed.unwrap().pod_metrics;
    let of_container = listed.iter().flat_map(|pod| &pod.container_metrics).next().unwrap().metrics.clone();
    let value = |name: &str| {
        let metric = of_container.iter().find(|metric| metric.name == name);
        metric.unwrap_or_else(|| panic!("no {name}")).value.unwrap().value
    };
    for (name, expected) in [
        ("container_spec_cpu_shares", 512),
        ("container_spec_cpu_period", 100_000),
        ("container_spec_memory_limit_bytes", 64 << 20),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    let disk = rustix::fs::statvfs(cri.daemon.root()).unwrap();
    assert_eq!(value("container_fs_limit_bytes"), disk.f_blocks * disk.f_frsize);
    assert!(value("container_fs_usage_bytes") > 0 && value("container_fs_inodes_total") == disk.f_files);
    let listed = names(listed);
    let stream = cri.call(cri.client().stream_pod_sandbox_metrics(wire::StreamPodSandboxMetricsRequest {}));
    let streamed =
        all(cri, stream.unwrap()).into_iter().flat_map(|piece| piece.pod_sandbox_metrics).collect();
    assert_eq!(listed, names(streamed));
    let web = listed.iter().find(|pod| pod.0 == kubelet.pod).unwrap();
    assert!(web.2[0].0 == container && web.2[0].1.len() > 20, "{web:?}");
    assert_eq!(listed.len(), 2);
}

/// The next event: what of, what has happened, and the container's state in the statuses that come with it.
fn next(
    cri: &Cri,
    stream: &mut Streaming<wire::ContainerEventResponse>,
) -> (String, Event, Option<wire::ContainerState>) {
    let event = async { tokio::time::timeout(Duration::from_secs(20), stream.message()).await };
    let event = cri.block_on(event).unwrap().unwrap().unwrap();
    assert!(event.created_at > 0 && event.pod_sandbox_status.is_some(), "{event:?}");
    let status = event.containers_statuses.iter().find(|status| status.id == event.container_id);
    let state = status.map(wire::ContainerStatus::state);
    let kind = event.container_event_type();
    (event.container_id, kind, state)
}

#[test]
fn every_change_of_a_container_is_told_with_its_state() {
    let Some(kubelet) = Kubelet::start() else { return };
    let cri = &kubelet.cri;
    let mut client: Runtime = cri.client();
    let mut stream = cri.call(client.get_container_events(wire::GetEventsRequest {})).unwrap();
    // Those of the pod, which nobody has heard.
    for kind in [Event::ContainerCreatedEvent, Event::ContainerStartedEvent] {
        assert_eq!(next(cri, &mut stream), (kubelet.pod.clone(), kind, None));
    }
    let id = kubelet.create("c", "exit 3");
    let expected = |kind, state| (id.clone(), kind, state);
    let created = wire::ContainerState::ContainerCreated;
    assert_eq!(next(cri, &mut stream), expected(Event::ContainerCreatedEvent, Some(created)));
    kubelet.try_start(&id).unwrap();
    // It may have ended when its start is told; then both are told with the state that it has.
    let mut kinds = [next(cri, &mut stream), next(cri, &mut stream)];
    kinds.sort_by_key(|event| event.1);
    assert!(kinds.iter().all(|event| event.0 == id && event.2.is_some()), "{kinds:?}");
    assert_eq!(
        kinds.each_ref().map(|event| event.1),
        [Event::ContainerStartedEvent, Event::ContainerStoppedEvent]
    );
    assert_eq!(kinds[1].2, Some(wire::ContainerState::ContainerExited));
    kubelet.remove(&id).unwrap();
    assert_eq!(next(cri, &mut stream), expected(Event::ContainerDeletedEvent, None));
    // One that is removed while it runs has ended before.
    let id = kubelet.run("d", "exec sleep 1000");
    let running = wire::ContainerState::ContainerRunning;
    let expected = |kind, state| (id.clone(), kind, state);
    assert_eq!(next(cri, &mut stream), expected(Event::ContainerCreatedEvent, Some(created)));
    assert_eq!(next(cri, &mut stream), expected(Event::ContainerStartedEvent, Some(running)));
    kubelet.remove(&id).unwrap();
    assert_eq!(next(cri, &mut stream).1, Event::ContainerStoppedEvent);
    assert_eq!(next(cri, &mut stream).1, Event::ContainerDeletedEvent);
}
