//! What a kubelet asks for, before anything is made of it. Each string is taken for hostile: it becomes a line of a file, an
//! argument, a path, a label. What is refused is refused by the name of its field.

use std::net::IpAddr;
use std::path::Path;

use api::cri::{
    DnsConfig, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol, UserNamespace,
};
use types::{Error, Result};

use crate::refusal::{bad, too_long};

/// As long as a name in Kubernetes can be.
const NAME: usize = 253;
/// As long as the kernel takes a host name.
const HOSTNAME: usize = 64;
/// As long as the kernel takes a path.
const PATH: usize = 4096;
/// As much as Kubernetes takes for all annotations of an object.
const ANNOTATIONS: usize = 256 << 10;
/// As many servers, searches or options as could be meant.
const DNS_ENTRIES: usize = 64;

/// Refuses a configuration of which something could not be made, or should not.
pub fn config(config: &PodSandboxConfig) -> Result<()> {
    let metadata =
        config.metadata.as_ref().ok_or_else(|| Error::invalid("sandbox config must include metadata"))?;
    check_metadata(metadata)?;
    hostname(&config.hostname)?;
    path("log_directory", &config.log_directory)?;
    if !config.log_directory.is_empty() && !config.log_directory.starts_with('/') {
        return Err(bad("log_directory", &config.log_directory, "is not absolute"));
    }
    config.dns_config.iter().try_for_each(dns)?;
    config.port_mappings.iter().try_for_each(port)?;
    types::labels::validate_all(&config.labels).map_err(|e| e.context("labels"))?;
    for (key, value) in &config.labels {
        plain("labels", key)?;
        plain("labels", value)?;
    }
    annotations(config)?;
    config.linux.iter().try_for_each(linux)
}

/// The name under which a pod is reserved.
pub fn name(metadata: &PodSandboxMetadata) -> String {
    let PodSandboxMetadata { name, namespace, uid, attempt } = metadata;
    format!("{name}_{namespace}_{uid}_{attempt}")
}

/// Whether a name leads anywhere, if somebody (a network plugin, say) makes a path of it. Kubernetes' names have no slashes; those
/// that upstream takes are taken.
pub fn is_a_way(name: &str) -> bool {
    name.starts_with('/') || name.split('/').any(|part| matches!(part, "." | ".."))
}

fn check_metadata(metadata: &PodSandboxMetadata) -> Result<()> {
    let PodSandboxMetadata { name, namespace, uid, attempt: _ } = metadata;
    for (field, value) in [("metadata.name", name), ("metadata.namespace", namespace), ("metadata.uid", uid)]
    {
        if value.len() > NAME {
            return Err(too_long(field, NAME));
        }
        plain(field, value)?;
        if value.contains(';') || is_a_way(value) {
            return Err(bad(field, value, "has characters that no name has"));
        }
    }
    Ok(())
}

fn hostname(hostname: &str) -> Result<()> {
    if hostname.len() > HOSTNAME {
        return Err(too_long("hostname", HOSTNAME));
    }
    word("hostname", hostname)?;
    if hostname.contains(['/', ':']) {
        return Err(bad("hostname", hostname, "has characters that no host name has"));
    }
    Ok(())
}

fn dns(dns: &DnsConfig) -> Result<()> {
    let lists = [
        ("dns_config.servers", &dns.servers),
        ("dns_config.searches", &dns.searches),
        ("dns_config.options", &dns.options),
    ];
    for (field, list) in lists {
        if list.len() > DNS_ENTRIES {
            return Err(Error::invalid(format!("{field}: more than {DNS_ENTRIES} entries")));
        }
        for entry in list {
            if entry.len() > NAME {
                return Err(too_long(field, NAME));
            }
            word(field, entry)?;
            if entry.is_empty() {
                return Err(bad(field, entry, "is empty"));
            }
        }
    }
    Ok(())
}

fn port(mapping: &PortMapping) -> Result<()> {
    if Protocol::try_from(mapping.protocol).is_err() {
        return Err(Error::invalid(format!("port_mappings.protocol: unknown number {}", mapping.protocol)));
    }
    let ports = [
        ("port_mappings.container_port", mapping.container_port),
        ("port_mappings.host_port", mapping.host_port),
    ];
    for (field, port) in ports {
        // A host port below 1 is none, as upstream reads it.
        if port > i32::from(u16::MAX) {
            return Err(Error::invalid(format!("{field}: {port} is no port")));
        }
    }
    if !mapping.host_ip.is_empty() && mapping.host_ip.parse::<IpAddr>().is_err() {
        return Err(bad("port_mappings.host_ip", &mapping.host_ip, "is no address"));
    }
    Ok(())
}

fn annotations(config: &PodSandboxConfig) -> Result<()> {
    let all: usize = config.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if all > ANNOTATIONS {
        return Err(Error::invalid(format!("annotations: {all} bytes are more than {ANNOTATIONS}")));
    }
    for (key, value) in &config.annotations {
        plain("annotations", key)?;
        if value.contains('\0') {
            return Err(bad("annotations", key, "has a value with a NUL"));
        }
    }
    crate::network::bandwidth::of(&config.annotations).map(drop)
}

fn linux(linux: &LinuxPodSandboxConfig) -> Result<()> {
    path("linux.cgroup_parent", &linux.cgroup_parent)?;
    for (key, value) in &linux.sysctls {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':');
        let parts = |part: &str| part.is_empty() || part == "..";
        if key.len() > NAME {
            return Err(too_long("linux.sysctls", NAME));
        }
        if !key.chars().all(known) || key.split(['.', '/']).any(parts) {
            return Err(bad("linux.sysctls", key, "is no name of a sysctl"));
        }
        if value.len() > PATH {
            return Err(too_long("linux.sysctls", PATH));
        }
        plain("linux.sysctls", value)?;
    }
    linux.security_context.iter().try_for_each(security)
}

fn security(context: &LinuxSandboxSecurityContext) -> Result<()> {
    let ids = [("run_as_user", &context.run_as_user), ("run_as_group", &context.run_as_group)];
    for (field, id) in ids {
        if id.as_ref().is_some_and(|id| u32::try_from(id.value).is_err()) {
            return Err(Error::invalid(format!("linux.security_context.{field}: no such id")));
        }
    }
    if context.run_as_group.is_some() && context.run_as_user.is_none() {
        return Err(Error::invalid("linux.security_context.run_as_group: specified without run_as_user"));
    }
    if context.supplemental_groups.iter().any(|id| u32::try_from(*id).is_err()) {
        return Err(Error::invalid("linux.security_context.supplemental_groups: no such id"));
    }
    if let Some(selinux) = &context.selinux_options {
        for value in [&selinux.user, &selinux.role, &selinux.r#type, &selinux.level] {
            if value.len() > NAME {
                return Err(too_long("linux.security_context.selinux_options", NAME));
            }
            word("linux.security_context.selinux_options", value)?;
        }
    }
    for profile in context.seccomp.iter().chain(&context.apparmor) {
        path("linux.security_context.localhost_ref", &profile.localhost_ref)?;
    }
    context.namespace_options.iter().try_for_each(namespaces)
}

fn namespaces(options: &NamespaceOption) -> Result<()> {
    use NamespaceMode::{Container, Node, Pod};
    let modes: [(&str, i32, &[NamespaceMode]); 3] = [
        ("network", options.network, &[Pod, Node]),
        ("pid", options.pid, &[Pod, Container, Node]),
        ("ipc", options.ipc, &[Pod, Node]),
    ];
    for (field, mode, taken) in modes {
        if !NamespaceMode::try_from(mode).is_ok_and(|mode| taken.contains(&mode)) {
            let error = format!("namespace_options.{field}: mode {mode} is not for a sandbox");
            return Err(Error::invalid(error));
        }
    }
    options.userns_options.iter().try_for_each(user_namespace)
}

fn user_namespace(options: &UserNamespace) -> Result<()> {
    let field = "namespace_options.userns_options";
    let maps = [("uids", &options.uids), ("gids", &options.gids)];
    match NamespaceMode::try_from(options.mode) {
        Ok(NamespaceMode::Node) => match maps.iter().find(|(_, maps)| !maps.is_empty()) {
            Some((name, _)) => {
                Err(Error::invalid(format!("{field}.{name}: can't use with user namespaces mode NODE")))
            }
            None => Ok(()),
        },
        Ok(NamespaceMode::Pod) => {
            for (name, maps) in maps {
                let [map] = maps.as_slice() else {
                    return Err(Error::invalid(format!("{field}.{name}: exactly one mapping is needed")));
                };
                let end = map.host_id.checked_add(map.length).zip(map.container_id.checked_add(map.length));
                if map.length == 0 || end.is_none() {
                    return Err(Error::invalid(format!("{field}.{name}: no such range of ids")));
                }
            }
            Ok(())
        }
        Ok(NamespaceMode::Container | NamespaceMode::Target) | Err(_) => {
            Err(Error::invalid(format!("{field}.mode: unsupported user namespace mode {}", options.mode)))
        }
    }
}

/// A path, or nothing.
fn path(field: &str, value: &str) -> Result<()> {
    if value.len() > PATH {
        return Err(too_long(field, PATH));
    }
    plain(field, value)?;
    if Path::new(value).components().any(|part| part == std::path::Component::ParentDir) {
        return Err(bad(field, value, "leads upwards"));
    }
    Ok(())
}

/// Text of one line.
fn plain(field: &str, value: &str) -> Result<()> {
    if value.chars().any(char::is_control) {
        return Err(bad(field, value, "has control characters"));
    }
    Ok(())
}

/// Text without spaces.
fn word(field: &str, value: &str) -> Result<()> {
    if value.chars().any(char::is_whitespace) {
        return Err(bad(field, value, "has spaces"));
    }
    plain(field, value)
}

#[cfg(test)]
mod tests {
    use api::cri::{IdMapping, Int64Value};

    use super::*;

    fn pod() -> PodSandboxConfig {
        let metadata = PodSandboxMetadata {
            name: "web".into(),
            namespace: "default".into(),
            uid: "uid-1".into(),
            attempt: 1,
        };
        PodSandboxConfig {
            metadata: Some(metadata),
            hostname: "web-0".into(),
            log_directory: "/var/log/pods/web".into(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.0.0.10".into()],
                searches: vec!["svc.cluster.local".into()],
                options: vec!["ndots:5".into()],
            }),
            annotations: [("a/b".into(), "{\n\"json\": 1}".into())].into(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: "/kubepods/pod-1".into(),
                sysctls: [("net.ipv4.ip_forward".into(), "1".into())].into(),
                security_context: Some(LinuxSandboxSecurityContext::default()),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }

    type Spoil = fn(&mut PodSandboxConfig, String);

    fn metadata(pod: &mut PodSandboxConfig) -> &mut PodSandboxMetadata {
        pod.metadata.as_mut().unwrap()
    }

    fn context(pod: &mut PodSandboxConfig) -> &mut LinuxSandboxSecurityContext {
        pod.linux.as_mut().unwrap().security_context.as_mut().unwrap()
    }

    #[test]
    fn what_kubelets_send_is_taken() {
        config(&pod()).unwrap();
        assert_eq!(name(pod().metadata.as_ref().unwrap()), "web_default_uid-1_1");
        config(&PodSandboxConfig { metadata: Some(PodSandboxMetadata::default()), ..Default::default() })
            .unwrap();
    }

    #[test]
    fn every_string_is_hostile_and_is_refused_by_the_name_of_its_field() {
        let strings: [(&str, Spoil); 12] = [
            ("metadata.name", |p, s| metadata(p).name = s),
            ("metadata.namespace", |p, s| metadata(p).namespace = s),
            ("metadata.uid", |p, s| metadata(p).uid = s),
            ("hostname", |p, s| p.hostname = s),
            ("log_directory", |p, s| p.log_directory = s),
            ("dns_config.servers", |p, s| p.dns_config.as_mut().unwrap().servers.push(s)),
            ("dns_config.searches", |p, s| p.dns_config.as_mut().unwrap().searches.push(s)),
            ("dns_config.options", |p, s| p.dns_config.as_mut().unwrap().options.push(s)),
            ("labels", |p, s| drop(p.labels.insert("k".into(), s))),
            ("annotations", |p, s| drop(p.annotations.insert(s, "v".into()))),
            ("linux.cgroup_parent", |p, s| p.linux.as_mut().unwrap().cgroup_parent = s),
            ("linux.sysctls", |p, s| drop(p.linux.as_mut().unwrap().sysctls.insert("net.x".into(), s))),
        ];
        for (field, spoil) in strings {
            for hostile in ["a\0b".to_owned(), "a\nb".to_owned(), "\u{1b}[2J".to_owned(), "x".repeat(1 << 20)]
            {
                let mut spoilt = pod();
                spoil(&mut spoilt, hostile);
                let error = config(&spoilt).unwrap_err();
                assert_eq!(error.class(), types::Class::InvalidArgument);
                assert!(error.to_string().starts_with(field), "{field}: {error}");
                assert!(error.to_string().len() < 400, "{field} is told at length");
            }
        }
    }

    #[test]
    fn paths_that_lead_upwards_and_names_that_are_paths_are_refused() {
        let cases: [(&str, Spoil, &str); 10] = [
            ("metadata.name", |p, s| metadata(p).name = s, "../x"),
            ("metadata.name", |p, s| metadata(p).name = s, "x/../../y"),
            ("metadata.name", |p, s| metadata(p).name = s, "/etc"),
            ("metadata.namespace", |p, s| metadata(p).namespace = s, ".."),
            ("metadata.uid", |p, s| metadata(p).uid = s, "a;K8S_POD_NAME=b"),
            ("hostname", |p, s| p.hostname = s, "a b"),
            ("log_directory", |p, s| p.log_directory = s, "/var/log/../../etc"),
            ("log_directory", |p, s| p.log_directory = s, "var/log"),
            ("linux.cgroup_parent", |p, s| p.linux.as_mut().unwrap().cgroup_parent = s, "/a/../../b"),
            (
                "linux.sysctls",
                |p, s| drop(p.linux.as_mut().unwrap().sysctls.insert(s, "1".into())),
                "net/../kernel.x",
            ),
        ];
        for (field, spoil, hostile) in cases {
            let mut spoilt = pod();
            spoil(&mut spoilt, hostile.to_owned());
            let error = config(&spoilt).unwrap_err();
            assert!(error.to_string().starts_with(field), "{field}: {error}");
        }
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        let spoils: [(&str, Spoil); 7] = [
            ("port_mappings.host_port", |p, _| {
                p.port_mappings.push(PortMapping { host_port: 65536, ..PortMapping::default() });
            }),
            ("port_mappings.protocol", |p, _| {
                p.port_mappings.push(PortMapping { protocol: 9, ..PortMapping::default() });
            }),
            ("port_mappings.host_ip", |p, _| {
                p.port_mappings.push(PortMapping { host_ip: "x".into(), ..PortMapping::default() });
            }),
            ("linux.security_context.run_as_user", |p, _| {
                context(p).run_as_user = Some(Int64Value { value: -1 });
            }),
            ("linux.security_context.run_as_group", |p, _| {
                context(p).run_as_group = Some(Int64Value { value: 1 });
            }),
            ("namespace_options.network", |p, _| {
                context(p).namespace_options = Some(NamespaceOption { network: 1, ..Default::default() });
            }),
            ("namespace_options.userns_options.uids", |p, _| {
                let map = IdMapping { host_id: u32::MAX, container_id: 0, length: 2 };
                let maps = UserNamespace { uids: vec![map], gids: vec![map], mode: 0 };
                context(p).namespace_options =
                    Some(NamespaceOption { userns_options: Some(maps), ..Default::default() });
            }),
        ];
        for (field, spoil) in spoils {
            let mut spoilt = pod();
            spoil(&mut spoilt, String::new());
            let error = config(&spoilt).unwrap_err();
            assert!(error.to_string().starts_with(field), "{field}: {error}");
        }
    }
}
