//! NRI: `io.containerd.nri.v1.nri`.

use ::nri::{Config, Validator};

use super::section::Section;

const URI: &str = "io.containerd.nri.v1.nri";

/// Understands the section; none where plugins are not wanted.
pub fn read(plugins: &mut Section) -> Option<Config> {
    let mut section = plugins.section(URI);
    let default = Config::default();
    let disabled = section.boolean("disable");
    let mut path = |key: &str, default: std::path::PathBuf| section.path(key).unwrap_or(default);
    let config = Config {
        socket: path("socket_path", default.socket),
        plugins: path("plugin_path", default.plugins),
        plugin_configs: path("plugin_config_path", default.plugin_configs),
        registration_timeout: section.duration("plugin_registration_timeout", default.registration_timeout),
        request_timeout: section.duration("plugin_request_timeout", default.request_timeout),
        connections: !section.boolean("disable_connections"),
        validator: validator(section.section("default_validator")),
    };
    // As upstream, no time is the default one.
    let or = |time: std::time::Duration, default| if time.is_zero() { default } else { time };
    let registration_timeout = or(config.registration_timeout, default.registration_timeout);
    let request_timeout = or(config.request_timeout, default.request_timeout);
    (!disabled).then_some(Config { registration_timeout, request_timeout, ..config })
}

fn validator(mut section: Section) -> Validator {
    Validator {
        enable: section.boolean("enable"),
        reject_oci_hooks: section.boolean("reject_oci_hook_adjustment"),
        reject_runtime_default_seccomp: section.boolean("reject_runtime_default_seccomp_adjustment"),
        reject_unconfined_seccomp: section.boolean("reject_unconfined_seccomp_adjustment"),
        reject_custom_seccomp: section.boolean("reject_custom_seccomp_adjustment"),
        reject_namespaces: section.boolean("reject_namespace_adjustment"),
        reject_sysctls: section.boolean("reject_sysctl_adjustment"),
        required_plugins: section.strings("required_plugins", &[]),
        tolerate_missing_annotation: section.string("tolerate_missing_plugins_annotation", ""),
    }
}
