//! `containerd.services.mounts.v1.Mounts`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use ::mounts::{Activate, Activation, Active, Manager};
use api::containerd::services::mounts::v1 as wire;
use api::containerd::types::{ActivationInfo, ActiveMount};
use api::convert;
use async_trait::async_trait;
use futures_util::Stream;
use grpc::mounts::mounts_server;
use metadata::{Collectible, Item};
use tonic::{Request, Response, Status};
use types::Namespace;
use types::filters::{Fields, Filters, label};

use super::reply::{namespace, reply, required, scope};
use crate::work::{Change, Work};

/// Mounts that the daemon keeps.
pub struct Mounts {
    /// Who keeps them.
    pub manager: Manager,
    /// Changes under way.
    pub work: Work,
}

fn to_wire(activation: Activation) -> Option<ActivationInfo> {
    let active = |active: Active| ActiveMount {
        mount: Some(convert::mount_to_wire(active.mount)),
        mounted_at: convert::timestamp(active.mounted_at),
        mount_point: active.mount_point,
        data: Default::default(),
    };
    Some(ActivationInfo {
        name: activation.name,
        active: activation.active.into_iter().map(active).collect(),
        system: activation.system.into_iter().map(convert::mount_to_wire).collect(),
        labels: activation.labels,
    })
}

struct Filterable<'a>(&'a Activation);

impl Fields for Filterable<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.first()?.as_str() {
            "name" => Some(Cow::Borrowed(&self.0.name)),
            "labels" => label(&self.0.labels, &path[1..]),
            _ => None,
        }
    }
}

#[tonic::async_trait]
impl mounts_server::Mounts for Mounts {
    async fn activate(
        &self,
        request: Request<wire::ActivateRequest>,
    ) -> Result<Response<wire::ActivateResponse>, Status> {
        let scope = scope(request.metadata())?;
        let wire::ActivateRequest { name, mounts, labels, temporary } = request.into_inner();
        let mounts = mounts.into_iter().map(convert::mount).collect();
        let manager = self.manager.clone();
        let change = Change::new("activate mounts", &scope.namespace, name.as_str());
        let activate = Activate { name, mounts, labels, temporary, allowed: Vec::new() };
        let activated = self.work.run(change, async move { manager.activate(&scope, activate).await });
        Ok(Response::new(wire::ActivateResponse { info: to_wire(activated.await?) }))
    }

    async fn deactivate(&self, request: Request<wire::DeactivateRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(request.metadata())?;
        let name = request.into_inner().name;
        let manager = self.manager.clone();
        let change = Change::new("deactivate mounts", &namespace, name.as_str());
        let gone = self.work.run(change, async move { manager.deactivate(&namespace, &name).await });
        gone.await.map(Response::new)
    }

    async fn info(
        &self,
        request: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let found = reply(self.manager.info(&namespace, &request.into_inner().name))?;
        Ok(Response::new(wire::InfoResponse { info: to_wire(found) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::UpdateRequest { info, update_mask } = request.into_inner();
        let ActivationInfo { name, labels, .. } = required(info, "info")?;
        let fields = convert::field_paths(update_mask);
        let manager = self.manager.clone();
        let change = Change::new("update mounts", &namespace, name.as_str());
        let updated =
            self.work.run(change, async move { manager.update(&namespace, &name, labels, &fields).await });
        Ok(Response::new(wire::UpdateResponse { info: to_wire(updated.await?) }))
    }

    type ListStream = Pin<Box<dyn Stream<Item = Result<wire::ListMessage, Status>> + Send>>;

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let namespace = namespace(request.metadata())?;
        let filters = reply(Filters::parse(&request.into_inner().filters))?;
        let mut found = self.manager.list(&namespace);
        found.retain(|activation| filters.matches(&Filterable(activation)));
        let messages =
            found.into_iter().map(|activation| Ok(wire::ListMessage { info: to_wire(activation) }));
        Ok(Response::new(Box::pin(futures_util::stream::iter(messages))))
    }
}

/// The activations, for the garbage collector: what no lease and no back reference keeps is taken back.
pub struct Kept {
    manager: Manager,
    /// Which activations the names of the last collection meant: a name may be taken again while it goes on.
    offered: Mutex<BTreeMap<(Namespace, String), u64>>,
}

impl Kept {
    /// Those of `manager`.
    pub fn new(manager: Manager) -> Self {
        Self { manager, offered: Mutex::default() }
    }
}

#[async_trait]
impl Collectible for Kept {
    fn kind(&self) -> &'static str {
        "mount"
    }

    async fn items(&self) -> Vec<Item> {
        let mut items = Vec::new();
        let mut offered = BTreeMap::new();
        for held in self.manager.held() {
            let Ok(namespace) = held.namespace.parse::<Namespace>() else { continue };
            offered.insert((namespace.clone(), held.name.clone()), held.id);
            items.push(Item {
                namespace,
                id: held.name,
                active: false,
                lease: held.lease,
                labels: held.labels,
            });
        }
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = offered;
        items
    }

    async fn release(&self, dead: Vec<(Namespace, String)>) {
        let ids: Vec<u64> = {
            let offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
            dead.iter().filter_map(|key| offered.get(key).copied()).collect()
        };
        // Not only when something is dead: what was busy the last time is tried again.
        if let Err(error) = self.manager.collect(&ids).await {
            tracing::warn!(%error, "mounts that nothing keeps stay for now");
        }
    }
}
