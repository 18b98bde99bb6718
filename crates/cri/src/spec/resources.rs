//! How much a container may use, at its start and later.

use api::cri::LinuxContainerResources;
use types::{Error, Result};

use super::checks;
use super::document::{Document, HugepageLimit, Resources};
use super::machine::{self, Machine};
use crate::config::Runtime;

/// Sets what the request limits; zero and empty is nothing said.
pub(super) fn apply(
    document: &mut Document,
    asked: &LinuxContainerResources,
    settings: &Runtime,
    machine: &Machine,
) -> Result<()> {
    set(&mut document.linux.resources, asked, settings, machine)?;
    let own = settings.restrict_oom_score_adj.then(machine::own_oom_score_adj).transpose()?;
    document.process.oom_score_adj = Some(oom_score_adj(asked.oom_score_adj, own)?);
    Ok(())
}

/// The same without the process.
pub(super) fn set(
    resources: &mut Resources,
    asked: &LinuxContainerResources,
    settings: &Runtime,
    machine: &Machine,
) -> Result<()> {
    limits(resources, asked, machine)?;
    hugepages(resources, asked, settings, machine)
}

/// Processors, memory, and what only cgroup v2 names.
fn limits(resources: &mut Resources, asked: &LinuxContainerResources, machine: &Machine) -> Result<()> {
    let unsigned = |field: &str, value: i64| {
        u64::try_from(value).map_err(|_| Error::invalid(format!("resources: {field} {value} is negative")))
    };
    let cpu = resources.cpu.get_or_insert_default();
    if asked.cpu_period != 0 {
        cpu.period = Some(unsigned("cpu_period", asked.cpu_period)?);
    }
    if asked.cpu_quota != 0 {
        cpu.quota = Some(asked.cpu_quota);
    }
    if asked.cpu_shares != 0 {
        cpu.shares = Some(unsigned("cpu_shares", asked.cpu_shares)?);
    }
    for (field, from, to) in [
        ("cpuset_cpus", &asked.cpuset_cpus, &mut cpu.cpus),
        ("cpuset_mems", &asked.cpuset_mems, &mut cpu.mems),
    ] {
        if !from.is_empty() {
            cpuset(field, from)?;
            to.clone_from(from);
        }
    }
    let memory = resources.memory.get_or_insert_default();
    let (limit, swap) = (asked.memory_limit_in_bytes, asked.memory_swap_limit_in_bytes);
    if limit != 0 {
        memory.limit = Some(limit);
        // No swap, unless it is asked for.
        memory.swap = (machine.swap && swap == 0).then_some(limit).or(memory.swap);
    }
    if swap != 0 && machine.swap {
        memory.swap = Some(swap);
    }
    for (file, value) in &asked.unified {
        unified(file, value)?;
        resources.unified.insert(file.clone(), value.clone());
    }
    Ok(())
}

fn hugepages(
    resources: &mut Resources,
    asked: &LinuxContainerResources,
    settings: &Runtime,
    machine: &Machine,
) -> Result<()> {
    if settings.disable_hugetlb {
        return Ok(());
    }
    if !machine.hugetlb {
        if settings.tolerate_missing_hugetlb {
            return Ok(());
        }
        return Err(Error::precondition(
            "huge pages limits are specified but hugetlb cgroup controller is missing. Please set tolerate_missing_hugetlb_controller to `true` to ignore this error",
        ));
    }
    for limit in &asked.hugepage_limits {
        let known = |size: &str| !size.is_empty() && size.chars().all(|c| c.is_ascii_alphanumeric());
        if !known(&limit.page_size) {
            let text = format!("resources: hugepage_limits: {:?} is no size of a page", limit.page_size);
            return Err(Error::invalid(text));
        }
        let new = HugepageLimit { page_size: limit.page_size.clone(), limit: limit.limit };
        match resources.hugepage_limits.iter_mut().find(|had| had.page_size == new.page_size) {
            Some(had) => *had = new,
            None => resources.hugepage_limits.push(new),
        }
    }
    Ok(())
}

/// `0-2,4`.
fn cpuset(field: &str, text: &str) -> Result<()> {
    if text.chars().all(|c| c.is_ascii_digit() || "-,".contains(c)) {
        return Ok(());
    }
    Err(Error::invalid(format!("resources: {field}: {text:?} is no list of numbers")))
}

/// A file of the container's own cgroup.
fn unified(file: &str, value: &str) -> Result<()> {
    checks::text("resources: unified", value)?;
    let plain = file.contains('.') && file.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if plain && !file.starts_with('.') && !file.contains("..") {
        return Ok(());
    }
    Err(Error::invalid(format!("resources: unified: {file:?} is no file of a cgroup")))
}

/// How likely the kernel ends the container where memory is short. `own` is the daemon's, which a daemon without privileges
/// cannot go below.
pub(super) fn oom_score_adj(asked: i64, own: Option<i64>) -> Result<i64> {
    if !(-1000..=1000).contains(&asked) {
        return Err(Error::invalid(format!(
            "resources: oom_score_adj {asked} is not between -1000 and 1000"
        )));
    }
    Ok(own.map_or(asked, |own| asked.max(own)))
}
