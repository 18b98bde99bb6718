//! What one does to a spec. Each method is one of upstream's spec options.

use super::defaults::RWM;
use super::document::{
    Capabilities, Cpu, Device, DeviceRule, IdMapping, Linux, Memory, Mount, Namespace, Process, Resources,
    Rlimit, Root, Spec,
};
use super::seccomp::{self, Seccomp};

/// `defaults` with the entries of `changes` replaced or added; a change without `=` removes its key.
pub fn merge_env(defaults: &[String], changes: &[String]) -> Vec<String> {
    let key = |entry: &str| entry.split_once('=').map_or(entry, |(key, _)| key).to_owned();
    let mut merged: Vec<Option<String>> = defaults.iter().cloned().map(Some).collect();
    // Where a key stands twice the last one counts, as in upstream's table.
    let at: std::collections::BTreeMap<String, usize> =
        defaults.iter().enumerate().map(|(at, entry)| (key(entry), at)).collect();
    for change in changes {
        match (at.get(&key(change)).copied(), change.contains('=')) {
            (Some(at), true) => merged[at] = Some(change.clone()),
            (Some(at), false) => merged[at] = None,
            (None, true) => merged.push(Some(change.clone())),
            (None, false) => {}
        }
    }
    merged.into_iter().flatten().filter(|entry| !entry.is_empty()).collect()
}

impl Spec {
    /// The process, made if there is none.
    pub fn process(&mut self) -> &mut Process {
        self.process.get_or_insert_default()
    }

    /// The root, made if there is none.
    pub fn root(&mut self) -> &mut Root {
        self.root.get_or_insert_default()
    }

    /// The Linux section, made if there is none.
    pub fn linux(&mut self) -> &mut Linux {
        self.linux.get_or_insert_default()
    }

    /// The limits, made if there are none.
    pub fn resources(&mut self) -> &mut Resources {
        self.linux().resources.get_or_insert_default()
    }

    /// The processor limits, made if there are none.
    pub fn cpu(&mut self) -> &mut Cpu {
        self.resources().cpu.get_or_insert_default()
    }

    fn capabilities(&mut self) -> &mut Capabilities {
        self.process().capabilities.get_or_insert_default()
    }

    /// Sets or, without `=`, removes environment variables.
    pub fn env(&mut self, changes: &[String]) {
        let process = self.process();
        process.env = merge_env(&process.env, changes);
    }

    /// Adds mounts, each in the place of what was at its destination.
    pub fn replace_mounts(&mut self, mounts: Vec<Mount>) {
        self.mounts.retain(|old| mounts.iter().all(|new| clean(&old.destination) != new.destination));
        self.mounts.extend(mounts);
    }

    /// Adds a read-only recursive bind mount of a host's file at the same path.
    pub fn bind_host_file(&mut self, path: &str) {
        self.mounts.push(Mount {
            destination: path.into(),
            kind: "bind".into(),
            source: path.into(),
            options: vec!["rbind".into(), "ro".into()],
        });
    }

    /// Uses the host's namespace of this kind.
    pub fn host_namespace(&mut self, kind: &str) {
        let namespaces = &mut self.linux().namespaces;
        if let Some(at) = namespaces.iter().position(|namespace| namespace.kind == kind) {
            namespaces.remove(at);
        }
    }

    /// Joins or makes a namespace in the place of the one of its kind.
    pub fn namespace(&mut self, new: Namespace) {
        let namespaces = &mut self.linux().namespaces;
        match namespaces.iter_mut().find(|namespace| namespace.kind == new.kind) {
            Some(namespace) => *namespace = new,
            None => namespaces.push(new),
        }
    }

    /// Adds a user namespace with these mappings.
    pub fn user_namespace(&mut self, uids: &[IdMapping], gids: &[IdMapping]) {
        let linux = self.linux();
        if linux.namespaces.iter().all(|namespace| namespace.kind != "user") {
            linux.namespaces.push(Namespace { kind: "user".into(), path: String::new() });
        }
        linux.uid_mappings.extend(uids);
        linux.gid_mappings.extend(gids);
    }

    /// Gives the process a terminal.
    pub fn terminal(&mut self) {
        let process = self.process();
        process.terminal = true;
        process.env.push("TERM=xterm".into());
    }

    /// Adds capabilities.
    pub fn add_capabilities(&mut self, names: &[String]) {
        let all = self.capabilities();
        for name in names {
            for set in [&mut all.bounding, &mut all.effective, &mut all.permitted] {
                if !set.contains(name) {
                    set.push(name.clone());
                }
            }
        }
    }

    /// Removes capabilities.
    pub fn drop_capabilities(&mut self, names: &[String]) {
        let all = self.capabilities();
        for set in [&mut all.bounding, &mut all.effective, &mut all.permitted, &mut all.inheritable] {
            set.retain(|name| !names.contains(name));
        }
    }

    /// Everything `capabilities` allow: nothing masked or read-only, no profiles.
    pub fn privileged(&mut self, capabilities: Vec<String>) {
        let all = self.capabilities();
        all.inheritable.retain(|name| capabilities.contains(name));
        all.bounding.clone_from(&capabilities);
        all.effective.clone_from(&capabilities);
        all.permitted = capabilities;
        for mount in self.mounts.iter_mut().filter(|mount| mount.kind == "sysfs" || mount.kind == "cgroup") {
            mount
                .options
                .iter_mut()
                .filter(|option| *option == "ro")
                .for_each(|option| *option = "rw".into());
        }
        let process = self.process();
        process.selinux_label.clear();
        process.apparmor_profile.clear();
        let linux = self.linux();
        linux.masked_paths.clear();
        linux.readonly_paths.clear();
        linux.seccomp = None;
    }

    /// Allows all devices.
    pub fn allow_all_devices(&mut self) {
        self.resources().devices = vec![DeviceRule { allow: true, access: RWM.into(), ..Default::default() }];
    }

    /// Adds a device and allows it.
    pub fn device(&mut self, device: Device) {
        self.resources().devices.push(DeviceRule {
            allow: true,
            kind: device.kind.clone(),
            major: Some(device.major),
            minor: Some(device.minor),
            access: RWM.into(),
        });
        self.linux().devices.push(device);
    }

    /// Limits memory, in bytes.
    pub fn memory_limit(&mut self, bytes: i64) {
        self.resources().memory = Some(Memory { limit: Some(bytes) });
    }

    /// Sets a limit in the place of the one of its kind.
    pub fn rlimit(&mut self, new: Rlimit) {
        let limits = &mut self.process().rlimits;
        match limits.iter_mut().find(|limit| limit.kind == new.kind) {
            Some(limit) => *limit = new,
            None => limits.push(new),
        }
    }

    /// Filters system calls by the default profile. It depends on the capabilities: set those first.
    pub fn default_seccomp(&mut self) {
        let profile: Seccomp = seccomp::default_profile(&self.capabilities().bounding);
        self.linux().seccomp = Some(profile);
    }

    /// Puts the main group in front of the supplementary ones, if it is not among them.
    pub fn ensure_main_group(&mut self) {
        let user = &mut self.process().user;
        if !user.additional_gids.contains(&user.gid) {
            user.additional_gids.insert(0, user.gid);
        }
    }
}

/// Go's `filepath.Clean` for absolute paths without `..`, which is what destinations are.
fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn spec() -> Spec {
        Spec::default_for(&Platform::host(), &"default".parse().unwrap(), "c")
    }

    #[test]
    fn variables_are_replaced_in_place_added_at_the_end_and_removed_without_a_value() {
        let merged = merge_env(&texts(&["A=1", "B=2", "C=3"]), &texts(&["C", "A=9", "D=4", "E"]));
        assert_eq!(merged, ["A=9", "B=2", "D=4"]);
    }

    #[test]
    fn a_mount_takes_the_place_of_what_was_there() {
        let mut spec = spec();
        let before = spec.mounts.len();
        spec.replace_mounts(vec![Mount {
            destination: "/run".into(),
            kind: "bind".into(),
            ..Default::default()
        }]);
        assert_eq!(spec.mounts.len(), before);
        assert_eq!(spec.mounts.last().map(|mount| mount.kind.as_str()), Some("bind"));
    }

    #[test]
    fn a_privileged_container_has_nothing_masked_and_a_writable_sysfs() {
        let mut spec = spec();
        spec.privileged(texts(&["CAP_SYS_ADMIN"]));
        let text = serde_json::to_string(&spec).unwrap();
        assert!(!text.contains("maskedPaths") && !text.contains("CAP_CHOWN"));
        let sys = spec.mounts.iter().find(|mount| mount.destination == "/sys").unwrap();
        assert!(sys.options.contains(&"rw".to_owned()) && !sys.options.contains(&"ro".to_owned()));
    }

    #[test]
    fn dropping_wins_over_adding_when_it_comes_later() {
        let mut spec = spec();
        spec.add_capabilities(&texts(&["CAP_SYS_TIME", "CAP_CHOWN"]));
        spec.drop_capabilities(&texts(&["CAP_SYS_TIME"]));
        let bounding = &spec.process().capabilities.clone().unwrap().bounding;
        assert_eq!(bounding.iter().filter(|name| *name == "CAP_CHOWN").count(), 1);
        assert!(!bounding.contains(&"CAP_SYS_TIME".to_owned()));
    }

    #[test]
    fn the_main_group_is_among_the_groups() {
        let mut spec = spec();
        spec.process().user.gid = 7;
        spec.process().user.additional_gids = vec![3];
        spec.ensure_main_group();
        spec.ensure_main_group();
        assert_eq!(spec.process().user.additional_gids, [7, 3]);
    }
}
