//! Pulls that end before their time: the daemon is killed, the registry breaks off, the client is killed or interrupted, at a
//! random moment. Whatever it was, the next pull ends well, fetches only what is not there yet, leaves what an uninterrupted
//! one leaves, and in the end nothing is left.
//!
//! `PULL_CUTS` and `PULL_SEED` make it long, and the same once more: `./x interrupt --cuts 200 --seed 7`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use containerd_tests::binaries::beyond_upstream;
use containerd_tests::command::Running;
use containerd_tests::tar::{self, Entry};
use containerd_tests::{Chance, Daemon, Ledger, Records, eventually};
use registry::fake::{Fake, Fault, Layer, When};
use rustix::process::Signal;

use crate::registry_lies::{WAYS, Way, noise, packed};

const REPOSITORY: &str = "library/interrupted";
const CUTS: u64 = 8;
const SEED: u64 = 7;

/// What ends a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    DaemonKilled,
    RegistryResets,
    ClientKilled,
    ClientInterrupted,
}

const BLOWS: [Blow; 4] =
    [Blow::DaemonKilled, Blow::RegistryResets, Blow::ClientKilled, Blow::ClientInterrupted];

/// One interruption.
#[derive(Clone, Copy, Debug)]
struct Cut {
    blow: Blow,
    way: Way,
    /// After so many bytes of all, or, where that is more than there are, as many microseconds after the last.
    at: u64,
}

/// What was seen.
#[derive(Default)]
struct Tally {
    /// How often something was there for the next pull, and how much that was.
    used: u64,
    bytes: u64,
    blows: BTreeMap<Blow, u64>,
}

struct Bench {
    daemon: Daemon,
    registry: Fake,
    name: String,
    /// How many bytes a pull fetches.
    whole: u64,
    /// What it leaves.
    wanted: Records,
    /// How many of its own the daemon was asked for.
    pulls: Cell<usize>,
}

/// Layers of which some need those below: an implied directory, a hard link, a whiteout.
fn layers() -> Vec<Layer> {
    let layers = [
        vec![Entry::dir("data").mode(0o750), Entry::file("data/a", noise(1, 1_300_000))],
        vec![Entry::file("data/b", noise(2, 300_000)), Entry::file("data/c", noise(3, 10))],
        vec![Entry::hardlink("again", "data/a"), Entry::file("d", noise(4, 600_000))],
        vec![Entry::file("data/.wh.b", ""), Entry::file("e", noise(5, 200_000))],
    ];
    layers.iter().map(|entries| packed(&tar::archive(entries))).collect()
}

impl Bench {
    fn new() -> Self {
        let (daemon, registry) = (Daemon::start(), Fake::start());
        registry.add_image(REPOSITORY, "1", &layers());
        let name = registry.reference(REPOSITORY, "1");
        let wanted = Records::default();
        let mut bench = Self { daemon, registry, name, whole: 0, wanted, pulls: 0.into() };
        for way in WAYS {
            bench.whole = bench.pull_again(way);
            let pulled = Records::take(&bench.daemon);
            assert!(way == Way::Transfer || pulled == bench.wanted, "{}", pulled.differences(&bench.wanted));
            bench.wanted = pulled;
            bench.clear();
        }
        bench
    }

    fn start(&self, way: Way) -> Running {
        let words: &[&str] = match way {
            Way::Transfer => &["images", "pull", &self.name],
            Way::Local => &["images", "pull", "--local", &self.name],
        };
        self.pulls.set(self.pulls.get() + usize::from(way == Way::Transfer));
        self.daemon.ctr(words).start()
    }

    /// Begins a pull and ends it.
    fn cut(&self, cut: &Cut, chance: &mut Chance) {
        let blobs = || When::path("/blobs/").method("GET");
        self.registry.fault(blobs(), Fault::Slow(8 << 10, Duration::from_millis(2)));
        if cut.blow == Blow::RegistryResets {
            // Some blobs come whole, one in part, and then nothing.
            let (whole, part) = (chance.below(6), chance.number() % (self.whole / 2));
            self.registry.fault(blobs().after(whole).times(1), Fault::Reset(part));
            self.registry.fault(blobs().after(whole + 1), Fault::Reset(0));
        }
        let begun = self.registry.served();
        let client = self.start(cut.way);
        if cut.blow != Blow::RegistryResets {
            self.await_moment(begun, cut.at);
        }
        match cut.blow {
            Blow::DaemonKilled => self.daemon.kill(),
            Blow::RegistryResets => {}
            Blow::ClientKilled => client.signal(Signal::KILL),
            Blow::ClientInterrupted => client.signal(Signal::INT),
        }
        client.finish();
        self.registry.heal();
        match cut.blow {
            Blow::DaemonKilled => {
                self.daemon.launch();
                self.pulls.set(self.ended());
            }
            _ => eventually("the daemon has taken note", || self.ended() == self.pulls.get()),
        }
    }

    fn await_moment(&self, begun: u64, at: u64) {
        let bytes = at.min(self.whole);
        eventually("so much has come", || self.registry.served() - begun >= bytes);
        std::thread::sleep(Duration::from_micros(at - bytes));
    }

    /// How many of the daemon's own pulls have ended, with all that is done then.
    fn ended(&self) -> usize {
        self.daemon.log().lines().filter(|line| line.contains("OCIRegistry ")).count()
    }

    /// A pull that nobody disturbs; how many bytes the registry sent.
    fn pull_again(&self, way: Way) -> u64 {
        let begun = self.registry.served();
        let done = self.start(way).finish();
        assert_eq!(done.code, 0, "{way:?}: {done}");
        self.registry.served() - begun
    }

    /// What is there is what an uninterrupted pull leaves, to the last byte of the last file.
    fn is_whole(&self, cut: &Cut) {
        if cut.way == Way::Local {
            // A client that was killed, or whose daemon was, leaves its lease, which ends by itself.
            for lease in self.daemon.api().leases() {
                self.daemon.api().delete_lease(&lease).unwrap();
            }
        }
        let there = Records::take(&self.daemon);
        assert!(there == self.wanted, "{cut:?}:\n{}", there.differences(&self.wanted));
        self.daemon.ctr(&["content", "check"]).ok();
    }

    fn clear(&self) {
        self.daemon.ctr(&["images", "rm", "--sync", &self.name]).ok();
        let left = Records::take(&self.daemon);
        assert!(left.0.is_empty(), "{left:#?}");
    }
}

impl Cut {
    /// Of each four in a row none is ended by the same as another.
    fn choose(left: &mut Vec<Blow>, whole: u64, chance: &mut Chance) -> Self {
        if left.is_empty() {
            left.extend(BLOWS);
        }
        let blow = left.swap_remove(chance.below(left.len()));
        let way = if chance.once_in(3) { Way::Local } else { Way::Transfer };
        Self { blow, way, at: 1 + chance.number() % (whole * 5 / 4) }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}")))
}

#[test]
fn whatever_ends_a_pull_the_next_one_uses_what_is_there_and_ends_well() {
    if beyond_upstream("what an interrupted pull has brought is used by the next, and nothing of it stays") {
        return;
    }
    let (cuts, seed) = (number("PULL_CUTS", CUTS), number("PULL_SEED", SEED));
    let (bench, mut chance, mut tally) = (Bench::new(), Chance::new(seed), Tally::default());
    let before = Ledger::take(&bench.daemon);
    let mut left = Vec::new();
    println!("seed {seed}; a pull fetches {} bytes", bench.whole);
    for number in 1..=cuts {
        let cut = Cut::choose(&mut left, bench.whole, &mut chance);
        bench.cut(&cut, &mut chance);
        let there = Records::look(&bench.daemon).bytes();
        let fetched = bench.pull_again(cut.way);
        println!(
            "{number}: {:?} {:?} at {}: {there} bytes were there, {fetched} came",
            cut.blow, cut.way, cut.at
        );
        assert!(there + fetched <= bench.whole, "{cut:?}: of {} bytes something came twice", bench.whole);
        bench.is_whole(&cut);
        bench.clear();
        tally.note(&cut, there);
    }
    Ledger::check(&before, &bench.daemon);
    tally.report(cuts, bench.whole);
    assert!(tally.used > 0, "nothing was ever used again");
}

impl Tally {
    fn note(&mut self, cut: &Cut, there: u64) {
        self.used += u64::from(there > 0);
        self.bytes += there;
        *self.blows.entry(cut.blow).or_default() += 1;
    }

    fn report(&self, cuts: u64, whole: u64) {
        println!(
            "{cuts} interruptions ({:?}): each next pull ended well; {} of them went on from {} of {} bytes",
            self.blows,
            self.used,
            self.bytes,
            cuts * whole
        );
    }
}
