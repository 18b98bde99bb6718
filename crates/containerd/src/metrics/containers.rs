//! The families of containers, `container_*`: every shim is asked at once, each within its limit, so that one that hangs
//! only leaves out its own numbers.
//!
//! A shim says by the type of its answer whether it measured on cgroup v1 or v2. One that cannot measure is left out.

use std::time::Duration;

use api::any;
use api::cgroups::{v1, v2};
use prost::Name;
use tracing::{error, warn};
use types::{Any, Class, Namespace};

use super::text::{Kind, Page};
use super::{cgroup1, cgroup2};
use crate::services::House;

/// Takes one labelled number.
pub type Emit<'a> = &'a mut dyn FnMut(&[(&str, &str)], u64);

/// How a family's numbers are found in what a shim measured.
pub enum Numbers<M> {
    /// One, or none if the kernel does not tell.
    One(fn(&M) -> Option<u64>),
    /// Any number, labelled.
    Many(fn(&M, Emit<'_>)),
}

/// A family of containers' metrics.
pub struct Family<M> {
    /// Behind `container_`.
    pub name: &'static str,
    /// Where its numbers are.
    pub numbers: Numbers<M>,
}

/// A container and what was measured.
struct Measured<M> {
    id: String,
    namespace: Namespace,
    runtime: String,
    metrics: M,
}

/// Writes the families of all containers that can be measured within `limit`.
pub async fn write(page: &mut Page, house: &House, limit: Duration) {
    let (mut first, mut second) = (Vec::new(), Vec::<Measured<v2::Metrics>>::new());
    for Measured { id, namespace, runtime, metrics } in ask(house, limit).await {
        let read = if metrics.is(&v1::Metrics::full_name()) {
            any::unpack(&metrics).map(|metrics| first.push(Measured { id, namespace, runtime, metrics }))
        } else {
            any::unpack(&metrics).map(|metrics| second.push(Measured { id, namespace, runtime, metrics }))
        };
        if let Err(error) = read {
            warn!(%error, "read metrics of a container");
        }
    }
    families(page, cgroup1::SINGLE.iter().chain(cgroup1::MANY), &first);
    families(page, cgroup2::SINGLE.iter().chain(cgroup2::MANY), &second);
}

/// Asks all shims at once. Sorted by namespace and id, so that two pages can be compared.
async fn ask(house: &House, limit: Duration) -> Vec<Measured<Any>> {
    let namespaces = house.db.namespaces().list().unwrap_or_else(|error| {
        error!(%error, "list namespaces for metrics");
        Vec::new()
    });
    let mut asked = tokio::task::JoinSet::new();
    for (namespace, _) in namespaces {
        for id in house.runtime.list(&namespace) {
            let (house, namespace) = (house.clone(), namespace.clone());
            asked.spawn(async move { one(&house, namespace, id, limit).await });
        }
    }
    let mut measured: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
    measured.sort_by(|a, b| (&a.namespace, &a.id).cmp(&(&b.namespace, &b.id)));
    measured
}

async fn one(house: &House, namespace: Namespace, id: String, limit: Duration) -> Option<Measured<Any>> {
    let metrics = match tokio::time::timeout(limit, house.runtime.stats(&namespace, &id)).await {
        Ok(Ok(metrics)) => metrics?,
        // Gone meanwhile, or a shim that does not measure.
        Ok(Err(error)) if matches!(error.class(), Class::NotFound | Class::Unimplemented) => return None,
        Ok(Err(error)) => {
            warn!(%namespace, id, %error, "measure container");
            return None;
        }
        Err(_) => {
            warn!(%namespace, id, ?limit, "measure container: the shim does not answer");
            return None;
        }
    };
    let runtime = house.db.containers(&namespace).get(&id).map(|container| container.runtime.name);
    Some(Measured { id, namespace, runtime: runtime.unwrap_or_default(), metrics })
}

fn families<'a, M: 'static>(
    page: &mut Page,
    families: impl Iterator<Item = &'a Family<M>>,
    containers: &[Measured<M>],
) {
    for family in families {
        let name = format!("container_{}", family.name);
        // A family without numbers is not there, as by upstream.
        let mut begun = false;
        for container in containers {
            let mut emit = |more: &[(&str, &str)], value: u64| {
                if !std::mem::replace(&mut begun, true) {
                    let help = format!("{} of the container's cgroup.", family.name.replace('_', " "));
                    page.family(&name, Kind::Gauge, &help);
                }
                let mut labels = vec![
                    ("container_id", container.id.as_str()),
                    ("namespace", container.namespace.as_str()),
                    ("runtime", container.runtime.as_str()),
                ];
                labels.extend(more);
                labels.sort_unstable_by_key(|(key, _)| *key);
                page.sample(&name, &labels, value);
            };
            match family.numbers {
                Numbers::One(number) => number(&container.metrics).into_iter().for_each(|n| emit(&[], n)),
                Numbers::Many(numbers) => numbers(&container.metrics, &mut emit),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured<M>(metrics: M) -> Measured<M> {
        Measured { id: "c".to_owned(), namespace: "n".parse().unwrap(), runtime: "r".to_owned(), metrics }
    }

    #[test]
    fn cgroup_1_is_told_by_controller_and_device() {
        let entry =
            v1::BlkIoEntry { op: "Read".into(), device: "/dev/a".into(), major: 8, minor: 1, value: 5 };
        let metrics = v1::Metrics {
            pids: Some(v1::PidsStat { current: 2, limit: 0 }),
            blkio: Some(v1::BlkIoStat { io_serviced_recursive: vec![entry], ..Default::default() }),
            ..Default::default()
        };
        let mut page = Page::default();
        families(&mut page, cgroup1::SINGLE.iter().chain(cgroup1::MANY), &[measured(metrics)]);
        let text = page.finish();
        assert_eq!(text.matches("# TYPE").count(), 3, "{text}");
        assert!(
            text.contains("container_pids_current{container_id=\"c\",namespace=\"n\",runtime=\"r\"} 2\n")
        );
        assert!(text.contains(
            "container_blkio_io_serviced_recursive_total{container_id=\"c\",device=\"/dev/a\",major=\"8\",\
             minor=\"1\",namespace=\"n\",op=\"Read\",runtime=\"r\"} 5\n"
        ));
    }

    #[test]
    fn cgroup_2_has_every_family_when_everything_was_measured() {
        let metrics = v2::Metrics {
            pids: Some(v2::PidsStat::default()),
            cpu: Some(v2::CpuStat { usage_usec: 7, ..Default::default() }),
            memory: Some(v2::MemoryStat::default()),
            io: Some(v2::IoStat { usage: vec![v2::IoEntry::default()], ..Default::default() }),
            memory_events: Some(v2::MemoryEvents { oom: 3, ..Default::default() }),
            ..Default::default()
        };
        let mut page = Page::default();
        families(&mut page, cgroup2::SINGLE.iter().chain(cgroup2::MANY), &[measured(metrics)]);
        let text = page.finish();
        assert_eq!(text.matches("# TYPE").count(), cgroup2::SINGLE.len() + cgroup2::MANY.len());
        assert!(
            text.contains("container_memory_oom_total{container_id=\"c\",namespace=\"n\",runtime=\"r\"} 3\n")
        );
        assert!(text.contains(
            "container_cpu_usage_usec_microseconds{container_id=\"c\",namespace=\"n\",runtime=\"r\"} 7\n"
        ));
    }
}
