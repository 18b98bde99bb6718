//! SELinux labels: a pod's processes and files have a level of their own, so that no other pod's processes can touch them.
//!
//! A level is two categories that nobody else has. Whoever makes a pod or container gets its [`Labels`] here; the pod or container
//! itself holds its [`Level`] as long as it is known. Without SELinux, or where the administrator has not turned it on, labels are
//! empty and all of this does nothing.
//!
//! ```text
//!  label         user:role:type:level        policy        what the machine's policy gives to containers
//!  categories    which levels are taken      relabel       files of the host that a container is given
//! ```

mod categories;
mod label;
mod policy;
mod relabel;

use api::cri::SeLinuxOption;
use types::Result;
use types::mount::Mount;

use super::machine::Machine;
use crate::config::Runtime;
pub use categories::Level;
use label::Label;
pub use policy::Policy;
pub(super) use relabel::relabel;

/// The labels of a pod or container.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// Of its processes.
    pub process: String,
    /// Of its files.
    pub mount: String,
    /// What no other pod has as long as these are known.
    _level: Level,
}

/// The labels of a sandbox, or of a container: as the request says, else as its pod has them (`pod`, empty for a sandbox), else of a
/// new level.
pub fn labels(
    asked: Option<&SeLinuxOption>,
    pod: &str,
    settings: &Runtime,
    machine: &Machine,
) -> Result<Labels> {
    let wanted = match asked {
        Some(asked) => Label::of_request(asked)?,
        None => Label::default(),
    };
    let policy = machine.selinux.as_ref().filter(|_| settings.enable_selinux);
    let Some(policy) = policy else { return Ok(Labels::default()) };
    let own = wanted != Label::default();
    let wanted = if own { wanted } else { Label::parse(pod)? };
    let made = of_policy(policy, wanted, settings.selinux_category_range).and_then(|labels| {
        if own {
            [&labels.process, &labels.mount].into_iter().try_for_each(|label| Policy::check(label))?;
        }
        Ok(labels)
    });
    made.map_err(|e| e.context(format!("failed to init selinux options {asked:?}")))
}

fn of_policy(policy: &Policy, wanted: Label, range: u32) -> Result<Labels> {
    if policy.process.is_empty() || policy.file.is_empty() {
        return Ok(Labels { mount: policy.file.clone(), ..Labels::default() });
    }
    let mut process = Label::parse(&policy.process)?;
    let mut mount = Label::parse(&policy.file)?;
    let level = match (wanted.level.is_empty(), process.level.is_empty()) {
        (false, _) => Level::of(&wanted.to_string()),
        // A policy without levels.
        (true, true) => Level::default(),
        (true, false) => Level::take(range)?,
    };
    let level_text = level.text().to_owned();
    for (part, own) in [
        (&wanted.user, &mut process.user),
        (&wanted.role, &mut process.role),
        (&wanted.kind, &mut process.kind),
        (&level_text, &mut process.level),
        (&wanted.user, &mut mount.user),
        (&level_text, &mut mount.level),
    ] {
        if !part.is_empty() {
            own.clone_from(part);
        }
    }
    Ok(Labels { process: process.to_string(), mount: mount.to_string(), _level: level })
}

/// The mounts of a root filesystem, all of whose files are to have a label. As upstream all mounts are told: the kernel ignores it
/// where a directory is bound, whose files keep the labels that they have.
pub fn with_label(mut rootfs: Vec<Mount>, label: &str) -> Vec<Mount> {
    // In quotes, as there are commas in it.
    let option = (!label.is_empty()).then(|| format!("context={label:?}"));
    for mount in &mut rootfs {
        mount.options.extend(option.clone());
    }
    rootfs
}

/// The label of the program of sandboxes without an image: all containers may execute it. Empty where this one has no label.
pub fn of_program(labels: &Labels, machine: &Machine) -> String {
    let policy = machine.selinux.as_ref().filter(|_| !labels.process.is_empty());
    policy.map(|policy| policy.shared.clone()).unwrap_or_default()
}

/// The label of processes in a virtual machine, whose program is another one.
pub(super) fn of_virtual_machine(process: &str, machine: &Machine) -> Result<String> {
    let Some(policy) = machine.selinux.as_ref().filter(|_| !process.is_empty()) else {
        return Ok(String::new());
    };
    let kind = Label::parse(&policy.virtual_machine)?.kind;
    Ok(Label { kind, ..Label::parse(process)? }.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let policy = Policy {
            process: "system_u:system_r:container_t:s0".to_owned(),
            file: "system_u:object_r:container_file_t:s0".to_owned(),
            shared: "system_u:object_r:container_ro_file_t:s0".to_owned(),
            virtual_machine: "system_u:system_r:container_kvm_t:s0".to_owned(),
        };
        Machine { selinux: Some(policy), ..Machine::default() }
    }

    fn settings() -> Runtime {
        Runtime { enable_selinux: true, ..Runtime::default() }
    }

    fn level(label: &str) -> String {
        Label::parse(label).unwrap().level
    }

    #[test]
    fn each_pod_has_a_level_of_its_own_and_its_containers_have_the_same() {
        let (settings, machine) = (settings(), machine());
        let one = labels(None, "", &settings, &machine).unwrap();
        let other = labels(None, "", &settings, &machine).unwrap();
        assert_ne!(one.process, other.process);
        assert_eq!(level(&one.process), level(&one.mount));
        assert!(one.mount.starts_with("system_u:object_r:container_file_t:s0:c"), "{one:?}");
        let container = labels(None, &one.process, &settings, &machine).unwrap();
        assert_eq!((container.process, container.mount), (one.process, one.mount));
    }

    #[test]
    fn a_request_names_parts_of_the_label() {
        let asked =
            SeLinuxOption { level: "s0:c7,c8".to_owned(), r#type: "spc_t".to_owned(), ..Default::default() };
        let labels = labels(Some(&asked), "a:b:c:s0:c1,c2", &settings(), &machine()).unwrap();
        assert_eq!(labels.process, "system_u:system_r:spc_t:s0:c7,c8");
        assert_eq!(labels.mount, "system_u:object_r:container_file_t:s0:c7,c8");
    }

    #[test]
    fn without_selinux_labels_are_empty_and_requests_still_checked() {
        let off = Runtime::default();
        assert_eq!(labels(None, "", &off, &machine()).unwrap().mount, "");
        let asked = SeLinuxOption { level: "s0:c1".to_owned(), ..Default::default() };
        assert_eq!(labels(Some(&asked), "", &settings(), &Machine::default()).unwrap().mount, "");
        let bad = SeLinuxOption { level: "nope".to_owned(), ..Default::default() };
        assert!(labels(Some(&bad), "", &off, &Machine::default()).is_err());
    }

    #[test]
    fn a_root_filesystem_is_mounted_with_its_label_in_quotes() {
        let rootfs = || vec![Mount { options: vec!["ro".to_owned()], ..Mount::default() }];
        assert_eq!(with_label(rootfs(), "a:b:c:s0:c1,c2")[0].options, ["ro", "context=\"a:b:c:s0:c1,c2\""]);
        assert_eq!(with_label(rootfs(), ""), rootfs());
    }

    #[test]
    fn the_program_of_sandboxes_may_be_read_by_all_who_have_a_label() {
        let confined = labels(None, "", &settings(), &machine()).unwrap();
        assert_eq!(of_program(&confined, &machine()), "system_u:object_r:container_ro_file_t:s0");
        assert_eq!(of_program(&Labels::default(), &machine()), "");
    }

    #[test]
    fn a_virtual_machine_has_another_type() {
        let label = of_virtual_machine("a:b:container_t:s0:c1,c2", &machine()).unwrap();
        assert_eq!(label, "a:b:container_kvm_t:s0:c1,c2");
        assert_eq!(of_virtual_machine("", &machine()).unwrap(), "");
    }
}
