//! Security profiles as requests name them: by the field of today, or by the text of before.

use api::cri::SecurityProfile;
use api::cri::security_profile::ProfileType;
use types::{Error, Result};

/// In front of names of an administrator's profiles.
const LOCAL: &str = "localhost/";

/// Which profile a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// None.
    Unconfined,
    /// Ours.
    Default,
    /// An administrator's, by its name or path.
    Local(String),
}

/// The profile that a request names in `field`, or in its deprecated text.
pub(super) fn parse(kind: &str, field: Option<&SecurityProfile>, old: &str) -> Result<Option<Profile>> {
    match field {
        Some(profile) => of_field(kind, profile).map(Some),
        None if old.is_empty() => Ok(None),
        None => of_text(kind, old).map(Some),
    }
}

fn of_field(kind: &str, profile: &SecurityProfile) -> Result<Profile> {
    let reference = &profile.localhost_ref;
    let found = match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::Localhost) => {
            return Ok(Profile::Local(reference.strip_prefix(LOCAL).unwrap_or(reference).to_owned()));
        }
        Ok(ProfileType::RuntimeDefault) => Profile::Default,
        Ok(ProfileType::Unconfined) => Profile::Unconfined,
        Err(_) => return Err(Error::invalid(format!("{kind} unknown ProfileType"))),
    };
    if reference.is_empty() {
        return Ok(found);
    }
    let text = format!("{kind} config invalid LocalhostRef must only be set if ProfileType is Localhost");
    Err(Error::invalid(text))
}

/// The text of requests before there was a field, and of the configuration.
pub(super) fn of_text(kind: &str, text: &str) -> Result<Profile> {
    match text {
        "runtime/default" | "docker/default" | "" => Ok(Profile::Default),
        "unconfined" => Ok(Profile::Unconfined),
        text => match text.strip_prefix(LOCAL) {
            Some(name) => Ok(Profile::Local(name.to_owned())),
            None => Err(Error::invalid(format!("{kind}: invalid profile {text:?}"))),
        },
    }
}
