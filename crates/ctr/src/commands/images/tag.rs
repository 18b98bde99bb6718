//! `ctr images tag`: other names for an image, given by the daemon's transfer service, or with `--local` by us.

use api::containerd::services::images::v1 as wire;
use api::containerd::types::transfer::ImageStore;
use clap::Args;
use remote::from_status;
use types::image::Image;
use types::reference::Reference;
use types::{Class, Result};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::{print, refused};
use crate::flags::Words;
use crate::go;
use crate::transfer::{Show, pack, transfer};

/// `ctr images tag`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Force target_ref to be created, regardless if it already exists
    #[arg(long)]
    force: bool,
    /// Run tag locally rather than through transfer API
    #[arg(long)]
    local: bool,
    /// Skip the strict check for reference names
    #[arg(long)]
    skip_reference_check: bool,
    #[command(flatten)]
    names: Words,
}

/// Tags the image of the first name with the others, one after the other.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    let (source, targets) = (flags.names.first(), flags.names.tail());
    if source.is_empty() {
        return refused("please provide an image reference to tag from");
    }
    if targets.is_empty() {
        return refused("please provide an image reference to tag to");
    }
    let client = Client::open(globals)?;
    let mut image = if flags.local { Some(client.image(source).await?) } else { None };
    for name in targets {
        if !flags.skip_reference_check && Reference::normalize(name).is_err() {
            let why = "is not a valid repository/tag invalid reference format";
            return refused(format!("error parsing reference: {} {why}", go::quote(name)));
        }
        match &image {
            Some(image) => create(&client, image, name, flags.force).await?,
            None => {
                let end = |name: &str| pack(&ImageStore { name: name.to_owned(), ..ImageStore::default() });
                match transfer(&client, (end(source), end(name)), Show::Nothing, None).await {
                    // A daemon from before 1.7.
                    Err(error) if error.class() == Class::Unimplemented => {
                        let found = image.insert(client.image(source).await?);
                        create(&client, found, name, flags.force).await?;
                    }
                    done => done?,
                }
            }
        }
        print(format!("{name}\n"))?;
    }
    Ok(())
}

async fn create(client: &Client, source: &Image, name: &str, force: bool) -> Result<()> {
    let image = Image { name: name.to_owned(), ..source.clone() };
    let image = Some(api::convert::image_to_wire(image));
    let request = wire::CreateImageRequest { image: image.clone(), source_date_epoch: None };
    match client.images().create(request).await.map_err(from_status) {
        Err(error) if force && error.is_already_exists() => {
            let update_mask = Some(api::FieldMask { paths: vec!["target".into(), "labels".into()] });
            let request = wire::UpdateImageRequest { image, update_mask, source_date_epoch: None };
            client.images().update(request).await.map(drop).map_err(from_status)
        }
        created => created.map(drop),
    }
}
