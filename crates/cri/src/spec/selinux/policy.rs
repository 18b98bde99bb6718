//! What the machine's policy gives to containers.

use std::io::Write as _;
use std::path::Path;

use types::{Error, Result};

/// In the order in which they are looked for; the second is below the policy's own directory.
const CONTEXTS: &str = "/usr/share/containers/selinux/contexts";
const LXC_CONTEXTS: &str = "contexts/lxc_contexts";
const CONFIG: &str = "/etc/selinux/config";
/// Where the kernel tells about SELinux.
const SELINUXFS: &str = "/sys/fs/selinux";
/// Where it says whether its policy has a label.
const KNOWN: &str = "/sys/fs/selinux/context";
/// linux/magic.h.
const MAGIC: i64 = 0xf97c_ff8c;

/// The labels that containers begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Of processes.
    pub(super) process: String,
    /// Of files.
    pub(super) file: String,
    /// Of files that all containers may read and execute, and none may write.
    pub(super) shared: String,
    /// Of processes in a virtual machine.
    pub(super) virtual_machine: String,
}

impl Policy {
    /// The machine's; none without SELinux.
    pub(in crate::spec) fn of_machine() -> Option<Self> {
        // Where it is read-only we are in a container ourselves, and runc, too, takes it that there is no SELinux.
        let writable = rustix::fs::statvfs(SELINUXFS)
            .is_ok_and(|about| !about.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        let mounted = writable && rustix::fs::statfs(SELINUXFS).is_ok_and(|fs| fs.f_type == MAGIC);
        let own = std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
        if !mounted || own.trim_end_matches('\0') == "kernel" {
            return None;
        }
        let contexts = std::fs::read_to_string(CONTEXTS).or_else(|_| {
            let config = std::fs::read_to_string(CONFIG).unwrap_or_default();
            std::fs::read_to_string(Path::new("/etc/selinux").join(name(&config)).join(LXC_CONTEXTS))
        });
        Some(Self::parse(&contexts.unwrap_or_default()))
    }

    fn parse(contexts: &str) -> Self {
        let of = |key: &str| value(contexts, key).unwrap_or_default();
        let (process, file) = (of("process"), of("file"));
        let virtual_machine = value(contexts, "kvm_process").unwrap_or_else(|| process.clone());
        let shared = value(contexts, "ro_file").unwrap_or_else(|| file.clone());
        Self { process, file, shared, virtual_machine }
    }

    /// Refuses a label of which the kernel says that its policy has none such. Who may not ask it finds out later.
    pub(super) fn check(label: &str) -> Result<()> {
        Self::check_at(Path::new(KNOWN), label)
    }

    fn check_at(known: &Path, label: &str) -> Result<()> {
        let asked = std::fs::OpenOptions::new().write(true).open(known);
        match asked.and_then(|mut known| known.write_all(label.as_bytes())) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                Err(Error::invalid(format!("the machine's SELinux policy has no label {label:?}")))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The policy's name.
fn name(config: &str) -> String {
    value(config, "SELINUXTYPE").unwrap_or_default()
}

/// The value of a line `key = "value"`.
fn value(text: &str, key: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with([';', '#']));
    let mut pairs = lines.filter_map(|line| line.split_once('='));
    let found = pairs.rfind(|(name, _)| name.trim() == key);
    found.map(|(_, value)| value.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_lines_of_keys_and_quoted_labels() {
        let text = "# c\nprocess = \"system_u:system_r:container_t:s0\"\n\n;x\nfile = \"f\"\nro_file=\"r\"\n";
        let policy = Policy::parse(text);
        assert_eq!(
            (policy.process.as_str(), policy.file.as_str()),
            ("system_u:system_r:container_t:s0", "f")
        );
        assert_eq!((&policy.virtual_machine, policy.shared.as_str()), (&policy.process, "r"));
        assert_eq!(Policy::parse("file = f").shared, "f");
        assert_eq!(Policy::parse(&format!("{text}kvm_process = \"k\"")).virtual_machine, "k");
        assert_eq!(name("#SELINUXTYPE=x\nSELINUXTYPE=targeted\n"), "targeted");
    }

    #[test]
    fn a_label_is_refused_only_if_the_kernel_says_that_there_is_none_such() {
        let label = "a:b:c";
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("taken"), "").unwrap();
        assert!(Policy::check_at(&dir.path().join("taken"), label).is_ok());
        assert!(Policy::check_at(&dir.path().join("nowhere"), label).is_ok());
        // It takes numbers only.
        let refused = Policy::check_at(Path::new("/proc/self/oom_score_adj"), label).unwrap_err();
        assert!(refused.to_string().contains("no label \"a:b:c\""), "{refused}");
    }
}
