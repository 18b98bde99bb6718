//! Classes of block I/O and of cache, by annotations. No classes can be defined here yet, so that naming one is an error, unless the
//! administrator has those ignored.

use std::collections::BTreeMap;

use types::{Error, Result};

use crate::config::Runtime;

type Annotations = BTreeMap<String, String>;

/// Refuses classes that are not there.
pub(super) fn check(
    container: &str,
    annotations: &Annotations,
    pod_annotations: &Annotations,
    settings: &Runtime,
) -> Result<()> {
    let class = |kind: &str| class(kind, container, annotations, pod_annotations);
    if let Some(class) = class("blockio").filter(|class| !class.is_empty() && !settings.ignore_blockio) {
        let text = format!(
            "blockio disabled, refusing to set blockio class of container {container:?} to {class:?}"
        );
        return Err(Error::precondition(text).context("failed to set blockio class"));
    }
    if let Some(class) = class("rdt").filter(|_| !settings.ignore_rdt) {
        let text = format!("RDT not initialized, class {class:?} not available");
        return Err(Error::precondition(text).context("failed to set RDT class"));
    }
    Ok(())
}

/// The container's own, else the pod's for this container, else the pod's for all.
fn class<'a>(kind: &str, name: &str, container: &'a Annotations, pod: &'a Annotations) -> Option<&'a str> {
    let of_pod = format!("{kind}.resources.beta.kubernetes.io");
    let class = container
        .get(&format!("io.kubernetes.cri.{kind}-class"))
        .or_else(|| pod.get(&format!("{of_pod}/container.{name}")))
        .or_else(|| pod.get(&format!("{of_pod}/pod")));
    class.map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(container: &[(&str, &str)], pod: &[(&str, &str)], settings: &Runtime) -> Option<String> {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        check("c1", &map(container), &map(pod), settings).err().map(|e| e.to_string())
    }

    #[test]
    fn a_class_is_refused_unless_it_is_ignored() {
        let strict = Runtime::default();
        let text = refused(&[("io.kubernetes.cri.blockio-class", "slow")], &[], &strict).unwrap();
        assert!(text.ends_with("refusing to set blockio class of container \"c1\" to \"slow\""), "{text}");
        for pod in ["rdt.resources.beta.kubernetes.io/pod", "rdt.resources.beta.kubernetes.io/container.c1"] {
            assert!(refused(&[], &[(pod, "gold")], &strict).is_some(), "{pod}");
        }
        let other = [("rdt.resources.beta.kubernetes.io/container.c2", "gold")];
        assert_eq!(refused(&[], &other, &strict), None);
        let loose = Runtime { ignore_blockio: true, ignore_rdt: true, ..Runtime::default() };
        let both = [("io.kubernetes.cri.blockio-class", "slow"), ("io.kubernetes.cri.rdt-class", "gold")];
        assert_eq!(refused(&both, &[], &loose), None);
    }
}
