//! Ten thousand images, containers and snapshots: what listing them, keeping them and starting over them costs.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use api::ProtoAny;
use api::containerd::services::containers::v1 as containers;
use api::containerd::services::images::v1 as images;
use api::containerd::services::snapshots::v1 as snapshots;
use containerd_tests::archive::IMAGE;
use containerd_tests::{Api, Daemon, proc};
use grpc::containers::containers_client::ContainersClient;
use grpc::images::images_client::ImagesClient;
use grpc::snapshots::snapshots_client::SnapshotsClient;
use tonic::Code;

use crate::sides::{Sides, milliseconds};
use crate::statistics::Figures;

const COUNT: usize = 10_000;
const SNAPSHOTTER: &str = "overlayfs";
/// About what a spec with the default profile has.
const SPEC: usize = 4096;

/// The rows of this module: name and unit.
pub const ROWS: [(&str, &str); 5] = [
    ("list-10000-images", "ms"),
    ("list-10000-containers", "ms"),
    ("list-10000-snapshots", "ms"),
    ("idle-daemon-pss-10000", "kB"),
    ("restart-with-10000", "ms"),
];

/// Fills both daemons, then takes all rows in turn.
pub fn measure(sides: &Sides) -> Result<[Figures; 5]> {
    let both = [&sides.ours, &sides.peer];
    for daemon in both {
        fill(daemon)?;
    }
    let mut rows = ROWS.map(|_| Figures::default());
    for round in 0..10 {
        for daemon in both {
            let ours = std::ptr::eq(daemon, &raw const sides.ours);
            let api = daemon.api();
            let lists: [fn(&Api) -> Result<usize>; 3] = [list_images, list_containers, list_snapshots];
            for (row, list) in rows.iter_mut().zip(lists) {
                let started = Instant::now();
                let found = list(&api)?;
                // The first round warms both up.
                if round > 0 {
                    side(row, ours).push(milliseconds(started.elapsed()));
                }
                ensure!(found >= COUNT, "only {found} were listed");
            }
        }
    }
    for _ in 0..3 {
        for daemon in both {
            let ours = std::ptr::eq(daemon, &raw const sides.ours);
            daemon.kill();
            let started = Instant::now();
            daemon.launch();
            side(&mut rows[4], ours).push(milliseconds(started.elapsed()));
            list_containers(&daemon.api())?;
            sleep(Duration::from_secs(5));
            let pid = daemon.pid().context("the daemon runs")?;
            side(&mut rows[3], ours).push(proc::pss(pid) as f64 / 1024.0);
        }
    }
    Ok(rows)
}

fn side(row: &mut Figures, ours: bool) -> &mut crate::statistics::Samples {
    if ours { &mut row.ours } else { &mut row.peer }
}

fn fill(daemon: &Daemon) -> Result<()> {
    let api = daemon.api();
    let mut images = ImagesClient::new(api.channel());
    let mut containers = ContainersClient::new(api.channel());
    let mut snapshots = SnapshotsClient::new(api.channel());
    let request = images::GetImageRequest { name: IMAGE.into() };
    let found = api.call(images.get(api.request(request))).map_err(refused("get the image"))?;
    let target = found.image.context("an image")?.target;
    for n in 0..COUNT {
        let image = images::Image {
            name: format!("example.com/many/{n:05}:latest"),
            target: target.clone(),
            ..Default::default()
        };
        let request = images::CreateImageRequest { image: Some(image), ..Default::default() };
        api.call(images.create(api.request(request))).map_err(refused("create an image"))?;
        // Before its snapshot, which nothing else keeps.
        let request = containers::CreateContainerRequest { container: Some(container(n)) };
        api.call(containers.create(api.request(request))).map_err(refused("create a container"))?;
        let request = snapshots::PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: format!("many-{n:05}"),
            ..Default::default()
        };
        api.call(snapshots.prepare(api.request(request))).map_err(refused("prepare a snapshot"))?;
    }
    Ok(())
}

fn container(n: usize) -> containers::Container {
    containers::Container {
        id: format!("many-{n:05}"),
        image: IMAGE.into(),
        runtime: Some(containers::container::Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        spec: Some(ProtoAny {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
            value: format!("{{\"hostname\":\"{}\"}}", "x".repeat(SPEC)).into_bytes(),
        }),
        snapshotter: SNAPSHOTTER.into(),
        snapshot_key: format!("many-{n:05}"),
        ..Default::default()
    }
}

fn list_images(api: &Api) -> Result<usize> {
    let request = api.request(images::ListImagesRequest::default());
    let mut client = ImagesClient::new(api.channel()).max_decoding_message_size(usize::MAX);
    Ok(api.call(client.list(request)).map_err(refused("list images"))?.images.len())
}

fn list_containers(api: &Api) -> Result<usize> {
    let request = api.request(containers::ListContainersRequest::default());
    let mut client = ContainersClient::new(api.channel());
    let stream = api.call(client.list_stream(request)).map_err(refused("list containers"))?;
    Ok(api.drain(stream).map_err(refused("list containers"))?.len())
}

fn list_snapshots(api: &Api) -> Result<usize> {
    let request = api
        .request(snapshots::ListSnapshotsRequest { snapshotter: SNAPSHOTTER.into(), ..Default::default() });
    let mut client = SnapshotsClient::new(api.channel());
    let stream = api.call(client.list(request)).map_err(refused("list snapshots"))?;
    let chunks = api.drain(stream).map_err(refused("list snapshots"))?;
    Ok(chunks.iter().map(|chunk| chunk.info.len()).sum())
}

fn refused(what: &'static str) -> impl Fn(Code) -> anyhow::Error {
    move |code| anyhow!("{what}: {code:?}")
}
