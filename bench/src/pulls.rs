//! Pulls from a registry on this machine: an image of a gigabyte, made of files that the machine has.
//!
//! The registry is in this process, the same for both. Each pull begins with nothing: what the last one left is removed first.
//! Run it with `TMPDIR` on a tmpfs as well, as disks are noisy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use containerd_tests::Daemon;
use containerd_tests::archive::{Image, Packing};
use containerd_tests::tar::Entry;
use registry::fake::Fake;

use crate::rows::{Row, in_turn};
use crate::sides::{Sides, time};
use crate::statistics::Figures;

/// Files up to this size are small.
const SMALL: u64 = 3 << 20;

/// The rows of this module.
pub const ROWS: &[Row] = &[
    Row { name: "pull-three-layers", unit: "ms", measure: |sides| pull(sides, Layers::Whole, 3) },
    Row { name: "pull-largest-layer", unit: "ms", measure: |sides| pull(sides, Layers::Largest, 3) },
    Row { name: "pull-present", unit: "ms", measure: present },
    Row { name: "pull-peak-memory", unit: "kB", measure: memory },
];

/// Which layers an image has.
#[derive(Clone, Copy)]
enum Layers {
    /// Many small files, large files, a few small files.
    Whole,
    /// The large files.
    Largest,
}

fn pull(sides: &Sides, image: Layers, rounds: usize) -> Result<Figures> {
    let (_registry, reference) = publish(image)?;
    in_turn(sides, rounds, |daemon| {
        let took = pull_once(daemon, &reference)?;
        remove(daemon, &reference)?;
        Ok(took)
    })
}

/// An image that is there already.
fn present(sides: &Sides) -> Result<Figures> {
    let (_registry, reference) = publish(Layers::Largest)?;
    for daemon in [&sides.ours, &sides.peer] {
        pull_once(daemon, &reference)?;
    }
    let figures = in_turn(sides, 15, |daemon| pull_once(daemon, &reference))?;
    for daemon in [&sides.ours, &sides.peer] {
        remove(daemon, &reference)?;
    }
    Ok(figures)
}

/// The most that the daemon has had at once.
fn memory(sides: &Sides) -> Result<Figures> {
    let (_registry, reference) = publish(Layers::Whole)?;
    in_turn(sides, 1, |daemon| {
        pull_once(daemon, &reference)?;
        remove(daemon, &reference)?;
        let status =
            fs::read_to_string(format!("/proc/{}/status", daemon.pid().context("the daemon runs")?))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        Ok(peak.trim().trim_end_matches("kB").trim().parse()?)
    })
}

fn pull_once(daemon: &Daemon, reference: &str) -> Result<f64> {
    time(daemon, &["images", "pull", "--plain-http", reference])
}

fn remove(daemon: &Daemon, reference: &str) -> Result<()> {
    time(daemon, &["images", "rm", "--sync", reference]).map(drop)
}

/// A registry that has the image, and the image's name there.
fn publish(which: Layers) -> Result<(Fake, String)> {
    let mut files = Vec::new();
    walk(Path::new("/usr"), &mut files);
    files.sort();
    let (small, large): (Vec<_>, Vec<_>) = files.into_iter().partition(|(_, size)| *size < SMALL);
    let (many, rest) = up_to(small, 450 << 20);
    let (large, _) = up_to(large, 450 << 20);
    let (few, _) = up_to(rest, 100 << 20);
    let layers = match which {
        Layers::Whole => vec![many, large, few],
        Layers::Largest => vec![large],
    };
    let mut image = Image::named("bench");
    for files in &layers {
        image = image.layer(&entries(files)?, Packing::Gzip);
    }
    let registry = Fake::start();
    let reference = image.publish(&registry, "bench", "1");
    Ok((registry, reference))
}

/// Longer paths have no place in the headers that the test archives have, in bytes.
const LONGEST: usize = 99;

/// Regular files below `dir` with their sizes in bytes.
fn walk(dir: &Path, files: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            walk(&entry.path(), files);
        } else if about.is_file() && entry.path().as_os_str().len() <= LONGEST {
            files.push((entry.path(), about.len()));
        }
    }
}

type Files = Vec<(PathBuf, u64)>;

/// The first files that are no more than `bytes` together, and the others.
fn up_to(mut files: Files, bytes: u64) -> (Files, Files) {
    let mut sum = 0;
    let count = files
        .iter()
        .take_while(|(_, size)| {
            sum += size;
            sum <= bytes
        })
        .count();
    let rest = files.split_off(count);
    (files, rest)
}

fn entries(files: &Files) -> Result<Vec<Entry>> {
    files
        .iter()
        .map(|(path, _)| {
            let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            Ok(Entry::file(path.to_string_lossy().trim_start_matches('/'), bytes))
        })
        .collect()
}
