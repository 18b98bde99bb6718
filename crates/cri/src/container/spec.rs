//! A container's OCI spec: what it is made of, and what is read from it later.

use api::cri::{
    ContainerConfig, ContainerResources, ContainerState, ContainerUser, HugepageLimit,
    LinuxContainerResources, LinuxContainerUser, Mount, NamespaceOption, PodSandboxConfig,
};
use serde::Deserialize;
use serde_json::Value;
use sys::mount::View;
use types::{Any, Error, Labels, Result, ResultExt};

use crate::config::Handler;
use crate::cri::{Cri, blocking};
use crate::image::Image;
use crate::pod::Pod;
use crate::spec::{self, Files, IdMaps, Machine};

/// What a spec is made of.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The daemon's.
    pub cri: &'a Cri,
    /// The pod.
    pub pod: &'a Pod,
    /// The pod, as the request describes it.
    pub sandbox: &'a PodSandboxConfig,
    /// The pod's runtime.
    pub handler: &'a Handler,
    /// The container.
    pub id: &'a str,
    /// What the kubelet asks for.
    pub config: &'a ContainerConfig,
    /// The image.
    pub image: &'a Image,
    /// For SELinux.
    pub labels: &'a spec::Labels,
}

/// The root filesystem.
#[derive(Clone, Debug)]
pub struct Rootfs {
    /// How it is mounted.
    pub mounts: Vec<types::mount::Mount>,
    /// The image's volumes in it.
    pub volumes: Vec<Mount>,
}

/// Makes the spec. It is made on the blocking pool: files of the root filesystem are read.
pub async fn make(wanted: &Wanted<'_>, rootfs: &Rootfs) -> Result<Value> {
    let Wanted { cri, pod, sandbox, handler, id, config, image, labels } = *wanted;
    let target_pid = match namespaces(config) {
        Some(options) if options.pid() == api::cri::NamespaceMode::Target => {
            Some(target(cri, pod.id(), &options.target_id)?)
        }
        _ => None,
    };
    let recursive_read_only = recursive_read_only(wanted).await;
    let (cri, record, pod_pid) = (cri.clone(), pod.record.clone(), pod.status().pid);
    let (sandbox, handler, id) = (sandbox.clone(), handler.clone(), id.to_owned());
    let (config, image, rootfs, labels) = (config.clone(), image.clone(), rootfs.clone(), labels.clone());
    let work = move || {
        let view = View::of_mounts(&rootfs.mounts)?;
        let user = spec::user::resolve_in(&view, &image.config, &config)?;
        drop(view);
        let asked = config.image.as_ref().map(|image| image.user_specified_image.clone()).unwrap_or_default();
        let image_name = if asked.is_empty() { image_name(&image) } else { asked };
        let mut mounts = spec::of_pod(&files(&cri, &record.id), &config);
        mounts.extend(rootfs.volumes);
        spec::container(&spec::Container {
            id: &id,
            pod: &record,
            pod_config: &sandbox,
            pod_pid,
            target_pid,
            config: &config,
            image: &image.config,
            image_name: &image_name,
            handler: &handler,
            settings: &cri.config.runtime,
            mounts,
            user,
            labels: &labels,
            recursive_read_only,
            machine: Machine::here(),
        })
    };
    blocking(work).await.context(|| format!("failed to generate container {:?} spec", wanted.id))
}

/// Whether the runtime can make whole trees of mounts read-only. It is asked only if somebody wants that.
async fn recursive_read_only(wanted: &Wanted<'_>) -> bool {
    if !wanted.config.mounts.iter().any(|mount| mount.recursive_read_only) {
        return false;
    }
    let name = &wanted.pod.record.runtime_handler;
    let handlers = wanted.cri.handlers.list(wanted.cri).await;
    let features =
        handlers.into_iter().find(|handler| handler.name == *name).and_then(|handler| handler.features);
    features.is_some_and(|features| features.recursive_read_only_mounts)
}

/// What the pod has for all of its containers.
fn files(cri: &Cri, pod: &str) -> Files {
    let (root, state) = (cri.dirs.pod(pod), cri.dirs.pod_state(pod));
    let file = |name: &str| root.join(name);
    Files {
        hostname: file("hostname"),
        hosts: file("hosts"),
        resolv_conf: file("resolv.conf"),
        shm: state.join("shm"),
    }
}

/// The volumes that the image declares, unless they are to be ignored.
pub fn volumes(wanted: &Wanted<'_>) -> Vec<Mount> {
    if wanted.cri.config.runtime.ignore_image_volumes {
        return Vec::new();
    }
    let dir = wanted.cri.dirs.container(wanted.id).join("volumes");
    spec::image_volumes(&dir, &wanted.image.config, wanted.config)
}

/// Labels of the container's snapshot: the user namespace that it is for.
pub fn snapshot_labels(config: &ContainerConfig) -> Result<Labels> {
    let options = namespaces(config);
    let maps = IdMaps::parse(options.as_ref().and_then(|options| options.userns_options.as_ref()));
    let maps = maps.context(|| "user namespace configuration")?;
    Ok(maps.map(|maps| maps.snapshot_labels()).unwrap_or_default())
}

/// The namespaces that a request asks for.
pub fn namespaces(config: &ContainerConfig) -> Option<NamespaceOption> {
    let linux = config.linux.as_ref()?.security_context.as_ref()?;
    linux.namespace_options.clone()
}

/// The init of the container whose processes another one of its pod is to see.
pub fn target(cri: &Cri, pod: &str, id: &str) -> Result<u32> {
    let doing = |error: Error| error.context("invalid target container");
    let target = cri.containers.get(id).map_err(doing)?;
    if target.record.pod != pod {
        let text = format!("container {id:?} does not belong to sandbox {pod:?}");
        return Err(doing(Error::invalid(text)));
    }
    let status = target.status();
    match status.state() {
        ContainerState::ContainerRunning => Ok(status.pid),
        state => {
            let text = format!("container {id:?} is not running - in state {}", state.as_str_name());
            Err(doing(Error::precondition(text)))
        }
    }
}

/// The name by which an image is known here.
pub fn image_name(image: &Image) -> String {
    image.references.first().cloned().unwrap_or_default()
}

/// What is read from a spec.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    process: Process,
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Process {
    user: User,
    oom_score_adj: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct User {
    uid: u32,
    gid: u32,
    additional_gids: Vec<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
    resources: Option<Resources>,
    mount_label: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mapping {
    #[serde(rename = "containerID")]
    container: u32,
    #[serde(rename = "hostID")]
    host: u32,
    size: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resources {
    cpu: Cpu,
    memory: Memory,
    hugepage_limits: Vec<Hugepages>,
    unified: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cpu {
    period: i64,
    quota: i64,
    shares: i64,
    cpus: String,
    mems: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    limit: i64,
    swap: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Hugepages {
    page_size: String,
    limit: u64,
}

fn read(spec: Option<&Any>) -> Result<Spec> {
    let Some(spec) = spec else { return Ok(Spec::default()) };
    serde_json::from_slice(&spec.value).map_err(|e| Error::invalid(format!("decode spec: {e}")))
}

/// The SELinux labels of a container: those of its pod, unless it asks for others.
pub fn selinux(cri: &Cri, pod: &Pod, config: &ContainerConfig) -> Result<spec::Labels> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let asked = security.and_then(|security| security.selinux_options.as_ref());
    spec::labels(asked, &pod.record.process_label, &cri.config.runtime, Machine::here())
}

/// The SELinux label of its files, which plugins may have changed.
pub fn mount_label(spec: Option<&Any>) -> Result<String> {
    Ok(read(spec)?.linux.mount_label)
}

/// Its limits, as the kubelet is told them.
pub fn resources(spec: &Value) -> Result<ContainerResources> {
    let spec = Spec::deserialize(spec).map_err(|e| Error::invalid(format!("decode spec: {e}")))?;
    let mut linux = LinuxContainerResources {
        oom_score_adj: spec.process.oom_score_adj.unwrap_or_default(),
        ..LinuxContainerResources::default()
    };
    if let Some(resources) = spec.linux.resources {
        let Resources { cpu, memory, hugepage_limits, unified } = resources;
        (linux.cpu_period, linux.cpu_quota, linux.cpu_shares) = (cpu.period, cpu.quota, cpu.shares);
        (linux.cpuset_cpus, linux.cpuset_mems) = (cpu.cpus, cpu.mems);
        (linux.memory_limit_in_bytes, linux.memory_swap_limit_in_bytes) = (memory.limit, memory.swap);
        let hugepages = |limit: Hugepages| HugepageLimit { page_size: limit.page_size, limit: limit.limit };
        linux.hugepage_limits = hugepage_limits.into_iter().map(hugepages).collect();
        linux.unified = unified;
    }
    Ok(ContainerResources { linux: Some(linux), ..ContainerResources::default() })
}

/// Whom its processes run as.
pub fn user(spec: Option<&Any>) -> Result<ContainerUser> {
    let User { uid, gid, additional_gids } = read(spec)?.process.user;
    let linux = LinuxContainerUser {
        uid: uid.into(),
        gid: gid.into(),
        supplemental_groups: additional_gids.into_iter().map(i64::from).collect(),
    };
    Ok(ContainerUser { linux: Some(linux) })
}

/// The ids that the user of a container in a user namespace has on the host; none outside of one.
pub fn io_owner(spec: Option<&Any>) -> Result<Option<(u32, u32)>> {
    let Spec { process, linux } = read(spec)?;
    if linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty() {
        return Ok(None);
    }
    let host = |maps: &[Mapping], id: u32| {
        let mapped = maps.iter().find_map(|map| {
            let at = id.checked_sub(map.container).filter(|at| *at < map.size)?;
            map.host.checked_add(at)
        });
        mapped.ok_or_else(|| Error::invalid(format!("failed to do idmap to get host ID: {id} is not mapped")))
    };
    let uid = host(&linux.uid_mappings, process.user.uid)?;
    Ok(Some((uid, host(&linux.gid_mappings, process.user.gid)?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_told_as_the_spec_has_them() {
        let spec = json!({
            "process": {"oomScoreAdj": -7},
            "linux": {"resources": {
                "cpu": {"shares": 2, "quota": 3, "period": 4, "cpus": "0-1"},
                "memory": {"limit": 5, "swap": 6},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 8}],
                "unified": {"memory.high": "1"},
            }},
        });
        let linux = resources(&spec).unwrap().linux.unwrap();
        assert_eq!((linux.cpu_shares, linux.cpu_quota, linux.cpu_period), (2, 3, 4));
        assert_eq!((linux.memory_limit_in_bytes, linux.memory_swap_limit_in_bytes), (5, 6));
        assert_eq!((linux.cpuset_cpus.as_str(), linux.oom_score_adj), ("0-1", -7));
        assert_eq!((linux.hugepage_limits[0].limit, linux.unified.len()), (8, 1));
        let empty = resources(&json!({})).unwrap().linux.unwrap();
        assert_eq!(empty, LinuxContainerResources::default());
    }

    #[test]
    fn the_user_of_a_namespace_has_ids_of_the_host() {
        let spec = |maps: Value| {
            let user = json!({"uid": 5, "gid": 6, "additionalGids": [6, 7]});
            let spec =
                json!({"process": {"user": user}, "linux": {"uidMappings": maps, "gidMappings": maps}});
            Any::new("t", serde_json::to_vec(&spec).unwrap())
        };
        let mapped = spec(json!([{"containerID": 0, "hostID": 1000, "size": 10}]));
        assert_eq!(io_owner(Some(&mapped)).unwrap(), Some((1005, 1006)));
        assert_eq!(io_owner(Some(&spec(json!([])))).unwrap(), None);
        assert!(io_owner(Some(&spec(json!([{"containerID": 9, "hostID": 1, "size": 1}])))).is_err());
        let linux = user(Some(&mapped)).unwrap().linux.unwrap();
        assert_eq!((linux.uid, linux.gid, linux.supplemental_groups), (5, 6, vec![6, 7]));
    }
}
