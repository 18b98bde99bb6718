//! Limits, of a container that is made and of those that are updated.

use types::Result;

use crate::owners::{By, Owners};
use crate::wire::{Field, HugepageLimit, LinuxCpu, LinuxMemory, LinuxResources};

/// Sets what a plugin says, in each of `into`; what it does not say stays.
pub fn set(
    owners: &mut Owners,
    by: By<'_>,
    asked: &LinuxResources,
    into: &mut [&mut LinuxResources],
) -> Result<()> {
    if let Some(asked) = &asked.memory {
        memory(owners, by, asked, into)?;
    }
    if let Some(asked) = &asked.cpu {
        cpu(owners, by, asked, into)?;
    }
    for limit in &asked.hugepage_limits {
        owners.claim_entry(by, Field::HugepageLimits, &limit.page_size)?;
        into.iter_mut().for_each(|into| hugepages(&mut into.hugepage_limits, limit));
    }
    for into in into.iter_mut() {
        into.devices.extend(asked.devices.iter().cloned());
    }
    for (key, value) in &asked.unified {
        owners.claim_entry(by, Field::CgroupsUnified, key)?;
        for into in into.iter_mut() {
            into.unified.insert(key.clone(), value.clone());
        }
    }
    macro_rules! one {
        ($($name:ident => $field:ident),*) => {$(
            if let Some(value) = &asked.$name {
                owners.claim(by, Field::$field)?;
                for into in into.iter_mut() {
                    into.$name = Some(value.clone());
                }
            }
        )*};
    }
    one!(blockio_class => BlockioClass, rdt_class => RdtClass, pids => PidsLimit);
    Ok(())
}

fn memory(
    owners: &mut Owners,
    by: By<'_>,
    asked: &LinuxMemory,
    into: &mut [&mut LinuxResources],
) -> Result<()> {
    macro_rules! one {
        ($($name:ident => $field:ident),* $(,)?) => {$(
            if let Some(value) = asked.$name {
                owners.claim(by, Field::$field)?;
                for into in into.iter_mut() {
                    into.memory.get_or_insert_default().$name = Some(value);
                }
            }
        )*};
    }
    one!(
        limit => MemLimit,
        reservation => MemReservation,
        swap => MemSwapLimit,
        kernel => MemKernelLimit,
        kernel_tcp => MemTcpLimit,
        swappiness => MemSwappiness,
        disable_oom_killer => MemDisableOomKiller,
        use_hierarchy => MemUseHierarchy,
    );
    Ok(())
}

fn cpu(owners: &mut Owners, by: By<'_>, asked: &LinuxCpu, into: &mut [&mut LinuxResources]) -> Result<()> {
    macro_rules! one {
        ($($name:ident => $field:ident),* $(,)?) => {$(
            if let Some(value) = asked.$name {
                owners.claim(by, Field::$field)?;
                for into in into.iter_mut() {
                    into.cpu.get_or_insert_default().$name = Some(value);
                }
            }
        )*};
    }
    one!(
        shares => CpuShares,
        quota => CpuQuota,
        period => CpuPeriod,
        realtime_runtime => CpuRealtimeRuntime,
        realtime_period => CpuRealtimePeriod,
    );
    macro_rules! text {
        ($($name:ident => $field:ident),*) => {$(
            if !asked.$name.is_empty() {
                owners.claim(by, Field::$field)?;
                for into in into.iter_mut() {
                    into.cpu.get_or_insert_default().$name.clone_from(&asked.$name);
                }
            }
        )*};
    }
    text!(cpus => CpuSetCpUs, mems => CpuSetMems);
    Ok(())
}

fn hugepages(limits: &mut Vec<HugepageLimit>, new: &HugepageLimit) {
    match limits.iter_mut().find(|had| had.page_size == new.page_size) {
        Some(had) => had.limit = new.limit,
        None => limits.push(new.clone()),
    }
}
