//! `containerd.services.images.v1.Images`.

use api::containerd::services::images::v1 as wire;
use api::containerd::types::Descriptor;
use api::convert;
use api::encode::{Encoded, listed_image};
use grpc::lists::images_server;
use tonic::{Request, Response, Status};
use types::fields::FieldPaths;
use types::{Digest, Scope};

use super::House;
use super::reply::{filters, read, reply, required, scope};
use crate::work::Change;

/// Names for descriptors.
pub struct Images(pub House);

fn named(image: Option<wire::Image>) -> Result<types::image::Image, Status> {
    let image = required(image, "image")?;
    if image.name.is_empty() {
        return Err(Status::invalid_argument("Image.Name required"));
    }
    let target = image.target.as_ref().ok_or_else(|| invalid("image target is required"))?;
    if target.digest.parse::<Digest>().is_err() {
        return Err(invalid(&format!(
            "target.Digest {:?} invalid: invalid checksum digest format",
            target.digest
        )));
    }
    if target.size < 0 {
        return Err(invalid("target.Size must be greater than zero"));
    }
    reply(convert::image(image))
}

fn invalid(why: &str) -> Status {
    Status::invalid_argument(format!("{why}: invalid argument"))
}

/// The target that an image must have to be deleted, if any is named.
fn expected(image: &str, target: Option<Descriptor>) -> Result<Option<Digest>, Status> {
    let Some(text) = target.map(|target| target.digest).filter(|digest| !digest.is_empty()) else {
        return Ok(None);
    };
    let missing = |_| Status::not_found(format!("image {image:?} has another target than {text}: not found"));
    text.parse().map(Some).map_err(missing)
}

impl Images {
    /// The image of an update. A mask that leaves the target alone lets clients leave it out (`ctr images label` does);
    /// then it is the stored one, which only its annotations, if the mask names them, change.
    fn changed(
        &self,
        scope: &Scope,
        image: Option<wire::Image>,
        fields: &FieldPaths,
    ) -> Result<types::image::Image, Status> {
        let mut image = required(image, "image")?;
        let with_target = fields.all() || fields.0.iter().any(|path| path == "target");
        if !with_target && !image.name.is_empty() {
            let stored = reply(self.0.db.images(scope).get(&image.name))?;
            let annotations = image.target.unwrap_or_default().annotations;
            image.target = Some(Descriptor { annotations, ..convert::descriptor_to_wire(stored.target) });
        }
        named(Some(image))
    }

    /// The images of a scope, whose records get the time that a request brings with it, if any.
    fn at(&self, scope: &Scope, epoch: Option<api::Timestamp>) -> metadata::Images {
        let images = self.0.db.images(scope);
        match epoch {
            Some(epoch) => images.at(convert::time(Some(epoch))),
            None => images,
        }
    }
}

#[tonic::async_trait]
impl images_server::Images for Images {
    async fn get(
        &self,
        request: Request<wire::GetImageRequest>,
    ) -> Result<Response<wire::GetImageResponse>, Status> {
        let scope = scope(request.metadata())?;
        let image = reply(self.0.db.images(&scope).get(&request.into_inner().name))?;
        Ok(Response::new(wire::GetImageResponse { image: Some(convert::image_to_wire(image)) }))
    }

    async fn list(&self, request: Request<wire::ListImagesRequest>) -> Result<Response<Encoded>, Status> {
        let images = self.0.db.images(&scope(request.metadata())?);
        let filters = filters(&request.into_inner().filters)?;
        let listed = read(move || {
            let mut message = Vec::new();
            images.list(&filters, &mut |image| {
                listed_image(image, &mut message);
                Ok(())
            })?;
            Ok(Encoded(message.into()))
        });
        listed.await.map(Response::new)
    }

    async fn create(
        &self,
        request: Request<wire::CreateImageRequest>,
    ) -> Result<Response<wire::CreateImageResponse>, Status> {
        let scope = scope(request.metadata())?;
        let request = request.into_inner();
        let images = self.at(&scope, request.source_date_epoch);
        let image = named(request.image)?;
        let house = self.0.clone();
        let change = Change::new("create image", &scope.namespace, image.name.as_str());
        let created = self.0.work.run(change, async move {
            let created = images.create(image).await?;
            let event = wire::ImageCreate { name: created.name.clone(), labels: created.labels.clone() };
            house.announce(&scope.namespace, "/images/create", &event);
            Ok(convert::image_to_wire(created))
        });
        Ok(Response::new(wire::CreateImageResponse { image: Some(created.await?) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateImageRequest>,
    ) -> Result<Response<wire::UpdateImageResponse>, Status> {
        let scope = scope(request.metadata())?;
        let request = request.into_inner();
        let images = self.at(&scope, request.source_date_epoch);
        let fields = convert::field_paths(request.update_mask);
        let image = self.changed(&scope, request.image, &fields)?;
        let house = self.0.clone();
        let change = Change::new("update image", &scope.namespace, image.name.as_str());
        let updated = self.0.work.run(change, async move {
            let updated = images.update(image, &fields).await?;
            let event = wire::ImageUpdate { name: updated.name.clone(), labels: updated.labels.clone() };
            house.announce(&scope.namespace, "/images/update", &event);
            Ok(convert::image_to_wire(updated))
        });
        Ok(Response::new(wire::UpdateImageResponse { image: Some(updated.await?) }))
    }

    async fn delete(&self, request: Request<wire::DeleteImageRequest>) -> Result<Response<()>, Status> {
        let scope = scope(request.metadata())?;
        let request = request.into_inner();
        let target = expected(&request.name, request.target)?;
        let house = self.0.clone();
        let change = Change::new("delete image", &scope.namespace, request.name.as_str());
        let deleted = self.0.work.run(change, async move {
            house.db.images(&scope).delete(&request.name, target.as_ref()).await?;
            house.announce(&scope.namespace, "/images/delete", &wire::ImageDelete { name: request.name });
            if request.sync { house.gc.collect().await } else { Ok(()) }
        });
        deleted.await.map(Response::new)
    }
}
