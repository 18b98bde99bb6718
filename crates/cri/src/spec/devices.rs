//! Devices of the host that a container gets.

use std::path::Path;

use api::cri::ContainerConfig;
use types::{Error, Result, ResultExt};

use super::checks;
use super::document::{Device, DeviceRule, Document};

/// Adds the devices of a request. With `owned` nodes belong to the user that the container runs as.
pub(super) fn apply(document: &mut Document, config: &ContainerConfig, owned: bool) -> Result<()> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let id = |value: Option<api::cri::Int64Value>| {
        value.and_then(|value| u32::try_from(value.value).ok()).filter(|id| owned && *id != 0)
    };
    let uid = id(security.and_then(|security| security.run_as_user));
    let gid = id(security.and_then(|security| security.run_as_group));
    for asked in &config.devices {
        checks::text("devices: host_path", &asked.host_path)?;
        checks::text("devices: container_path", &asked.container_path)?;
        if asked.permissions.is_empty() || asked.permissions.chars().any(|c| !"rwm".contains(c)) {
            let text = format!("devices: permissions {:?} of {:?}", asked.permissions, asked.host_path);
            return Err(Error::invalid(format!("{text} are not some of rwm")));
        }
        let path = std::fs::canonicalize(&asked.host_path)
            .context(|| format!("devices: host_path {:?}", asked.host_path))?;
        for mut device in of_host(&path, &asked.container_path)? {
            device.uid = uid.or(device.uid);
            device.gid = gid.or(device.gid);
            add(document, device, &asked.permissions);
        }
    }
    Ok(())
}

/// Adds a device and allows it.
pub(super) fn add(document: &mut Document, device: Device, access: &str) {
    document.linux.resources.devices.push(DeviceRule {
        allow: true,
        kind: device.kind.clone(),
        major: Some(device.major),
        minor: Some(device.minor),
        access: access.to_owned(),
    });
    document.linux.devices.push(device);
}

/// The device at `path`, or all devices below it; in the container at `inside`, or where they are.
pub(super) fn of_host(path: &Path, inside: &str) -> Result<Vec<Device>> {
    let found = sys::devices::below(path)?;
    let outside = path.display().to_string();
    let device = |device: types::oci::spec::Device| Device {
        path: match device.path.strip_prefix(&outside) {
            Some(rest) if !inside.is_empty() => format!("{}{rest}", inside.trim_end_matches('/')),
            _ => device.path,
        },
        kind: device.kind,
        major: device.major,
        minor: device.minor,
        file_mode: device.file_mode,
        uid: device.uid,
        gid: device.gid,
    };
    Ok(found.into_iter().map(device).collect())
}
