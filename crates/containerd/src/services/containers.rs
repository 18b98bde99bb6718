//! `containerd.services.containers.v1.Containers`.

use std::ops::ControlFlow;
use std::pin::Pin;

use api::containerd::events::{ContainerCreate, ContainerDelete, ContainerUpdate, container_create};
use api::containerd::services::containers::v1 as wire;
use api::encode::{Encoded, listed_container};
use api::{any, convert};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt, stream};
use grpc::lists::containers_server;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};
use types::container::Container;
use types::filters::Filters;

use super::House;
use super::reply::{filters, namespace, read, reply, required};
use crate::work::Change;

/// Container records.
pub struct Containers(pub House);

/// What subscribers are told about a changed record.
pub fn updated(container: &Container) -> ContainerUpdate {
    ContainerUpdate {
        id: container.id.clone(),
        image: container.image.clone(),
        labels: container.labels.clone(),
        snapshot_key: container.snapshot_key.clone(),
    }
}

impl Containers {
    fn pages<T>(&self, request: Request<T>, texts: &[String]) -> Result<Pages, Status> {
        let containers = self.0.db.containers(&namespace(request.metadata())?);
        Ok(Pages { containers, filters: filters(texts)?, after: String::new() })
    }
}

/// Bytes of a list that are read at a time. What is read ahead for a client that does not listen is no more than two of
/// these.
const PAGE: usize = 256 << 10;

/// What is left of a list.
struct Pages {
    containers: metadata::Containers,
    filters: Filters,
    /// The last one that was read.
    after: String,
}

/// Some of it: each container is a message.
struct Page {
    bytes: Bytes,
    /// Where each message ends.
    ends: Vec<usize>,
}

impl Pages {
    /// The next page, and what is left if there may be more.
    fn next(mut self, limit: usize) -> types::Result<(Page, Option<Self>)> {
        let (mut bytes, mut ends) = (Vec::with_capacity(limit.min(PAGE)), Vec::new());
        let mut last = String::new();
        self.containers.list(&self.filters, &self.after, &mut |container| {
            listed_container(container, &mut bytes);
            ends.push(bytes.len());
            if bytes.len() < limit {
                return Ok(ControlFlow::Continue(()));
            }
            last = container.id.to_owned();
            Ok(ControlFlow::Break(()))
        })?;
        let page = Page { bytes: bytes.into(), ends };
        let more = !last.is_empty();
        self.after = last;
        Ok((page, more.then_some(self)))
    }

    fn messages(self) -> impl Stream<Item = Result<Encoded, Status>> {
        let pages = stream::try_unfold(Some(self.read_ahead()), |page| async move {
            let Some(page) = page else { return Ok::<_, Status>(None) };
            let read = page.await.map_err(|_| Status::internal("the reading of a list panicked"))?;
            let (page, left) = reply(read)?;
            // The next one is read while this one is sent.
            Ok(Some((page, left.map(Self::read_ahead))))
        });
        pages.map_ok(|page| stream::iter(page.messages().map(Ok))).try_flatten()
    }

    fn read_ahead(self) -> JoinHandle<types::Result<(Page, Option<Self>)>> {
        tokio::task::spawn_blocking(move || self.next(PAGE))
    }
}

impl Page {
    fn messages(mut self) -> impl Iterator<Item = Encoded> {
        let mut begin = 0;
        self.ends.into_iter().map(move |end| {
            let length = end - std::mem::replace(&mut begin, end);
            Encoded(self.bytes.split_to(length))
        })
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
    ) -> Result<Response<Encoded>, Status> {
        let filters = std::mem::take(&mut request.get_mut().filters);
        let pages = self.pages(request, &filters)?;
        let (all, _) = read(move || pages.next(usize::MAX)).await?;
        Ok(Response::new(Encoded(all.bytes)))
    }

    type ListStreamStream = Pin<Box<dyn Stream<Item = Result<Encoded, Status>> + Send>>;

    async fn list_stream(
        &self,
        mut request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let filters = std::mem::take(&mut request.get_mut().filters);
        Ok(Response::new(Box::pin(self.pages(request, &filters)?.messages())))
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
            house.announce(&namespace, "/containers/update", &self::updated(&updated));
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
