//! Containers that may do everything that the daemon may.

use std::path::Path;

use types::Result;

use super::capabilities;
use super::devices;
use super::document::{DeviceRule, Document};
use super::machine::Machine;
use crate::config::Handler;

/// Takes the limits away: nothing is masked or read-only, cgroups and sysfs can be written, all devices of the host are there
/// unless the handler says otherwise.
pub(super) fn apply(document: &mut Document, handler: &Handler, machine: &Machine) -> Result<()> {
    capabilities::set(document.capabilities(), &machine.capabilities);
    document.linux.masked_paths.clear();
    document.linux.readonly_paths.clear();
    for mount in document.mounts.iter_mut().filter(|mount| mount.kind == "sysfs" || mount.kind == "cgroup") {
        mount
            .options
            .iter_mut()
            .filter(|option| *option == "ro")
            .for_each(|option| *option = "rw".to_owned());
    }
    document.process.apparmor_profile.clear();
    document.linux.seccomp = serde_json::Value::Null;
    if !handler.privileged_without_host_devices {
        document.linux.devices.extend(devices::of_host(Path::new("/dev"), "")?);
        allow_all_devices(document);
    } else if handler.privileged_without_host_devices_all_devices_allowed {
        allow_all_devices(document);
    }
    Ok(())
}

fn allow_all_devices(document: &mut Document) {
    let all = DeviceRule { allow: true, access: "rwm".to_owned(), ..DeviceRule::default() };
    document.linux.resources.devices = vec![all];
}
