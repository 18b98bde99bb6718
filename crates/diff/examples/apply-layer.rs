//! Applies a layer to a directory and tells how long it took: for profiles and for comparison with `tar -xf`.
//!
//! ```text
//! apply-layer layer.tar.gz directory
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use content::local::LocalStore;
use content::{Store as _, WriterOptions};
use diff::{Applier as _, ApplyOptions, WalkingApplier};
use types::mount::Mount;
use types::oci::Descriptor;
use types::oci::image::media;
use types::{Digest, Error, Labels, Result, ResultExt};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(layer), Some(dir)) = (args.next(), args.next()) else {
        return Err(Error::invalid("usage: apply-layer LAYER DIRECTORY"));
    };
    let bytes = std::fs::read(&layer).context(|| format!("read {layer}"))?;
    let store = LocalStore::open(Path::new(&dir).join("../apply-layer-content"))?;
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let options = WriterOptions { reference: "layer".into(), total: size, expected: Some(digest.clone()) };
    if let Ok(mut writer) = store.writer(options).await {
        writer.write(bytes.into()).await?;
        writer.commit(size, Some(digest.clone()), Labels::new()).await?;
    }
    let blob = Descriptor::new(media::OCI_LAYER_GZIP, digest, size);
    let options = vec!["rw".to_owned(), "rbind".to_owned()];
    let bind = Mount { kind: "bind".into(), source: dir, target: String::new(), options };
    let start = Instant::now();
    let applied =
        WalkingApplier::new(Arc::clone(&store) as _).apply(&blob, &[bind], ApplyOptions::default()).await?;
    println!("{} {} bytes in {:?}", applied.uncompressed.digest, applied.uncompressed.size, start.elapsed());
    Ok(())
}
