//! `ctr images convert`: an image made of another.

use std::sync::Arc;
use std::time::Duration;

use api::containerd::services::images::v1 as wire;
use clap::Args;
use content::Store;
use images::convert::{Options, convert};
use images::walk::Wanted;
use remote::from_status;
use types::image::Image;
use types::platform::Platform;
use types::{Error, Result};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::run::container;
use crate::commands::{print, refused};
use crate::flags::Words;
use crate::go::quote;

/// `ctr images convert`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Convert tar.gz layers to uncompressed tar layers
    #[arg(long)]
    uncompress: bool,
    /// Convert Docker media types to OCI media types
    #[arg(long)]
    oci: bool,
    /// Convert layers to EROFS format, must specify 'raw' or 'zstd' (e.g. --erofs raw, --erofs zstd)
    #[arg(long)]
    erofs: Option<String>,
    /// Specify compression algorithm list when converting EROFS layers
    #[arg(long, default_value = "")]
    erofs_compressors: String,
    /// Extra mkfs options applied when converting EROFS layers. (e.g. '-Efragments,dedupe')
    #[arg(long, default_value = "")]
    erofs_mkfs_options: String,
    /// Pull content from a specific platform
    #[arg(long)]
    platform: Vec<String>,
    /// Exports content from all platforms
    #[arg(long)]
    all_platforms: bool,
    #[command(flatten)]
    words: Words,
}

impl Flags {
    fn options(&self) -> Result<Options> {
        let wanted = if self.all_platforms {
            Wanted::All
        } else if self.platform.is_empty() {
            Wanted::Any(vec![Platform::host()])
        } else {
            Wanted::Any(self.platform.iter().map(|text| text.parse()).collect::<Result<_>>()?)
        };
        if let Some(format) = self.erofs.as_deref().filter(|format| !["raw", "zstd"].contains(format)) {
            return refused(format!("unsupported erofs format {}, supported: raw, zstd", quote(format)));
        }
        Ok(Options { uncompress: self.uncompress, oci: self.oci, wanted })
    }
}

/// Converts the image of the first name to that of the second.
pub async fn run(globals: &Globals, flags: &Flags) -> Result<()> {
    let (source, target) = (flags.words.get(0), flags.words.get(1));
    if source.is_empty() || target.is_empty() {
        return refused("src and target image need to be specified");
    }
    let options = flags.options()?;
    let client = Client::open(globals)?;
    let image = client.image(source).await?;
    if flags.erofs.is_some() {
        return Err(Error::unimplemented("images convert --erofs is not there yet"));
    }
    let lease = client.lease(None, Duration::from_secs(24 * 3600)).await?;
    let converted = async {
        let store = Arc::new(lease.client.content()) as Arc<dyn Store>;
        let converted = convert(&store, &image.target, &options).await?;
        let digest = converted.digest.clone();
        write(&lease.client, Image { name: target.to_owned(), target: converted, ..image }, source).await?;
        print(format!("{digest}\n"))
    };
    let converted = converted.await;
    container::end(lease).await;
    converted
}

async fn write(client: &Client, image: Image, source: &str) -> Result<()> {
    let name = image.name.clone();
    let image = Some(api::convert::image_to_wire(image));
    if name == source {
        let request = wire::UpdateImageRequest { image, update_mask: None, source_date_epoch: None };
        return client.images().update(request).await.map(drop).map_err(from_status);
    }
    let request = wire::DeleteImageRequest { name, sync: false, target: None };
    match client.images().delete(request).await.map_err(from_status) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    let request = wire::CreateImageRequest { image, source_date_epoch: None };
    client.images().create(request).await.map(drop).map_err(from_status)
}
