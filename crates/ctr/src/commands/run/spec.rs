//! From flags, an image's config and its files of users to a runtime spec.
//!
//! The flags are checked first ([`Changes::parse`]), before anything is created, and applied in upstream's order
//! ([`Changes::spec`]), on which the result depends: the image first, then what overrides it.

use std::path::Path;

use sys::mount::View;
use types::oci::ImageConfig;
use types::oci::image::ConfigSection;
use types::oci::spec::{self, IdMapping, Mount, Namespace, Rlimit, Seccomp, Spec};
use types::oci::users;
use types::platform::Platform;
use types::{Error, Labels, Result};

use super::flags::{ContainerFlags, RunOnlyFlags, Source, Wanted};
use super::words;
use crate::{flags, go};

/// Where an image has no variables.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Checked flags.
pub struct Changes<'a> {
    wanted: &'a Wanted,
    platform: Platform,
    env: Vec<String>,
    mounts: Vec<Mount>,
    /// Of the user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Of the user namespace.
    pub gid_mappings: Vec<IdMapping>,
    annotations: Labels,
    namespaces: Vec<Namespace>,
    seccomp: Filter,
    nofile: Option<Rlimit>,
    host_name: Option<String>,
}

enum Filter {
    None,
    Default,
    Profile(Box<Seccomp>),
}

impl<'a> Changes<'a> {
    /// Checks what is wanted, without a look at image or daemon.
    pub fn parse(wanted: &'a Wanted) -> Result<Self> {
        let (flags, run) = (&wanted.flags, &wanted.run);
        refuse_contradictions(flags, run)?;
        let mut env = if flags.env_file.is_empty() { Vec::new() } else { env_file(&flags.env_file)? };
        env = spec::merge_env(&[], &env);
        env = spec::merge_env(&env, &flags.env);
        Ok(Self {
            wanted,
            platform: match run.platform.as_str() {
                "" => Platform::host(),
                text => text.parse()?,
            },
            env,
            mounts: flags.mount.iter().map(|text| words::mount(text)).collect::<Result<_>>()?,
            uid_mappings: run.uidmap.iter().map(|text| words::id_mapping(text)).collect::<Result<_>>()?,
            gid_mappings: run.gidmap.iter().map(|text| words::id_mapping(text)).collect::<Result<_>>()?,
            annotations: flags::annotations(&flags.annotation)?,
            namespaces: flags.with_ns.iter().map(|text| words::namespace(text)).collect::<Result<_>>()?,
            seccomp: filter(flags)?,
            nofile: Some(run.rlimit_nofile.as_str())
                .filter(|text| !text.is_empty())
                .map(words::nofile)
                .transpose()?,
            host_name: flags.net_host.then(host_name).transpose()?,
        })
    }

    /// Whether the container gets a user namespace.
    pub fn remapped(&self) -> bool {
        !self.uid_mappings.is_empty() && !self.gid_mappings.is_empty()
    }

    /// The platform asked for, if one was.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The spec of a container from an image, or from the directory of `--rootfs`.
    pub fn spec(
        &self,
        namespace: &types::Namespace,
        image: Option<&ImageConfig>,
        view: Option<&View>,
    ) -> Result<Spec> {
        let flags = &self.wanted.flags;
        let mut spec = Spec::default_for(&self.platform, namespace, &self.wanted.id);
        spec.allow_default_devices();
        spec.env(&self.env);
        spec.replace_mounts(self.mounts.clone());
        if let Source::RootFs(path) = &self.wanted.source {
            let path = std::path::absolute(path).map_err(|e| go::path_error("abs", path, e))?;
            spec.root().path = path.display().to_string();
        }
        if let (Some(image), Some(view)) = (image, view) {
            from_image(&mut spec, &image.config, view)?;
        }
        if self.remapped() {
            spec.user_namespace(&self.uid_mappings, &self.gid_mappings);
        }
        if !self.wanted.command.is_empty() {
            spec.process().args.clone_from(&self.wanted.command);
        }
        if !flags.cwd.is_empty() {
            spec.process().cwd.clone_from(&flags.cwd);
        }
        if !flags.user.is_empty() {
            let view =
                view.ok_or_else(|| Error::internal("there is no root filesystem to look the user up in"))?;
            set_user(&mut spec, &flags.user, view)?;
            add_groups(&mut spec, &flags.user, view)?;
        }
        self.privileges(&mut spec)?;
        self.limits(&mut spec)?;
        self.surroundings(&mut spec);
        Ok(spec)
    }

    /// Terminal, capabilities, devices of a privileged container, the host's network, filters.
    fn privileges(&self, spec: &mut Spec) -> Result<()> {
        let (flags, run) = (&self.wanted.flags, &self.wanted.run);
        if flags.tty {
            spec.terminal();
        }
        if flags.privileged {
            spec.privileged(own_capabilities()?);
            if !run.privileged_without_host_devices {
                spec.allow_all_devices();
                spec.linux().devices.extend(sys::devices::below(Path::new("/dev"))?);
            }
        }
        if let Some(name) = &self.host_name {
            spec.host_namespace("network");
            spec.bind_host_file("/etc/hosts");
            spec.bind_host_file("/etc/resolv.conf");
            spec.env(&[format!("HOSTNAME={name}")]);
        }
        spec.annotations.extend(self.annotations.clone());
        spec.add_capabilities(words::capabilities(&flags.cap_add)?);
        spec.drop_capabilities(words::capabilities(&flags.cap_drop)?);
        match &self.seccomp {
            Filter::None => {}
            Filter::Default => spec.default_seccomp(),
            Filter::Profile(profile) => spec.linux().seccomp = Some((**profile).clone()),
        }
        for profile in [&flags.apparmor_default_profile, &flags.apparmor_profile] {
            if !profile.is_empty() {
                spec.process().apparmor_profile.clone_from(profile);
            }
        }
        Ok(())
    }

    /// Processors, memory, devices.
    fn limits(&self, spec: &mut Spec) -> Result<()> {
        let (flags, run) = (&self.wanted.flags, &self.wanted.run);
        if run.cpus > 0.0 {
            #[expect(clippy::cast_possible_truncation, reason = "as Go converts; it saturates")]
            let quota = (run.cpus * 100_000.0) as i64;
            (spec.cpu().quota, spec.cpu().period) = (Some(quota), Some(100_000));
        }
        if !run.cpuset_cpus.is_empty() {
            spec.cpu().cpus.clone_from(&run.cpuset_cpus);
        }
        if !run.cpuset_mems.is_empty() {
            spec.cpu().mems.clone_from(&run.cpuset_mems);
        }
        if run.cpu_shares > 0 {
            spec.cpu().shares = Some(run.cpu_shares.unsigned_abs());
        }
        if flags.cpu_quota != -1 || flags.cpu_period != 0 {
            (spec.cpu().quota, spec.cpu().period) = (Some(flags.cpu_quota), Some(flags.cpu_period));
        }
        if run.cpu_burst != 0 {
            spec.cpu().burst = Some(run.cpu_burst);
        }
        if flags.memory_limit != 0 {
            spec.memory_limit(flags.memory_limit.cast_signed());
        }
        for path in &flags.device {
            for device in sys::devices::below(Path::new(path))? {
                spec.device(device);
            }
        }
        if let Some(limit) = &self.nofile {
            spec.rlimit(limit.clone());
        }
        Ok(())
    }

    /// Namespaces, cgroup, names.
    fn surroundings(&self, spec: &mut Spec) {
        let (flags, run) = (&self.wanted.flags, &self.wanted.run);
        if flags.read_only {
            spec.root().readonly = true;
        }
        for namespace in &self.namespaces {
            spec.namespace(namespace.clone());
        }
        if flags.allow_new_privs {
            spec.process().no_new_privileges = false;
        }
        if let Some(path) = &run.cgroup {
            // An empty path leaves the cgroup to the runtime.
            spec.linux().cgroups_path.clone_from(path);
        }
        if !flags.rootfs_propagation.is_empty() {
            spec.linux().rootfs_propagation.clone_from(&flags.rootfs_propagation);
        }
        if !flags.rdt_class.is_empty() {
            spec.linux().intel_rdt = Some(spec::IntelRdt { clos_id: flags.rdt_class.clone() });
        }
        if !flags.hostname.is_empty() {
            spec.hostname.clone_from(&flags.hostname);
        }
        spec.annotations.extend(flags::labels(&flags.label));
    }
}

fn refuse_contradictions(flags: &ContainerFlags, run: &RunOnlyFlags) -> Result<()> {
    if run.privileged_without_host_devices && !flags.privileged {
        return Err(Error::invalid(
            "can't use 'privileged-without-host-devices' without 'privileged' specified",
        ));
    }
    words::capabilities(&flags.cap_add)?;
    words::capabilities(&flags.cap_drop)?;
    if !flags.seccomp && !flags.seccomp_profile.is_empty() {
        return Err(Error::invalid("seccomp must be set to true, if using a custom seccomp-profile"));
    }
    if !flags.apparmor_default_profile.is_empty() {
        if !flags.apparmor_profile.is_empty() {
            return Err(Error::invalid("apparmor-profile conflicts with apparmor-default-profile"));
        }
        sys::apparmor::ensure(&flags.apparmor_default_profile)?;
    }
    if run.cpus > 0.0 && (flags.cpu_quota != -1 || flags.cpu_period != 0) {
        return Err(Error::invalid("cpus and quota/period should be used separately"));
    }
    Ok(())
}

fn filter(flags: &ContainerFlags) -> Result<Filter> {
    if !flags.seccomp {
        return Ok(Filter::None);
    }
    let path = &flags.seccomp_profile;
    if path.is_empty() {
        return Ok(Filter::Default);
    }
    let text = std::fs::read(path).map_err(|e| {
        go::path_error("open", path, e).context(format!("cannot load seccomp profile {}", go::quote(path)))
    })?;
    let profile = serde_json::from_slice(&text)
        .map_err(|e| Error::invalid(format!("decoding seccomp profile failed {}: {e}", go::quote(path))))?;
    Ok(Filter::Profile(Box::new(profile)))
}

fn env_file(path: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| go::path_error("open", path, e))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn host_name() -> Result<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { Err(Error::unknown("get hostname: it is empty")) } else { Ok(name) }
}

/// The capabilities of this process: more cannot be given on.
fn own_capabilities() -> Result<Vec<String>> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).map_err(|e| go::path_error("open", path, e))?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    Ok(spec::from_bits(mask.ok_or_else(|| Error::unknown(format!("{path} tells no capabilities")))?))
}

/// Environment, arguments, directory and user of the image.
fn from_image(spec: &mut Spec, image: &ConfigSection, view: &View) -> Result<()> {
    let process = spec.process();
    let defaults = if image.env.is_empty() { vec![DEFAULT_PATH.to_owned()] } else { image.env.clone() };
    process.env = spec::merge_env(&defaults, &process.env);
    process.args = image.entrypoint.iter().chain(&image.cmd).cloned().collect();
    process.cwd = if image.working_dir.is_empty() { "/".into() } else { image.working_dir.clone() };
    if image.user.is_empty() {
        // Root has groups too.
        return add_groups(spec, "root", view);
    }
    set_user(spec, &image.user, view)?;
    let uid = spec.process().user.uid.to_string();
    add_groups(spec, &uid, view)
}

fn set_user(spec: &mut Spec, user: &str, view: &View) -> Result<()> {
    spec.process().user = users::resolve(user, |name| view.read(name))?;
    spec.ensure_main_group();
    Ok(())
}

fn add_groups(spec: &mut Spec, user: &str, view: &View) -> Result<()> {
    spec.process().user.additional_gids = users::groups_of(user, |name| view.read(name))?;
    spec.ensure_main_group();
    Ok(())
}
