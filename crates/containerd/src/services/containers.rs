//! `containerd.services.containers.v1.Containers`.

use std::pin::Pin;

use api::containerd::events::{ContainerCreate, ContainerDelete, ContainerUpdate, container_create};
use api::containerd::services::containers::v1 as wire;
use api::{any, convert};
use futures_util::Stream;
use grpc::containers::containers_server;
use tonic::{Request, Response, Status};

use super::House;
use super::reply::{filters, namespace, reply, required};
use crate::work::Change;

/// Container records.
pub struct Containers(pub House);

impl Containers {
    fn all<T>(&self, request: Request<T>, texts: &[String]) -> Result<Vec<wire::Container>, Status> {
        let namespace = namespace(request.metadata())?;
        let filters = filters(texts)?;
        let mut found = Vec::new();
        reply(self.0.db.containers(&namespace).list(&filters, &mut |container| {
            found.push(convert::container_to_wire(container));
            Ok(())
        }))?;
        Ok(found)
    }
}

#[tonic::async_trait]
impl containers_server::Containers for Containers {
    async fn get(
        &self,
        request: Request<wire::GetContainerRequest>,
    ) -> Result<Response<wire::GetContainerResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let container = reply(self.0.db.containers(&namespace).get(&request.into_inner().id))?;
        Ok(Response::new(wire::GetContainerResponse {
            container: Some(convert::container_to_wire(container)),
        }))
    }

    async fn list(
        &self,
        mut request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<wire::ListContainersResponse>, Status> {
        let filters = std::mem::take(&mut request.get_mut().filters);
        Ok(Response::new(wire::ListContainersResponse { containers: self.all(request, &filters)? }))
    }

    type ListStreamStream = Pin<Box<dyn Stream<Item = Result<wire::ListContainerMessage, Status>> + Send>>;

    async fn list_stream(
        &self,
        mut request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let filters = std::mem::take(&mut request.get_mut().filters);
        let all = self.all(request, &filters)?;
        let messages =
            all.into_iter().map(|container| Ok(wire::ListContainerMessage { container: Some(container) }));
        Ok(Response::new(Box::pin(futures_util::stream::iter(messages))))
    }

    async fn create(
        &self,
        request: Request<wire::CreateContainerRequest>,
    ) -> Result<Response<wire::CreateContainerResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let container = convert::container(required(request.into_inner().container, "container")?);
        let house = self.0.clone();
        let change = Change::new("create container", &namespace, container.id.as_str());
        let created = self.0.work.run(change, async move {
            let created = house.db.containers(&namespace).create(container).await?;
            let event = ContainerCreate {
                id: created.id.clone(),
                image: created.image.clone(),
                runtime: Some(container_create::Runtime {
                    name: created.runtime.name.clone(),
                    options: created.runtime.options.clone().map(any::to_wire),
                }),
            };
            house.announce(&namespace, "/containers/create", &event);
            Ok(convert::container_to_wire(created))
        });
        Ok(Response::new(wire::CreateContainerResponse { container: Some(created.await?) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateContainerRequest>,
    ) -> Result<Response<wire::UpdateContainerResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = request.into_inner();
        let container = convert::container(required(request.container, "container")?);
        if container.id.is_empty() {
            return Err(Status::invalid_argument("Container.ID required"));
        }
        let fields = convert::field_paths(request.update_mask);
        let house = self.0.clone();
        let change = Change::new("update container", &namespace, container.id.as_str());
        let updated = self.0.work.run(change, async move {
            let updated = house.db.containers(&namespace).update(container, &fields).await?;
            let event = ContainerUpdate {
                id: updated.id.clone(),
                image: updated.image.clone(),
                labels: updated.labels.clone(),
                snapshot_key: updated.snapshot_key.clone(),
            };
            house.announce(&namespace, "/containers/update", &event);
            Ok(convert::container_to_wire(updated))
        });
        Ok(Response::new(wire::UpdateContainerResponse { container: Some(updated.await?) }))
    }

    async fn delete(&self, request: Request<wire::DeleteContainerRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(request.metadata())?;
        let id = request.into_inner().id;
        let house = self.0.clone();
        let change = Change::new("delete container", &namespace, id.as_str());
        let deleted = self.0.work.run(change, async move {
            house.db.containers(&namespace).delete(&id).await?;
            house.announce(&namespace, "/containers/delete", &ContainerDelete { id });
            Ok(())
        });
        deleted.await.map(Response::new)
    }
}
