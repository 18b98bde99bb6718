//! Whom a container runs as: the request's user, else the image's, looked up in the root filesystem's own files. HOME is left to
//! the runtime, which knows the user's entry too.

use std::collections::BTreeSet;

use api::cri::{
    ContainerConfig, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext,
    SupplementalGroupsPolicy,
};
use sys::mount::View;
use types::oci::{ImageConfig, users};
use types::{Error, Result};

pub use super::document::User;

/// The user of a container. Its files of users are read through `view`, which needs no mount where snapshots are overlays
/// ([`View::of_mounts`]); only regular files of a sane size are read.
pub fn resolve_in(view: &View, image: &ImageConfig, config: &ContainerConfig) -> Result<User> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default();
    let read = |name: &str| view.read(name);
    let asked = wanted(&security.run_as_username, security.run_as_user, security.run_as_group)?;
    let text = asked.unwrap_or_else(|| image.config.user.clone());
    let mut user = User::default();
    let mut groups = numbers(&security.supplemental_groups)?;
    if !text.is_empty() {
        user = of(users::resolve(&text, read)?);
        groups.insert(user.gid);
    }
    match security.supplemental_groups_policy.try_into() {
        Ok(SupplementalGroupsPolicy::Merge) => {
            groups.insert(user.gid);
            groups.extend(users::groups_of(&whose_groups(&security, &image.config.user), read)?);
        }
        Ok(SupplementalGroupsPolicy::Strict) => {}
        Err(_) => {
            let policy = security.supplemental_groups_policy;
            let text =
                format!("not implemented in this containerd release: SupplementalGroupsPolicy={policy}");
            return Err(Error::invalid(text));
        }
    }
    user.additional_gids = groups.into_iter().collect();
    Ok(user)
}

/// The user of a sandbox. The one of its image is looked up through `view`; without one it must be numbers.
pub fn of_sandbox(
    view: Option<&View>,
    image_user: &str,
    security: &LinuxSandboxSecurityContext,
) -> Result<User> {
    let asked = wanted("", security.run_as_user, security.run_as_group)?;
    let text = asked.unwrap_or_else(|| image_user.to_owned());
    if text.is_empty() {
        let groups = numbers(&security.supplemental_groups)?.into_iter().collect();
        return Ok(User { additional_gids: groups, ..User::default() });
    }
    let read = |name: &str| match view {
        Some(view) => view.read(name),
        None => Err(Error::not_found(format!("{name}: there is no root filesystem"))),
    };
    let mut user = of(users::resolve(&text, read)?);
    user.additional_gids = vec![user.gid];
    Ok(user)
}

fn of(user: types::oci::spec::User) -> User {
    User { uid: user.uid, gid: user.gid, ..User::default() }
}

/// `user[:group]` as an image would say it; none if the request says nothing.
fn wanted(username: &str, uid: Option<Int64Value>, gid: Option<Int64Value>) -> Result<Option<String>> {
    let user = match uid {
        _ if !username.is_empty() => Some(username.to_owned()),
        uid => uid.map(|uid| uid.value.to_string()),
    };
    match (user, gid) {
        (Some(user), Some(gid)) => Ok(Some(format!("{user}:{}", gid.value))),
        (None, Some(gid)) => {
            let text = format!("user group \"{}\" is specified without user", gid.value);
            Err(Error::invalid(text).context("failed to generate user string"))
        }
        (user, None) => Ok(user),
    }
}

/// Whose lines of /etc/group count. Root's where nobody is named.
fn whose_groups(security: &LinuxContainerSecurityContext, image_user: &str) -> String {
    if !security.run_as_username.is_empty() {
        return security.run_as_username.clone();
    }
    match security.run_as_user {
        Some(uid) => uid.value.to_string(),
        None if image_user.is_empty() => "0".to_owned(),
        None => image_user.split(':').next().unwrap_or_default().to_owned(),
    }
}

fn numbers(groups: &[i64]) -> Result<BTreeSet<u32>> {
    let number = |group: &i64| {
        u32::try_from(*group)
            .map_err(|_| Error::invalid(format!("supplemental_groups: {group} is no id of a group")))
    };
    groups.iter().map(number).collect()
}
