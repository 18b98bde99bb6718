//! `containerd.services.leases.v1.Leases`.

use api::containerd::services::leases::v1 as wire;
use api::convert;
use grpc::leases::leases_server;
use tonic::{Request, Response, Status};

use super::House;
use super::reply::{filters, namespace, reply, required};
use crate::work::Change;

/// Leases and what they hold.
pub struct Leases(pub House);

#[tonic::async_trait]
impl leases_server::Leases for Leases {
    async fn create(
        &self,
        request: Request<wire::CreateRequest>,
    ) -> Result<Response<wire::CreateResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::CreateRequest { id, labels } = request.into_inner();
        let house = self.0.clone();
        let change = Change::new("create lease", &namespace, id.as_str());
        let lease = self.0.work.run(change, async move {
            let id = (!id.is_empty()).then_some(id);
            house.db.leases(&namespace).create(id, labels).await
        });
        Ok(Response::new(wire::CreateResponse { lease: Some(convert::lease_to_wire(lease.await?)) }))
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::DeleteRequest { id, sync } = request.into_inner();
        let house = self.0.clone();
        let change = Change::new("delete lease", &namespace, id.as_str());
        let deleted = self.0.work.run(change, async move {
            house.db.leases(&namespace).delete(&id).await?;
            if sync { house.gc.collect().await } else { Ok(()) }
        });
        deleted.await.map(|_| Response::new(()))
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let filters = filters(&request.into_inner().filters)?;
        let mut leases = Vec::new();
        reply(self.0.db.leases(&namespace).list(&filters, &mut |lease| {
            leases.push(convert::lease_to_wire(lease));
            Ok(())
        }))?;
        Ok(Response::new(wire::ListResponse { leases }))
    }

    async fn add_resource(&self, request: Request<wire::AddResourceRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::AddResourceRequest { id, resource } = request.into_inner();
        let resource = convert::resource(required(resource, "resource")?);
        let house = self.0.clone();
        let change = Change::new("add resource to lease", &namespace, id.as_str());
        let added = self
            .0
            .work
            .run(change, async move { house.db.leases(&namespace).add_resource(&id, resource).await });
        added.await.map(|_| Response::new(()))
    }

    async fn delete_resource(
        &self,
        request: Request<wire::DeleteResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::DeleteResourceRequest { id, resource } = request.into_inner();
        let resource = convert::resource(required(resource, "resource")?);
        let house = self.0.clone();
        let change = Change::new("delete resource from lease", &namespace, id.as_str());
        let deleted = self
            .0
            .work
            .run(change, async move { house.db.leases(&namespace).delete_resource(&id, &resource).await });
        deleted.await.map(|_| Response::new(()))
    }

    async fn list_resources(
        &self,
        request: Request<wire::ListResourcesRequest>,
    ) -> Result<Response<wire::ListResourcesResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let resources = reply(self.0.db.leases(&namespace).list_resources(&request.into_inner().id))?;
        let resources = resources.into_iter().map(convert::resource_to_wire).collect();
        Ok(Response::new(wire::ListResourcesResponse { resources }))
    }
}
