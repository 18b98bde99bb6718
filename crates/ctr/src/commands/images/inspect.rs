//! `ctr images inspect`: an image and everything that it consists of, as a tree.

use content::Store;
use remote::RemoteStore;
use serde_json::Value;
use types::image::Image;
use types::oci::image::media;
use types::oci::{Descriptor, Index, Manifest};
use types::{Error, Labels, Result};

use crate::client::Client;
use crate::commands::print;
use crate::go::{self, json, quote};

/// Upstream's bound for a document that is read as a whole.
const LIMIT: u64 = 8 << 20;
/// Indexes may name indexes; nobody nests them deeper.
const DEPTH: usize = 8;

const MIDDLE: &str = "├── ";
const LAST: &str = "└── ";
const LINE: &str = "│   ";
const SPACE: &str = "    ";

/// Prints the tree, with the documents themselves if asked.
pub async fn run(client: &Client, name: &str, content: bool) -> Result<()> {
    let image = client.image(name).await?;
    let mut tree = Tree { store: client.content(), content, text: head(&image) };
    let shown = tree.node(image.target, LAST.into(), SPACE.into(), 0).await;
    print(&tree.text)?;
    shown
}

fn head(image: &Image) -> String {
    let mut text = format!("{}\n", image.name);
    text += &format!("{LINE} Created: {}\n", go::time::plain(image.created_at));
    text += &format!("{LINE} Updated: {}\n", go::time::plain(image.updated_at));
    for (key, value) in &image.labels {
        text += &format!("{LINE} Label {}: {}\n", quote(key), quote(value));
    }
    text
}

struct Tree {
    store: RemoteStore,
    content: bool,
    text: String,
}

impl Tree {
    fn line(&mut self, prefix: &str, descriptor: &Descriptor) {
        let Descriptor { media_type, digest, size, .. } = descriptor;
        self.text += &format!("{prefix}{media_type} @{digest} ({size} bytes)\n");
    }

    /// Shows what is at `descriptor` and below.
    async fn node(&mut self, at: Descriptor, prefix: String, below: String, depth: usize) -> Result<()> {
        self.line(&prefix, &at);
        if let Some(platform) = at.platform.as_ref().filter(|platform| !platform.architecture.is_empty()) {
            self.text += &format!("{below}{LINE} Platform: {platform}\n");
        }
        let bytes = match self.store.read(&at.digest, LIMIT).await {
            Err(error) if error.is_not_found() => {
                self.text += &format!("{below}{LAST} Content does not exist locally, skipping\n");
                return Ok(());
            }
            bytes => bytes?,
        };
        self.details(&at, &bytes, &format!("{below}{LINE}")).await?;
        if media::is_manifest(&at.media_type) {
            return self.manifest(decode(&at, &bytes)?, &below).await;
        }
        if !media::is_index(&at.media_type) {
            return Ok(());
        }
        if depth == DEPTH {
            return Err(Error::invalid(format!("image index {} is nested too deeply", at.digest)));
        }
        let index: Index = decode(&at, &bytes)?;
        let last = index.manifests.len().saturating_sub(1);
        for (number, child) in index.manifests.into_iter().enumerate() {
            let (drop, line) = if number == last { (LAST, SPACE) } else { (MIDDLE, LINE) };
            let (prefix, below) = (format!("{below}{drop}"), format!("{below}{line}"));
            Box::pin(self.node(child, prefix, below, depth + 1)).await?;
        }
        Ok(())
    }

    async fn manifest(&mut self, manifest: Manifest, below: &str) -> Result<()> {
        let (drop, line) = if manifest.layers.is_empty() { (LAST, SPACE) } else { (MIDDLE, LINE) };
        self.line(&format!("{below}{drop}"), &manifest.config);
        if self.content {
            let bytes = self.store.read(&manifest.config.digest, LIMIT).await?;
            self.details(&manifest.config, &bytes, &format!("{below}{line}")).await?;
        }
        let last = manifest.layers.len().saturating_sub(1);
        for (number, layer) in manifest.layers.iter().enumerate() {
            let drop = if number == last { LAST } else { MIDDLE };
            self.line(&format!("{below}{drop}"), layer);
        }
        Ok(())
    }

    /// Labels and text of a document.
    async fn details(&mut self, at: &Descriptor, bytes: &[u8], prefix: &str) -> Result<()> {
        if !self.content {
            return Ok(());
        }
        let labels: Labels = self.store.info(&at.digest).await?.labels;
        let end = format!("{prefix}└───────────────────────\n");
        if !labels.is_empty() {
            self.text += &format!("{prefix}┌────────Labels─────────\n");
            for (key, value) in &labels {
                self.text += &format!("{prefix}│{}: {}\n", quote(key), quote(value));
            }
            self.text += &end;
        }
        if at.media_type.ends_with("json") {
            let value: Value = decode(at, bytes)?;
            let shown = json::indented(&value, "   ")?.replace('\n', &format!("\n{prefix}│"));
            self.text += &format!("{prefix}┌────────Content────────\n{prefix}│{shown}\n{end}");
        }
        Ok(())
    }
}

fn decode<T: serde::de::DeserializeOwned>(at: &Descriptor, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::invalid(format!("decode {} {}: {e}", at.media_type, at.digest)))
}
