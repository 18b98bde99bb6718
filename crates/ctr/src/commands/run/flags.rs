//! What `run` and `containers create` can be asked for, and what that means.

use clap::Args;
use types::{Error, Result};

use crate::flags::{RuntimeFlags, SnapshotterFlags};

/// Flags of `run` and `containers create`.
#[derive(Args, Clone, Debug, Default)]
pub struct ContainerFlags {
    #[command(flatten)]
    pub runtime: RuntimeFlags,
    #[command(flatten)]
    pub snapshotter: SnapshotterFlags,
    /// Labels added to the new snapshot for this container
    #[arg(long)]
    pub snapshotter_label: Vec<String>,
    /// Path to the runtime-specific spec config file
    #[arg(long, short)]
    pub config: Option<String>,
    /// Specify the working directory of the process
    #[arg(long, default_value = "")]
    pub cwd: String,
    /// Specify additional container environment variables (e.g. FOO=bar)
    #[arg(long)]
    pub env: Vec<String>,
    /// Specify additional container environment variables in a file(e.g. FOO=bar, one per line)
    #[arg(long, default_value = "")]
    pub env_file: String,
    /// Specify additional labels (e.g. foo=bar)
    #[arg(long)]
    pub label: Vec<String>,
    /// Specify additional OCI annotations (e.g. foo=bar)
    #[arg(long)]
    pub annotation: Vec<String>,
    /// Specify additional container mount (e.g. type=bind,src=/tmp,dst=/host,options=rbind:ro)
    #[arg(long)]
    pub mount: Vec<String>,
    /// Enable host networking for the container
    #[arg(long)]
    pub net_host: bool,
    /// Run privileged container
    #[arg(long)]
    pub privileged: bool,
    /// Set the containers filesystem as readonly
    #[arg(long)]
    pub read_only: bool,
    /// Create the container in the given sandbox
    #[arg(long, default_value = "")]
    pub sandbox: String,
    /// Allocate a TTY for the container
    #[arg(long, short)]
    pub tty: bool,
    /// Specify existing Linux namespaces to join at container runtime (format 'nstype:path')
    #[arg(long)]
    pub with_ns: Vec<String>,
    /// File path to write the task's pid
    #[arg(long)]
    pub pid_file: Option<String>,
    /// Add gpus to the container
    #[arg(long)]
    pub gpus: Vec<String>,
    /// Turn off OCI spec's NoNewPrivileges feature flag
    #[arg(long)]
    pub allow_new_privs: bool,
    /// Memory limit (in bytes) for the container
    #[arg(long, default_value_t = 0)]
    pub memory_limit: u64,
    /// Add Linux capabilities (Set capabilities with 'CAP_' prefix)
    #[arg(long)]
    pub cap_add: Vec<String>,
    /// Drop Linux capabilities (Set capabilities with 'CAP_' prefix)
    #[arg(long)]
    pub cap_drop: Vec<String>,
    /// Enable the default seccomp profile
    #[arg(long)]
    pub seccomp: bool,
    /// File path to custom seccomp profile. seccomp must be set to true, before using seccomp-profile
    #[arg(long, default_value = "")]
    pub seccomp_profile: String,
    /// Enable AppArmor with the default profile with the specified name, e.g. "cri-containerd.apparmor.d"
    #[arg(long, default_value = "")]
    pub apparmor_default_profile: String,
    /// Enable AppArmor with an existing custom profile
    #[arg(long, default_value = "")]
    pub apparmor_profile: String,
    /// File path to blockio class definitions. By default class definitions are not loaded
    #[arg(long, default_value = "")]
    pub blockio_config_file: String,
    /// Name of the blockio class to associate the container with
    #[arg(long, default_value = "")]
    pub blockio_class: String,
    /// Name of the RDT class to associate the container with
    #[arg(long, default_value = "")]
    pub rdt_class: String,
    /// Set the container's host name
    #[arg(long, default_value = "")]
    pub hostname: String,
    /// Username or user id, group optional (format: name|uid, then perhaps :group|gid)
    #[arg(long, short, default_value = "")]
    pub user: String,
    /// Use custom rootfs that is not managed by containerd snapshotter
    #[arg(long)]
    pub rootfs: bool,
    /// Disable use of pivot-root (linux only)
    #[arg(long)]
    pub no_pivot: bool,
    /// Limit CPU CFS quota
    #[arg(long, default_value_t = -1)]
    pub cpu_quota: i64,
    /// Limit CPU CFS period
    #[arg(long, default_value_t = 0)]
    pub cpu_period: u64,
    /// Set the propagation of the container rootfs
    #[arg(long, default_value = "")]
    pub rootfs_propagation: String,
    /// File path to a device to add to the container; or a path to a directory tree of devices
    #[arg(long)]
    pub device: Vec<String>,
}

/// Flags that only `run` has.
#[derive(Args, Clone, Debug, Default)]
pub struct RunOnlyFlags {
    /// Run inside a user namespace with the specified UID mapping ranges (container-uid:host-uid:length)
    #[arg(long)]
    pub uidmap: Vec<String>,
    /// Run inside a user namespace with the specified GID mapping ranges (container-gid:host-gid:length)
    #[arg(long)]
    pub gidmap: Vec<String>,
    /// Provide the user namespace ID remapping to the snapshotter via label options; requires snapshotter support
    #[arg(long)]
    pub remap_labels: bool,
    /// Don't pass all host devices to privileged container
    #[arg(long)]
    pub privileged_without_host_devices: bool,
    /// Set the CFS cpu quota
    #[arg(long, default_value_t = 0.0)]
    pub cpus: f64,
    /// Set the cpu shares
    #[arg(long, default_value_t = 1024)]
    pub cpu_shares: i64,
    /// Set the CPUs the container will run in (e.g., 1-2,4)
    #[arg(long, default_value = "")]
    pub cpuset_cpus: String,
    /// Set the memory nodes the container will run in (e.g., 1-2,4)
    #[arg(long, default_value = "")]
    pub cpuset_mems: String,
    /// Limit CPU CFS burst
    #[arg(long, default_value_t = 0)]
    pub cpu_burst: u64,
    /// Set RLIMIT_NOFILE (soft:hard)
    #[arg(long, default_value = "")]
    pub rlimit_nofile: String,
    /// Cgroup path (To disable use of cgroup, set to "" explicitly)
    #[arg(long)]
    pub cgroup: Option<String>,
    /// Run image for specific platform
    #[arg(long, default_value = "")]
    pub platform: String,
    /// Synchronize the underlying filesystem containing files when unpack images, false by default
    #[arg(long)]
    pub sync_fs: bool,
    /// Enable cni networking for the container
    #[arg(long)]
    pub cni: bool,
}

/// What the container is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A spec in a file, and nothing else.
    Config(String),
    /// A directory.
    RootFs(String),
    /// An image by name.
    Image(String),
}

/// A container that somebody wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its id.
    pub id: String,
    /// What it is made from.
    pub source: Source,
    /// Program and arguments instead of the image's.
    pub command: Vec<String>,
    /// The flags.
    pub flags: ContainerFlags,
    /// The flags that `containers create` does not have.
    pub run: RunOnlyFlags,
}

impl Wanted {
    /// For `run [flags] Image|RootFS ID [COMMAND] [ARG...]`.
    pub fn for_run(flags: ContainerFlags, run: RunOnlyFlags, words: Vec<String>) -> Result<Self> {
        let mut words = words.into_iter();
        let (source, id) = if let Some(config) = &flags.config {
            let id = words.next().unwrap_or_default();
            if words.len() > 0 {
                return Err(Error::invalid("with spec config file, only container id should be provided"));
            }
            (Source::Config(config.clone()), id)
        } else {
            let source = words.next().unwrap_or_default();
            if source.is_empty() {
                return Err(Error::invalid("image ref must be provided"));
            }
            let source = if flags.rootfs { Source::RootFs(source) } else { Source::Image(source) };
            (source, words.next().unwrap_or_default())
        };
        if id.is_empty() {
            return Err(Error::invalid("container id must be provided"));
        }
        let wanted = Self { id, source, command: words.collect(), flags, run };
        wanted.refuse_what_is_not_there()?;
        Ok(wanted)
    }

    /// For `containers create`: there is no `--cpu-shares` that could have a default.
    pub fn for_create(flags: ContainerFlags, words: Vec<String>) -> Result<Self> {
        Self::for_run(flags, RunOnlyFlags::default(), words)
    }

    fn refuse_what_is_not_there(&self) -> Result<()> {
        let cdi = |device: &String| {
            device.split_once('=').is_some_and(|(kind, _)| kind.contains('/') && !kind.starts_with('/'))
        };
        let refusals = [
            (!self.flags.gpus.is_empty(), "--gpus comes with CDI devices and is not there yet"),
            (
                self.flags.device.iter().any(cdi),
                "--device with a CDI name comes with CDI devices and is not there yet",
            ),
            (!self.flags.blockio_config_file.is_empty(), "--blockio-config-file is not there yet"),
        ];
        if !self.flags.blockio_class.is_empty() && self.flags.blockio_config_file.is_empty() {
            // Classes come out of the file.
            let class = crate::go::quote(&self.flags.blockio_class);
            let text = format!("blockio-class error: no OCI BlockIO parameters for class {class}");
            return Err(Error::invalid(text));
        }
        match refusals.iter().find(|(asked, _)| *asked) {
            Some((_, text)) => Err(Error::unimplemented(*text)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(flags: ContainerFlags, words: &[&str]) -> Result<Wanted> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Wanted::for_run(flags, RunOnlyFlags::default(), words)
    }

    #[test]
    fn image_id_and_command_stand_in_this_order() {
        let wanted = wanted(ContainerFlags::default(), &["img", "c1", "ls", "-l"]).unwrap();
        assert_eq!((wanted.source, wanted.id.as_str()), (Source::Image("img".into()), "c1"));
        assert_eq!(wanted.command, ["ls", "-l"]);
    }

    #[test]
    fn with_a_config_there_is_only_an_id() {
        let flags = ContainerFlags { config: Some("f".into()), ..Default::default() };
        assert_eq!(wanted(flags.clone(), &["c1"]).unwrap().source, Source::Config("f".into()));
        let error = wanted(flags, &["img", "c1"]).unwrap_err().to_string();
        assert_eq!(error, "with spec config file, only container id should be provided");
    }

    #[test]
    fn what_is_missing_is_named_as_upstream_does() {
        let refused = |words: &[&str]| wanted(ContainerFlags::default(), words).unwrap_err().to_string();
        assert_eq!(refused(&[]), "image ref must be provided");
        assert_eq!(refused(&["img"]), "container id must be provided");
    }

    #[test]
    fn what_comes_later_is_refused_by_its_name() {
        let flags = ContainerFlags { gpus: vec!["0".into()], ..Default::default() };
        assert!(wanted(flags, &["img", "c"]).unwrap_err().to_string().contains("--gpus"));
        let flags = ContainerFlags { device: vec!["nvidia.com/gpu=0".into()], ..Default::default() };
        assert!(wanted(flags, &["img", "c"]).unwrap_err().to_string().contains("CDI"));
        let flags = ContainerFlags { device: vec!["/dev/a=b".into()], ..Default::default() };
        assert!(wanted(flags, &["img", "c"]).is_ok());
    }
}
