//! `ctr demo`: shows on this machine, with its own daemon, root and state, that containers run and survive a crash of
//! the daemon, how that compares with Debian's containerd, that images are pulled where a registry answers, and that nothing
//! is left behind.

mod archive;
mod daemon;
mod leftovers;
mod pull;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::containerd::services::tasks::v1::GetRequest;

use crate::cli::Globals;
use crate::client::Client;

use daemon::{Binaries, Daemon};
use leftovers::{Before, pss};

/// How often `run --rm` is timed with each daemon.
const ROUNDS: usize = 9;
/// What the counting container ends with.
const CODE: u32 = 42;
/// The environment variable that names the unpacked Debian packages.
const PEERS: &str = "CONTAINERD_RS_PEERS";

/// Runs the demo. Needs root, `containerd` and the shim beside this program, runc, and a static busybox.
pub fn run() -> Result<()> {
    let before = Before::look();
    let scratch = Scratch::new()?;
    let peers = std::env::var_os(PEERS).map(PathBuf::from).filter(|dir| dir.is_dir());
    show_machine()?;
    let (archive, digest) = make_image(scratch.path(), peers.as_deref())?;
    let mut ours = Daemon::start(&scratch.path().join("o"), our_binaries(peers.as_deref())?)?;
    show_image(&ours, &archive, &digest)?;
    show_container(&ours)?;
    show_crash(&mut ours, scratch.path())?;
    show_comparison(&ours, scratch.path(), peers.as_deref(), &archive)?;
    pull::show(&ours)?;
    ours.stop()?;
    scratch.remove()?;
    show_leftovers(&before, scratch.path())?;
    show_next();
    Ok(())
}

/// A private directory; short, as socket paths are limited to 107 bytes.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("containers need root: run this as root");
        }
        let dir = PathBuf::from(format!("/var/tmp/ctr-demo-{}", std::process::id()));
        std::fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self(dir))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn remove(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.0).with_context(|| format!("remove {}", self.0.display()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a failure: end our containers and what they hold, then the directory, never another's mount.
        let mention = self.0.to_string_lossy().into_owned();
        for pid in leftovers::processes(&["containerd-shim", &mention]) {
            let Some(shim) = rustix::process::Pid::from_raw(pid.cast_signed()) else { continue };
            for child in children(pid) {
                let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
            }
            let _ = rustix::process::kill_process(shim, rustix::process::Signal::KILL);
        }
        if let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") {
            for target in
                table.lines().filter_map(|l| l.split(' ').nth(4)).filter(|t| t.starts_with(&mention))
            {
                let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
            }
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn children(pid: u32) -> Vec<rustix::process::Pid> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)).collect()
}

fn our_binaries(peers: Option<&Path>) -> Result<Binaries> {
    let exe = std::env::current_exe()?;
    let dir = exe.parent().context("this program has no directory")?.to_owned();
    let containerd = dir.join("containerd");
    if !containerd.is_file() {
        bail!(
            "{} not found: build it with `cargo xtask build`, or run ctr from target/dist",
            containerd.display()
        );
    }
    let mut path = vec![dir];
    path.extend(peers.map(|peers| peers.join("usr/sbin")));
    Ok(Binaries { containerd, ctr: exe, config_version: 3, path })
}

fn peer_binaries(peers: &Path) -> Option<Binaries> {
    let bin = peers.join("usr/bin");
    let binaries = Binaries {
        containerd: bin.join("containerd"),
        ctr: bin.join("ctr"),
        config_version: 2,
        path: vec![bin, peers.join("usr/sbin")],
    };
    binaries.containerd.is_file().then_some(binaries)
}

fn heading(number: u8, text: &str) {
    println!("\n({number}) {text}");
}

fn show_machine() -> Result<()> {
    heading(1, "This machine");
    let uname = rustix::system::uname();
    println!("    kernel  {}", uname.release().to_string_lossy());
    let cgroup = match (Path::new("/sys/fs/cgroup/cgroup.controllers"), Path::new("/sys/fs/cgroup/unified")) {
        (unified, _) if unified.exists() => "v2",
        (_, hybrid) if hybrid.exists() => "v1, hybrid",
        _ => "v1",
    };
    println!("    cgroup  {cgroup}");
    let lsm = std::fs::read_to_string("/sys/kernel/security/lsm")
        .unwrap_or_else(|_| "unknown (no securityfs)".into());
    println!("    LSM     {}", lsm.trim());
    Ok(())
}

fn make_image(dir: &Path, peers: Option<&Path>) -> Result<(PathBuf, types::Digest)> {
    let archive = dir.join("busybox.tar");
    let digest = archive::write(&archive::find_busybox(peers)?, &archive)?;
    Ok((archive, digest))
}

fn show_image(ours: &Daemon, archive: &Path, digest: &types::Digest) -> Result<()> {
    heading(2, "An image, from an archive made of Debian's busybox-static");
    ours.ctr(&["images", "import", &archive.to_string_lossy()])?;
    println!("    {}\n    {digest}", archive::NAME);
    Ok(())
}

fn show_container(ours: &Daemon) -> Result<()> {
    heading(3, "A container's own view: hostname; id; ls /proc");
    let script = "hostname; id; ls /proc";
    let output =
        ours.ctr(&["run", "--rm", "--hostname", "demo", archive::NAME, "look", "sh", "-c", script])?;
    let mut lines = output.lines();
    println!("    {}\n    {}", lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let names: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    for row in names.chunks(9) {
        println!("    {}", row.iter().map(|name| format!("{name:<12}")).collect::<String>().trim_end());
    }
    Ok(())
}

/// Kills the daemon twice while a container counts: once to see it go on, once so that it ends while nobody looks.
fn show_crash(ours: &mut Daemon, dir: &Path) -> Result<()> {
    heading(4, "kill -9 of the daemon while a container counts");
    let out = dir.join("out");
    std::fs::create_dir(&out)?;
    let mount = format!("type=bind,src={},dst=/out,options=rbind:rw", out.display());
    let script = format!(
        "i=0; while [ ! -e /out/stop ]; do i=$((i+1)); echo $i >> /out/numbers; usleep 5000; done; exit {CODE}"
    );
    ours.ctr(&["run", "-d", "--mount", &mount, archive::NAME, "count", "sh", "-c", &script])?;
    let numbers = out.join("numbers");
    wait_for("the first numbers", || count(&numbers).is_ok_and(|n| n >= 20))?;
    let pid = task(ours, "count")?.0;

    ours.kill()?;
    let at_kill = count(&numbers)?;
    let back = ours.restart()?;
    let (pid_after, status, _) = task(ours, "count")?;
    if pid_after != pid || status != "RUNNING" {
        bail!("after the crash the task has pid {pid_after} and is {status}, before it had pid {pid}");
    }
    wait_for("more numbers", || count(&numbers).is_ok_and(|n| n > at_kill + 20))?;
    println!("    back in {:.1} ms, same pid {pid}, {} numbers and none missing", ms(back), count(&numbers)?);

    ours.kill()?;
    std::fs::write(out.join("stop"), "")?;
    wait_for("the container's end", || !Path::new(&format!("/proc/{pid}/root/")).exists())?;
    ours.restart()?;
    let (_, status, code) = task(ours, "count")?;
    if (status.as_str(), code) != ("STOPPED", CODE) {
        bail!("the container ended with {CODE} while the daemon was down; now it is {status} with {code}");
    }
    println!("    killed again, and the container ended meanwhile: exit code {code} kept");
    ours.try_ctr(&["tasks", "delete", "count"])?;
    ours.ctr(&["containers", "delete", "count"])?;
    Ok(())
}

/// How many numbers were written; an error if one is missing.
fn count(numbers: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(numbers)?;
    let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let mut expected = 0;
    for line in complete.lines() {
        expected += 1;
        if line.parse() != Ok(expected) {
            bail!("number {expected} is missing: found {line:?}");
        }
    }
    Ok(expected)
}

/// A task's pid, status and exit code.
fn task(daemon: &Daemon, id: &str) -> Result<(u32, String, u32)> {
    let globals = Globals {
        debug: false,
        address: daemon.address().to_string_lossy().into_owned(),
        timeout: Duration::ZERO,
        connect_timeout: Duration::ZERO,
        namespace: "default".to_owned(),
    };
    let request = GetRequest { container_id: id.to_owned(), exec_id: String::new() };
    // A thread of its own, as this one is in the middle of ctr's reactor.
    let lookup = std::thread::spawn(move || -> Result<Option<api::containerd::v1::types::Process>> {
        let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        reactor.block_on(async {
            let response = Client::open(&globals)?.tasks().get(request).await?;
            Ok(response.into_inner().process)
        })
    });
    let process = lookup.join().map_err(|_| anyhow::anyhow!("the look-up panicked"))??;
    let process = process.context("the daemon answered without a process")?;
    Ok((process.pid, process.status().as_str_name().to_owned(), process.exit_status))
}

fn show_comparison(ours: &Daemon, dir: &Path, peers: Option<&Path>, archive: &Path) -> Result<()> {
    heading(5, "The same `ctr run --rm IMAGE true`, in turn");
    let Some(binaries) = peers.and_then(peer_binaries) else {
        let own = median((0..ROUNDS).map(|i| time_run(ours, i)).collect::<Result<_>>()?);
        println!(
            "    containerd-rs {:.1} ms; Debian's containerd is not here to compare ({PEERS} is not set)",
            ms(own)
        );
        return Ok(());
    };
    let mut theirs = Daemon::start(&dir.join("d"), binaries)?;
    theirs.ctr(&["images", "import", &archive.to_string_lossy()])?;
    let mut times = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        times.0.push(time_run(ours, round)?);
        times.1.push(time_run(&theirs, round)?);
    }
    let (own, peer) = (median(times.0), median(times.1));
    println!("    {:<24}{:>8.1} ms", "containerd-rs", ms(own));
    println!(
        "    {:<24}{:>8.1} ms   {:.1} times as long",
        "Debian's containerd",
        ms(peer),
        ms(peer) / ms(own)
    );
    let (own, peer) = (shim_memory(ours)?, shim_memory(&theirs)?);
    println!("    memory of a shim (PSS): {own} kB and {peer} kB");
    println!(
        "    memory of the daemon (PSS): {} kB and {} kB",
        pss(ours.pid()).unwrap_or(0),
        pss(theirs.pid()).unwrap_or(0)
    );
    theirs.stop()
}

fn time_run(daemon: &Daemon, round: usize) -> Result<Duration> {
    let begun = Instant::now();
    daemon.ctr(&["run", "--rm", archive::NAME, &format!("time-{round}"), "true"])?;
    Ok(begun.elapsed())
}

fn shim_memory(daemon: &Daemon) -> Result<u64> {
    // Both daemons give runc the same root, so the ids must differ.
    let id = format!("idle-{}", daemon.pid());
    daemon.ctr(&["run", "-d", archive::NAME, &id, "sleep", "1000"])?;
    let address = daemon.address();
    let shims = leftovers::processes(&["containerd-shim-runc-v2", &address.to_string_lossy()]);
    // An idle shim is meant: ours gives memory back when nothing has happened for a moment.
    let mut samples = Vec::new();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(100));
        samples.extend(shims.iter().find_map(|pid| pss(*pid)));
    }
    let memory = samples.into_iter().min().context("no shim found");
    daemon.ctr(&["tasks", "kill", "-s", "KILL", &id])?;
    wait_for("the idle container's end", || {
        task(daemon, &id).is_ok_and(|(_, status, _)| status == "STOPPED")
    })?;
    daemon.try_ctr(&["tasks", "delete", &id])?;
    daemon.ctr(&["containers", "delete", &id])?;
    memory
}

fn show_leftovers(before: &Before, dir: &Path) -> Result<()> {
    heading(7, "Left behind");
    // A shim that has just answered its last request may need a moment to end.
    let _ = wait_for("the last shim", || before.compare(dir).none());
    let left = before.compare(dir);
    println!(
        "    {} processes, {} mounts, {} netns, {} cgroups, {} files",
        left.processes, left.mounts, left.netns, left.cgroups, left.files
    );
    if !left.none() {
        bail!("the demo left something behind: {left:?}");
    }
    Ok(())
}

fn show_next() {
    let exe = std::env::current_exe().unwrap_or_else(|_| "ctr".into());
    let dir = exe.parent().unwrap_or(Path::new(".")).display().to_string();
    println!("\nNext:");
    println!(
        "    PATH={dir}:$PATH {dir}/containerd --root /var/tmp/c/root --state /run/c -a /run/c/c.sock &"
    );
    println!(
        "    {dir}/ctr -a /run/c/c.sock images import IMAGE.tar    # from `skopeo copy` or `docker save`"
    );
    println!("    {dir}/ctr -a /run/c/c.sock run --rm -t NAME test sh");
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        if Instant::now() > deadline {
            bail!("waited 5 s for {what}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
