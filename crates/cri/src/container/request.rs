//! What a kubelet asks for, before anything is made of it. Each string is taken for hostile: it becomes a path, a line of a
//! log, a label, an argument. What is refused is refused by the name of its field.

use std::path::{Component, Path, PathBuf};

use api::cri::{ContainerConfig, ContainerMetadata, Mount, PodSandboxConfig, PodSandboxMetadata};
use serde_json::Value;
use types::{Error, Result};

use super::signal;
use crate::pod::validate::is_a_way;
use crate::refusal::{bad, too_long};

/// As long as a name in Kubernetes can be.
const NAME: usize = 253;
/// As long as the kernel takes a path.
const PATH: usize = 4096;
/// As long as the kernel takes an argument, or a variable of the environment.
const ARGUMENT: usize = 128 << 10;
/// As much as Kubernetes takes for all annotations of an object.
const ANNOTATIONS: usize = 256 << 10;

/// Fields whose texts have lines, or whatever somebody wants to run.
const FREE: [&str; 5] = ["command", "args", "envs", "annotations", "labels"];
/// Fields that are paths.
const PATHS: [&str; 8] = [
    "working_dir",
    "log_path",
    "container_path",
    "host_path",
    "image_sub_path",
    "localhost_ref",
    "masked_paths",
    "readonly_paths",
];

/// A request that may be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Container, pod, namespace, uid and attempt, joined.
    pub name: String,
    /// The log; none if there shall be none.
    pub log_path: Option<PathBuf>,
}

/// Refuses a request of which something could not be made, or should not.
pub fn check(config: &ContainerConfig, pod: &PodSandboxConfig) -> Result<Checked> {
    let missing = |what| Error::invalid(format!("{what} config must include metadata"));
    let metadata = config.metadata.as_ref().ok_or_else(|| missing("container"))?;
    let of = pod.metadata.as_ref().ok_or_else(|| missing("pod sandbox"))?;
    texts(config)?;
    check_name("config.metadata.name", &metadata.name)?;
    if metadata.name.is_empty() {
        return Err(Error::invalid("config.metadata.name: must not be empty"));
    }
    let names = [("name", &of.name), ("namespace", &of.namespace), ("uid", &of.uid)];
    for (field, value) in names {
        check_name(&format!("sandbox_config.metadata.{field}"), value)?;
    }
    if config.image.as_ref().is_none_or(|image| image.image.is_empty()) {
        return Err(Error::invalid("config.image: must not be empty"));
    }
    types::labels::validate_all(&config.labels).map_err(|e| e.context("config.labels"))?;
    let annotations: usize = config.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if annotations > ANNOTATIONS {
        return Err(Error::invalid(format!("config.annotations: more than {ANNOTATIONS} bytes")));
    }
    config.envs.iter().try_for_each(|variable| environment(&variable.key, &variable.value))?;
    config.mounts.iter().try_for_each(mount)?;
    signal::requested(config.stop_signal)?;
    Ok(Checked { name: name(metadata, of), log_path: log_path(&pod.log_directory, &config.log_path)? })
}

/// The name under which a container is reserved.
fn name(container: &ContainerMetadata, pod: &PodSandboxMetadata) -> String {
    let ContainerMetadata { name, attempt } = container;
    let PodSandboxMetadata { name: pod, namespace, uid, attempt: _ } = pod;
    format!("{name}_{pod}_{namespace}_{uid}_{attempt}")
}

/// The log in its pod's directory, and never elsewhere.
fn log_path(directory: &str, log: &str) -> Result<Option<PathBuf>> {
    if directory.is_empty() || log.is_empty() {
        return Ok(None);
    }
    let bad = |field: &str, why: &str| Error::invalid(format!("{field}: {why}"));
    if directory.len() > PATH || directory.chars().any(char::is_control) {
        return Err(bad("sandbox_config.log_directory", "is no path"));
    }
    let directory = Path::new(directory);
    if !directory.is_absolute() || leads_upwards(directory) {
        return Err(bad("sandbox_config.log_directory", "must be absolute and must not lead upwards"));
    }
    let inside =
        Path::new(log).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside || log.ends_with('/') || Path::new(log).file_name().is_none() {
        return Err(bad("config.log_path", "must be a file's path below the log directory"));
    }
    Ok(Some(directory.join(log)))
}

fn check_name(field: &str, value: &str) -> Result<()> {
    if value.len() > NAME {
        return Err(too_long(field, NAME));
    }
    if value.chars().any(char::is_control) || is_a_way(value) {
        return Err(bad(field, value, "has characters that no name has"));
    }
    Ok(())
}

fn environment(key: &str, value: &[u8]) -> Result<()> {
    if key.is_empty() || key.contains('=') {
        return Err(bad("config.envs.key", key, "is no name of a variable"));
    }
    if value.contains(&0) {
        return Err(bad("config.envs.value", key, "has a value with a NUL"));
    }
    if key.len() + value.len() + 2 > ARGUMENT {
        return Err(bad("config.envs.value", key, "has a value that no program can be given"));
    }
    Ok(())
}

fn mount(mount: &Mount) -> Result<()> {
    let Mount { container_path, host_path, image, .. } = mount;
    if container_path.is_empty() {
        return Err(Error::invalid("config.mounts.container_path: must not be empty"));
    }
    match image.as_ref().map(|image| image.image.as_str()) {
        Some("") => Err(bad("config.mounts.image", container_path, "image not specified")),
        Some(_) if !host_path.is_empty() => {
            Err(bad("config.mounts.host_path", host_path, "must be empty while mount image"))
        }
        Some(_) if !mount.readonly => {
            Err(bad("config.mounts.readonly", container_path, "must be true while mount image"))
        }
        None if !Path::new(host_path).is_absolute() => {
            Err(bad("config.mounts.host_path", host_path, "must be absolute"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Looks at every string there is, whatever the message has in it.
fn texts(config: &ContainerConfig) -> Result<()> {
    let value = serde_json::to_value(config).map_err(|e| Error::invalid(format!("config: {e}")))?;
    let Value::Object(fields) = value else { return Ok(()) };
    fields.iter().try_for_each(|(field, value)| walk(&format!("config.{field}"), field, value))
}

fn walk(path: &str, field: &str, value: &Value) -> Result<()> {
    match value {
        Value::String(text) => check_text(path, field, text),
        Value::Array(values) => values.iter().try_for_each(|value| walk(path, field, value)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            // The names of fields are the protocol's, keys of maps are anybody's.
            check_text(path, "", key)?;
            if FREE.contains(&field) {
                return walk(path, field, value);
            }
            walk(&format!("{path}.{key}"), key, value)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn check_text(path: &str, field: &str, text: &str) -> Result<()> {
    let free = FREE.contains(&field);
    let most = match field {
        "annotations" => ANNOTATIONS,
        _ if free => ARGUMENT - 1,
        _ => PATH,
    };
    if text.len() > most {
        return Err(too_long(path, most));
    }
    if text.contains('\0') {
        return Err(bad(path, text, "has a NUL"));
    }
    if !free && text.chars().any(char::is_control) {
        return Err(bad(path, text, "has control characters"));
    }
    if PATHS.contains(&field) && leads_upwards(Path::new(text)) {
        return Err(bad(path, text, "path escapes from parent"));
    }
    Ok(())
}

fn leads_upwards(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use api::cri::{Device, ImageSpec, KeyValue, LinuxContainerConfig, LinuxContainerSecurityContext};

    use super::*;

    fn pod() -> PodSandboxConfig {
        let metadata = PodSandboxMetadata {
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            uid: "1-2".to_owned(),
            attempt: 4,
        };
        let log_directory = "/var/log/pods/web".to_owned();
        PodSandboxConfig { metadata: Some(metadata), log_directory, ..PodSandboxConfig::default() }
    }

    fn container() -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt: 3 }),
            image: Some(ImageSpec { image: "busybox".to_owned(), ..ImageSpec::default() }),
            log_path: "c/3.log".to_owned(),
            command: vec!["sh".to_owned(), "-c".to_owned(), "a\nb\t".to_owned()],
            annotations: [("a".to_owned(), "{\n}".to_owned())].into(),
            mounts: vec![Mount {
                host_path: "/a".to_owned(),
                container_path: "/b".to_owned(),
                ..Mount::default()
            }],
            ..ContainerConfig::default()
        }
    }

    #[test]
    fn what_kubelets_send_is_taken() {
        let checked = check(&container(), &pod()).unwrap();
        assert_eq!(checked.name, "c_web_default_1-2_3");
        assert_eq!(checked.log_path.unwrap().to_str(), Some("/var/log/pods/web/c/3.log"));
        let quiet = ContainerConfig { log_path: String::new(), ..container() };
        assert_eq!(check(&quiet, &pod()).unwrap().log_path, None);
    }

    #[test]
    fn a_log_stays_in_its_directory() {
        for log in ["../x", "/x", "a/../../x", "..", ".", "a/..", "a/", "a\0b", "a\nb"] {
            let error =
                check(&ContainerConfig { log_path: log.to_owned(), ..container() }, &pod()).unwrap_err();
            assert!(error.to_string().starts_with("config.log_path"), "{log:?}: {error}");
        }
        for directory in ["relative", "/a/../b", "/a\0b"] {
            let pod = PodSandboxConfig { log_directory: directory.to_owned(), ..pod() };
            let error = check(&container(), &pod).unwrap_err();
            assert!(error.to_string().starts_with("sandbox_config.log_directory"), "{error}");
        }
    }

    type Spoil = fn(&mut ContainerConfig, String);

    fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
        let linux = config.linux.get_or_insert_with(LinuxContainerConfig::default);
        linux.security_context.get_or_insert_with(LinuxContainerSecurityContext::default)
    }

    const SPOILS: [(&str, Spoil); 16] = [
        ("config.metadata.name", |c, s| c.metadata.as_mut().unwrap().name = s),
        ("config.image.image", |c, s| c.image.as_mut().unwrap().image = s),
        ("config.command", |c, s| c.command.push(s)),
        ("config.args", |c, s| c.args.push(s)),
        ("config.working_dir", |c, s| c.working_dir = s),
        ("config.envs", |c, s| c.envs.push(KeyValue { key: s, value: Vec::new() })),
        ("config.envs", |c, s| {
            c.envs.push(KeyValue { key: "K".to_owned(), value: s.into_bytes() });
        }),
        ("config.mounts.host_path", |c, s| c.mounts[0].host_path = s),
        ("config.mounts.container_path", |c, s| c.mounts[0].container_path = s),
        ("config.devices.host_path", |c, s| c.devices.push(Device { host_path: s, ..Device::default() })),
        ("config.labels", |c, s| drop(c.labels.insert("k".to_owned(), s))),
        ("config.labels", |c, s| drop(c.labels.insert(s, "v".to_owned()))),
        ("config.annotations", |c, s| drop(c.annotations.insert("k".to_owned(), s))),
        ("config.annotations", |c, s| drop(c.annotations.insert(s, "v".to_owned()))),
        ("config.log_path", |c, s| c.log_path = s),
        ("config.linux.security_context.run_as_username", |c, s| security(c).run_as_username = s),
    ];

    #[test]
    fn every_string_is_hostile_and_is_refused_by_the_name_of_its_field() {
        for (field, spoil) in SPOILS {
            for hostile in ["a\0b".to_owned(), "x".repeat(1 << 20)] {
                let mut spoilt = container();
                spoil(&mut spoilt, hostile);
                let error = check(&spoilt, &pod()).unwrap_err();
                assert_eq!(error.class(), types::Class::InvalidArgument);
                assert!(error.to_string().starts_with(field), "{field}: {error}");
                assert!(error.to_string().len() < 400, "{field} is told at length");
            }
        }
    }

    #[test]
    fn lines_are_only_in_what_people_write_for_programs() {
        for (field, spoil) in SPOILS {
            let mut spoilt = container();
            spoil(&mut spoilt, "a\n\u{1b}[2J".to_owned());
            let free = FREE.iter().any(|free| field.ends_with(free));
            // A key is a name either way.
            if !free {
                assert!(check(&spoilt, &pod()).unwrap_err().to_string().starts_with(field), "{field}");
            }
        }
        let mut spoilt = container();
        spoilt.annotations.insert("a\nb".to_owned(), String::new());
        assert!(check(&spoilt, &pod()).is_err());
    }

    #[test]
    fn paths_that_lead_upwards_are_refused() {
        for (field, spoil) in SPOILS.iter().filter(|(field, _)| field.ends_with("_path")) {
            let mut spoilt = container();
            spoil(&mut spoilt, "/a/../../etc".to_owned());
            assert!(check(&spoilt, &pod()).unwrap_err().to_string().starts_with(field), "{field}");
        }
    }

    #[test]
    fn an_image_is_mounted_read_only_and_without_a_path_of_the_host() {
        let image = Some(ImageSpec { image: "i".to_owned(), ..ImageSpec::default() });
        let volume = Mount { container_path: "/b".to_owned(), readonly: true, image, ..Mount::default() };
        mount(&volume).unwrap();
        assert!(mount(&Mount { readonly: false, ..volume.clone() }).is_err());
        assert!(mount(&Mount { host_path: "/a".to_owned(), ..volume.clone() }).is_err());
        assert!(mount(&Mount { container_path: String::new(), ..volume }).is_err());
        assert!(mount(&Mount { container_path: "/b".to_owned(), ..Mount::default() }).is_err());
    }
}
