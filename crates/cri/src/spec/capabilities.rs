//! Which capabilities a container has. The inheritable ones are always empty (CVE-2022-24769), and so are the ambient ones: what
//! they mean for a user other than root is not defined in Kubernetes.

use api::cri::LinuxContainerSecurityContext;

use super::document::{Capabilities, Document};
use super::machine::Machine;

/// Adds and drops what the request says. `ALL` comes before the others: all but some, or none but some.
pub(super) fn apply(document: &mut Document, security: &LinuxContainerSecurityContext, machine: &Machine) {
    let capabilities = document.capabilities();
    if let Some(asked) = &security.capabilities {
        if has_all(&asked.add_capabilities) {
            set(capabilities, &machine.capabilities);
        }
        if has_all(&asked.drop_capabilities) {
            set(capabilities, &[]);
        }
        for name in names(&asked.add_capabilities) {
            for set in sets(capabilities) {
                if !set.contains(&name) {
                    set.push(name.clone());
                }
            }
        }
        for name in names(&asked.drop_capabilities) {
            sets(capabilities).into_iter().for_each(|set| set.retain(|had| *had != name));
        }
    }
    clear_inherited(document);
}

/// Whatever the base said: nothing is inherited.
pub(super) fn clear_inherited(document: &mut Document) {
    let capabilities = document.capabilities();
    capabilities.inheritable.clear();
    capabilities.ambient.clear();
}

/// Gives exactly these.
pub(super) fn set(capabilities: &mut Capabilities, names: &[String]) {
    sets(capabilities).into_iter().for_each(|set| *set = names.to_vec());
}

fn sets(capabilities: &mut Capabilities) -> [&mut Vec<String>; 3] {
    [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted]
}

fn has_all(names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case("ALL"))
}

/// The kernel's names: a request leaves `CAP_` out.
fn names(names: &[String]) -> impl Iterator<Item = String> {
    let names = names.iter().filter(|name| !name.eq_ignore_ascii_case("ALL"));
    names.map(|name| format!("CAP_{}", name.to_uppercase()))
}

#[cfg(test)]
mod tests {
    use api::cri::Capability;

    use super::*;

    fn given(add: &[&str], drop: &[&str]) -> Capabilities {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let mut document = Document::default();
        set(document.capabilities(), &texts(&["CAP_CHOWN", "CAP_KILL"]));
        document.capabilities().inheritable = texts(&["CAP_KILL"]);
        document.capabilities().ambient = texts(&["CAP_KILL"]);
        let capabilities = Capability {
            add_capabilities: texts(add),
            drop_capabilities: texts(drop),
            add_ambient_capabilities: texts(&["CHOWN"]),
        };
        let security =
            LinuxContainerSecurityContext { capabilities: Some(capabilities), ..Default::default() };
        let machine = Machine {
            capabilities: texts(&["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"]),
            ..Machine::default()
        };
        apply(&mut document, &security, &machine);
        let capabilities = document.process.capabilities.unwrap();
        assert_eq!(capabilities.bounding, capabilities.effective);
        assert_eq!(capabilities.bounding, capabilities.permitted);
        capabilities
    }

    #[test]
    fn all_comes_first_and_dropping_wins() {
        for (add, drop, expected) in [
            (&["SYS_TIME", "CHOWN"][..], &["KILL"][..], &["CAP_CHOWN", "CAP_SYS_TIME"][..]),
            (&["all"], &["chown"], &["CAP_KILL", "CAP_SYS_ADMIN"]),
            (&["chown"], &["ALL"], &["CAP_CHOWN"]),
            (&["ALL"], &["ALL"], &[]),
            (&["SYS_TIME"], &["SYS_TIME"], &["CAP_CHOWN", "CAP_KILL"]),
        ] {
            assert_eq!(given(add, drop).bounding, expected, "{add:?} {drop:?}");
        }
    }

    #[test]
    fn nothing_is_inherited_or_ambient() {
        let capabilities = given(&["ALL"], &[]);
        assert!(capabilities.inheritable.is_empty() && capabilities.ambient.is_empty());
    }
}
