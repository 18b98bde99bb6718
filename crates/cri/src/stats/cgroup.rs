//! What a control group has used, by its files.
//!
//! A file that is not there (no such controller, an older kernel, a group that has just gone) leaves out its numbers.

mod first;
mod known;
mod second;

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use api::cri::{PsiData, PsiStats};
use sys::cgroup::{Groups, Mode};
use types::{Error, Result};

pub use known::Known;

/// Where a group is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In the one tree of version 2.
    Second(PathBuf),
    /// In the trees of version 1.
    First(Box<first::Trees>),
}

/// How much is read. Each file costs the kernel some microseconds, and there may be a thousand groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What the usage of containers consists of; other numbers are nothing.
    Usage,
    /// The same, and how many processes there are: what the usage of pods consists of.
    Processes,
    /// Everything.
    All,
}

impl Depth {
    /// What `read` says, where everything is read.
    fn detail<T: Default>(self, read: impl FnOnce() -> T) -> T {
        match self {
            Self::Usage | Self::Processes => T::default(),
            Self::All => read(),
        }
    }

    /// Processes, of whom `file` tells what is in the file of this name.
    fn pids(self, file: impl Fn(&str) -> Option<u64>) -> Option<Pids> {
        if self < Self::Processes {
            return None;
        }
        let limit = self.detail(|| file("pids.max").unwrap_or_default());
        Some(Pids { current: file("pids.current")?, limit })
    }
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Processors.
    pub cpu: Option<Cpu>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processes and threads.
    pub pids: Option<Pids>,
    /// By block device.
    pub devices: Vec<Device>,
    /// How long it waited for block devices.
    pub io_pressure: Option<PsiStats>,
}

/// Processors; times are in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpu {
    /// All time used.
    pub usage: u64,
    /// Of which in programs.
    pub user: u64,
    /// Of which in the kernel.
    pub system: u64,
    /// Periods in which it could run.
    pub periods: u64,
    /// Periods in which it had to wait because its quota was used.
    pub throttled_periods: u64,
    /// How long it had to wait so.
    pub throttled: u64,
    /// How long it waited for processors.
    pub pressure: Option<PsiStats>,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// All of it.
    pub usage: u64,
    /// The most that there was; of version 2 the limit, as upstream tells it.
    pub max_usage: u64,
    /// The most that may be; none for no limit.
    pub limit: Option<u64>,
    /// How often the limit was hit (version 1).
    pub failures: u64,
    /// Pages of programs.
    pub rss: u64,
    /// Pages of files.
    pub cache: u64,
    /// Files that are mapped.
    pub mapped_file: u64,
    /// Files, used lately.
    pub active_file: u64,
    /// Files, not used lately.
    pub inactive_file: u64,
    /// The kernel's.
    pub kernel: u64,
    /// Swap used.
    pub swap: Option<u64>,
    /// Swap that may be used; none for no limit.
    pub swap_limit: Option<u64>,
    /// Page faults.
    pub faults: u64,
    /// Page faults for which a disk was read.
    pub major_faults: u64,
    /// Processes that were killed for lack of it.
    pub oom_kills: Option<u64>,
    /// How long it waited for memory.
    pub pressure: Option<PsiStats>,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// How many there may be; 0 for no limit.
    pub limit: u64,
}

/// A block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub major: u64,
    /// The second part of it.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Requests to read.
    pub reads: u64,
    /// Requests to write.
    pub writes: u64,
}

/// How much memory may be used, in bytes; none for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory.
    pub memory: Option<u64>,
    /// Swap.
    pub swap: Option<u64>,
}

impl Memory {
    /// What cannot be given back without harm.
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }

    /// How much more there may be; 0 without a limit, as upstream tells it.
    pub fn available(&self) -> u64 {
        self.limit.map_or(0, |limit| limit.saturating_sub(self.working_set()))
    }
}

/// So much and more is no limit.
const UNLIMITED: u64 = 1 << 62;

impl Place {
    /// The group that a process is in.
    pub fn of_process(pid: u32) -> Result<Self> {
        let groups =
            Groups::of(pid).map_err(|e| Error::from(e).context(format!("read groups of process {pid}")))?;
        match sys::cgroup::mode() {
            Mode::Unified => groups.unified().map(Self::Second).ok_or_else(|| Error::not_found("no group")),
            Mode::Legacy => Ok(Self::first(&groups)),
        }
    }

    /// The group of this name, which may be that of a slice without those above it.
    pub fn named(name: &str) -> Self {
        let plain = |part: &Component<'_>| matches!(part, Component::Normal(_));
        let path: PathBuf = Path::new(name).components().filter(plain).collect();
        let path = match path.to_str().and_then(|text| text.strip_suffix(".slice")) {
            Some(slice) if !slice.contains('/') => slices(slice),
            _ => path,
        };
        match sys::cgroup::mode() {
            Mode::Unified => Self::Second(Path::new("/sys/fs/cgroup").join(path)),
            Mode::Legacy => {
                let line = |controller: &str| format!("1:{controller}:/{}\n", path.display());
                Self::first(&Groups::told(first::CONTROLLERS.map(line).concat()))
            }
        }
    }

    fn first(groups: &Groups) -> Self {
        Self::First(Box::new(first::Trees::of(groups)))
    }

    /// Reads what a group has used. Blocks as long as the kernel does.
    pub fn measure(&self, depth: Depth) -> Measured {
        self.measure_within(depth, self.limits())
    }

    /// The same, of a group whose limits are known.
    fn measure_within(&self, depth: Depth, limits: Limits) -> Measured {
        match self {
            Self::Second(dir) => second::measure(dir, depth, limits),
            Self::First(trees) => first::measure(trees, depth, limits),
        }
    }

    /// Reads the limits of a group.
    fn limits(&self) -> Limits {
        match self {
            Self::Second(dir) => second::limits(dir),
            Self::First(trees) => trees.memory.as_deref().map(first::limits).unwrap_or_default(),
        }
    }
}

impl Place {
    /// The processes in the group itself.
    pub fn processes(&self) -> Vec<u32> {
        let dir = match self {
            Self::Second(dir) => Some(dir.clone()),
            Self::First(trees) => trees.pids.clone().or_else(|| trees.memory.clone()),
        };
        let text = dir.and_then(|dir| text(&dir.join("cgroup.procs"))).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// Where systemd has the slice of this name: `a-b` is in `a.slice/a-b.slice`.
fn slices(name: &str) -> PathBuf {
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    ends.map(|end| format!("{}.slice", &name[..end])).collect()
}

/// What is in a file of the kernel, which has no length that could be asked for.
fn text(path: &Path) -> Option<String> {
    /// Most files are shorter.
    const USUAL: usize = 4096;
    let mut file = File::open(path).ok()?;
    let (mut bytes, mut end) = (vec![0; USUAL], 0);
    loop {
        match file.read(bytes.get_mut(end..)?).ok()? {
            0 => break,
            read => end += read,
        }
        if end == bytes.len() {
            bytes.resize(2 * end, 0);
        }
    }
    bytes.truncate(end);
    String::from_utf8(bytes).ok()
}

/// The number that a file is; `max` is none.
fn number(path: &Path) -> Option<u64> {
    // The kernel tells such a file at once, and no number is longer.
    let mut bytes = [0; 32];
    let end = File::open(path).ok()?.read(&mut bytes).ok()?;
    std::str::from_utf8(bytes.get(..end)?).ok()?.trim().parse().ok()
}

/// The number behind `key` in lines of keys and numbers.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// How long it waited: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same of `full`.
fn pressure(path: &Path) -> Option<PsiStats> {
    let text = text(path)?;
    let data = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let value =
            |key: &str| line.split_whitespace().find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
        let average = |key: &str| value(key).and_then(|text| text.parse().ok()).unwrap_or_default();
        Some(PsiData {
            // The kernel counts microseconds.
            total: value("total").and_then(|text| text.parse::<u64>().ok()).unwrap_or_default() * 1000,
            avg10: average("avg10"),
            avg60: average("avg60"),
            avg300: average("avg300"),
        })
    };
    Some(PsiStats { full: data("full"), some: data("some") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_working_sets_never_go_below_nothing() {
        let memory = Memory { usage: 10, inactive_file: 20, limit: Some(5), ..Memory::default() };
        assert_eq!((memory.working_set(), memory.available()), (0, 5));
        let over = Memory { usage: 10, limit: Some(5), ..Memory::default() };
        assert_eq!(over.available(), 0);
        assert_eq!(Memory { usage: 10, ..Memory::default() }.available(), 0);
    }

    #[test]
    fn this_process_has_a_group_that_can_be_measured() {
        let measured = Place::of_process(std::process::id()).unwrap().measure(Depth::All);
        assert!(measured.cpu.is_none_or(|cpu| cpu.usage > 0));
        assert_eq!(Place::named("/../none/of/this").measure(Depth::All), Measured::default());
    }

    #[test]
    fn a_slice_is_found_in_those_that_its_name_says() {
        let name = "kubepods-burstable-pod1_a.slice";
        let path = format!("kubepods.slice/kubepods-burstable.slice/{name}");
        let place = |name: &str| format!("{:?}", Place::named(name));
        assert_eq!(place(name), place(&path));
        assert_eq!(slices("kubepods-burstable-pod1_a"), Path::new(&path));
        assert_ne!(place("/a/b-c.slice"), place("/a/b.slice/b-c.slice"));
    }

    #[test]
    fn pressure_is_told_in_nanoseconds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cpu.pressure");
        std::fs::write(&path, "some avg10=1.50 avg60=0.25 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n").unwrap();
        let told = pressure(&path).unwrap();
        let some = told.some.unwrap();
        assert_eq!((some.total, told.full.unwrap().total), (7000, 3000));
        assert!((some.avg10 - 1.5).abs() < f64::EPSILON);
        assert!(pressure(dir.path()).is_none());
    }
}
