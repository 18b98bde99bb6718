//! `ctr images export`: images as an archive, which the daemon writes to a stream, or with `--local` we do.
//!
//! An archive that does not become complete is removed, unless something was there before.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use api::containerd::types::transfer as wire;
use async_trait::async_trait;
use bytes::Bytes;
use clap::Args;
use content::Store;
use images::export::{self, Options, Output};
use types::platform::Platform;
use types::{Class, Result, ResultExt};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::{print, refused};
use crate::flags::Words;
use crate::go;
use crate::transfer::{Receiver, Show, Stream, pack, transfer};

/// `ctr images export`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Do not add Docker compatible manifest.json to archive
    #[arg(long)]
    skip_manifest_json: bool,
    /// Do not add non-distributable blobs such as Windows layers to archive
    #[arg(long)]
    skip_non_distributable: bool,
    /// Pull content from a specific platform
    #[arg(long)]
    platform: Vec<String>,
    /// Exports content from all platforms
    #[arg(long)]
    all_platforms: bool,
    /// Run export locally rather than through transfer API
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    words: Words,
}

impl Flags {
    fn platforms(&self) -> Result<Vec<Platform>> {
        let parse = |text: &String| {
            text.parse::<Platform>().context(|| format!("invalid platform {}", go::quote(text)))
        };
        self.platform.iter().map(parse).collect()
    }

    fn options(&self) -> Result<Options> {
        let mut platforms = self.platforms()?;
        if platforms.is_empty() {
            platforms.push(Platform::host());
        }
        Ok(Options {
            platforms,
            all_platforms: self.all_platforms,
            skip_docker_manifest: self.skip_manifest_json,
            skip_non_distributable: self.skip_non_distributable,
        })
    }
}

/// Exports the images behind the first argument to it.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    let (out, names) = (flags.words.first(), flags.words.tail());
    if out.is_empty() || names.is_empty() {
        return refused("please provide both an output filename and an image reference to export");
    }
    let options = flags.options()?;
    let client = Client::open(globals)?;
    let stream = if flags.local { None } else { stream(&client).await? };
    let mut archive = Archive::create(out)?;
    let done = match stream {
        None => locally(&client, names, &options, &mut archive).await,
        Some(stream) => by_transfer(&client, stream, &flags, &mut archive).await,
    };
    archive.close(done)
}

/// The stream of a transfer; none from a daemon from before 1.7.
async fn stream(client: &Client) -> Result<Option<Stream>> {
    match Stream::open(client, "export").await {
        Err(error) if error.class() == Class::Unimplemented => Ok(None),
        stream => stream.map(Some),
    }
}

async fn by_transfer(client: &Client, stream: Stream, flags: &Flags, out: &mut Archive) -> Result<()> {
    let name = |name: &String| wire::ImageReference { name: name.clone(), ..Default::default() };
    let source = wire::ImageStore {
        extra_references: flags.words.tail().iter().map(name).collect(),
        ..Default::default()
    };
    let destination = wire::ImageExportStream {
        stream: stream.id.clone(),
        media_type: String::new(),
        platforms: flags.platforms()?.into_iter().map(api::convert::platform_to_wire).collect(),
        all_platforms: flags.all_platforms,
        skip_compatibility_manifest: flags.skip_manifest_json,
        skip_non_distributable: flags.skip_non_distributable,
    };
    let ends = (pack(&source), pack(&destination));
    Receiver::new(stream, out).beside(transfer(client, ends, Show::Progress, None)).await
}

async fn locally(client: &Client, names: &[String], options: &Options, out: &mut dyn Output) -> Result<()> {
    let mut images = Vec::new();
    for name in names {
        let image = client.image(name).await?;
        images.push((image.name, image.target));
    }
    let store = Arc::new(client.content()) as Arc<dyn Store>;
    export::export(&store, &images, options, out).await
}

/// Where the archive goes.
enum Archive {
    Stdout,
    File {
        file: File,
        path: PathBuf,
        /// Nothing was there before.
        new: bool,
    },
}

impl Archive {
    fn create(path: &str) -> Result<Self> {
        if path == "-" {
            return Ok(Self::Stdout);
        }
        let new = std::fs::symlink_metadata(path).is_err();
        let file = File::create(path).map_err(|error| go::path_error("open", path, error))?;
        Ok(Self::File { file, path: path.into(), new })
    }

    /// Takes an archive away that has not become one.
    fn close(self, done: Result<()>) -> Result<()> {
        if let Self::File { path, new: true, .. } = &self
            && done.is_err()
        {
            // The error that made it incomplete is the one to tell.
            drop(std::fs::remove_file(path));
        }
        done
    }
}

#[async_trait]
impl Output for Archive {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match self {
            Self::Stdout => print(bytes),
            Self::File { file, path, .. } => {
                file.write_all(&bytes).map_err(|error| go::path_error("write", path, error))
            }
        }
    }
}
