//! `test`: the crates' own tests, then the black-box suite against our programs and against Debian's.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::peers::Peers;
use crate::tally::{Suite, Tally, as_one, by_module, failed, not_run};
use crate::{dist, guest, machine, peers, program, reference};

/// A test program that cargo built.
pub struct TestProgram {
    package: String,
    /// As cargo names it.
    pub target: String,
    /// The program.
    pub path: PathBuf,
    dir: PathBuf,
}

/// The package whose tests drive finished binaries.
const BLACK_BOX: &str = "containerd-tests";

/// How many tests of one run a race may fail; more have another reason, and one try.
const RACES: usize = 3;

/// Runs everything that needs no Go.
pub fn run() -> Result<ExitCode> {
    machine::require_containers()?;
    let mut tally = Tally::default();
    let peers = fetch_peers(&mut tally);
    let environment = environment(peers.as_ref());
    let dist = dist::build()?;
    let programs = build_tests()?;
    for test in programs.iter().filter(|test| !test.is_black_box()) {
        let started = Instant::now();
        let done = run_program(&mut tally, test, (&[], &environment), &[])?;
        // A program that prints no result crashed.
        let mut suite = as_one(&format!("{} {}", test.package, test.target), &done.output);
        suite.failed += usize::from(!done.success && suite.failed == 0);
        if suite.passed + suite.failed > 0 {
            tally.add(suite, started.elapsed());
        }
    }
    if let Some(test) = programs.iter().find(|test| test.is_called("blackbox")) {
        black_box(&mut tally, test, Side::ours(&dist, environment.clone()), &[])?;
        if let Some(peers) = &peers {
            black_box(&mut tally, test, Side::debian(peers, environment.clone()), &[])?;
        }
    }
    if let Some(test) = programs.iter().find(|test| test.is_called("side_by_side")) {
        black_box(&mut tally, test, Side::both(&dist, environment), &[])?;
    }
    Ok(tally.finish())
}

/// The long version of the leak tests, of all behaviours or of those that are named.
pub fn soak(behaviours: &[&str]) -> Result<ExitCode> {
    machine::require_containers()?;
    let mut tally = Tally::default();
    let peers = fetch_peers(&mut tally);
    let dist = dist::build()?;
    let programs = build_tests()?;
    let flags = [&["--ignored"], behaviours].concat();
    if let Some(test) = programs.iter().find(|test| test.is_called("blackbox")) {
        black_box(&mut tally, test, Side::ours(&dist, environment(peers.as_ref())), &flags)?;
    }
    Ok(tally.finish())
}

impl TestProgram {
    /// Drives finished binaries, and is told which.
    fn is_black_box(&self) -> bool {
        self.is_called("blackbox") || self.is_called("side_by_side")
    }

    pub fn is_called(&self, target: &str) -> bool {
        self.package == BLACK_BOX && self.target == target
    }
}

/// Whose programs the black-box suite drives, as environment variables.
pub struct Side {
    /// For people.
    pub name: String,
    /// The environment.
    pub variables: Vec<(&'static str, PathBuf)>,
    /// What runs the tests, where they need another view of the machine or another machine: a command line before theirs.
    pub wrapper: Vec<OsString>,
}

impl Side {
    pub fn ours(dist: &Path, mut variables: Vec<(&'static str, PathBuf)>) -> Self {
        variables.extend([("SUITE", "ours".into()), ("CONTAINERD_BIN", dist.join("containerd"))]);
        Self { name: "ours".into(), variables, wrapper: Vec::new() }
    }

    /// The same in a guest (`tests/guest/guest.sh`) that ends after so many seconds, and whose kernel has this security module.
    pub fn in_guest(self, out: &Path, timeout: u32, lsm: &str) -> Result<Self> {
        let wrapper = guest::wrapper(out, &["--timeout", &timeout.to_string(), "--lsm", lsm])?;
        let mut variables = self.variables;
        variables.push(("TEST_PATIENCE", PathBuf::from(guest::PATIENCE)));
        Ok(Self { name: format!("guest {}", self.name), variables, wrapper })
    }

    fn debian(peers: &Peers, mut variables: Vec<(&'static str, PathBuf)>) -> Self {
        variables.extend([("SUITE", "upstream".into()), ("CONTAINERD_BIN", peers.bin().join("containerd"))]);
        Self { name: "debian".into(), variables, wrapper: Vec::new() }
    }

    /// Ours beside Debian's, and beside today's where it was built.
    fn both(dist: &Path, variables: Vec<(&'static str, PathBuf)>) -> Self {
        if reference::built(reference::Set::Containerd).is_none() {
            eprintln!(
                "SKIPPED: nothing is compared with containerd 2.3; `./x reference` builds it where Go is"
            );
        }
        Self { name: "side by side".into(), ..Self::ours(dist, variables) }
    }
}

/// Where the peers' programs are, for tests and what is like them.
pub fn environment(peers: Option<&Peers>) -> Vec<(&'static str, PathBuf)> {
    let Some(peers) = peers else { return Vec::new() };
    let mut variables = vec![("BUSYBOX", peers.busybox()), ("PEER_DIR", peers.bin())];
    match peers::fetch_docker() {
        Ok(docker) => variables.push(("DOCKER_DIR", docker)),
        Err(error) => eprintln!("SKIPPED: nothing is tried with dockerd: {error:#}"),
    }
    match peers::fetch_criu() {
        Ok(criu) => variables.push(("CRIU_DIR", criu)),
        Err(error) => eprintln!("SKIPPED: nothing is checkpointed: {error:#}"),
    }
    match peers::fetch_skopeo() {
        Ok(skopeo) => variables.push(("SKOPEO_DIR", skopeo)),
        Err(error) => eprintln!("SKIPPED: nothing is tried with skopeo: {error:#}"),
    }
    match peers::fetch_registry() {
        Ok(registry) => variables.push(("REGISTRY_DIR", registry)),
        Err(error) => eprintln!("SKIPPED: nothing is tried with docker-registry: {error:#}"),
    }
    match peers::fetch_cni() {
        Ok(cni) => variables.push(("CNI_DIR", cni)),
        Err(error) => eprintln!("SKIPPED: nothing is tried with CNI plugins: {error:#}"),
    }
    variables.extend(reference::built(reference::Set::Containerd).map(|dir| ("REFERENCE_DIR", dir)));
    variables.extend(reference::built(reference::Set::Cni).map(|dir| ("REFERENCE_CNI_DIR", dir)));
    if !machine::has_program("runc") {
        variables.push(("RUNTIME_DIR", peers.sbin()));
        // Tests of single crates look for it where their shim does.
        variables.push(("PATH", machine::search_path([peers.sbin()]).into()));
    }
    variables
}

/// A machine without Debian's packages still tests ours, but says what it could not compare.
fn fetch_peers(tally: &mut Tally) -> Option<Peers> {
    match peers::fetch() {
        Ok(peers) => Some(peers),
        Err(error) => {
            eprintln!("SKIPPED: nothing is compared with Debian's containerd: {error:#}");
            // On Debian that is a failure; elsewhere it cannot be otherwise.
            if machine::has_program("apt-get") {
                tally.check("fetch Debian's containerd", false, Duration::ZERO);
            }
            None
        }
    }
}

/// Runs the tests that `flags` choose, and counts each of their modules as a suite.
pub fn black_box(tally: &mut Tally, test: &TestProgram, side: Side, flags: &[&str]) -> Result<()> {
    println!("--- black box: {}", side.name);
    let started = Instant::now();
    let done = run_side(tally, test, &side, flags)?;
    for (path, reason) in not_run(&done.output) {
        println!("NOT RUN {}: {path}: {reason}", side.name);
    }
    let mut suites = by_module(&format!("{}: ", side.name), &done.output);
    if !done.success && suites.iter().all(|suite| suite.failed == 0) {
        suites.push(Suite { name: format!("{}: crashed", side.name), passed: 0, failed: 1 });
    }
    for suite in suites {
        tally.add(suite, started.elapsed());
    }
    Ok(())
}

/// Runs the tests of the black-box suite that `flags` choose, and counts them as one suite.
pub fn black_box_as_one(tally: &mut Tally, test: &TestProgram, side: Side, flags: &[&str]) -> Result<()> {
    println!("--- {}", side.name);
    let started = Instant::now();
    let done = run_side(tally, test, &side, flags)?;
    let skipped = not_run(&done.output);
    for (path, reason) in &skipped {
        println!("NOT RUN {}: {path}: {reason}", side.name);
    }
    let mut suite = as_one(&side.name, &done.output);
    suite.passed = suite.passed.saturating_sub(skipped.len());
    suite.failed += usize::from(!done.success && suite.failed == 0);
    tally.add(suite, started.elapsed());
    Ok(())
}

fn run_side(tally: &mut Tally, test: &TestProgram, side: &Side, flags: &[&str]) -> Result<Done> {
    let flags = [&["--show-output"], flags].concat();
    run_program(tally, test, (&side.wrapper, &side.variables), &flags)
}

/// Runs a test program, and those of its tests that failed once more, alone: a few of thousands that run beside each other on a
/// busy machine fail by a race, perhaps of another's program. Only what fails then as well has failed; what passes then
/// is told at the end, as somebody has to look at it.
fn run_program(
    tally: &mut Tally,
    test: &TestProgram,
    (wrapper, variables): (&[OsString], &[(&str, PathBuf)]),
    flags: &[&str],
) -> Result<Done> {
    let mut done = execute(test, wrapper, variables, flags)?;
    let first: Vec<String> = failed(&done.output).into_iter().map(str::to_owned).collect();
    let is_whole = done.output.lines().any(|line| line.starts_with("test result: FAILED"));
    if first.is_empty() || first.len() > RACES || !is_whole {
        return Ok(done);
    }
    println!("AGAIN {}: {first:?}: alone this time", test.target);
    let mut again = vec!["--show-output", "--exact", "--test-threads=1"];
    again.extend(flags.iter().filter(|flag| **flag == "--ignored"));
    again.extend(first.iter().map(String::as_str));
    let again = execute(test, wrapper, variables, &again)?;
    // The later result of a test is the one that counts.
    done.output.push_str(&again.output);
    done.success = again.success;
    let still = failed(&done.output);
    tally.second_try(first.iter().filter(|path| !still.contains(&path.as_str())));
    Ok(done)
}

/// Builds all tests; gives the programs, in cargo's order.
pub fn build_tests() -> Result<Vec<TestProgram>> {
    let mut command = program::cargo(&["test", "--workspace", "--locked", "--no-run"]);
    command.arg("--message-format=json-render-diagnostics");
    eprintln!("$ {}", program::shown(&command));
    let messages = program::output(&mut command)?;
    let mut programs: Vec<TestProgram> = messages.lines().filter_map(test_program).collect();
    programs.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    Ok(programs)
}

fn test_program(message: &str) -> Option<TestProgram> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let id = message["package_id"].as_str()?;
    // `path+file:///.../crates/types#containerd-types@0.1.0`, or `...#0.1.0` where the directory has the package's name.
    let (path, name) = id.rsplit_once('#')?;
    let package = match name.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit_once('/')?.1,
    };
    Some(TestProgram {
        package: package.to_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        path: PathBuf::from(message["executable"].as_str()?),
        dir,
    })
}

struct Done {
    success: bool,
    output: String,
}

/// Runs a test program; shows its lines as they come.
fn execute(
    test: &TestProgram,
    wrapper: &[OsString],
    variables: &[(&str, PathBuf)],
    flags: &[&str],
) -> Result<Done> {
    let mut command = match wrapper {
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&test.path);
            command
        }
        [] => Command::new(&test.path),
    };
    command.args(flags).current_dir(&test.dir).stdin(Stdio::null()).stdout(Stdio::piped());
    command.env("CARGO_MANIFEST_DIR", &test.dir).env("RUST_BACKTRACE", "0");
    command.envs(variables.iter().map(|(key, value)| (key, value)));
    let mut child = command.spawn().with_context(|| format!("run {}", test.path.display()))?;
    let stdout = child.stdout.take().context("the test's output is a pipe")?;
    let mut output = String::new();
    let mut section = Section::Tests;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.with_context(|| format!("read from {}", test.path.display()))?;
        // What comes from the guest's terminal has two signs at its end.
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line));
        // Single tests of the crates that pass are thousands of lines; those of the black box show that it goes on.
        section = section.at(&line);
        if section != Section::Successes && (test.is_black_box() || !line.ends_with(" ... ok")) {
            show(&line);
        }
        output.push_str(&line);
        output.push('\n');
    }
    let status = child.wait().with_context(|| format!("wait for {}", test.path.display()))?;
    Ok(Done { success: status.success(), output })
}

/// The parts of what libtest prints. What tests that passed have written is read, but not shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Tests,
    Successes,
    Failures,
}

impl Section {
    fn at(self, line: &str) -> Self {
        match line {
            "successes:" => Self::Successes,
            "failures:" => Self::Failures,
            _ if line.starts_with("test result: ") => Self::Failures,
            _ => self,
        }
    }
}

/// Prints what is worth reading.
fn show(line: &str) {
    let noise = line.is_empty() || line.starts_with("running ") || line.starts_with("test result: ok");
    if !noise {
        println!("{line}");
    }
}
