//! Each call of a life of a pod with a container, several pods at a time.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::{Net, Node, Nodes, timed};
use crate::Name;
use crate::sides::{Programs, milliseconds};
use crate::statistics::Figures;

/// The calls, in their order; `pod-start` is from the request of a pod to its container's running.
const CALLS: usize = 9;

macro_rules! rows {
    ($at_a_time:literal) => {
        [
            (concat!("cri-", $at_a_time, "-pod-create"), "ms"),
            (concat!("cri-", $at_a_time, "-pod-start"), "ms"),
            (concat!("cri-", $at_a_time, "-pod-stop"), "ms"),
            (concat!("cri-", $at_a_time, "-pod-remove"), "ms"),
            (concat!("cri-", $at_a_time, "-container-create"), "ms"),
            (concat!("cri-", $at_a_time, "-container-start"), "ms"),
            (concat!("cri-", $at_a_time, "-container-stop"), "ms"),
            (concat!("cri-", $at_a_time, "-container-remove"), "ms"),
            (concat!("cri-", $at_a_time, "-life"), "ms"),
        ]
    };
}

/// The rows, with one pod at a time.
pub const ONE: [Name; CALLS] = rows!("1");
/// With four.
pub const FOUR: [Name; CALLS] = rows!("4");
/// With sixteen.
pub const SIXTEEN: [Name; CALLS] = rows!("16");

/// [`ONE`]
pub fn one(programs: &Programs) -> Result<Option<Vec<Figures>>> {
    measure(programs, 1, 25)
}

/// [`FOUR`]
pub fn four(programs: &Programs) -> Result<Option<Vec<Figures>>> {
    measure(programs, 4, 10)
}

/// [`SIXTEEN`]
pub fn sixteen(programs: &Programs) -> Result<Option<Vec<Figures>>> {
    measure(programs, 16, 5)
}

fn measure(programs: &Programs, at_a_time: usize, rounds: usize) -> Result<Option<Vec<Figures>>> {
    let Some(nodes) = Nodes::plain(programs)? else { return Ok(None) };
    let mut rows = vec![Figures::default(); CALLS];
    // The first round warms both up.
    for round in 0..=rounds {
        for node in nodes.both() {
            let lives = at_once(node, at_a_time, round)?;
            for life in lives.iter().filter(|_| round > 0) {
                for (row, call) in rows.iter_mut().zip(life) {
                    nodes.side(row, node).push(milliseconds(*call));
                }
            }
        }
    }
    Ok(Some(rows))
}

fn at_once(node: &Node, count: usize, round: usize) -> Result<Vec<[Duration; CALLS]>> {
    thread::scope(|scope| {
        let lives: Vec<_> =
            (0..count).map(|n| scope.spawn(move || life(node, &format!("pod-{round}-{n}")))).collect();
        lives.into_iter().map(|life| life.join().map_err(|_| anyhow!("a life panicked"))?).collect()
    })
}

fn life(node: &Node, name: &str) -> Result<[Duration; CALLS]> {
    let (pod, pod_create) = timed(|| node.run_pod(name, Net::Own))?;
    let (container, create) = timed(|| node.create((&pod, name), "main"))?;
    let ((), start) = timed(|| node.start(&container))?;
    let ((), stop) = timed(|| node.stop(&container))?;
    let ((), remove) = timed(|| node.remove(&container))?;
    let ((), pod_stop) = timed(|| node.stop_pod(&pod))?;
    let ((), pod_remove) = timed(|| node.remove_pod(&pod))?;
    let pod_start = pod_create + create + start;
    let whole = pod_start + stop + remove + pod_stop + pod_remove;
    Ok([pod_create, pod_start, pod_stop, pod_remove, create, start, stop, remove, whole])
}
