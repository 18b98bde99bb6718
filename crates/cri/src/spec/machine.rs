//! What a spec depends on and no request says: the machine.

use std::path::Path;
use std::sync::OnceLock;

use types::{Error, Result};

use super::selinux::Policy;

/// Facts that hold as long as the daemon runs.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Whether there is only cgroup v2.
    pub cgroup2: bool,
    /// Whether swap can be limited.
    pub swap: bool,
    /// Whether huge pages can be limited.
    pub hugetlb: bool,
    /// Whether the kernel uses AppArmor profiles, and a parser is there to load them.
    pub apparmor: bool,
    /// Whether the kernel filters system calls.
    pub seccomp: bool,
    /// What SELinux gives to containers; none without it.
    pub selinux: Option<Policy>,
    /// Whether the daemon itself is in a user namespace.
    pub in_userns: bool,
    /// What the daemon can do: more cannot be given on.
    pub capabilities: Vec<String>,
}

impl Machine {
    /// This machine, looked at once.
    pub fn here() -> &'static Self {
        static HERE: OnceLock<Machine> = OnceLock::new();
        HERE.get_or_init(Self::look)
    }

    fn look() -> Self {
        let cgroup2 = sys::cgroup::mode() == sys::cgroup::Mode::Unified;
        let status = read("/proc/self/status");
        Self {
            cgroup2,
            swap: swap(cgroup2),
            hugetlb: hugetlb(cgroup2),
            apparmor: apparmor(),
            seccomp: status
                .lines()
                .any(|line| line.starts_with("Seccomp_filters:") || line.starts_with("Seccomp:")),
            selinux: Policy::of_machine(),
            in_userns: in_userns(&read("/proc/self/uid_map")),
            capabilities: capabilities(&status),
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The root cgroup of v2 has no limits: the daemon's own is looked at.
fn swap(cgroup2: bool) -> bool {
    if !cgroup2 {
        return Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists();
    }
    let own = read("/proc/self/cgroup");
    let group = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/')).join("memory.swap.max").exists()
}

fn hugetlb(cgroup2: bool) -> bool {
    if cgroup2 {
        read("/sys/fs/cgroup/cgroup.controllers").split_whitespace().any(|controller| controller == "hugetlb")
    } else {
        Path::new("/sys/fs/cgroup/hugetlb").is_dir()
    }
}

/// As runc and upstream ask: the kernel uses it, its parser is installed, and we are no container ourselves.
fn apparmor() -> bool {
    Path::new("/sys/kernel/security/apparmor").exists()
        && std::env::var_os("container").is_none_or(|value| value.is_empty())
        && Path::new("/sbin/apparmor_parser").exists()
        && read("/sys/module/apparmor/parameters/enabled").starts_with('Y')
}

/// Whether ids are mapped: the first namespace maps all of them to themselves.
fn in_userns(map: &str) -> bool {
    let mut first = map.lines().next().unwrap_or_default().split_whitespace();
    first.next().is_some() && (first.next(), first.next()) != (Some("0"), Some("4294967295"))
}

fn capabilities(status: &str) -> Vec<String> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    types::oci::spec::from_bits(mask.unwrap_or_default())
}

/// The daemon's own oom_score_adj, which may change.
pub(super) fn own_oom_score_adj() -> Result<i64> {
    let failed = |why: String| Error::unknown(format!("could not get the daemon oom_score_adj: {why}"));
    let text = std::fs::read_to_string("/proc/self/oom_score_adj").map_err(|e| failed(e.to_string()))?;
    text.trim().parse().map_err(|_| failed(format!("{:?} is no number", text.trim())))
}

/// The host's name, which may change.
pub(super) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_user_namespace_maps_everything_to_itself() {
        assert!(!in_userns("         0          0 4294967295\n"));
        assert!(in_userns("         0       1000          1\n"));
        assert!(!in_userns(""));
    }

    #[test]
    fn capabilities_are_those_in_effect() {
        let status = "CapInh:\t0000000000000000\nCapEff:\t0000000000000003\n";
        assert_eq!(capabilities(status), ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
    }
}
