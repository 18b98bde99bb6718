//! In which cgroup a container is: below the pod's, in the form that the parent's name asks for.

use types::Result;

use super::document::Document;
use super::{checks, path};
use crate::config::Handler;
use crate::pod::systemd_cgroup;

/// Where what belongs to no pod's slice is: a directory means nothing to systemd, and runc refuses it.
const SYSTEM: &str = "system.slice";

/// Has the container `id` be below `parent`. Without one it stays where the spec has begun, or is among the system's services.
pub(super) fn set(document: &mut Document, parent: &str, id: &str, handler: &Handler) -> Result<()> {
    let parent = match parent {
        "" if systemd_cgroup(handler) == Some(true) => SYSTEM,
        "" => return Ok(()),
        parent => parent,
    };
    document.linux.cgroups_path = path(parent, id)?;
    Ok(())
}

/// The path of a container below `parent`: `slice:cri-containerd:id` for systemd, `parent/id` else.
fn path(parent: &str, id: &str) -> Result<String> {
    checks::line("cgroup_parent", parent)?;
    let base = parent.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    Ok(if base.ends_with(".slice") {
        format!("{base}:cri-containerd:{id}")
    } else {
        path::clean(&format!("{parent}/{id}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_parent_systemd_has_it_beside_its_services_and_others_where_it_was() {
        let of = |parent: &str, systemd: bool| {
            let options = serde_json::json!({ "SystemdCgroup": systemd });
            let mut document = Document::default();
            "/k8s.io/id".clone_into(&mut document.linux.cgroups_path);
            set(&mut document, parent, "id", &Handler { options, ..Handler::default() }).unwrap();
            document.linux.cgroups_path
        };
        assert_eq!(
            (of("", true), of("", false)),
            ("system.slice:cri-containerd:id".into(), "/k8s.io/id".into())
        );
        assert_eq!(
            (of("a.slice", true), of("/a", true)),
            ("a.slice:cri-containerd:id".into(), "/a/id".into())
        );
    }

    #[test]
    fn a_slice_is_systemds_and_everything_else_a_directory() {
        let path = |parent| path(parent, "id").unwrap();
        assert_eq!(path("/a/b"), "/a/b/id");
        assert_eq!(path("/a.slice/b.slice"), "b.slice:cri-containerd:id");
        assert_eq!(path("/kubepods.slice/"), "kubepods.slice:cri-containerd:id");
        assert_eq!(path("/a.slice/b"), "/a.slice/b/id");
        assert!(super::path("/a\n", "id").is_err());
    }
}
