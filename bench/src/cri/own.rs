//! What is ours of a call: each beside what the runtime and the network plugins take by themselves in that very call; and the
//! network that is built in beside the peer's plugins.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use containerd_tests::{Cri, binaries};

use super::{Net, Node, Nodes, timed as timing};
use crate::Name;
use crate::sides::{Programs, milliseconds};
use crate::statistics::Figures;
use crate::timed;

/// For each call: it, the programs that it ran, and the difference, which is below 0 where they ran beside each other. What timing
/// them costs is taken off.
pub const ROWS: [Name; 12] = [
    ("cri-own-pod-create", "ms"),
    ("cri-own-pod-create-programs", "ms"),
    ("cri-own-pod-create-rest", "ms"),
    ("cri-own-container-start", "ms"),
    ("cri-own-container-start-runc", "ms"),
    ("cri-own-container-start-rest", "ms"),
    ("cri-own-container-stop", "ms"),
    ("cri-own-container-stop-runc", "ms"),
    ("cri-own-container-stop-rest", "ms"),
    ("cri-own-pod-stop", "ms"),
    ("cri-own-pod-stop-del", "ms"),
    ("cri-own-pod-stop-rest", "ms"),
];

/// With the network that is built in; the peer has its plugins.
pub const BUILTIN: [Name; 2] = [("cri-builtin-pod-create", "ms"), ("cri-builtin-pod-stop", "ms")];

/// The plugins of the network of a pod. Those that they ask themselves are part of them.
const PLUGINS: [&str; 2] = ["bridge", "loopback"];
const ROUNDS: usize = 25;

/// [`ROWS`]
pub fn measure(programs: &Programs) -> Result<Option<Vec<Figures>>> {
    let dirs = Dirs::make()?;
    let section = |dir: &Path| dirs.of(dir, programs).map(|place| runtime(&place));
    let plugins = |cri: &Cri| -> Result<()> {
        let bin = cri.cni().join("bin");
        PLUGINS.iter().try_for_each(|name| timed::put(&bin, &bin.join(name)).map(drop))
    };
    let Some(nodes) = Nodes::start(programs, section, plugins)? else { return Ok(None) };
    let overhead = timed::overhead(&dirs.all)?;
    let mut rows = vec![Figures::default(); ROWS.len()];
    for round in 0..=ROUNDS {
        for (node, dir) in nodes.both().into_iter().zip([&dirs.ours, &dirs.peer]) {
            let calls = life(node, dir, &format!("pod-{round}"))?;
            // The first round warms both up.
            for (at, (call, programs)) in calls.into_iter().enumerate().filter(|_| round > 0) {
                let call = milliseconds(call.saturating_sub(overhead * programs.calls));
                let programs = milliseconds(programs.took);
                for (row, figure) in rows.iter_mut().skip(3 * at).zip([call, programs, call - programs]) {
                    nodes.side(row, node).push(figure);
                }
            }
        }
    }
    Ok(Some(rows))
}

/// [`BUILTIN`]
pub fn builtin(programs: &Programs) -> Result<Option<Vec<Figures>>> {
    let Some(nodes) = Nodes::plain(programs)? else { return Ok(None) };
    for plugin in fs::read_dir(nodes.ours.cri.cni().join("bin"))? {
        fs::remove_file(plugin?.path())?;
    }
    let mut rows = vec![Figures::default(); BUILTIN.len()];
    for round in 0..=ROUNDS {
        for node in nodes.both() {
            let (pod, create) = timing(|| node.run_pod(&format!("pod-{round}"), Net::Own))?;
            let ((), stop) = timing(|| node.stop_pod(&pod))?;
            node.remove_pod(&pod)?;
            for (row, figure) in rows.iter_mut().zip([create, stop]).filter(|_| round > 0) {
                nodes.side(row, node).push(milliseconds(figure));
            }
        }
    }
    Ok(Some(rows))
}

/// What programs took by themselves.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    took: Duration,
    /// How many were called.
    calls: u32,
}

/// The calls of [`ROWS`] in their order, each with what its programs took.
fn life(node: &Node, runtime: &Path, name: &str) -> Result<[(Duration, Taken); 4]> {
    let plugins = node.cri.cni().join("bin");
    let taken = |dirs: &[&Path], verbs: &[&str]| -> Result<Taken> {
        let mut taken = Taken::default();
        for dir in dirs {
            let timed = timed::take(dir)?;
            let wanted = timed.iter().filter(|(what, _)| verbs.iter().any(|verb| what.ends_with(verb)));
            for (_, took) in wanted {
                taken.took += *took;
                taken.calls += 1;
            }
        }
        Ok(taken)
    };
    let (runtime, plugins) = (runtime, plugins.as_path());
    let clean = || taken(&[runtime, plugins], &[]);
    clean()?;
    let (pod, call) = timing(|| node.run_pod(name, Net::Own))?;
    let create = (call, taken(&[runtime, plugins], &["create", "start", "ADD"])?);
    let container = node.create((&pod, name), "main")?;
    clean()?;
    let ((), call) = timing(|| node.start(&container))?;
    let start = (call, taken(&[runtime], &["create", "start"])?);
    let ((), call) = timing(|| node.stop(&container))?;
    let stop = (call, taken(&[runtime], &["kill", "delete"])?);
    node.remove(&container)?;
    clean()?;
    let ((), call) = timing(|| node.stop_pod(&pod))?;
    let pod_stop = (call, taken(&[plugins], &["DEL"])?);
    node.remove_pod(&pod)?;
    Ok([create, start, stop, pod_stop])
}

/// Where the runtimes are that are timed.
struct Dirs {
    ours: PathBuf,
    peer: PathBuf,
    all: PathBuf,
}

impl Dirs {
    fn make() -> Result<Self> {
        let all = std::env::temp_dir().join(format!("ctd-timed-{}", std::process::id()));
        let dirs = Self { ours: all.join("ours"), peer: all.join("peer"), all };
        for dir in [&dirs.ours, &dirs.peer] {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        Ok(dirs)
    }

    /// Puts the runtime of one side there.
    fn of(&self, programs: &Path, sides: &Programs) -> Result<PathBuf> {
        let dir = if programs == sides.ours { &self.ours } else { &self.peer };
        let path = binaries::search_path(programs);
        let runc = std::env::split_paths(&path).map(|dir| dir.join("runc")).find(|path| path.is_file());
        timed::put(dir, &runc.context("there is no runc")?)
    }
}

impl Drop for Dirs {
    fn drop(&mut self) {
        // What stays is below the temporary directory.
        let _ = fs::remove_dir_all(&self.all);
    }
}

fn runtime(runc: &Path) -> String {
    let table = "plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc";
    format!("[{table}]\nruntime_type = \"io.containerd.runc.v2\"\n[{table}.options]\nBinaryName = {runc:?}\n")
}
