//! The figures of a container, as our shim and as upstream's measures them: the same fields, and the same where nothing moves. On the cgroup
//! version of this machine; the guest has the other one (`cargo xtask guest`).

use std::collections::BTreeMap;

use containerd_tests::archive::{IMAGE, Image};
use containerd_tests::binaries::{self, Binaries, Suite, beyond_upstream};
use containerd_tests::{Daemon, eventually};
use serde_json::Value;

/// Fields that say how the container is limited, or what never differs between two that do the same.
const SAME: [&str; 3] = ["limit", "oom", "unevictable"];

/// Fields by which the kernel keeps book of pages, which it moves as it likes: one side may have none.
const MOVES: [&str; 3] = ["dirty", "writeback", "active"];

/// Less than this is what a few pages or wake-ups make. Time is counted in nanoseconds, in steps of ten milliseconds.
fn small(field: &str) -> f64 {
    if field.starts_with("/cpu/") { 1e8 } else { 1e6 }
}

/// What it has done when it is measured: eight megabytes written and read, and two processes that sleep.
const WORK: &str = "dd if=/dev/zero of=/tmp/x bs=1M count=8 2>/dev/null; cat /tmp/x >/dev/null; touch /tmp/done; sleep 1000 & sleep 1000";

/// Each number by its place.
fn flat(value: &Value, place: &str, into: &mut BTreeMap<String, f64>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| flat(value, &format!("{place}/{name}"), into));
        }
        // Entries are of devices, sizes of pages, interfaces: how many there are is the machine's.
        Value::Array(entries) => {
            entries.iter().take(1).for_each(|entry| flat(entry, &format!("{place}[]"), into))
        }
        Value::Number(number) => drop(into.insert(place.to_owned(), number.as_f64().unwrap())),
        Value::Null | Value::Bool(_) | Value::String(_) => drop(into.insert(place.to_owned(), 0.0)),
    }
}

/// The figures that the shim of one side gives, by our daemon and our client; none if it gives none.
fn measured(shim: &Binaries, name: &str) -> Option<BTreeMap<String, f64>> {
    let ours = binaries::tested();
    let daemon = Daemon::start_of(Binaries { shim_dir: shim.shim_dir.clone(), ..ours }, Suite::Ours);
    let archive = daemon.archive("image.tar", &Image::standard().oci());
    daemon.ctr(&["images", "import", &archive]).ok();
    let id = daemon.id(name);
    let limits = ["--memory-limit", "67108864", "--cpu-quota", "50000", "--cpu-period", "100000"];
    let run = [&["run", "-d", "--null-io"][..], &limits, &[IMAGE, &id, "sh", "-c", WORK]].concat();
    daemon.ctr(&run).ok();
    let done = format!("/proc/{}/root/tmp/done", daemon.task_pid(&id));
    eventually("it has done its work", || std::fs::exists(&done).unwrap());
    let mut figures = BTreeMap::new();
    eventually("it is at rest", || {
        let told = daemon.ctr(&["tasks", "metrics", "--format", "json", &id]).run();
        figures.clear();
        if told.code != 0 {
            return told.stderr.contains("no metrics received");
        }
        flat(&serde_json::from_str(&told.stdout).unwrap(), "", &mut figures);
        figures.get("/pids/current").is_some_and(|processes| *processes >= 2.0)
    });
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
    daemon.ctr(&["containers", "delete", &id]).ok();
    Some(figures).filter(|figures| !figures.is_empty())
}

#[test]
fn a_container_is_measured_as_by_upstreams_shim() {
    if beyond_upstream("both shims are compared here") {
        return;
    }
    // Today's, if it is there: an older one knows fewer fields.
    let Some(theirs) = binaries::reference() else { return };
    let ours = measured(&binaries::tested(), "ours").expect("our shim measures");
    let Some(theirs) = measured(&theirs, "theirs") else {
        // A hierarchy of version 1 that was mounted once, and is not any more, is enough.
        eprintln!("skipped: upstream's shim finds no control group on this machine");
        return;
    };
    let fields: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    println!("{} fields", fields.len());
    for field in fields {
        let (figure, other) = (ours.get(field), theirs.get(field));
        // A figure of nothing is not told: one side may have a page more in its cache.
        let limit = small(field);
        let small = |figure: Option<&f64>| figure.is_none_or(|figure| *figure < limit);
        let moves = MOVES.iter().any(|part| field.contains(part));
        assert!(
            figure.is_some() == other.is_some() || moves || small(figure) && small(other),
            "{field}: {figure:?} {other:?}"
        );
        let (figure, other) = (figure.copied().unwrap_or(0.0), other.copied().unwrap_or(0.0));
        let name = field.rsplit('/').next().unwrap();
        if SAME.iter().any(|part| name.contains(part)) && !name.contains("time") && !name.contains("usage") {
            assert_eq!(figure, other, "{field}");
        }
        // What moves is of one size, where it is more than what one wake-up or one page makes of it.
        let (low, high) = (figure.min(other), figure.max(other));
        let alike = high < limit || low > high / 20.0;
        println!("{field}: {figure} {other}{}", if alike { "" } else { " differ" });
    }
}
