//! The daemon that is killed again and again, and what is noted about it.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use containerd_tests::binaries::{self, Suite};
use containerd_tests::{Chance, Daemon, Ledger};
use registry::fake::Fake;

/// How the daemon is killed.
#[derive(Clone, Copy, Debug)]
pub struct Killing {
    /// From outside, after so long.
    pub every: Duration,
    /// And by itself, at crash points.
    pub points: bool,
}

/// The points of `types::crash` that ordinary work comes along.
const POINTS: &[&str] = &[
    "container-row",
    "container-row-deleted",
    "image-row",
    "image-row-deleted",
    "lease-row",
    "lease-deleted",
    "blob-committed",
    "blob-row",
    "snapshot-made",
    "snapshot-row",
    "snapshot-commit-noted",
    "snapshot-committed",
    "snapshot-row-deleted",
    "bundle-begun",
    "bundle-made",
    "shim-started",
    "address-stored",
    "create-sent",
    "created",
    "start-sent",
    "started",
    "delete-sent",
    "deleted",
    "shim-gone",
    "bundle-hidden",
    "gc-sweep",
    "gc-buried",
];

/// What the clients share.
pub struct Arena {
    /// The daemon.
    pub daemon: Daemon,
    /// What is pulled comes from here.
    pub registry: Fake,
    /// What was there before anything was done.
    pub before: Ledger,
    /// How many descriptors it had open then.
    pub descriptors_before: usize,
    over: AtomicBool,
    lives: AtomicU64,
    operations: AtomicU64,
    cut_off: AtomicU64,
    problems: Mutex<Vec<String>>,
    notes: Mutex<Vec<Note>>,
    slowest: Mutex<(Duration, String)>,
}

/// One life of the daemon as it ended.
#[derive(Clone, Copy, Debug)]
struct Note {
    start: Duration,
    rss: u64,
    descriptors: usize,
    threads: usize,
}

impl Arena {
    /// A daemon, and everything written down before it is used.
    pub fn build() -> Self {
        let daemon = Daemon::prepare(binaries::tested(), Suite::Ours).with_own_sockets();
        daemon.launch();
        let before = Ledger::take(&daemon);
        Self {
            descriptors_before: daemon.pid().map_or(0, |pid| entries(pid, "fd")),
            daemon,
            registry: Fake::start(),
            before,
            over: AtomicBool::new(false),
            lives: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
            problems: Mutex::default(),
            notes: Mutex::default(),
            slowest: Mutex::default(),
        }
    }

    /// Whether the clients should go on.
    pub fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst) && self.problems.lock().unwrap().len() < 20
    }

    /// A number that is another one when the daemon has died since; odd while it is being killed.
    pub fn life(&self) -> u64 {
        self.lives.load(Ordering::SeqCst)
    }

    /// Counts an operation that took so long.
    pub fn count(&self, what: &str, took: Duration) {
        self.operations.fetch_add(1, Ordering::Relaxed);
        let mut slowest = self.slowest.lock().unwrap();
        if took > slowest.0 {
            *slowest = (took, what.to_owned());
        }
    }

    /// Something is not as it must be.
    pub fn problem(&self, what: String) {
        println!("PROBLEM in life {}: {what}", 1 + self.life() / 2);
        self.problems.lock().unwrap().push(what);
    }

    /// Whether a failure is explained by the daemon's death since `life`; waits until the daemon serves again.
    pub fn is_excused(&self, life: u64) -> bool {
        let begun = Instant::now();
        // The client may see the death before the arena does.
        while self.life() == life && (life % 2 == 1 || begun.elapsed() < Duration::from_secs(3)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.life() == life {
            return false;
        }
        self.cut_off.fetch_add(1, Ordering::Relaxed);
        while self.life() % 2 == 1 {
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Kills and restarts the daemon until the time is over, then tells the clients to stop. It serves afterwards.
    pub fn kill_and_restart(&self, length: Duration, killing: &Killing, mut chance: Chance) {
        let begun = Instant::now();
        while begun.elapsed() < length && self.problems.lock().unwrap().len() < 20 {
            let life = Instant::now();
            while life.elapsed() < killing.every && begun.elapsed() < length && self.daemon.ended().is_none()
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            self.note_size();
            self.lives.fetch_add(1, Ordering::SeqCst);
            let by_itself = self.daemon.ended().is_some();
            self.daemon.kill();
            let last = begun.elapsed() >= length;
            let point = format!("{}:{}", chance.of(POINTS).unwrap_or(&""), 1 + chance.below(30));
            let point = if killing.points && !last { point } else { String::new() };
            let start = Instant::now();
            self.daemon.launch_with(&[("CONTAINERD_RS_CRASH_AT", &point)]);
            self.lives.fetch_add(1, Ordering::SeqCst);
            self.note_start(start.elapsed());
            let how = if by_itself { "by itself" } else { "killed" };
            println!(
                "{:>5}s {how}, serves again after {:?} {point}",
                begun.elapsed().as_secs(),
                start.elapsed()
            );
        }
        self.over.store(true, Ordering::SeqCst);
    }

    fn note_start(&self, start: Duration) {
        if let Some(note) = self.notes.lock().unwrap().last_mut() {
            note.start = start;
        }
    }

    fn note_size(&self) {
        let Some(pid) = self.daemon.pid() else { return };
        let note = Note {
            start: Duration::ZERO,
            rss: resident(pid),
            descriptors: entries(pid, "fd"),
            threads: entries(pid, "task"),
        };
        if note.rss > 0 {
            self.notes.lock().unwrap().push(note);
        }
    }

    /// All problems so far.
    pub fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap().clone()
    }

    /// Says what was seen.
    pub fn report(&self) {
        let notes = self.notes.lock().unwrap();
        let (operations, cut_off) =
            (self.operations.load(Ordering::Relaxed), self.cut_off.load(Ordering::Relaxed));
        println!("operations {operations}, cut off by a death {cut_off}, lives {}", 1 + self.life() / 2);
        let most = |of: &dyn Fn(&Note) -> u64| notes.iter().map(of).max().unwrap_or(0);
        println!(
            "largest in any life: {} kB RSS, {} descriptors, {} threads; slowest start {} ms",
            most(&|n| n.rss),
            most(&|n| n.descriptors as u64),
            most(&|n| n.threads as u64),
            most(&|n| u64::try_from(n.start.as_millis()).unwrap_or(0)),
        );
        let slowest = self.slowest.lock().unwrap();
        println!("slowest operation: {} in {:?}", slowest.1, slowest.0);
    }
}

fn entries(pid: i32, what: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count)
}

/// A process's resident memory in kB.
pub fn resident(pid: i32) -> u64 {
    let text =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
