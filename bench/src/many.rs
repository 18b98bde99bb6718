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

use crate::sides::{Sides, milliseconds, time, time_of};
use crate::statistics::{Figures, Samples};

const COUNT: usize = 10_000;
const SNAPSHOTTER: &str = "overlayfs";
/// About what a spec with the default profile has.
const SPEC: usize = 4096;

/// The rows of this module: name and unit. For each list what it takes through one client of the API, what of that the
/// daemon's processors are busy, what `ctr` takes that lists, each daemon's own and the peer's for both.
pub const ROWS: [(&str, &str); 15] = [
    ("many-images", "ms"),
    ("many-images-daemon-cpu", "ms"),
    ("many-images-own-ctr", "ms"),
    ("many-images-peers-ctr", "ms"),
    ("many-containers", "ms"),
    ("many-containers-daemon-cpu", "ms"),
    ("many-containers-own-ctr", "ms"),
    ("many-containers-peers-ctr", "ms"),
    ("many-snapshots", "ms"),
    ("many-snapshots-daemon-cpu", "ms"),
    ("many-snapshots-own-ctr", "ms"),
    ("many-snapshots-peers-ctr", "ms"),
    ("many-pss-after-lists", "kB"),
    ("many-pss-idle", "kB"),
    ("many-restart", "ms"),
];

/// Something that can be listed.
struct List {
    api: fn(&Api) -> Result<usize>,
    ctr: &'static [&'static str],
}

const LISTS: [List; 3] = [
    List { api: list_images, ctr: &["images", "ls", "-q"] },
    List { api: list_containers, ctr: &["containers", "ls", "-q"] },
    List { api: list_snapshots, ctr: &["snapshots", "ls"] },
];

/// Where the rows that are no list's begin.
const REST: usize = 4 * LISTS.len();

/// Fills both daemons, then takes all rows in turn.
pub fn measure(sides: &Sides) -> Result<[Figures; ROWS.len()]> {
    let both = [&sides.ours, &sides.peer];
    for daemon in both {
        fill(daemon)?;
    }
    let mut rows = ROWS.map(|_| Figures::default());
    for round in 0..10 {
        for daemon in both {
            let ours = std::ptr::eq(daemon, &raw const sides.ours);
            for (list, rows) in LISTS.iter().zip(rows.chunks_mut(4)) {
                let figures = list.measure(daemon, &sides.peer)?;
                // The first round warms both up.
                if round > 0 {
                    rows.iter_mut().zip(figures).for_each(|(row, figure)| side(row, ours).push(figure));
                }
            }
            if round > 0 {
                side(&mut rows[REST], ours).push(memory(daemon)?);
            }
        }
    }
    for _ in 0..3 {
        for daemon in both {
            let ours = std::ptr::eq(daemon, &raw const sides.ours);
            daemon.kill();
            let started = Instant::now();
            daemon.launch();
            side(&mut rows[REST + 2], ours).push(milliseconds(started.elapsed()));
            list_containers(&daemon.api())?;
            sleep(Duration::from_secs(5));
            side(&mut rows[REST + 1], ours).push(memory(daemon)?);
        }
    }
    Ok(rows)
}

impl List {
    /// The figures of its four rows.
    fn measure(&self, daemon: &Daemon, peer: &Daemon) -> Result<[f64; 4]> {
        let api = daemon.api();
        let pid = daemon.pid().context("the daemon runs")?;
        let (busy, started) = (proc::busy(pid), Instant::now());
        let found = (self.api)(&api)?;
        let (took, busy) = (started.elapsed(), proc::busy(pid).saturating_sub(busy));
        ensure!(found >= COUNT, "only {found} were listed");
        let own = time(daemon, self.ctr)?;
        let peers = time_of(daemon, peer.ctr_binary(), self.ctr)?;
        Ok([milliseconds(took), milliseconds(busy), own, peers])
    }
}

fn memory(daemon: &Daemon) -> Result<f64> {
    // Far below 2^52.
    Ok(proc::pss(daemon.pid().context("the daemon runs")?) as f64)
}

fn side(row: &mut Figures, ours: bool) -> &mut Samples {
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
