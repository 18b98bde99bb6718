//! Resource usage of many tasks at once.

use std::borrow::Cow;
use std::time::SystemTime;

use types::filters::{Fields, Filters};
use types::{Any, Class, Error, Namespace, Result};

use crate::Tasks;

/// What a shim measured.
#[derive(Clone, Debug)]
pub struct Metric {
    /// The container.
    pub id: String,
    /// When it was asked.
    pub at: SystemTime,
    /// The shim's numbers.
    pub data: Option<Any>,
}

struct TaskFields<'a> {
    id: &'a str,
    namespace: &'a Namespace,
}

impl Fields for TaskFields<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.first()?.as_str() {
            "id" => Some(Cow::Borrowed(self.id)),
            "namespace" => Some(Cow::Borrowed(self.namespace.as_str())),
            _ => None,
        }
    }
}

impl Tasks {
    /// The metrics of the tasks that match (`id`, `namespace`). A shim that fails is left out and logged; if none of
    /// them can measure, that is the error.
    pub async fn metrics(&self, namespace: &Namespace, filters: &Filters) -> Result<Vec<Metric>> {
        let mut asked = tokio::task::JoinSet::new();
        for id in self.runtime.list(namespace) {
            if filters.matches(&TaskFields { id: &id, namespace }) {
                let (runtime, namespace) = (self.runtime.clone(), namespace.clone());
                asked.spawn(async move {
                    let at = SystemTime::now();
                    let data = runtime.stats(&namespace, &id).await;
                    (id, at, data)
                });
            }
        }
        let mut metrics = Vec::with_capacity(asked.len());
        let mut unimplemented = None;
        while let Some(answered) = asked.join_next().await {
            match answered.map_err(|e| Error::internal(format!("collect metrics: {e}")))? {
                (id, at, Ok(data)) => metrics.push(Metric { id, at, data }),
                (_, _, Err(error)) if error.is_not_found() => {}
                (_, _, Err(error)) if error.class() == Class::Unimplemented => unimplemented = Some(error),
                (id, _, Err(error)) => tracing::error!(%namespace, id, %error, "collect metrics"),
            }
        }
        metrics.sort_by(|a, b| a.id.cmp(&b.id));
        match unimplemented {
            Some(error) if metrics.is_empty() => Err(error),
            _ => Ok(metrics),
        }
    }
}
