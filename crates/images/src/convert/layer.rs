//! A layer without its compression.

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use content::{Reader, Store, Writer, WriterOptions};
use diff::blob::BlobReader;
use diff::compression::{Decoder, Wrapping};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use types::oci::Descriptor;
use types::{Digest, Result, ResultExt, labels};

use super::committed;

/// Bytes that are handed over at a time, and how many such pieces may wait.
const PIECE: usize = 1 << 20;
const AHEAD: usize = 4;

/// Stores the layer uncompressed; `None` if its media type says that it is.
pub(super) async fn uncompress(store: &Arc<dyn Store>, layer: &Descriptor) -> Result<Option<Descriptor>> {
    let Some(media_type) = uncompressed(&layer.media_type) else { return Ok(None) };
    let mut labels = store.info(&layer.digest).await?.labels;
    labels.remove(labels::UNCOMPRESSED);
    let blob: Arc<dyn Reader> = store.reader(&layer.digest).await?.into();
    let reference = format!("convert-uncompress-from-{}", layer.digest);
    let options = WriterOptions { reference: reference.clone(), ..WriterOptions::default() };
    let mut writer = store.writer(options).await?;
    let copied = copy(blob, &mut *writer).await;
    let (digest, size) = match copied {
        Ok(copied) => copied,
        Err(error) => {
            drop(writer);
            // The error that ended the copy is the one to tell.
            drop(store.abort(&reference).await);
            return Err(error.context(format!("uncompress layer {}", layer.digest)));
        }
    };
    committed(writer.commit(size, Some(digest.clone()), labels).await)?;
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    Ok(Some(Descriptor { media_type, digest, size, ..layer.clone() }))
}

async fn copy(blob: Arc<dyn Reader>, writer: &mut dyn Writer) -> Result<(Digest, u64)> {
    if writer.status().await?.offset > 0 {
        writer.truncate(0).await?;
    }
    let mut pieces = inflate(blob)?;
    let mut size = 0;
    while let Some(piece) = pieces.recv().await.transpose()? {
        size += piece.len() as u64;
        writer.write(piece).await?;
    }
    Ok((writer.digest().await?, size))
}

/// Inflates on a thread of its own.
fn inflate(blob: Arc<dyn Reader>) -> Result<mpsc::Receiver<Result<Bytes>>> {
    let (sender, pieces) = mpsc::channel(AHEAD);
    let reader = BlobReader::new(blob, Handle::current());
    let thread = std::thread::Builder::new().name("uncompress".to_owned()).spawn(move || {
        let sent = Decoder::new(reader, Wrapping::Detect).and_then(|mut decoder| {
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                decoder.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
                // Nobody takes more once the copy has failed.
                if piece.is_empty() || sender.blocking_send(Ok(piece.into())).is_err() {
                    return Ok(());
                }
            }
        });
        if let Err(error) = sent {
            drop(sender.blocking_send(Err(error.into())));
        }
    });
    thread.map(drop).context(|| "start a thread")?;
    Ok(pieces)
}

/// The media type without compression; `None` if it has none.
fn uncompressed(media_type: &str) -> Option<String> {
    ["+gzip", "+zstd", ".gzip", ".zstd"]
        .iter()
        .find_map(|suffix| media_type.strip_suffix(suffix))
        .map(str::to_owned)
}
