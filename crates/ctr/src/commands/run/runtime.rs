//! Which runtime a container gets, and with what options.

use api::containerd::runc::v1::Options;
use types::container::RuntimeInfo;
use types::{Any, Error, Result};

use crate::flags::RuntimeFlags;

const RUNC: &str = "io.containerd.runc.v2";

/// What the flags say. `cgroup` is that of the container, if there is one.
pub fn of(flags: &RuntimeFlags, cgroup: Option<&str>) -> Result<RuntimeInfo> {
    let name = flags.runtime.clone();
    if name != RUNC {
        if !flags.runc_binary.is_empty() || flags.runc_systemd_cgroup {
            let text = "specifying runc-binary and runc-systemd-cgroup is only supported for \
                        \"io.containerd.runc.v2\" runtime";
            return Err(Error::invalid(text));
        }
        let path = flags.runtime_config_path.clone();
        let options = (!path.is_empty()).then(|| by_path(&path));
        return Ok(RuntimeInfo { name, options });
    }
    if flags.runc_systemd_cgroup && cgroup.unwrap_or_default().is_empty() {
        let text =
            "option --runc-systemd-cgroup requires --cgroup to be set, e.g. \"machine.slice:foo:deadbeef\"";
        return Err(Error::invalid(text));
    }
    let options = Options {
        binary_name: flags.runc_binary.clone(),
        systemd_cgroup: flags.runc_systemd_cgroup,
        root: flags.runc_root.clone(),
        ..Default::default()
    };
    Ok(RuntimeInfo { name, options: Some(api::any::pack(&options)) })
}

/// `runtimeoptions.v1.Options { config_path = 2 }`, the only field of it that ctr sets.
fn by_path(path: &str) -> Any {
    let mut value = Vec::new();
    prost::encoding::string::encode(2, &path.to_owned(), &mut value);
    Any::new("runtimeoptions.v1.Options", value)
}
