//! What is measured. All rows are costs: less is better.

use std::collections::VecDeque;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use containerd_tests::archive::IMAGE;
use containerd_tests::{Daemon, proc};

use crate::sides::{Sides, client, milliseconds, time, time_of};
use crate::statistics::{Figures, Samples};

/// One row of the table.
pub struct Row {
    /// Its name on the command line and in the report.
    pub name: &'static str,
    /// The unit of its figures.
    pub unit: &'static str,
    /// Takes its figures from two fresh daemons.
    pub measure: fn(&Sides) -> Result<Figures>,
}

/// All rows, in the order of performance.md.
pub const ROWS: &[Row] = &[
    Row { name: "run-true", unit: "ms", measure: |sides| in_turn(sides, 25, |daemon| run_true(daemon, 0)) },
    Row {
        name: "run-true-paused",
        unit: "ms",
        measure: |sides| in_turn(sides, 15, |daemon| run_true(daemon, 200)),
    },
    Row { name: "run-true-by-peers-client", unit: "ms", measure: by_peers_client },
    Row { name: "exec-true", unit: "ms", measure: exec_true },
    Row { name: "hundred-eight-at-a-time", unit: "ms", measure: |sides| in_turn(sides, 3, hundred) },
    Row { name: "shim-pss-of-ten", unit: "kB", measure: shim_memory },
    Row { name: "idle-daemon-pss", unit: "kB", measure: daemon_memory },
    Row { name: "machine-memory-per-task", unit: "kB", measure: |sides| in_turn(sides, 1, machine_memory) },
    Row { name: "restart-with-hundred", unit: "ms", measure: restart },
];

/// Measures ours and the peer in turn.
pub fn in_turn(sides: &Sides, rounds: usize, measure: impl Fn(&Daemon) -> Result<f64>) -> Result<Figures> {
    let mut figures = Figures::default();
    for _ in 0..rounds {
        figures.ours.push(measure(&sides.ours)?);
        figures.peer.push(measure(&sides.peer)?);
    }
    Ok(figures)
}

fn run_true(daemon: &Daemon, pause: u64) -> Result<f64> {
    sleep(Duration::from_millis(pause));
    time(daemon, &["run", "--rm", IMAGE, &daemon.id("run"), "true"])
}

/// The peer's client drives both daemons: what the daemon and the shim alone are worth to it.
fn by_peers_client(sides: &Sides) -> Result<Figures> {
    let client = sides.peer.ctr_binary();
    in_turn(sides, 25, |daemon| time_of(daemon, client, &["run", "--rm", IMAGE, &daemon.id("run"), "true"]))
}

fn exec_true(sides: &Sides) -> Result<Figures> {
    let containers = [sleeper(&sides.ours)?, sleeper(&sides.peer)?];
    let figures = in_turn(sides, 25, |daemon| {
        let id = containers.iter().find(|id| id.starts_with(daemon.namespace())).context("a container")?;
        time(daemon, &["tasks", "exec", "--exec-id", &daemon.id("exec"), id, "true"])
    })?;
    Ok(figures)
}

fn hundred(daemon: &Daemon) -> Result<f64> {
    let started = Instant::now();
    let mut running: VecDeque<Child> = VecDeque::new();
    for _ in 0..100 {
        if running.len() == 8 {
            end(running.pop_front())?;
        }
        running.push_back(client(daemon, &["run", "--rm", IMAGE, &daemon.id("many"), "true"]).spawn()?);
    }
    while !running.is_empty() {
        end(running.pop_front())?;
    }
    Ok(milliseconds(started.elapsed()))
}

fn end(child: Option<Child>) -> Result<()> {
    let Some(mut child) = child else { return Ok(()) };
    let status = child.wait()?;
    ensure!(status.success(), "a container failed: {status}");
    Ok(())
}

fn shim_memory(sides: &Sides) -> Result<Figures> {
    let mut figures = Figures::default();
    for (daemon, samples) in [(&sides.ours, &mut figures.ours), (&sides.peer, &mut figures.peer)] {
        for _ in 0..10 {
            sleeper(daemon)?;
        }
        settle();
        for shim in proc::shims(daemon.namespace()) {
            samples.push(kilobytes(proc::pss(shim.pid)));
        }
    }
    Ok(figures)
}

fn daemon_memory(sides: &Sides) -> Result<Figures> {
    settle();
    in_turn(sides, 3, |daemon| {
        sleep(Duration::from_millis(200));
        Ok(kilobytes(proc::pss(daemon.pid().context("the daemon runs")?)))
    })
}

/// What the whole machine has less of, for each of fifty idle containers.
fn machine_memory(daemon: &Daemon) -> Result<f64> {
    settle();
    let before = available()?;
    for _ in 0..50 {
        sleeper(daemon)?;
    }
    settle();
    Ok((before - available()?) / 50.0)
}

fn available() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("MemAvailable")?;
    let number = line.trim().trim_end_matches("kB").trim();
    number.parse().with_context(|| format!("read {number:?}"))
}

/// From the start of a daemon, whose predecessor was killed, to its first answer, with a hundred containers running.
fn restart(sides: &Sides) -> Result<Figures> {
    let mut figures = Figures::default();
    for daemon in [&sides.ours, &sides.peer] {
        for _ in 0..100 {
            sleeper(daemon)?;
        }
    }
    for _ in 0..5 {
        restart_once(&sides.ours, &mut figures.ours);
        restart_once(&sides.peer, &mut figures.peer);
    }
    Ok(figures)
}

fn restart_once(daemon: &Daemon, samples: &mut Samples) {
    daemon.kill();
    let started = Instant::now();
    daemon.launch();
    samples.push(milliseconds(started.elapsed()));
}

fn sleeper(daemon: &Daemon) -> Result<String> {
    let id = daemon.id("sleeper");
    time(daemon, &["run", "-d", "--null-io", IMAGE, &id, "sleep", "100000"])?;
    Ok(id)
}

/// Lets event batches and timers of the last container go by.
pub fn settle() {
    sleep(Duration::from_secs(5));
}

fn kilobytes(value: u64) -> f64 {
    // Far below 2^52.
    value as f64
}
