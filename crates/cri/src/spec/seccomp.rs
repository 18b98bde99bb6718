//! Which system calls a container may make.

use std::io::Read;

use api::cri::SecurityProfile;
use serde_json::Value;
use types::{Error, Result, ResultExt};

use super::document::Document;
use super::machine::Machine;
use super::profile::{self, Profile};
use crate::config::Runtime;

/// A file larger than this is no profile.
const LIMIT: u64 = 16 << 20;

/// What a request says about the filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// Today's field.
    pub(super) profile: Option<&'a SecurityProfile>,
    /// The text of before.
    pub(super) path: &'a str,
    /// Privileged containers have no filter.
    pub(super) privileged: bool,
}

/// Sets the filter. The default one depends on the capabilities: set those first.
pub(super) fn apply(
    document: &mut Document,
    asked: &Asked<'_>,
    settings: &Runtime,
    machine: &Machine,
) -> Result<()> {
    let mut profile = profile::parse("seccomp", asked.profile, asked.path)?;
    if profile.is_none() && !settings.unset_seccomp_profile.is_empty() {
        profile = Some(profile::of_text("seccomp", &settings.unset_seccomp_profile)?);
    }
    if asked.privileged {
        return Ok(());
    }
    match profile {
        None | Some(Profile::Unconfined) => Ok(()),
        Some(_) if !machine.seccomp => Err(Error::precondition("seccomp is not supported")),
        Some(Profile::Default) => {
            let filter = types::oci::spec::default_profile(&document.capabilities().bounding);
            document.linux.seccomp = serde_json::to_value(filter)
                .map_err(|e| Error::internal(format!("encode the default seccomp profile: {e}")))?;
            Ok(())
        }
        Some(Profile::Local(path)) => {
            document.linux.seccomp = load(&path)?;
            Ok(())
        }
    }
}

fn load(path: &str) -> Result<Value> {
    let doing = || format!("cannot load seccomp profile {path:?}");
    let mut text = Vec::new();
    let file = std::fs::File::open(path).context(doing)?;
    file.take(LIMIT).read_to_end(&mut text).context(doing)?;
    let failed = |why: String| Error::invalid(format!("decoding seccomp profile failed {path:?}: {why}"));
    let filter: Value = serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))?;
    match filter.get("defaultAction") {
        Some(Value::String(_)) => Ok(filter),
        _ => Err(failed("it has no defaultAction".to_owned())),
    }
}
