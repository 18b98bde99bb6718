//! Kernel parameters of a pod, and the two that make containers of ordinary users as useful as on a host.

use std::collections::BTreeMap;

use api::cri::{NamespaceMode, PodSandboxConfig};
use types::{Error, Result};

use super::checks;
use crate::config::Runtime;

const PORTS: &str = "net.ipv4.ip_unprivileged_port_start";
const PING: &str = "net.ipv4.ping_group_range";

/// The parameters of a sandbox. `remapped` is whether ids of its users are not the host's: then not all groups can ping.
pub(super) fn of(
    config: &PodSandboxConfig,
    settings: &Runtime,
    remapped: bool,
) -> Result<BTreeMap<String, String>> {
    let linux = config.linux.clone().unwrap_or_default();
    let options = linux.security_context.and_then(|security| security.namespace_options).unwrap_or_default();
    let (network, ipc) = (options.network, options.ipc);
    let of_host = |mode| mode == NamespaceMode::Node as i32;
    let mut sysctls = linux.sysctls;
    for (name, value) in &sysctls {
        check(name, value)?;
        let hosts = (is_network(name) && of_host(network)) || (is_ipc(name) && of_host(ipc));
        if hosts {
            return Err(Error::invalid(format!("sysctls: {name:?} is the host's in this pod's namespaces")));
        }
    }
    if !of_host(network) {
        if settings.unprivileged_ports {
            sysctls.entry(PORTS.to_owned()).or_insert_with(|| "0".to_owned());
        }
        if settings.unprivileged_icmp && !remapped {
            sysctls.entry(PING.to_owned()).or_insert_with(|| "0 2147483647".to_owned());
        }
    }
    Ok(sysctls)
}

fn is_network(name: &str) -> bool {
    name.starts_with("net.") || name.starts_with("net/")
}

fn is_ipc(name: &str) -> bool {
    let name = name.replace('/', ".");
    let name = name.as_str();
    name.starts_with("fs.mqueue.")
        || ["kernel.sem", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni"].contains(&name)
        || name.starts_with("kernel.shm")
}

/// A name of words between dots or slashes and a value of one line: nothing that reaches another file, or that a tool which
/// reads `name=value` pairs would split (CVE-2022-0811).
fn check(name: &str, value: &str) -> Result<()> {
    checks::line("sysctls", &value.replace('\t', " "))?;
    let word =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if !name.split(['.', '/']).all(word) || name.len() > 253 {
        return Err(Error::invalid(format!("sysctls: {name:?} is no name of a parameter")));
    }
    if value.contains(['+', '=', ';']) {
        return Err(Error::invalid(format!("sysctls: the value {value:?} of {name:?} is not plain")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::cri::{LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption};

    use super::*;

    fn given(name: &str, value: &str, network: NamespaceMode) -> Result<BTreeMap<String, String>> {
        let options = NamespaceOption { network: network.into(), ..NamespaceOption::default() };
        let security = LinuxSandboxSecurityContext {
            namespace_options: Some(options),
            ..LinuxSandboxSecurityContext::default()
        };
        let linux = LinuxPodSandboxConfig {
            sysctls: [(name.to_owned(), value.to_owned())].into(),
            security_context: Some(security),
            ..LinuxPodSandboxConfig::default()
        };
        let config = PodSandboxConfig { linux: Some(linux), ..PodSandboxConfig::default() };
        of(&config, &Runtime::default(), false)
    }

    #[test]
    fn strings_that_could_reach_another_parameter_are_refused() {
        for (name, value) in [
            ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x"),
            ("kernel.shm_rmid_forced", "1=2"),
            ("kernel.shm_rmid_forced", "1;2"),
            ("kernel.shm_rmid_forced", "1\n2"),
            ("kernel.shm_rmid_forced", "1\0"),
            ("kernel.shm_rmid_forced", "1\r"),
            ("a+b", "1"),
            ("a=b", "1"),
            ("a..b", "1"),
            ("../kernel/core_pattern", "1"),
            ("net/ipv4/../../kernel/core_pattern", "1"),
            ("/kernel/sem", "1"),
            ("kernel sem", "1"),
            ("kernel.sem\n", "1"),
            ("", "1"),
        ] {
            let error = given(name, value, NamespaceMode::Pod).unwrap_err().to_string();
            assert!(error.starts_with("sysctls: "), "{name:?} {value:?}: {error}");
        }
    }

    #[test]
    fn parameters_of_the_hosts_network_are_never_set() {
        assert!(given("net.ipv4.ip_forward", "1", NamespaceMode::Node).is_err());
        assert!(given("net/ipv4/ip_forward", "1", NamespaceMode::Node).is_err());
        assert_eq!(given("kernel.sem", "1\t2 3", NamespaceMode::Node).unwrap().len(), 1);
        assert_eq!(given("net.ipv4.conf.eth0-1.forwarding", "1", NamespaceMode::Pod).unwrap().len(), 3);
    }
}
