//! A program in the place of another: runs it, and writes down how long it took and what it was asked for.
//!
//! ```text
//!  <dir>/runc           a link to this program           <dir>/runc.real      the path of the other one
//!  <dir>/timed          what was written down: a line for each call: "runc create 23000000" (nanoseconds)
//! ```
//!
//! So what a runtime and network plugins take by themselves stands beside what a call of the CRI takes that uses them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What of a runtime's command line says what it is asked for.
const VERBS: [&str; 5] = ["create", "start", "kill", "delete", "state"];

/// Puts this program into `dir` in the place of `real`.
pub fn put(dir: &Path, real: &Path) -> Result<PathBuf> {
    let name = real.file_name().with_context(|| format!("{} has no name", real.display()))?;
    let place = dir.join(name);
    // It may be a link in the very place.
    let target = real.canonicalize().with_context(|| format!("find {}", real.display()))?;
    if place.is_symlink() {
        fs::remove_file(&place).with_context(|| format!("remove {}", place.display()))?;
    }
    symlink(std::env::current_exe()?, &place).with_context(|| format!("link {}", place.display()))?;
    fs::write(beside(&place), target.as_os_str().as_encoded_bytes())?;
    Ok(place)
}

/// What was written down in `dir` since the last time: name and verb, with how long each call took.
pub fn take(dir: &Path) -> Result<Vec<(String, Duration)>> {
    let path = dir.join("timed");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    fs::remove_file(&path)?;
    let line = |line: &str| -> Option<(String, Duration)> {
        let (what, nanoseconds) = line.rsplit_once(' ')?;
        Some((what.to_owned(), Duration::from_nanos(nanoseconds.parse().ok()?)))
    };
    text.lines().map(|text| line(text).with_context(|| format!("read {text:?}"))).collect()
}

/// How much longer a call takes because this program stands in the place of the one that it runs: the median of many.
pub fn overhead(dir: &Path) -> Result<Duration> {
    const CALLS: usize = 101;
    let place = put(dir, Path::new("/bin/true"))?;
    let call = || -> Result<Duration> {
        let started = Instant::now();
        Command::new(&place).status()?;
        let took = started.elapsed();
        let noted = take(dir)?.into_iter().map(|(_, noted)| noted).sum();
        Ok(took.saturating_sub(noted))
    };
    let mut more = (0..CALLS).map(|_| call()).collect::<Result<Vec<_>>>()?;
    more.sort_unstable();
    more.get(CALLS / 2).copied().context("no call was made")
}

/// If this program stands in the place of another: runs that, and ends as it did.
pub fn in_place(arguments: &[OsString]) -> Option<Result<ExitCode>> {
    let place = PathBuf::from(arguments.first()?);
    let real = fs::read_to_string(beside(&place)).ok().filter(|_| place.is_absolute())?;
    Some(run(&place, Path::new(&real), arguments.get(1..)?))
}

fn run(place: &Path, real: &Path, arguments: &[OsString]) -> Result<ExitCode> {
    let started = Instant::now();
    let status = Command::new(real).args(arguments).status()?;
    let took = started.elapsed();
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let line = format!("{name} {} {}\n", verb(arguments), took.as_nanos());
    let timed = place.with_file_name("timed");
    File::options().create(true).append(true).open(timed)?.write_all(line.as_bytes())?;
    let code = status.code().unwrap_or(128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)))
}

/// What it is asked for: network plugins by the environment, a runtime by its first word that is no flag's.
fn verb(arguments: &[OsString]) -> String {
    if let Some(verb) = std::env::var_os("CNI_COMMAND") {
        return verb.to_string_lossy().into_owned();
    }
    let verb = arguments.iter().find(|word| VERBS.iter().any(|verb| OsStr::new(verb) == word.as_os_str()));
    verb.map_or_else(|| "other".to_owned(), |verb| verb.to_string_lossy().into_owned())
}

fn beside(place: &Path) -> PathBuf {
    place.with_extension("real")
}
