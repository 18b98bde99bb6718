//! `reference`: today's containerd, the CRI tools, the CNI plugins and, if it is asked for by name, the kubelet, built from
//! pinned Go modules into `.cache/reference`, where suites and benches find them.
//!
//! ```text
//!   tests/reference/<set>/go.mod, go.sum     what is built
//!   .cache/reference/<set>/                  the programs
//!   .cache/reference/<set>/stamp             what they were built of; another pin or another Go builds them again
//! ```
//!
//! Nothing else in the project needs Go: where it is missing, what would be compared says so and is not run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{machine, paths, program};

/// Programs that are pinned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// `containerd`, `ctr`, `containerd-shim-runc-v2`, `containerd-stress`
    Containerd,
    /// The plugins that containernetworking publishes.
    Cni,
    /// `crictl` and `critest`.
    CriTools,
    /// Kubernetes' `kubelet`. It takes as long to build as all the others together, three times over.
    Kubelet,
}

impl Set {
    const ALL: [Self; 4] = [Self::Containerd, Self::Cni, Self::CriTools, Self::Kubelet];

    fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Cni => "cni",
            Self::CriTools => "cri-tools",
            Self::Kubelet => "kubelet",
        }
    }

    /// Whether it is built only when it is named.
    fn is_on_request(self) -> bool {
        self == Self::Kubelet
    }

    fn pins(self) -> PathBuf {
        paths::repository().join("tests/reference").join(self.name())
    }

    fn dir(self) -> PathBuf {
        paths::cache().join("reference").join(self.name())
    }

    /// Packages whose tests are the program.
    fn test_programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Containerd | Self::Cni | Self::Kubelet => &[],
            Self::CriTools => &[("critest", "sigs.k8s.io/cri-tools/cmd/critest")],
        }
    }
}

/// Builds what is missing of the named sets (all but the kubelet, if none is named) and prints what there is; with `--print`
/// it only prints.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let (flags, names): (Vec<_>, Vec<_>) = arguments.iter().partition(|word| word.starts_with('-'));
    let mut sets = Set::ALL.to_vec();
    if let Some(name) = names.iter().find(|name| sets.iter().all(|set| set.name() != name.as_str())) {
        bail!("no set {name:?}; there are containerd, cni, cri-tools and kubelet");
    }
    sets.retain(|set| match names.is_empty() {
        true => !set.is_on_request(),
        false => names.iter().any(|name| name.as_str() == set.name()),
    });
    match flags.as_slice() {
        [] => build(&sets),
        [flag] if flag.as_str() == "--print" => Ok(print(&sets)),
        _ => bail!("usage: ./x reference [--print] [containerd] [cni] [cri-tools] [kubelet]"),
    }
}

/// The directory of a set that was built before, from the present pins.
pub fn built(set: Set) -> Option<PathBuf> {
    let dir = set.dir();
    let stamp = fs::read_to_string(dir.join("stamp")).ok()?;
    (has_go().is_none_or(|go| stamp.starts_with(&go)) && stamp.ends_with(&pinned(set).ok()?)).then_some(dir)
}

fn build(sets: &[Set]) -> Result<ExitCode> {
    let Some(go) = has_go() else {
        eprintln!("SKIPPED: there is no Go here: nothing is compared with containerd 2.3");
        return Ok(print(sets));
    };
    for set in sets {
        if built(*set).is_none() {
            build_set(*set, &go).with_context(|| format!("build the reference's {}", set.name()))?;
        }
    }
    Ok(print(sets))
}

/// Everything is built beside its place and then put there, so that an interrupted build leaves no half of it.
fn build_set(set: Set, go: &str) -> Result<()> {
    let started = Instant::now();
    let (dir, new) = (set.dir(), set.dir().with_extension("new"));
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("remove {}", new.display()))?;
    }
    fs::create_dir_all(&new).with_context(|| format!("create {}", new.display()))?;
    let to = |name: &str| format!("{}/{name}", new.display());
    program::run(go_command(set).args(["build", "-ldflags=-s -w", "-o", &to(""), "tool"]))?;
    for (name, package) in set.test_programs() {
        program::run(go_command(set).args(["test", "-c", "-ldflags=-s -w", "-o", &to(name), package]))?;
    }
    let stamp = format!("{go}{}", pinned(set)?);
    fs::write(new.join("stamp"), stamp).with_context(|| format!("write into {}", new.display()))?;
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    fs::rename(&new, &dir).with_context(|| format!("replace {}", dir.display()))?;
    eprintln!("built: {} in {:.0} s", set.name(), started.elapsed().as_secs_f64());
    Ok(())
}

/// Go in the directory of the pins. It gives way to everybody else, and builds with the toolchain that is here.
fn go_command(set: Set) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "10", "go"]).current_dir(set.pins()).env("GOTOOLCHAIN", "local");
    // The pins decide, not a workspace or a vendor directory further up.
    command.env("GOWORK", "off").env("GOFLAGS", "-mod=readonly -buildvcs=false");
    command
}

fn print(sets: &[Set]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for set in sets {
        match built(*set) {
            Some(dir) => println!("{} {}: {}", set.name(), dir.display(), programs(&dir).join(" ")),
            None => {
                println!("{} is not there; `./x reference {0}` builds it where Go is", set.name());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn programs(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != "stamp");
    names.sort();
    names
}

/// Go's version line, if there is Go.
fn has_go() -> Option<String> {
    let done = machine::has_program("go").then(|| Command::new("go").arg("version").output());
    done?
        .ok()
        .filter(|done| done.status.success())
        .map(|done| String::from_utf8_lossy(&done.stdout).into_owned())
}

fn pinned(set: Set) -> Result<String> {
    let read = |name: &str| {
        let path = set.pins().join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    Ok(read("go.mod")? + &read("go.sum")?)
}
