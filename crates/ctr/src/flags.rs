//! Flags that several commands share, and the small languages inside of them.

use clap::Args;
use types::{Error, Labels, Result};

/// `--snapshotter`.
#[derive(Args, Clone, Debug, Default)]
pub struct SnapshotterFlags {
    /// Snapshotter name. Empty value stands for the default value
    #[arg(long, env = "CONTAINERD_SNAPSHOTTER", default_value = "")]
    pub snapshotter: String,
}

/// Which shim, and with what options.
#[derive(Args, Clone, Debug, Default)]
pub struct RuntimeFlags {
    /// Runtime name or absolute path to runtime binary
    #[arg(long, default_value = "io.containerd.runc.v2")]
    pub runtime: String,
    /// Optional runtime config path
    #[arg(long, default_value = "")]
    pub runtime_config_path: String,
    /// Specify runc-compatible binary
    #[arg(long, default_value = "")]
    pub runc_binary: String,
    /// Specify runc-compatible root
    #[arg(long, default_value = "")]
    pub runc_root: String,
    /// Start runc with systemd cgroup manager
    #[arg(long)]
    pub runc_systemd_cgroup: bool,
}

/// How a registry is reached.
#[derive(Args, Clone, Debug, Default)]
pub struct RegistryFlags {
    /// Skip SSL certificate validation
    #[arg(long, short = 'k')]
    pub skip_verify: bool,
    /// Allow connections using plain HTTP
    #[arg(long)]
    pub plain_http: bool,
    /// Registry user and password.
    #[arg(long, short, default_value = "", help = "User[:password] Registry user and password")]
    pub user: String,
    /// Refresh token for authorization server
    #[arg(long, default_value = "")]
    pub refresh: String,
    /// Custom hosts configuration directory
    #[arg(long, default_value = "")]
    pub hosts_dir: String,
    /// Path to TLS root CA
    #[arg(long, default_value = "")]
    pub tlscacert: String,
    /// Path to TLS client certificate
    #[arg(long, default_value = "")]
    pub tlscert: String,
    /// Path to TLS client key
    #[arg(long, default_value = "")]
    pub tlskey: String,
    /// Dump all HTTP request/responses when interacting with container registry
    #[arg(long)]
    pub http_dump: bool,
    /// Enable HTTP tracing for registry interactions
    #[arg(long)]
    pub http_trace: bool,
}

impl RegistryFlags {
    /// Those that the daemon cannot be told of, and whether they are set.
    pub fn local_only(&self) -> [(&'static str, bool); 4] {
        [
            ("skip-verify", self.skip_verify),
            ("tlscacert", !self.tlscacert.is_empty()),
            ("tlscert", !self.tlscert.is_empty()),
            ("tlskey", !self.tlskey.is_empty()),
        ]
    }
}

/// Filters or names behind the flags.
#[derive(Args, Clone, Debug, Default)]
pub struct Words {
    #[arg(hide = true)]
    pub words: Vec<String>,
}

impl Words {
    /// The first, or nothing.
    pub fn first(&self) -> &str {
        self.get(0)
    }

    /// The one at `at`, or nothing.
    pub fn get(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// All behind the first.
    pub fn tail(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// `key=value` words; one without a value is `true`.
pub fn labels(words: &[String]) -> Labels {
    words
        .iter()
        .map(|word| word.split_once('=').unwrap_or((word, "true")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// `key=value` words, each with a value.
pub fn annotations(words: &[String]) -> Result<Labels> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Error::invalid(format!("invalid key=value format annotation: {word}"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_without_a_value_is_true_and_an_annotation_without_one_is_wrong() {
        let words = ["a=b=c".to_owned(), "d".to_owned()];
        assert_eq!(labels(&words), Labels::from([("a".into(), "b=c".into()), ("d".into(), "true".into())]));
        assert_eq!(annotations(&words).unwrap_err().to_string(), "invalid key=value format annotation: d");
    }
}
