//! Pulls without a daemon and tells how long it took: for profiles, and for comparison with another containerd.
//!
//! ```text
//! pull serve LAYER.tar.gz...      a registry in memory, until its input ends; says where it is
//! pull HOST/REPOSITORY:TAG ROOT   into a content store and overlayfs snapshots below ROOT
//! ```

#![expect(clippy::unwrap_used, reason = "a tool for measurements ends where it fails")]

#[path = "../tests/pull/store.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod store;

use std::io::{BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use diff::WalkingApplier;
use images::pull::{How, Keep, Limits, Metadata, Pull, Shared, Source, UnpackInto};
use images::walk::Wanted;
use registry::fake::{Fake, Layer};
use registry::{Anonymous, Registry, Settings};
use snapshots::overlay::{Options, Overlay};
use types::oci::image::media;
use types::reference::Reference;
use types::{Digest, Result};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [serve, layers @ ..] if serve == "serve" => self::serve(layers),
        [name, root] => {
            tokio::runtime::Runtime::new().unwrap().block_on(pull(name, Path::new(root))).unwrap()
        }
        _ => eprintln!("usage: pull serve LAYER... | pull REFERENCE ROOT"),
    }
}

fn serve(layers: &[String]) {
    let layer = |path: &String| {
        let bytes = std::fs::read(path).unwrap();
        let mut hasher = types::digest::Hasher::new(types::digest::Algorithm::Sha256);
        let mut tar = flate2::bufread::MultiGzDecoder::new(BufReader::new(&bytes[..]));
        let mut chunk = vec![0; 1 << 20];
        loop {
            match tar.read(&mut chunk).unwrap() {
                0 => break,
                count => hasher.update(&chunk[..count]),
            }
        }
        let media_type = media::OCI_LAYER_GZIP.to_owned();
        Layer { bytes: bytes.into(), media_type, diff_id: hasher.finish() }
    };
    let fake = Fake::start();
    let layers: Vec<Layer> = layers.iter().map(layer).collect();
    fake.add_image("library/big", "1", &layers);
    println!("{}", fake.reference("library/big", "1"));
    // Whoever started it holds the other end.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

async fn pull(name: &str, root: &Path) -> Result<()> {
    let reference = Reference::normalize(name)?;
    let registry = Registry::new(Settings::default(), Arc::new(Anonymous))?;
    let (_, target) = registry.resolve(&reference).await?;
    let store = store::Labelled::open(&root.join("content"));
    let unpack = UnpackInto {
        platforms: Wanted::All,
        snapshotter: Overlay::open(root.join("overlay"), Options::default())?,
        snapshotter_name: "overlayfs".to_owned(),
        how: How::OnePass(Arc::new(WalkingApplier::new(Arc::clone(&store) as _))),
        config_type: String::new(),
        layer_types: Vec::new(),
        remote: false,
        sync: false,
    };
    let pull = Pull {
        store,
        fetcher: registry.fetcher(&reference),
        source: Source {
            name: name.to_owned(),
            host: "localhost".to_owned(),
            repository: "library/big".to_owned(),
        },
        namespace: "default".to_owned(),
        wanted: Wanted::All,
        manifest_limit: 0,
        metadata: Metadata::Wanted,
        keep: Keep::Layers,
        unpack: vec![unpack],
        limits: Limits::default(),
        shared: Shared::new(3, std::thread::available_parallelism().map_or(2, usize::from)),
    };
    let start = Instant::now();
    let pulled = pull.pull(&target, Arc::new(images::Silent)).await?;
    let top: Option<&(String, Digest)> = pulled.images.iter().find_map(|image| image.unpacked.as_ref());
    println!("{:?} in {:?}", top, start.elapsed());
    Ok(())
}
