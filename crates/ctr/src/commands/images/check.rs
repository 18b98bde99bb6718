//! `ctr images check`: is everything there that an image needs?

use content::Store;
use remote::RemoteSnapshotter;
use snapshots::Snapshotter;
use types::image::Image;
use types::platform::Platform;
use types::{Error, Result, ResultExt};

use crate::client::Client;
use crate::commands::print;
use crate::commands::run::image::{Resolved, resolve};
use crate::{go, log};

/// What became of the look at one image.
struct Report {
    status: String,
    size: String,
    complete: bool,
}

/// Prints a line per image, or with `quiet` the names of those that are ready to run.
pub async fn run(client: &Client, quiet: bool, snapshotter: &str, filters: Vec<String>) -> Result<()> {
    let images = client.list_images(filters).await.context(|| "failed listing images")?;
    if images.is_empty() {
        return Ok(());
    }
    let snapshots = client.snapshotter(snapshotter).await?;
    let mut table = go::Columns::narrow();
    table.line("REF\tTYPE\tDIGEST\tSTATUS\tSIZE\tUNPACKED\t");
    let mut ready = String::new();
    let mut failed = None;
    for image in &images {
        let resolved = resolve(&client.content(), image, &Platform::host()).await;
        let report = match look(client, &resolved).await {
            Ok(report) => report,
            Err(error) => {
                log::error(&format!("unable to check {}", image.name), Some(&error));
                failed.get_or_insert(error.context(format!("unable to check {}", image.name)));
                Report { status: "error".into(), size: "-".into(), complete: false }
            }
        };
        let unpacked = unpacked(&snapshots, image, resolved, &mut failed).await;
        let (kind, digest) = (&image.target.media_type, &image.target.digest);
        table.line(format!(
            "{}\t{kind}\t{digest}\t{}\t{}\t{unpacked}",
            image.name, report.status, report.size
        ));
        if report.complete && unpacked {
            ready.push_str(&format!("{}\n", image.name));
        }
    }
    print(if quiet { ready } else { table.finish() })?;
    failed.map_or(Ok(()), Err)
}

async fn look(client: &Client, resolved: &Result<Resolved>) -> Result<Report> {
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(error) if error.is_not_found() => {
            let size = format!("{}/?", go::size::binary(0));
            return Ok(Report { status: "unavailable (0/?)".into(), size, complete: false });
        }
        Err(error) => return Err(Error::new(error.class(), format!("failed to check image: {error}"))),
    };
    let store = client.content();
    let parts: Vec<_> = std::iter::once(&resolved.manifest.config).chain(&resolved.manifest.layers).collect();
    let (mut present, mut present_size, mut size) = (0, 0, 0);
    for part in &parts {
        let bytes = u64::try_from(part.size).unwrap_or(0);
        size += bytes;
        match store.info(&part.digest).await {
            Ok(_) => {
                present += 1;
                present_size += bytes;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.context(format!("failed to check image {}", part.digest))),
        }
    }
    let complete = present == parts.len();
    let word = if complete { "complete" } else { "incomplete" };
    Ok(Report {
        status: format!("{word} ({present}/{})", parts.len()),
        size: format!("{}/{}", go::size::binary(present_size), go::size::binary(size)),
        complete,
    })
}

async fn unpacked(
    snapshots: &RemoteSnapshotter,
    image: &Image,
    resolved: Result<Resolved>,
    failed: &mut Option<Error>,
) -> bool {
    let found = async {
        let chain = resolved?.chain()?;
        match snapshots.stat(chain.as_str()).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    };
    found.await.unwrap_or_else(|error: Error| {
        let text = format!("unable to check unpack for {}", image.name);
        log::error(&text, Some(&error));
        failed.get_or_insert(error.context(text));
        false
    })
}
