//! `containerd.services.sandbox.v1.Store`: sandbox records. Who makes and ends sandboxes is another service.

use api::containerd::services::sandbox::v1 as wire;
use api::convert;
use grpc::sandbox::store_server;
use tonic::{Request, Response, Status};
use types::fields::FieldPaths;

use super::House;
use super::reply::{filters, namespace, read, reply, required};
use crate::work::Change;

/// Sandbox records.
pub struct Sandboxes(pub House);

#[tonic::async_trait]
impl store_server::Store for Sandboxes {
    async fn create(
        &self,
        request: Request<wire::StoreCreateRequest>,
    ) -> Result<Response<wire::StoreCreateResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let sandbox = convert::sandbox(required(request.into_inner().sandbox, "sandbox")?);
        let house = self.0.clone();
        let change = Change::new("create sandbox", &namespace, sandbox.id.as_str());
        let created = self.0.work.run(change, async move {
            house.db.sandboxes(&namespace).create(sandbox).await.map(convert::sandbox_to_wire)
        });
        Ok(Response::new(wire::StoreCreateResponse { sandbox: Some(created.await?) }))
    }

    async fn update(
        &self,
        request: Request<wire::StoreUpdateRequest>,
    ) -> Result<Response<wire::StoreUpdateResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = request.into_inner();
        let sandbox = convert::sandbox(required(request.sandbox, "sandbox")?);
        let fields = FieldPaths(request.fields);
        let house = self.0.clone();
        let change = Change::new("update sandbox", &namespace, sandbox.id.as_str());
        let updated = self.0.work.run(change, async move {
            house.db.sandboxes(&namespace).update(sandbox, &fields).await.map(convert::sandbox_to_wire)
        });
        Ok(Response::new(wire::StoreUpdateResponse { sandbox: Some(updated.await?) }))
    }

    async fn delete(
        &self,
        request: Request<wire::StoreDeleteRequest>,
    ) -> Result<Response<wire::StoreDeleteResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let id = request.into_inner().sandbox_id;
        let house = self.0.clone();
        let change = Change::new("delete sandbox", &namespace, id.as_str());
        let deleted =
            self.0.work.run(change, async move { house.db.sandboxes(&namespace).delete(&id).await });
        deleted.await.map(|()| Response::new(wire::StoreDeleteResponse {}))
    }

    async fn list(
        &self,
        request: Request<wire::StoreListRequest>,
    ) -> Result<Response<wire::StoreListResponse>, Status> {
        let sandboxes = self.0.db.sandboxes(&namespace(request.metadata())?);
        let filters = filters(&request.into_inner().filters)?;
        let found = read(move || sandboxes.list(&filters)).await?;
        let list = found.into_iter().map(convert::sandbox_to_wire).collect();
        Ok(Response::new(wire::StoreListResponse { list }))
    }

    async fn get(
        &self,
        request: Request<wire::StoreGetRequest>,
    ) -> Result<Response<wire::StoreGetResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let sandbox = reply(self.0.db.sandboxes(&namespace).get(&request.into_inner().sandbox_id))?;
        Ok(Response::new(wire::StoreGetResponse { sandbox: Some(convert::sandbox_to_wire(sandbox)) }))
    }
}
