//! A root filesystem that cannot be unmounted, as its server answers no more: whoever else has containers in the shim does
//! not notice, and its own Delete ends.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::containerd::task::v3 as wire;
use support::{Rig, V3, can_run, eventually};

/// So many kills are timed.
const KILLS: usize = 11;
/// Of linux/fuse.h.
const GETATTR: u32 = 3;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const DESTROY: u32 = 38;

/// A filesystem of one empty directory on a block device: the kernel waits for its server's word when it is unmounted, and
/// this one says nothing until it is dropped.
struct Mute {
    device: PathBuf,
    /// Whether the kernel waits for us.
    asked: Arc<AtomicBool>,
    /// Whether it waits long enough: the server goes, and the kernel gives it up.
    released: Arc<AtomicBool>,
}

impl Mute {
    /// Mounted at `place`; none where there is no FUSE or no loop device.
    fn mount(rig: &Rig, place: &Path) -> Option<Self> {
        let backing = rig.path("backing");
        File::create(&backing).unwrap().set_len(1 << 20).unwrap();
        let attached = Command::new("losetup").args(["--find", "--show"]).arg(&backing).output().ok()?;
        let device = PathBuf::from(String::from_utf8(attached.stdout).ok()?.trim());
        let fuse = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let mute = Self { device, asked: Arc::default(), released: Arc::default() };
        let number = fuse.as_raw_fd();
        let (asked, released) = (Arc::clone(&mute.asked), Arc::clone(&mute.released));
        std::thread::spawn(move || serve(&fuse, &asked, &released));
        std::fs::create_dir_all(place).unwrap();
        let options = format!("fd={number},rootmode=40000,user_id=0,group_id=0");
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount(&mute.device, place, "fuseblk", flags, options.as_c_str()).ok()?;
        Some(mute)
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.released.store(true, Ordering::SeqCst);
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

/// Answers what mounting needs, and falls silent.
fn serve(mut fuse: &File, asked: &AtomicBool, released: &AtomicBool) {
    let mut request = vec![0; 1 << 17];
    while fuse.read(&mut request).is_ok() {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let answer = match word(4) {
            // Version 7.31, and room for what it wants to send.
            INIT => [7, 31, 0, 0, 0, 0, 1 << 16, 0]
                .iter()
                .flat_map(|n: &u32| n.to_ne_bytes())
                .chain([0; 32])
                .collect(),
            GETATTR => attributes(),
            STATFS => vec![0; 80],
            DESTROY => {
                asked.store(true, Ordering::SeqCst);
                eventually("the release", || released.load(Ordering::SeqCst));
                return;
            }
            _ => continue,
        };
        let length = u32::try_from(16 + answer.len()).unwrap();
        let head = [length.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
        let _ = fuse.write_all(&[head.as_slice(), &request[8..16], &answer].concat());
    }
}

/// An empty directory of root's, whose attributes hold for a day.
fn attributes() -> Vec<u8> {
    let mut out = vec![0; 16 + 88];
    out[..8].copy_from_slice(&86_400u64.to_ne_bytes());
    out[16..24].copy_from_slice(&1u64.to_ne_bytes());
    out[16 + 60..16 + 64].copy_from_slice(&0o040_755u32.to_ne_bytes());
    out[16 + 64..16 + 68].copy_from_slice(&2u32.to_ne_bytes());
    out
}

/// Reads a FIFO as fast as it can, and counts.
fn drain(path: PathBuf) -> Arc<AtomicU64> {
    let bytes = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&bytes);
    std::thread::spawn(move || {
        let mut fifo = File::open(path).unwrap();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = fifo.read(&mut buffer) {
            count.fetch_add(n as u64, Ordering::Relaxed);
        }
    });
    bytes
}

#[test]
fn kill_answers_while_an_unmount_hangs_and_four_streams_run() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let place = rig.path("mute");
    let Some(mute) = Mute::mount(&rig, &place) else {
        eprintln!("skipped: needs FUSE and a loop device");
        return;
    };
    // The container's root has it mounted in it, and nobody else has.
    rig.bundle("c1", &["true"]);
    let mut request = rig.create_request("c1");
    request.rootfs.push(api::containerd::types::Mount {
        r#type: "bind".into(),
        source: place.to_str().unwrap().into(),
        target: "tmp".into(),
        options: vec!["bind".into()],
    });
    rig.run_as(request);
    rig.wait("c1", "");
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).unwrap();
    let streams: Vec<Arc<AtomicU64>> = (0..4).map(|n| stream(&rig, &format!("loud{n}"))).collect();
    let mut deleting = rig.client();
    let delete = wire::DeleteRequest { id: "c1".into(), ..Default::default() };
    deleting.send(V3, "Delete", &delete, Duration::ZERO);
    eventually("the unmount hangs", || mute.asked.load(Ordering::SeqCst));
    for n in 0..KILLS {
        rig.exec("loud0", &format!("e{n}"), &["sleep", "1000"]).unwrap();
        rig.run(&format!("quiet{n}"), &["sleep", "1000"]);
    }
    let lateness = Lateness::watch();
    let mut execs: Vec<_> = (0..KILLS).map(|n| timed(&rig, "loud0", &format!("e{n}"))).collect();
    let mut inits: Vec<_> = (0..KILLS).map(|n| timed(&rig, &format!("quiet{n}"), "")).collect();
    let late = lateness.most();
    execs.sort();
    inits.sort();
    // Who asks, the shim, and who asks again: each may have to wait for a processor.
    let limit = Duration::from_millis(50) + 3 * late;
    for (what, times) in [("execs", execs), ("inits", inits)] {
        let (middle, slowest) = (times[KILLS / 2], times[KILLS - 1]);
        println!("kills of {what}: median {middle:?}, slowest {slowest:?}; a sleeper was late by {late:?}");
        assert!(middle <= limit, "{what}: {times:?}, limit {limit:?}");
    }
    assert!(streams.iter().all(|bytes| bytes.load(Ordering::Relaxed) > 1 << 20));
    drop(mute);
    deleting.receive().1.unwrap();
    for n in 0..KILLS {
        assert_eq!(rig.wait("loud0", &format!("e{n}")), 137);
        assert_eq!(rig.wait(&format!("quiet{n}"), ""), 137);
        rig.delete(&format!("quiet{n}"), "").unwrap();
    }
    for n in 0..4 {
        let id = format!("loud{n}");
        rig.kill(&id, "", 9).unwrap();
        rig.wait(&id, "");
        rig.delete(&id, "").unwrap();
    }
    rig.shut_down();
}

/// How long it takes until a kill is answered.
fn timed(rig: &Rig, id: &str, exec: &str) -> Duration {
    let begun = Instant::now();
    rig.kill(id, exec, 9).unwrap();
    begun.elapsed()
}

/// How late one gets a processor on this machine meanwhile.
struct Lateness {
    enough: Arc<AtomicBool>,
    sleeper: JoinHandle<Duration>,
}

impl Lateness {
    fn watch() -> Self {
        let enough = Arc::<AtomicBool>::default();
        let told = Arc::clone(&enough);
        let sleeper = std::thread::spawn(move || {
            let (step, mut most) = (Duration::from_millis(1), Duration::ZERO);
            while !told.load(Ordering::Relaxed) {
                let begun = Instant::now();
                std::thread::sleep(step);
                most = most.max(begun.elapsed().saturating_sub(step));
            }
            most
        });
        Self { enough, sleeper }
    }

    fn most(self) -> Duration {
        self.enough.store(true, Ordering::Relaxed);
        self.sleeper.join().unwrap()
    }
}

/// A container that writes without end to a FIFO that is read.
fn stream(rig: &Rig, id: &str) -> Arc<AtomicU64> {
    let path = rig.path(&format!("{id}.out"));
    sys::fifo::make(&path, 0o600).unwrap();
    rig.bundle(id, &["dd", "if=/dev/zero", "bs=65536"]);
    let stdout = path.to_str().unwrap().to_owned();
    let bytes = drain(path);
    rig.run_as(wire::CreateTaskRequest { stdout, ..rig.create_request(id) });
    bytes
}
