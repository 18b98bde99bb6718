//! Whatever ends a pull half-way, the next one goes on with what is there and ends well.
//!
//! The pulls run in a process of their own, which is killed, whose caller goes away, or whose registry resets each
//! connection. `PULL_INTERRUPTIONS=200` makes it a long test.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use images::pull::Shared;
use registry::fake::{Fake, Fault, When};
use snapshots::Snapshotter as _;
use types::digest::Digest;
use types::oci::Descriptor;
use types::oci::image::media;

use crate::bench::{is_root, make, overlay, seen};
use crate::layers;
use crate::store::Labelled;

const NAME: &str = "interrupted::interrupted_anyhow_a_pull_ends_well_when_it_is_tried_again";
const ROOT: &str = "PULL_TEST_ROOT";
const REFERENCE: &str = "PULL_TEST_REFERENCE";
const TARGET: &str = "PULL_TEST_TARGET";
/// After so many milliseconds the caller goes away.
const PATIENCE: &str = "PULL_TEST_PATIENCE";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

/// The other process: one pull; says what it unpacked.
#[tokio::main]
async fn pull_once(root: &Path) {
    let (digest, size) =
        variable(TARGET).split_once(' ').map(|(d, s)| (d.to_owned(), s.parse().unwrap())).unwrap();
    let target = Descriptor::new(media::OCI_MANIFEST, digest.parse().unwrap(), size);
    let store = Labelled::open(&root.join("content"));
    let snapshotter = overlay(root.join("overlay"));
    let shared = Shared::new(3, 2);
    let pull = make(&variable(REFERENCE), &store, &snapshotter, &shared);
    let patience = Duration::from_millis(variable(PATIENCE).parse().unwrap());
    let done = tokio::time::timeout(patience, pull.pull(&target, Arc::new(images::Silent))).await;
    // What was canceled cleans up after itself.
    while !shared.running().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let pulled = match done {
        Ok(Ok(pulled)) => pulled,
        other => return eprintln!("{other:?}"),
    };
    let (_, top) = pulled.images[0].unpacked.clone().unwrap();
    // One that was killed while it looked has left its view.
    drop(snapshotter.remove("look").await);
    println!("unpacked {}", Digest::of(format!("{:?}", seen(&snapshotter, &top).await).as_bytes()));
}

/// How a pull ends before its time.
enum Interruption {
    /// Killed when a part of the large layer is there, so that the next one has something to go on with.
    KillHalfWay,
    Kill(Duration),
    Leave(Duration),
    Reset(u64),
}

struct Pulls<'a> {
    registry: &'a Fake,
    image: &'a registry::fake::Image,
    root: &'a Path,
}

impl Pulls<'_> {
    fn start(&self, patience: Duration) -> Child {
        let target = format!("{} {}", self.image.manifest.digest, self.image.manifest.size);
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(ROOT, self.root)
            .env(REFERENCE, self.registry.reference("library/x", "1"))
            .env(TARGET, target)
            .env(PATIENCE, patience.as_millis().to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn interrupt(&self, how: &Interruption) {
        let long = Duration::from_secs(60);
        match how {
            Interruption::KillHalfWay => {
                let mut child = self.start(long);
                self.wait_for_a_part();
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Interruption::Kill(after) => {
                let mut child = self.start(long);
                std::thread::sleep(*after);
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Interruption::Leave(after) => drop(self.start(*after).wait_with_output().unwrap()),
            Interruption::Reset(at) => {
                self.registry.fault(When::path("/blobs/").method("GET"), Fault::Reset(*at));
                drop(self.start(long).wait_with_output().unwrap());
            }
        }
    }

    /// Until an ingest has more bytes than the small blobs have.
    fn wait_for_a_part(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let begun = |ingest: std::fs::DirEntry| {
            std::fs::metadata(ingest.path().join("data")).is_ok_and(|data| data.len() > 100_000)
        };
        while !std::fs::read_dir(self.root.join("content/ingest"))
            .is_ok_and(|mut ingests| ingests.any(|ingest| ingest.is_ok_and(begun)))
        {
            assert!(Instant::now() < deadline, "nothing arrives");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The image as the pull has left it.
    fn finish(&self) -> String {
        let output = self.start(Duration::from_secs(120)).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let unpacked =
            said.lines().find_map(|line| line.split_once("unpacked ")).map(|(_, tree)| tree.to_owned());
        unpacked.unwrap_or_else(|| panic!("the pull did not end well: {said}"))
    }
}

/// Every 50 kB of a layer take their time, so that there is a moment to interrupt.
fn slow(registry: &Fake, pause: Duration) {
    registry.heal();
    registry.fault(When::path("/blobs/").method("GET"), Fault::Slow(50_000, pause));
}

#[test]
fn interrupted_anyhow_a_pull_ends_well_when_it_is_tried_again() {
    if let Ok(root) = std::env::var(ROOT) {
        return pull_once(Path::new(&root));
    }
    if !is_root() {
        return;
    }
    let wanted: usize = std::env::var("PULL_INTERRUPTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let registry = Fake::start();
    let image = registry.add_image("library/x", "1", &layers());
    let top = tempfile::tempdir_in("/var/tmp").unwrap();
    let whole = Pulls { registry: &registry, image: &image, root: &top.path().join("whole") }.finish();
    let (mut done, mut resumed) = (0, 0);
    while done < wanted {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let pulls = Pulls { registry: &registry, image: &image, root: root.path() };
        registry.forget_requests();
        slow(&registry, Duration::from_millis(30));
        pulls.interrupt(&Interruption::KillHalfWay);
        done += 1;
        for _ in 0..3 {
            slow(&registry, Duration::from_millis(3));
            let after = Duration::from_millis(rand::random_range(20..600));
            pulls.interrupt(&match rand::random_range(0..3) {
                0 => Interruption::Kill(after),
                1 => Interruption::Leave(after),
                _ => Interruption::Reset(rand::random_range(1..1_500_000)),
            });
            done += 1;
        }
        registry.heal();
        assert_eq!(pulls.finish(), whole);
        let ranges =
            registry.requests().iter().filter(|request| request.headers.contains_key("range")).count();
        assert!(ranges > 0, "what was there was fetched again");
        resumed += ranges;
        for blob in image.layers.iter().chain([&image.config, &image.manifest]) {
            let path = root.path().join("content/blobs/sha256").join(blob.digest.hex());
            assert_eq!(Digest::of(&std::fs::read(path).unwrap()), blob.digest);
        }
        assert_eq!(std::fs::read_dir(root.path().join("content/ingest")).unwrap().count(), 0);
    }
    eprintln!("{done} interruptions, {resumed} requests went on where others had ended");
}
