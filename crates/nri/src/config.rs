//! What an administrator sets (`io.containerd.nri.v1.nri`).

use std::path::PathBuf;
use std::time::Duration;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where plugins connect.
    pub socket: PathBuf,
    /// Plugins that are launched: programs whose names are `NN-name`.
    pub plugins: PathBuf,
    /// What they are configured with: `NN-name.conf`, or `name.conf`.
    pub plugin_configs: PathBuf,
    /// How long a plugin may take to register.
    pub registration_timeout: Duration,
    /// How long a plugin may take for anything else.
    pub request_timeout: Duration,
    /// Whether plugins may connect by themselves.
    pub connections: bool,
    /// What plugins may adjust.
    pub validator: Validator,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: "/var/run/nri/nri.sock".into(),
            plugins: "/opt/nri/plugins".into(),
            plugin_configs: "/etc/nri/conf.d".into(),
            registration_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(2),
            connections: true,
            validator: Validator::default(),
        }
    }
}

/// What plugins may not do, and which must have been asked. Nothing holds unless it is enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validator {
    /// Whether anything is checked.
    pub enable: bool,
    /// Refuses OCI hooks.
    pub reject_oci_hooks: bool,
    /// Refuses another seccomp policy for containers that have the runtime's.
    pub reject_runtime_default_seccomp: bool,
    /// Refuses a seccomp policy for containers that have none.
    pub reject_unconfined_seccomp: bool,
    /// Refuses another seccomp policy for containers that have one of their own.
    pub reject_custom_seccomp: bool,
    /// Refuses other namespaces.
    pub reject_namespaces: bool,
    /// Refuses sysctls.
    pub reject_sysctls: bool,
    /// Plugins without which no container is made.
    pub required_plugins: Vec<String>,
    /// The annotation by which a pod does without them; empty for none.
    pub tolerate_missing_annotation: String,
}
