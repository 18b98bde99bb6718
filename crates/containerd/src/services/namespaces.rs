//! `containerd.services.namespaces.v1.Namespaces`.

use api::containerd::events::{NamespaceCreate, NamespaceDelete, NamespaceUpdate};
use api::containerd::services::namespaces::v1 as wire;
use api::convert;
use grpc::namespaces::namespaces_server;
use tonic::{Request, Response, Status};
use types::namespace::validate_identifier;
use types::{Error, Labels, Namespace};

use super::House;
use super::reply::{reply, required};
use crate::work::Change;

/// Namespaces and their labels.
pub struct Namespaces(pub House);

fn to_wire(name: &Namespace, labels: Labels) -> Option<wire::Namespace> {
    Some(wire::Namespace { name: name.to_string(), labels })
}

#[tonic::async_trait]
impl namespaces_server::Namespaces for Namespaces {
    async fn get(
        &self,
        request: Request<wire::GetNamespaceRequest>,
    ) -> Result<Response<wire::GetNamespaceResponse>, Status> {
        let name = reply(request.into_inner().name.parse())?;
        let labels = reply(self.0.db.namespaces().get(&name))?;
        Ok(Response::new(wire::GetNamespaceResponse { namespace: to_wire(&name, labels) }))
    }

    async fn list(
        &self,
        _: Request<wire::ListNamespacesRequest>,
    ) -> Result<Response<wire::ListNamespacesResponse>, Status> {
        let all = reply(self.0.db.namespaces().list())?;
        let namespaces = all.into_iter().filter_map(|(name, labels)| to_wire(&name, labels)).collect();
        Ok(Response::new(wire::ListNamespacesResponse { namespaces }))
    }

    async fn create(
        &self,
        request: Request<wire::CreateNamespaceRequest>,
    ) -> Result<Response<wire::CreateNamespaceResponse>, Status> {
        let wanted = required(request.into_inner().namespace, "namespace")?;
        reply(validate_identifier(&wanted.name))?;
        let name: Namespace = reply(wanted.name.parse())?;
        let (house, labels) = (self.0.clone(), wanted.labels);
        let change = Change::new("create namespace", &name, name.as_str());
        let namespace = self.0.work.run(change, async move {
            house.db.namespaces().create(&name, labels.clone()).await?;
            let event = NamespaceCreate { name: name.to_string(), labels: labels.clone() };
            house.announce(&name, "/namespaces/create", &event);
            Ok(to_wire(&name, labels))
        });
        Ok(Response::new(wire::CreateNamespaceResponse { namespace: namespace.await? }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateNamespaceRequest>,
    ) -> Result<Response<wire::UpdateNamespaceResponse>, Status> {
        let request = request.into_inner();
        let wanted = required(request.namespace, "namespace")?;
        let name: Namespace = reply(wanted.name.parse())?;
        let fields = convert::field_paths(request.update_mask);
        let house = self.0.clone();
        let change = Change::new("update namespace", &name, name.as_str());
        let namespace = self.0.work.run(change, async move {
            let labels = house.db.namespaces().update(&name, wanted.labels, &fields).await?;
            let event = NamespaceUpdate { name: name.to_string(), labels: labels.clone() };
            house.announce(&name, "/namespaces/update", &event);
            Ok(to_wire(&name, labels))
        });
        Ok(Response::new(wire::UpdateNamespaceResponse { namespace: namespace.await? }))
    }

    async fn delete(&self, request: Request<wire::DeleteNamespaceRequest>) -> Result<Response<()>, Status> {
        let name = request.into_inner().name;
        // What no namespace can be called is not there; clients take that for done.
        let not_found = |_| Error::not_found(format!("namespace {name:?}: not found"));
        let name: Namespace = reply(name.parse().map_err(not_found))?;
        let house = self.0.clone();
        let change = Change::new("delete namespace", &name, name.as_str());
        let deleted = self.0.work.run(change, async move {
            house.db.namespaces().delete(&name).await?;
            house.announce(&name, "/namespaces/delete", &NamespaceDelete { name: name.to_string() });
            Ok(())
        });
        deleted.await.map(Response::new)
    }
}
