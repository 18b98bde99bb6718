//! What the machine offers: system calls, control groups, security modules, an OCI runtime, and space.

use std::path::Path;

use crate::config::Config;

use super::report::{Area, Report};

/// The controllers without which limits are not kept.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];
/// Below this part of a filesystem, in hundredths, it is nearly full.
const LITTLE: u64 = 10;
/// Below this it is full for all that matters.
const NOTHING: u64 = 1;

/// Tries the calls that we use.
pub fn kernel(report: &mut Report) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let survey = sys::kernel::survey();
    for feature in &survey {
        let Some(why) = &feature.missing else { continue };
        let name = feature.name;
        match feature.without {
            None => report.problem(
                Area::Kernel,
                format!(
                    "{name} cannot be used ({why}); Linux has it since {}: the daemon does not start",
                    feature.since
                ),
            ),
            Some(without) => {
                report.ok(Area::Kernel, format!("no {name} (Linux {}): {without}", feature.since));
            }
        }
    }
    if survey.iter().all(|feature| feature.without.is_some() || feature.missing.is_none()) {
        report.ok(Area::Kernel, format!("Linux {release} has every call that is needed"));
    }
    let filesystems = read("/proc/filesystems");
    if filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay") {
        report.ok(Area::Kernel, "overlay filesystem");
    } else {
        report.warning(Area::Kernel, "no overlay filesystem: modprobe overlay, or use --snapshotter native");
    }
}

/// Which control groups there are, and whether limits can be kept.
pub fn cgroups(report: &mut Report) {
    let (mode, there) = match sys::cgroup::mode() {
        sys::cgroup::Mode::Unified => ("v2", read("/sys/fs/cgroup/cgroup.controllers")),
        sys::cgroup::Mode::Legacy => ("v1", legacy()),
    };
    let has = |controller: &str| {
        let known = if mode == "v1" && controller == "io" { "blkio" } else { controller };
        there.split_whitespace().any(|name| name == known)
    };
    let missing: Vec<_> = CONTROLLERS.into_iter().filter(|controller| !has(controller)).collect();
    if there.trim().is_empty() {
        report.problem(Area::Cgroup, format!("{mode}: no controller is mounted below /sys/fs/cgroup"));
    } else if missing.is_empty() {
        report.ok(Area::Cgroup, format!("{mode} with {}", CONTROLLERS.join(", ")));
    } else {
        report.warning(
            Area::Cgroup,
            format!("{mode} without {}: such limits are refused by the OCI runtime", missing.join(", ")),
        );
    }
}

/// The controllers of version 1 that are mounted.
fn legacy() -> String {
    let mounts = sys::mount::table::read().unwrap_or_default();
    let of_cgroups = mounts.iter().filter(|mount| mount.kind == "cgroup");
    of_cgroups.map(|mount| mount.data.replace(',', " ")).collect::<Vec<_>>().join(" ")
}

/// The security modules, and whether what they need is there.
pub fn security(report: &mut Report) {
    let modules = read("/sys/kernel/security/lsm");
    let named = if modules.trim().is_empty() { "none" } else { modules.trim() };
    report.ok(Area::Lsm, format!("modules: {named}"));
    let apparmor = read("/sys/module/apparmor/parameters/enabled").starts_with('Y');
    if apparmor && program("apparmor_parser").is_none() {
        report.warning(
            Area::Lsm,
            "AppArmor is enabled and apparmor_parser is not on PATH: profiles are not loaded",
        );
    }
    if !read("/proc/sys/kernel/seccomp/actions_avail").contains("errno") {
        report
            .warning(Area::Lsm, "the kernel has no seccomp filters: profiles are refused by the OCI runtime");
    }
}

/// SELinux confines containers only where somebody has said so.
pub fn selinux(config: &Config, report: &mut Report) {
    if read("/sys/fs/selinux/enforce").trim() == "1" && !config.cri.settings.runtime.enable_selinux {
        let text = "SELinux enforces, and pods get no labels: enable_selinux is not set";
        report.warning(Area::Lsm, text);
    }
}

/// The program that makes containers unless a client names another.
pub fn runtime(report: &mut Report) {
    match program("runc") {
        Some(path) => report.ok(Area::Runtime, format!("runc is {}", path.display())),
        None => report.problem(Area::Runtime, "runc is not on PATH: no container can be made"),
    }
}

fn program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Space of the filesystems that the daemon writes to.
pub fn space(config: &Config, report: &mut Report) {
    for (what, path) in [("root", config.root.as_path()), ("state", config.state.as_path())] {
        // Before the first start it is not there: its parent says as much.
        let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        match rustix::fs::statvfs(there) {
            Ok(fs) => {
                let bytes = (fs.f_bavail * fs.f_frsize, fs.f_blocks * fs.f_frsize);
                room(report, &format!("{what} {}", path.display()), "bytes", bytes);
                room(report, &format!("{what} {}", path.display()), "inodes", (fs.f_favail, fs.f_files));
            }
            Err(error) => report.problem(Area::Space, format!("{what} {}: {error}", path.display())),
        }
    }
}

fn room(report: &mut Report, place: &str, unit: &str, (free, all): (u64, u64)) {
    // Filesystems that make inodes as they need them have none to tell of.
    if all == 0 {
        return;
    }
    let hundredths = u128::from(free) * 100 / u128::from(all);
    let amount = if unit == "bytes" { format!("{} MiB", free >> 20) } else { format!("{free} {unit}") };
    let text = format!("{place}: {amount} free, {hundredths}%");
    match u64::try_from(hundredths).unwrap_or(100) {
        free if free < NOTHING => report.problem(Area::Space, text),
        free if free < LITTLE => report.warning(Area::Space, text),
        _ if unit == "bytes" => report.ok(Area::Space, text),
        _ => {}
    }
}

/// A file of the kernel's; empty if it is not there, which says enough.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::Level;

    #[test]
    fn a_filesystem_that_is_nearly_full_is_told_before_it_is_full() {
        let level = |free| {
            let mut report = Report::default();
            room(&mut report, "root /r", "bytes", (free, 1000));
            report.level()
        };
        assert_eq!((level(500), level(50), level(5)), (Level::Ok, Level::Warning, Level::Problem));
        let mut report = Report::default();
        room(&mut report, "root /r", "inodes", (0, 0));
        assert_eq!(report.level(), Level::Ok);
    }
}
