//! What may be adjusted at all, and which plugins must have been asked: the default validator, as the administrator has set it.

use std::collections::BTreeSet;

use types::{Error, Result};

use crate::config::Validator;
use crate::owners::{entries, owner};
use crate::wire::security_profile::ProfileType;
use crate::wire::{Field, PodSandbox, ValidateContainerAdjustmentRequest as Request};

/// The annotation by which a pod names plugins that it needs.
const REQUIRED: &str = "required-plugins.noderesource.dev";

/// Refuses an adjustment.
pub fn check(settings: &Validator, request: &Request) -> Result<()> {
    let id = request.container.as_ref().map(|container| container.id.as_str()).unwrap_or_default();
    hooks(settings, request, id)?;
    seccomp(settings, request, id)?;
    namespaces(settings, request, id)?;
    required(settings, request)?;
    sysctls(settings, request, id)
}

fn refuse(what: impl std::fmt::Display) -> Error {
    Error::new(types::Class::PermissionDenied, format!("validation error: {what}"))
}

fn hooks(settings: &Validator, request: &Request, id: &str) -> Result<()> {
    match owner(request.owners.as_ref(), id, Field::OciHooks) {
        Some(owners) if settings.reject_oci_hooks => {
            let plugins = if owners.contains(',') { "plugins" } else { "plugin" };
            Err(refuse(format!("{plugins} {owners:?} attempted restricted OCI hook injection")))
        }
        _ => Ok(()),
    }
}

fn seccomp(settings: &Validator, request: &Request, id: &str) -> Result<()> {
    let Some(owner) = owner(request.owners.as_ref(), id, Field::SeccompPolicy) else { return Ok(()) };
    let linux = request.container.as_ref().and_then(|container| container.linux.as_ref());
    let profile = linux.and_then(|linux| linux.seccomp_profile.as_ref());
    let kind = profile.map_or(ProfileType::Unconfined, crate::wire::SecurityProfile::profile_type);
    let (refused, what) = match kind {
        ProfileType::Unconfined => (settings.reject_unconfined_seccomp, "unconfined"),
        ProfileType::RuntimeDefault => (settings.reject_runtime_default_seccomp, "runtime default"),
        ProfileType::Localhost => (settings.reject_custom_seccomp, "custom"),
    };
    if refused {
        let text = format!("plugin {owner} attempted restricted {what} seccomp policy adjustment");
        return Err(refuse(text));
    }
    Ok(())
}

fn namespaces(settings: &Validator, request: &Request, id: &str) -> Result<()> {
    match entries(request.owners.as_ref(), id, Field::Namespace) {
        Some(all) if settings.reject_namespaces => {
            let each = |(kind, plugin): (&String, &String)| format!("{plugin:?} (namespace {kind:?})");
            let offenders: Vec<_> = all.owners.iter().map(each).collect();
            let offenders = offenders.join(", ");
            Err(refuse(format!("attempted restricted namespace adjustment by plugin(s) {offenders}")))
        }
        _ => Ok(()),
    }
}

fn sysctls(settings: &Validator, request: &Request, id: &str) -> Result<()> {
    match entries(request.owners.as_ref(), id, Field::Sysctl) {
        Some(all) if settings.reject_sysctls => {
            let offenders: BTreeSet<&str> = all.owners.values().map(String::as_str).collect();
            let offenders: Vec<_> = offenders.into_iter().collect();
            let offenders = offenders.join(", ");
            Err(refuse(format!("attempted restricted sysctl adjustment by plugin(s) {offenders}")))
        }
        _ => Ok(()),
    }
}

/// The plugins that must have been asked: the administrator's, and those of the pod.
fn required(settings: &Validator, request: &Request) -> Result<()> {
    let default = PodSandbox::default();
    let pod = request.pod.as_ref().unwrap_or(&default);
    let container = request.container.as_ref().map(|container| container.name.as_str()).unwrap_or_default();
    let tolerate = settings.tolerate_missing_annotation.as_str();
    if let Some(value) = effective(pod, tolerate, container).filter(|_| !tolerate.is_empty())
        && truth(value).ok_or_else(|| refuse(format!("invalid {tolerate} annotation {value:?}")))?
    {
        return Ok(());
    }
    let mut required = settings.required_plugins.clone();
    if let Some(value) = effective(pod, REQUIRED, container) {
        let named = names(value).ok_or_else(|| refuse(format!("invalid {REQUIRED} annotation {value:?}")))?;
        required.extend(named);
    }
    let there = |name: &String| {
        let mut asked = request.plugins.iter();
        asked.any(|plugin| plugin.name == *name || format!("{}-{}", plugin.index, plugin.name) == *name)
    };
    required.retain(|name| !there(name));
    match required.as_slice() {
        [] => Ok(()),
        [one] => Err(refuse(format!("required plugin {one:?} not present"))),
        many => Err(refuse(format!("required plugins {:?} not present", many.join(",")))),
    }
}

/// The annotation of a pod that holds for a container: its own, or the pod's.
fn effective<'a>(pod: &'a PodSandbox, key: &str, container: &str) -> Option<&'a str> {
    let own = format!("{key}/container.{container}");
    let pods = format!("{key}/pod");
    [own.as_str(), &pods, key].into_iter().find_map(|key| pod.annotations.get(key)).map(String::as_str)
}

/// Go's words for truth.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A list of names in YAML: `[a, b]`, or a name a line after `- `.
fn names(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    let name = |text: &str| {
        let text = text.trim();
        let quoted = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
        let name = quoted('"').or_else(|| quoted('\'')).unwrap_or(text);
        crate::name::check_name(name).ok().map(|()| name.to_owned())
    };
    if text.is_empty() {
        return Some(Vec::new());
    }
    if let Some(list) = text.strip_prefix('[') {
        let list = list.strip_suffix(']')?.trim().trim_end_matches(',');
        return if list.is_empty() { Some(Vec::new()) } else { list.split(',').map(name).collect() };
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| line.trim().strip_prefix("- ").and_then(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owners::{By, Owners};
    use crate::wire::{Container, LinuxContainer, PluginInstance, SecurityProfile};

    fn request(claim: impl FnOnce(&mut Owners, By<'_>)) -> Request {
        let mut owners = Owners::default();
        claim(&mut owners, By { plugin: "10-a", container: "c" });
        let container = Container { id: "c".to_owned(), name: "main".to_owned(), ..Container::default() };
        let plugin = PluginInstance { name: "a".to_owned(), index: "10".to_owned() };
        Request {
            pod: Some(PodSandbox::default()),
            container: Some(container),
            owners: Some(owners.to_wire()),
            plugins: vec![plugin],
            ..Request::default()
        }
    }

    fn refused(settings: &Validator, request: &Request) -> Option<String> {
        check(settings, request).err().map(|error| error.to_string())
    }

    #[test]
    fn what_may_not_be_adjusted_is_refused_by_the_name_of_the_plugin() {
        let hooks = request(|owners, by| owners.share(by, Field::OciHooks));
        let strict = Validator { reject_oci_hooks: true, ..Validator::default() };
        assert_eq!(refused(&Validator::default(), &hooks), None);
        let text = refused(&strict, &hooks).unwrap();
        assert_eq!(text, r#"validation error: plugin "10-a" attempted restricted OCI hook injection"#);
        let namespace = request(|owners, by| owners.claim_entry(by, Field::Namespace, "pid").unwrap());
        assert_eq!(refused(&strict, &namespace), None);
        assert!(refused(&Validator { reject_namespaces: true, ..strict.clone() }, &namespace).is_some());
        let sysctl = request(|owners, by| owners.claim_entry(by, Field::Sysctl, "net.a").unwrap());
        assert!(refused(&Validator { reject_sysctls: true, ..strict }, &sysctl).is_some());
    }

    #[test]
    fn a_seccomp_policy_is_refused_by_what_the_container_had() {
        let with = |profile: Option<ProfileType>| {
            let mut request = request(|owners, by| owners.claim(by, Field::SeccompPolicy).unwrap());
            let profile = profile
                .map(|kind| SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() });
            let linux = LinuxContainer { seccomp_profile: profile, ..LinuxContainer::default() };
            request.container.as_mut().unwrap().linux = Some(linux);
            request
        };
        let unconfined = Validator { reject_unconfined_seccomp: true, ..Validator::default() };
        assert!(refused(&unconfined, &with(None)).unwrap().contains("unconfined"));
        assert!(refused(&unconfined, &with(Some(ProfileType::Unconfined))).is_some());
        assert_eq!(refused(&unconfined, &with(Some(ProfileType::RuntimeDefault))), None);
        let custom = Validator { reject_custom_seccomp: true, ..Validator::default() };
        assert!(refused(&custom, &with(Some(ProfileType::Localhost))).unwrap().contains("custom"));
    }

    #[test]
    fn required_plugins_are_the_administrators_and_the_pods_unless_it_tolerates() {
        let settings = Validator {
            required_plugins: owned(&["a", "b"]),
            tolerate_missing_annotation: "tolerate".to_owned(),
            ..Validator::default()
        };
        let mut request = request(|_, _| ());
        let text = refused(&settings, &request).unwrap();
        assert_eq!(text, r#"validation error: required plugin "b" not present"#);
        let annotate = |request: &mut Request, key: &str, value: &str| {
            request.pod.as_mut().unwrap().annotations.insert(key.to_owned(), value.to_owned());
        };
        annotate(&mut request, "required-plugins.noderesource.dev/container.main", "- 10-a\n- c");
        assert!(refused(&settings, &request).unwrap().contains("b,c"));
        annotate(&mut request, "tolerate/pod", "true");
        assert_eq!(refused(&settings, &request), None);
        annotate(&mut request, "tolerate/container.main", "maybe");
        assert!(refused(&settings, &request).is_some());
    }

    #[test]
    fn names_are_a_list_of_yaml_in_either_form() {
        assert_eq!(names(r#"[ "a", 10-b ]"#), Some(owned(&["a", "10-b"])));
        assert_eq!(names("- a\n- 'b'\n"), Some(owned(&["a", "b"])));
        assert_eq!((names(""), names("[]")), (Some(vec![]), Some(vec![])));
        for wrong in ["a", "[a", "- a\nb", "{a: b}"] {
            assert_eq!(names(wrong), None, "{wrong}");
        }
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }
}
