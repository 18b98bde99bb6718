//! `ctr containers restore`: a container out of a checkpoint that is an image.

use std::time::SystemTime;

use api::containerd::services::containers::v1::CreateContainerRequest;
use clap::Args;
use diff::applier::{Applier, ApplyOptions};
use prost::Message;
use remote::from_status;
use snapshots::Snapshotter;
use types::container::{Container, RuntimeInfo};
use types::oci::Descriptor;
use types::oci::image::{Index, media};
use types::platform::Platform;
use types::{Any, Error, Labels, Result, ResultExt};

use super::checkpoint::{IMAGE, LEASE, RUNTIME, SNAPSHOTTER, open};
use crate::checkpoint::{CHECKPOINT, CONFIG, RUNTIME_OPTIONS, part};
use crate::cli::Globals;
use crate::client::Client;
use crate::commands::run::{container, destroy, exit_code, image};
use crate::commands::tasks::new::{self, Facts, NewTask};
use crate::flags::Words;
use crate::io::terminal::Console;
use crate::log;
use crate::process::{Attended, Process, Signals};

/// The most that a part is read of which should be small.
const LIMIT: u64 = 4 << 20;

/// `ctr containers restore`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Restore the rw layer from the checkpoint
    #[arg(long)]
    rw: bool,
    /// Restore the runtime and memory data from the checkpoint
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    words: Words,
}

/// Makes the container and starts its task; with a terminal it is attended, and its code answered.
pub async fn run(globals: &Globals, flags: Flags) -> Result<u8> {
    let client = open(globals, &flags.words)?;
    let (id, reference) = (flags.words.first(), flags.words.get(1));
    let target = client.image(reference).await?.target;
    let index: Index = image::document(&client.content(), &target).await?;
    let live = match part(&index, CHECKPOINT) {
        _ if !flags.live => None,
        Some(part) => Some(part.clone()),
        None => {
            return Err(Error::not_found(format!("checkpoint not found in index {}", target.digest)));
        }
    };
    let lease = client.lease(None, LEASE).await?;
    let made = make(&lease.client, id, &index, flags.rw).await;
    container::end(lease).await;
    let container = made?;
    let options = new::Options { checkpoint: live, ..new::Options::default() };
    start(&client, &container, &options).await
}

async fn start(client: &Client, container: &Container, options: &new::Options) -> Result<u8> {
    let terminal = Facts::of(container)?.terminal;
    let mut signals = Signals::catch()?;
    let console = terminal.then(Console::raw).transpose()?;
    let NewTask { mut streams, .. } = signals.during(new::create(client, container, None, options)).await?;
    let process = Process::init(client, &container.id);
    let attended = async {
        if !terminal {
            return process.start().await.map(|_| 0);
        }
        let (console, signals) = (console.as_ref(), &mut signals);
        process.attend(Attended { streams: &mut streams, console, signals, start: true }).await
    };
    match attended.await {
        Ok(_) if !terminal => {
            streams.keep();
            Ok(0)
        }
        Ok(code) => process.delete().await.map(|_| exit_code(code)),
        Err(error) => {
            destroy(&process).await;
            Err(error)
        }
    }
}

/// Makes the record with its snapshot, or nothing.
async fn make(client: &Client, id: &str, index: &Index, rw: bool) -> Result<Container> {
    let named = |name: &str, what: &str| {
        let value = index.annotations.get(name).filter(|value| !value.is_empty());
        value.cloned().ok_or_else(|| Error::unknown(format!("{what} not found in index")))
    };
    let (name, snapshotter) = (named(IMAGE, "image name")?, named(SNAPSHOTTER, "snapshotter")?);
    let runtime = named(RUNTIME, "runtime")?;
    let spec = document(client, part(index, CONFIG)).await?;
    let spec = spec.ok_or_else(|| Error::unknown("media type not found"))?;
    let runtime =
        RuntimeInfo { name: runtime, options: document(client, part(index, RUNTIME_OPTIONS)).await? };
    let layer = part(index, media::OCI_LAYER_GZIP);
    if rw && layer.is_none() {
        return Err(Error::unknown("media type not found"));
    }
    let image = client.image(&name).await?;
    let chain = image::resolve(&client.content(), &image, &Platform::host()).await?.chain()?;
    let snapshots = client.named_snapshotter(&snapshotter);
    let mounts = snapshots.prepare(id, &chain.to_string(), Labels::new()).await?;
    let made = async {
        if let Some(layer) = layer.filter(|_| rw) {
            client.applier().apply(layer, &mounts, ApplyOptions::default()).await?;
        }
        let record = Container {
            id: id.to_owned(),
            image: image.name.clone(),
            runtime,
            spec: Some(spec),
            snapshot_key: id.to_owned(),
            snapshotter: snapshotter.clone(),
            labels: Labels::new(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
            extensions: Default::default(),
            sandbox: String::new(),
        };
        let request = CreateContainerRequest { container: Some(api::convert::container_to_wire(record)) };
        let made = client.containers().create(request).await.map_err(from_status)?.into_inner().container;
        Ok(api::convert::container(
            made.ok_or_else(|| Error::internal("containers service answered no container"))?,
        ))
    };
    let made = made.await;
    if made.is_err()
        && let Err(left) = snapshots.remove(id).await
    {
        log::error("failed to remove snapshot", Some(&left));
    }
    made
}

/// Reads a part that is a message in its envelope.
async fn document(client: &Client, part: Option<&Descriptor>) -> Result<Option<Any>> {
    let Some(part) = part else { return Ok(None) };
    let bytes = client.content().read(&part.digest, LIMIT).await.context(|| "unable to read checkpoint")?;
    let any = api::ProtoAny::decode(bytes.as_slice())
        .map_err(|e| Error::invalid(format!("decode {} of the checkpoint: {e}", part.media_type)))?;
    Ok(Some(api::any::from_wire(any)))
}
