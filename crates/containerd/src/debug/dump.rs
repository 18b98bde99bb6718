//! What the daemon is doing, as text: for SIGUSR1 and the debug socket.
//!
//! Go's daemon dumps the stacks of its goroutines. Ours tells what such a dump is read for: which calls and changes are
//! under way and for how long, how busy the runtime is, and where each thread is in the kernel.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use types::version;

use crate::logging::redact;
use crate::services::House;

/// The dump. Reads `/proc/self`; never waits for anything that the daemon's work holds.
pub fn dump(house: &House) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, house);
    // A name that a client chose may be a URL.
    redact(&text).into_owned()
}

fn write(out: &mut String, house: &House) -> std::fmt::Result {
    let now = types::time::rfc3339(std::time::SystemTime::now());
    writeln!(
        out,
        "containerd {} {}, pid {}, {now}",
        version::VERSION,
        version::REVISION,
        std::process::id()
    )?;
    calls(out, house)?;
    changes(out, house)?;
    pulls(out, house)?;
    runtime(out)?;
    threads(out, Path::new("/proc/self/task"))
}

/// Where each thread of another process is in the kernel: of a daemon that does not answer, all that can be told.
pub fn threads_of(pid: u32) -> String {
    let mut text = format!("threads of process {pid}, which did not answer\n");
    // Writing to a string cannot fail.
    let _ = threads(&mut text, &Path::new("/proc").join(pid.to_string()).join("task"));
    text
}

fn age(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

fn calls(out: &mut String, house: &House) -> std::fmt::Result {
    let calls = house.calls.under_way();
    writeln!(out, "\ncalls under way: {}", calls.len())?;
    for call in calls {
        let method = call.path.trim_start_matches('/');
        writeln!(out, "  {:10.3}s  {method}  namespace={}", age(call.since), call.namespace)?;
    }
    Ok(())
}

fn changes(out: &mut String, house: &House) -> std::fmt::Result {
    let changes = house.work.under_way();
    writeln!(out, "\nchanges under way: {}", changes.len())?;
    for (change, since) in changes {
        writeln!(
            out,
            "  {:10.3}s  {}  namespace={} id={:?} exec={:?}",
            age(since),
            change.what,
            change.namespace,
            change.id,
            change.exec
        )?;
    }
    Ok(())
}

fn pulls(out: &mut String, house: &House) -> std::fmt::Result {
    let pulls = house.transfers.running();
    writeln!(out, "\npulls under way: {}", pulls.len())?;
    for pull in pulls {
        let age = pull.started.elapsed().unwrap_or_default().as_secs_f64();
        writeln!(out, "  {age:10.3}s  {}  namespace={} digest={}", pull.name, pull.namespace, pull.target)?;
        for (digest, part) in pull.layers {
            let unpacked = part.extracted.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
            writeln!(out, "    {digest}  {} of {} fetched, {unpacked} unpacked", part.fetched, part.size)?;
        }
    }
    Ok(())
}

fn runtime(out: &mut String) -> std::fmt::Result {
    let Ok(handle) = tokio::runtime::Handle::try_current() else { return Ok(()) };
    let metrics = handle.metrics();
    writeln!(
        out,
        "\nruntime: {} workers, {} tasks, {} waiting for a worker",
        metrics.num_workers(),
        metrics.num_alive_tasks(),
        metrics.global_queue_depth()
    )
}

fn threads(out: &mut String, tasks: &Path) -> std::fmt::Result {
    let mut threads: Vec<_> =
        std::fs::read_dir(tasks).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    threads.sort();
    writeln!(out, "\nthreads: {}", threads.len())?;
    threads.iter().try_for_each(|thread| self::thread(out, thread))
}

/// One thread: its name, its state, and for one that is stuck in the kernel, where.
fn thread(out: &mut String, dir: &Path) -> std::fmt::Result {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    let (name, stat) = (read("comm"), read("stat"));
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?');
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    writeln!(out, "  {id:>8}  {:<16} {state}  {}", name.trim_end(), read("wchan"))?;
    if state == 'D' {
        for line in read("stack").lines() {
            writeln!(out, "            {line}")?;
        }
    }
    Ok(())
}
