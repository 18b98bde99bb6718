//! The record of a death: what is known of a container at the moment in which it dies, or runs out of memory.
//!
//! ```text
//!  memory ran out --fork--> oom.json      limits, memory.stat, processes, pressure: while it is still so
//!  init has ended --fork--> why.json      the same of that moment, oom.json, how it ended, what happened, what was said last
//! ```
//!
//! Both are in the bundle's work directory, which is on a disk: a fork writes them, and neither an exit nor its event waits for that;
//! only a Delete does, for as long as it waits for output. Nothing is kept in memory for it but a short [`Timeline`].
//! The daemon keeps `why.json` for a day when the task is deleted (`runtime::why`).

mod output;
mod scene;

use std::collections::VecDeque;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sys::cgroup::Groups;
use sys::pidfd::Ended;
use types::{Result, ResultExt, version};

use crate::call::{Event, Exit};
use crate::json::{Object, list};

pub use output::{Ring, Tail};

/// The record.
const NAME: &str = "why.json";
/// What was there when memory ran out.
const OOM: &str = "oom.json";
/// A larger one is not ours.
const LARGEST: u64 = 64 << 10;
/// So many of the first things that happened are kept,
const FIRST: usize = 8;
/// and so many of the last.
const LAST: usize = 24;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Seconds and nanoseconds since 1970.
    pub at: (i64, i32),
    /// What: one of [`WORDS`].
    pub what: &'static str,
    /// To which process; empty for init.
    pub exec: String,
    /// Its number; 0 if it does not matter.
    pub pid: u32,
    /// How it ended.
    pub status: Option<u32>,
}

/// What can happen.
pub const WORDS: [&str; 9] =
    ["created", "started", "exec-added", "exec-started", "exit", "deleted", "oom", "paused", "resumed"];

/// What happened, bounded: how it began, and how it ended.
#[derive(Debug, Default)]
pub struct Timeline {
    first: Vec<Moment>,
    last: VecDeque<Moment>,
    /// How many there were between.
    omitted: u64,
}

impl Timeline {
    /// Notes what the world is told.
    pub fn note(&mut self, event: &Event) {
        let (what, exec, pid, status) = match event {
            Event::Created { pid } => ("created", "", *pid, None),
            Event::Started { pid } => ("started", "", *pid, None),
            Event::ExecAdded { exec } => ("exec-added", exec.as_str(), 0, None),
            Event::ExecStarted { exec, pid } => ("exec-started", exec.as_str(), *pid, None),
            Event::Exited { exec, pid, exit } => ("exit", exec.as_str(), *pid, Some(exit.status)),
            Event::Deleted { pid, exit } => ("deleted", "", *pid, Some(exit.status)),
            Event::OutOfMemory => ("oom", "", 0, None),
            Event::Paused => ("paused", "", 0, None),
            Event::Resumed => ("resumed", "", 0, None),
        };
        let (seconds, nanos) = types::time::unix(SystemTime::now());
        self.add(Moment { at: (seconds, nanos.cast_signed()), what, exec: exec.to_owned(), pid, status });
    }

    /// Adds one.
    pub fn add(&mut self, moment: Moment) {
        if self.first.len() < FIRST {
            self.first.push(moment);
            return;
        }
        if self.last.len() >= LAST {
            self.last.pop_front();
            self.omitted += 1;
        }
        self.last.push_back(moment);
    }

    /// What was kept before.
    pub fn of(moments: impl Iterator<Item = Moment>, omitted: u64) -> Self {
        let mut timeline = Self::default();
        moments.for_each(|moment| timeline.add(moment));
        timeline.omitted += omitted;
        timeline
    }

    /// How many are not kept.
    pub fn omitted(&self) -> u64 {
        self.omitted
    }

    /// All that is kept, in order.
    pub fn moments(&self) -> impl Iterator<Item = &Moment> {
        self.first.iter().chain(&self.last)
    }
}

/// What is to be written of a death.
pub struct Record<'a> {
    /// The container's namespace.
    pub namespace: &'a str,
    /// Its id.
    pub id: &'a str,
    /// The number of its init.
    pub pid: u32,
    /// When and with which status, as everybody was told.
    pub exit: Exit,
    /// How, where that is known.
    pub ended: Option<Ended>,
    /// Where its processes are counted.
    pub groups: Option<&'a Groups>,
    /// What happened.
    pub timeline: &'a Timeline,
    /// Where what it said last can be found.
    pub tails: Vec<Tail<'a>>,
}

/// Writes what is there when memory runs out. Only in a fork: a disk may hang.
pub fn write_oom(groups: Option<&Groups>, work: &Path) -> Result<()> {
    write(&work.join(OOM), &scene::text(groups))
}

/// Writes the record of a death. Only in a fork.
pub fn write_record(record: &Record<'_>, work: &Path) -> Result<()> {
    let oom = std::fs::metadata(work.join(OOM)).is_ok_and(|m| m.is_file() && m.len() <= LARGEST);
    let oom = if oom { std::fs::read_to_string(work.join(OOM)).ok() } else { None };
    write(&work.join(NAME), &text(record, oom.as_deref()))?;
    // It stands in the record now; there may be none.
    let _ = std::fs::remove_file(work.join(OOM));
    Ok(())
}

fn text(record: &Record<'_>, oom: Option<&str>) -> String {
    let Record { namespace, id, pid, exit, ended, groups, timeline, tails } = record;
    let killed = oom.is_some() || timeline.moments().any(|moment| moment.what == "oom");
    let mut object = Object::new();
    object.number("version", 1);
    object.text("namespace", namespace);
    object.text("id", id);
    object.number("pid", u64::from(*pid));
    object.text("reason", &reason(*ended, exit.status, killed));
    object.number("exit_status", u64::from(exit.status));
    if let Some(Ended::Signal(signal)) = ended {
        object.number("signal", u64::from(*signal));
    }
    object.raw("oom_killed", if killed { "true" } else { "false" });
    object.text("exited_at", &stamp((exit.seconds, exit.nanos)));
    object.text("shim", version::VERSION);
    object.raw("timeline", &list(timeline.moments().map(moment)));
    object.number("timeline_omitted", timeline.omitted);
    if let Some(oom) = oom {
        object.raw("oom", oom);
    }
    object.raw("death", &scene::text(*groups));
    object.raw("output", &list(output::texts(tails).into_iter()));
    object.finish()
}

fn reason(ended: Option<Ended>, status: u32, oom: bool) -> String {
    let how = ended.map_or_else(|| format!("ended with status {status}"), |ended| ended.to_string());
    if oom { format!("{how}, after memory ran out") } else { how }
}

fn moment(moment: &Moment) -> String {
    let mut object = Object::new();
    object.text("at", &stamp(moment.at));
    object.text("what", moment.what);
    if !moment.exec.is_empty() {
        object.text("exec", &moment.exec);
    }
    if moment.pid != 0 {
        object.number("pid", u64::from(moment.pid));
    }
    if let Some(status) = moment.status {
        object.number("status", u64::from(status));
    }
    object.finish()
}

fn stamp((seconds, nanos): (i64, i32)) -> String {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    types::time::rfc3339(UNIX_EPOCH + seconds + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

/// Whole, or not at all.
fn write(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let new = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new).context(doing)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).context(doing)?;
    std::fs::rename(&new, path).context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(exec: &str) -> Event {
        Event::Exited { exec: exec.to_owned(), pid: 7, exit: Exit::now(3) }
    }

    #[test]
    fn the_timeline_keeps_the_beginning_and_the_end() {
        let mut timeline = Timeline::default();
        timeline.note(&Event::Created { pid: 1 });
        for n in 0..10_000 {
            timeline.note(&Event::ExecAdded { exec: format!("e{n}") });
        }
        timeline.note(&exited(""));
        let moments: Vec<_> = timeline.moments().collect();
        assert_eq!((moments.len(), timeline.omitted), (FIRST + LAST, 10_002 - (FIRST + LAST) as u64));
        assert_eq!((moments[0].what, moments.last().unwrap().what), ("created", "exit"));
        assert!(moments.iter().all(|moment| WORDS.contains(&moment.what)));
    }

    #[test]
    fn a_record_is_json_and_tells_of_the_memory_that_ran_out_before() {
        let dir = tempfile::tempdir().unwrap();
        write_oom(None, dir.path()).unwrap();
        std::fs::write(dir.path().join("log"), b"said \xff last\n").unwrap();
        let mut timeline = Timeline::default();
        timeline.note(&exited("e \"x\""));
        let record = Record {
            namespace: "ns",
            id: "c1",
            pid: 7,
            exit: Exit::now(137),
            ended: Some(Ended::Signal(9)),
            groups: None,
            timeline: &timeline,
            tails: vec![Tail::file("stdout", &dir.path().join("log"))],
        };
        write_record(&record, dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["reason"], "killed by signal 9, after memory ran out");
        assert_eq!((&value["signal"], &value["oom_killed"]), (&9.into(), &true.into()));
        assert_eq!(value["timeline"][0]["exec"], "e \"x\"");
        assert_eq!(value["output"][0]["text"], "said \u{fffd} last\n");
        assert!(value["oom"]["at"].is_string() && value["death"]["at"].is_string());
        assert!(!dir.path().join(OOM).exists());
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(dir.path().join(NAME)).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }
}
