//! The AppArmor profile of a container.

use api::cri::LinuxContainerSecurityContext;
use types::{Error, Result};

use super::document::Document;
use super::machine::Machine;
use super::profile::{self, Profile};
use crate::config::Runtime;

/// Of containers that name none; loaded when the first one needs it.
const DEFAULT: &str = "cri-containerd.apparmor.d";

/// Sets the profile, and sees to it that the kernel has it.
#[expect(deprecated, reason = "old kubelets name profiles so")]
pub(super) fn apply(
    document: &mut Document,
    security: &LinuxContainerSecurityContext,
    settings: &Runtime,
    machine: &Machine,
) -> Result<()> {
    let profile = profile::parse("apparmor", security.apparmor.as_ref(), &security.apparmor_profile)?;
    if settings.disable_apparmor || !machine.apparmor {
        return match profile {
            None | Some(Profile::Unconfined) => Ok(()),
            Some(_) => Err(Error::precondition("apparmor is not supported")),
        };
    }
    match profile.unwrap_or(Profile::Default) {
        Profile::Unconfined => {}
        Profile::Default if security.privileged => {}
        Profile::Default => {
            sys::apparmor::ensure(DEFAULT)?;
            document.process.apparmor_profile = DEFAULT.to_owned();
        }
        Profile::Local(name) if name.is_empty() => {
            return Err(Error::invalid("apparmor: localhost_ref: nil apparmor profile is not supported"));
        }
        Profile::Local(name) => {
            if !sys::apparmor::is_loaded(&name)? {
                return Err(Error::not_found(format!("apparmor profile not found {name}")));
            }
            document.process.apparmor_profile = name;
        }
    }
    Ok(())
}
