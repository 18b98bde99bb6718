//! A thousand pods, as records alone; a thousand containers that run; a hundred pods over which the daemon starts again; and what a
//! pod that does nothing has of memory.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use api::cri as wire;
use containerd_tests::proc;

use super::{Net, Node, Nodes, refused, timed};
use crate::Name;
use crate::rows::settle;
use crate::sides::{Programs, milliseconds};
use crate::statistics::Figures;

/// A thousand pods that have ended, with a container each: lists, and the status of each one after another.
pub const RECORDS: [Name; 4] = [
    ("cri-thousand-list-pods", "ms"),
    ("cri-thousand-list-containers", "ms"),
    ("cri-thousand-pod-statuses", "ms"),
    ("cri-thousand-container-statuses", "ms"),
];
/// What a pod's processes have of memory that does nothing: its shim, and what pauses.
pub const MEMORY: [Name; 1] = [("cri-memory-per-pod", "kB")];
/// From the start of a daemon, whose predecessor was killed, to its list of a hundred pods that are all ready.
pub const RESTART: [Name; 1] = [("cri-restart-with-hundred", "ms")];
/// A thousand containers that run, and a kubelet that asks for their usage every ten seconds, or does not ask: how much of a
/// processor the daemon uses.
pub const USAGE: [Name; 2] = [("cri-thousand-usage-asked", "%"), ("cri-thousand-usage-unasked", "%")];

const COUNT: usize = 1000;
/// Made at once.
const AT_ONCE: usize = 4;
/// Containers of a pod whose usage is asked for.
const IN_POD: usize = 10;
/// How often a kubelet asks for usage.
const PERIOD: Duration = Duration::from_secs(10);
/// How often it is asked here.
const TIMES: u32 = 6;
/// Of a process's time in `/proc`, in a second.
const TICKS: f64 = 100.0;

/// [`RECORDS`]
pub fn records(programs: &Programs) -> Result<Option<Vec<Figures>>> {
    let Some(nodes) = Nodes::plain(programs)? else { return Ok(None) };
    for node in nodes.both() {
        many(COUNT, |n| {
            let name = format!("pod-{n}");
            let pod = node.run_pod(&name, Net::Host)?;
            node.create((&pod, &name), "main")?;
            node.stop_pod(&pod)
        })?;
    }
    let mut rows = vec![Figures::default(); RECORDS.len()];
    for round in 0..=10 {
        for node in nodes.both() {
            let figures = lists(node)?;
            // The first round warms both up.
            for (row, figure) in rows.iter_mut().zip(figures).filter(|_| round > 0) {
                nodes.side(row, node).push(milliseconds(figure));
            }
        }
    }
    nodes.both().into_iter().try_for_each(clear)?;
    Ok(Some(rows))
}

/// [`MEMORY`]
pub fn memory(programs: &Programs) -> Result<Option<Vec<Figures>>> {
    const PODS: usize = 25;
    let Some(nodes) = Nodes::plain(programs)? else { return Ok(None) };
    let mut row = Figures::default();
    for node in nodes.both() {
        many(PODS, |n| node.run_pod(&format!("pod-{n}"), Net::Own).map(drop))?;
    }
    settle();
    for node in nodes.both() {
        let mut processes = node.cri.shims();
        processes.extend(proc::contained(node.cri.daemon.namespace()));
        let pids: BTreeSet<i32> = processes.iter().map(|process| process.pid).collect();
        let sum: u64 = pids.into_iter().map(proc::pss).sum();
        // Far below 2^52.
        nodes.side(&mut row, node).push(sum as f64 / PODS as f64);
        clear(node)?;
    }
    Ok(Some(vec![row]))
}

/// [`RESTART`]
pub fn restart(programs: &Programs) -> Result<Option<Vec<Figures>>> {
    const PODS: usize = 100;
    let Some(nodes) = Nodes::plain(programs)? else { return Ok(None) };
    for node in nodes.both() {
        many(PODS, |n| node.run_pod(&format!("pod-{n}"), Net::Own).map(drop))?;
    }
    let mut row = Figures::default();
    for _ in 0..5 {
        for node in nodes.both() {
            node.cri.daemon.kill();
            let (pods, took) = timed(|| {
                node.cri.launch();
                node.cri.pods().map_err(refused("list pods"))
            })?;
            let ready = pods.iter().filter(|pod| pod.state() == wire::PodSandboxState::SandboxReady).count();
            ensure!(ready == PODS, "{ready} pods are ready");
            nodes.side(&mut row, node).push(milliseconds(took));
        }
    }
    nodes.both().into_iter().try_for_each(clear)?;
    Ok(Some(vec![row]))
}

/// [`USAGE`]
pub fn usage(programs: &Programs) -> Result<Option<Vec<Figures>>> {
    let Some(nodes) = Nodes::plain(programs)? else { return Ok(None) };
    let mut rows = vec![Figures::default(); USAGE.len()];
    for node in nodes.both() {
        for pod in 0..COUNT / IN_POD {
            let name = format!("pod-{pod}");
            let pod = node.run_pod(&name, Net::Host)?;
            many(IN_POD, |n| node.start(&node.create((&pod, &name), &format!("main-{n}"))?))?;
        }
        settle();
        // The first time has nothing to compare with.
        ask(node)?;
        let asked = busy_while(node, || ask(node))?;
        let unasked = busy_while(node, || Ok(()))?;
        for (row, figure) in rows.iter_mut().zip([asked, unasked]) {
            nodes.side(row, node).push(figure);
        }
        clear(node)?;
    }
    Ok(Some(rows))
}

/// The share of a processor, in percent, that the daemon uses while something is done every [`PERIOD`].
fn busy_while(node: &Node, work: impl Fn() -> Result<()>) -> Result<f64> {
    let (before, started) = (busy(node)?, Instant::now());
    for n in 1..=TIMES {
        work()?;
        sleep((PERIOD * n).saturating_sub(started.elapsed()));
    }
    Ok(100.0 * (busy(node)? - before) / started.elapsed().as_secs_f64())
}

/// Seconds of processors that a daemon has used, by all its threads, those that have ended too.
fn busy(node: &Node) -> Result<f64> {
    let pid = node.cri.daemon.pid().context("the daemon runs")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").context("a name")?.1;
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    ensure!(ticks.len() == 2, "no times in {stat:?}");
    Ok(ticks.iter().sum::<f64>() / TICKS)
}

/// As a kubelet asks.
fn ask(node: &Node) -> Result<()> {
    let request = wire::ListContainerStatsRequest::default();
    let listed =
        node.cri.call(node.cri.client().list_container_stats(request)).map_err(refused("ask for usage"))?;
    let measured = listed.stats.iter().filter(|stats| stats.memory.is_some()).count();
    ensure!(measured == COUNT, "the usage of {measured} containers was told");
    Ok(())
}

fn lists(node: &Node) -> Result<[Duration; 4]> {
    let (cri, client) = (&node.cri, || node.cri.client());
    let (pods, list_pods) = timed(|| cri.pods().map_err(refused("list pods")))?;
    let (containers, list_containers) = timed(|| {
        let request = wire::ListContainersRequest::default();
        cri.call(client().list_containers(request)).map_err(refused("list containers"))
    })?;
    let containers = containers.containers;
    ensure!(
        (pods.len(), containers.len()) == (COUNT, COUNT),
        "{} and {} are listed",
        pods.len(),
        containers.len()
    );
    let ((), pod_statuses) = timed(|| {
        pods.iter().try_for_each(|pod| {
            let request = wire::PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: false };
            cri.call(client().pod_sandbox_status(request)).map_err(refused("a pod's status")).map(drop)
        })
    })?;
    let ((), container_statuses) = timed(|| {
        containers.iter().try_for_each(|container| {
            let request = wire::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
            cri.call(client().container_status(request)).map_err(refused("a container's status")).map(drop)
        })
    })?;
    Ok([list_pods, list_containers, pod_statuses, container_statuses])
}

/// Removes all pods.
fn clear(node: &Node) -> Result<()> {
    let pods = node.cri.pods().map_err(refused("list pods"))?;
    many(pods.len(), |n| pods.get(n).map_or(Ok(()), |pod| node.remove_pod(&pod.id)))
}

/// Does something `count` times, some of them at once.
fn many(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return Ok(());
            }
            work(n)?;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })
}
