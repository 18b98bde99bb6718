//! `power-cut`: what a power loss leaves of a pull.
//!
//! ```text
//!  an empty ext4 --guest: daemon, pull--> killed at a random moment --guest: journal, daemon--> verified, pulled again, run
//! ```
//!
//! A virtual machine has its disk in a file without the host's cache, so that killing it loses what was not flushed, as a
//! power cut does. Two parties then look at everything that the databases call committed: `ctr content check`, and
//! `sha256sum` with sums that were made before the image was packed (tests/guest/power-cut.sh).
//!
//! ```text
//!   --programs DIR   containerd, ctr and the shim are in DIR: nothing is built
//!   --peer DIR       the containerd in DIR is tested instead
//!   --undurable      syncfs does nothing: to see that the test can fail
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::guest::{copy, install_missing};
use crate::{dist, paths, peers, program, suites};

const USAGE: &str = "usage: ./x power-cut [--cuts N] [--seed N] [--programs DIR] [--peer DIR] [--undurable]";
/// Of the disk, which is sparse.
const DISK_BYTES: u64 = 2 << 30;
/// What guest.sh answers if the guest did not come to an end: a busy machine, not a broken disk.
const UNANSWERED: i32 = 125;
/// How far behind the end of the pull the last cut may be, in seconds.
const AFTER: f64 = 3.0;

struct Settings {
    cuts: u32,
    seed: u64,
    programs: Option<PathBuf>,
    peer: Option<PathBuf>,
    undurable: bool,
}

/// Cuts the power, again and again.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let settings = settings(arguments)?;
    install_missing()?;
    let out = paths::target().join("power-cut");
    let script = gather(&settings, &out)?;
    println!("power-cut: seed {}", settings.seed);
    let mut random = settings.seed | 1;
    // The first numbers of a small seed are small.
    for _ in 0..20 {
        fraction(&mut random);
    }
    let length = whole(&out, &script)?;
    println!("a pull that is not cut takes {length:.1} s in the guest");
    let (mut passed, mut failed) = (0, 0);
    for number in 1..=settings.cuts {
        let at = fraction(&mut random) * (length + AFTER);
        let started = Instant::now();
        cut(&out, &script, at)?;
        let (output, success) = boot(&out, &format!("{script} verify"))?;
        let said = |word: &str| output.lines().find_map(|line| line.strip_prefix(word)).unwrap_or(" nothing");
        println!(
            "cut {number} after {at:.1} s of {length:.1}: committed{}; after the next pull{}: {} ({:.0} s)",
            said("COMMITTED"),
            said("HEALED"),
            if success { "whole" } else { "BROKEN" },
            started.elapsed().as_secs_f64()
        );
        if success {
            passed += 1;
        } else {
            failed += 1;
            print!("{output}");
            let kept = out.join(format!("broken-{number}"));
            drop(fs::rename(out.join("disk"), &kept));
            println!("its disk is {}", kept.display());
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn settings(arguments: &[String]) -> Result<Settings> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut settings = Settings { cuts: 10, seed, programs: None, peer: None, undurable: false };
    let mut words = arguments.iter();
    while let Some(flag) = words.next() {
        let mut value = || words.next().context(USAGE);
        match flag.as_str() {
            "--cuts" => settings.cuts = value()?.parse().context(USAGE)?,
            "--seed" => settings.seed = value()?.parse().context(USAGE)?,
            "--programs" => settings.programs = Some(PathBuf::from(value()?)),
            "--peer" => settings.peer = Some(PathBuf::from(value()?)),
            "--undurable" => settings.undurable = true,
            _ => bail!(USAGE),
        }
    }
    Ok(settings)
}

/// Puts all that the guest needs into the directory that it sees as `/out`; answers with the script there.
fn gather(settings: &Settings, out: &Path) -> Result<String> {
    let peers = peers::fetch()?;
    let programs = match &settings.programs {
        Some(programs) => programs.clone(),
        None => dist::build()?,
    };
    program::run(&mut program::cargo(&["build", "--locked", "--package", "containerd-tests", "--bins"]))?;
    for dir in ["bin", "peer", "expected", "served"] {
        let dir = out.join(dir);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    }
    for name in ["containerd", "ctr", "containerd-shim-runc-v2"] {
        copy(&programs.join(name), &out.join("bin").join(name))?;
        if let Some(peer) = &settings.peer {
            copy(&peer.join(name), &out.join("peer").join(name))?;
        }
    }
    // Copies, as a shell reads a script while it runs, and this one runs for long.
    for name in ["guest.sh", "power-cut.sh"] {
        copy(&paths::repository().join("tests/guest").join(name), &out.join(name))?;
    }
    copy(&peers.sbin().join("runc"), &out.join("bin/runc"))?;
    copy(&paths::target().join("debug/power_cut"), &out.join("bin/power_cut"))?;
    let mut image = Command::new(paths::target().join("debug/power_cut"));
    image.arg(out).arg(settings.seed.to_string()).envs(suites::environment(Some(&peers)));
    program::run(&mut image)?;
    let undurable = if settings.undurable { "UNDURABLE=yes " } else { "" };
    Ok(format!("{undurable}/out/power-cut.sh"))
}

/// A pull that nobody cuts; answers with its length in seconds.
fn whole(out: &Path, script: &str) -> Result<f64> {
    let (mut begun, mut ended) = (None, None);
    let guest = start(out, "pulled 0", script)?;
    let output = wait(guest, || {
        begun = begun.or_else(|| out.join("pulling").exists().then(Instant::now));
        ended = ended.or_else(|| out.join("pulled").exists().then(Instant::now));
    })?;
    match (begun, ended) {
        (Some(begun), Some(ended)) => Ok((ended - begun).as_secs_f64()),
        _ => bail!("the pull did not end:\n{output}"),
    }
}

/// A pull on an empty disk that ends `after` so many seconds. A guest that does not come that far, which on a busy
/// machine may happen, is started again.
fn cut(out: &Path, script: &str, after: f64) -> Result<()> {
    let mut output = String::new();
    for _ in 0..3 {
        let guest = start(out, &format!("pulling {after:.2}"), script)?;
        output = wait(guest, || {})?;
        if out.join("pulling").exists() {
            return Ok(());
        }
    }
    bail!("the pull did not begin:\n{output}")
}

/// A guest that pulls onto an empty disk until it is cut.
fn start(out: &Path, cut: &str, script: &str) -> Result<std::process::Child> {
    for mark in ["pulling", "pulled"] {
        if out.join(mark).exists() {
            fs::remove_file(out.join(mark))?;
        }
    }
    let disk = fs::File::create(out.join("disk"))?;
    disk.set_len(DISK_BYTES)?;
    program::output(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(out.join("disk")))?;
    let mut options = vec!["--cut"];
    options.extend(cut.split(' '));
    guest(out, &options, &format!("{script} pull")).spawn().context("start the guest")
}

/// Calls `look` until the guest has ended; what it printed.
fn wait(mut guest: std::process::Child, mut look: impl FnMut()) -> Result<String> {
    while guest.try_wait()?.is_none() {
        look();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    look();
    Ok(String::from_utf8_lossy(&guest.wait_with_output()?.stdout).into_owned())
}

/// Runs `script` in a guest to its end; what it printed, and whether it ended well.
fn boot(out: &Path, script: &str) -> Result<(String, bool)> {
    let mut done = guest(out, &[], script).output().context("run the guest")?;
    for _ in 0..2 {
        if done.status.code() == Some(UNANSWERED) {
            done = guest(out, &[], script).output().context("run the guest")?;
        }
    }
    Ok((String::from_utf8_lossy(&done.stdout).replace('\r', ""), done.status.success()))
}

fn guest(out: &Path, options: &[&str], script: &str) -> Command {
    let mut guest = Command::new(out.join("guest.sh"));
    guest.env("GUEST_CACHE", paths::cache().join("guest-kernel"));
    guest.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    guest.args(options).arg("--disk").arg(out.join("disk")).arg("--out").arg(out);
    guest.args(["--timeout", "600", "--", "bash", "-c", script]);
    guest
}

/// Between 0 and 1; xorshift.
fn fraction(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    f64::from(u32::try_from(*state >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}
