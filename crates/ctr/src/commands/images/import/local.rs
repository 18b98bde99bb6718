//! `ctr images import --local`: the archive is read here and stored through the daemon's content store.
//!
//! What fails leaves nothing: image records go again, and blobs and snapshots with the lease that held them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::FieldMask;
use api::containerd::services::images::v1 as wire;
use content::Store;
use images::import::{self, DigestNames, Imported, Naming, Options};
use images::walk::Wanted;
use remote::from_status;
use types::image::Image;
use types::oci::Descriptor;
use types::platform::Platform;
use types::{Error, Labels, Result};

use super::{Flags, open};
use crate::cli::Globals;
use crate::client::{Client, Leased};
use crate::commands::print;
use crate::commands::run::image::resolve;
use crate::unpack::unpack;
use crate::{flags, log, progress};

impl Flags {
    fn options(&self) -> Result<(Options, Naming)> {
        if self.discard_unpacked_layers && self.no_unpack {
            let text = "--discard-unpacked-layers and --no-unpack are incompatible options";
            return Err(Error::invalid(text));
        }
        if self.skip_digest_for_named && !self.digests {
            return Err(Error::invalid("--skip-digest-for-named must be specified with --digests option"));
        }
        let digests = match (self.digests, self.skip_digest_for_named) {
            (false, _) => DigestNames::None,
            (true, true) => DigestNames::Unnamed,
            (true, false) => DigestNames::All,
        };
        let naming = Naming {
            prefix: self.prefix(),
            only_prefixed: !self.base_name.is_empty(),
            digests,
            index: Some(self.index_name.clone()).filter(|name| !name.is_empty()),
        };
        let options = Options {
            wanted: if self.all_platforms { Wanted::All } else { Wanted::Only(self.platform()?) },
            compress: self.compress_blobs,
            discard_layers: self.discard_unpacked_layers,
        };
        Ok((options, naming))
    }
}

/// Imports the archive and unpacks its images.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    let (options, naming) = flags.options()?;
    let platform = flags.platform()?;
    let client = Client::open(globals)?;
    let (archive, size) = open(flags.words.first())?;
    let lease = client.lease(None, Duration::from_secs(24 * 3600)).await?;
    let store = Arc::new(lease.client.content()) as Arc<dyn Store>;
    let imported = {
        let progress = progress::of_import(size);
        import::import(archive, &store, &options, &naming, &*progress).await
    };
    let done = match imported {
        Ok(imported) => finish(&lease, imported, &platform, &flags).await,
        Err(error) => Err(error),
    };
    // After a failure nothing but the lease holds what was written.
    let ended = if done.is_ok() { lease.release().await } else { lease.collect().await };
    if let Err(error) = ended {
        log::warn("failed to end lease", Some(&error));
    }
    done
}

/// Names the images and unpacks them; takes everything back if that fails.
async fn finish(lease: &Leased, imported: Imported, platform: &Platform, flags: &Flags) -> Result<()> {
    let labels = flags::labels(&flags.label);
    let mut named = Vec::new();
    let done = async {
        for (name, target) in &imported.images {
            let before = record(&lease.client, name, target, &labels).await?;
            named.push((name.clone(), before));
        }
        if flags.no_unpack {
            return Ok(());
        }
        for (name, target) in &imported.images {
            unpack_one(lease, name, target, platform, flags).await?;
        }
        Ok(())
    };
    let done: Result<()> = done.await;
    if done.is_err() {
        for (name, before) in named.into_iter().rev() {
            if let Err(error) = restore(&lease.client, &name, before).await {
                log::error(&format!("failed to take back image {name}"), Some(&error));
            }
        }
    }
    done
}

/// Points `name` to `target`; answers what it was before.
async fn record(client: &Client, name: &str, target: &Descriptor, labels: &Labels) -> Result<Option<Image>> {
    let image = |labels: Labels| wire::Image {
        name: name.into(),
        labels,
        target: Some(api::convert::descriptor_to_wire(target.clone())),
        ..Default::default()
    };
    let before = match client.image(name).await {
        Ok(before) => before,
        Err(error) if error.is_not_found() => {
            let request =
                wire::CreateImageRequest { image: Some(image(labels.clone())), source_date_epoch: None };
            match client.images().create(request).await.map_err(from_status) {
                Ok(_) => return Ok(None),
                // Another import has named it meanwhile.
                Err(error) if error.is_already_exists() => client.image(name).await?,
                Err(error) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    let mut paths = vec!["target".to_owned()];
    if !labels.is_empty() {
        paths.push("labels".into());
    }
    update(client, image(labels.clone()), paths).await?;
    Ok(Some(before))
}

async fn update(client: &Client, image: wire::Image, paths: Vec<String>) -> Result<()> {
    let update_mask = Some(FieldMask { paths });
    let request = wire::UpdateImageRequest { image: Some(image), update_mask, source_date_epoch: None };
    client.images().update(request).await.map_err(from_status)?;
    Ok(())
}

async fn restore(client: &Client, name: &str, before: Option<Image>) -> Result<()> {
    match before {
        Some(before) => {
            let paths = vec!["target".into(), "labels".into()];
            update(client, api::convert::image_to_wire(before), paths).await
        }
        None => {
            let request = wire::DeleteImageRequest { name: name.into(), sync: false, target: None };
            client.images().delete(request).await.map_err(from_status)?;
            Ok(())
        }
    }
}

async fn unpack_one(
    lease: &Leased,
    name: &str,
    target: &Descriptor,
    platform: &Platform,
    flags: &Flags,
) -> Result<()> {
    let client = &lease.client;
    print(format!("unpacking {name} ({})...", target.digest))?;
    let epoch = SystemTime::UNIX_EPOCH;
    let image = Image {
        name: name.into(),
        labels: Labels::new(),
        target: target.clone(),
        created_at: epoch,
        updated_at: epoch,
    };
    let unpacked = async {
        let resolved = resolve(&client.content(), &image, platform).await?;
        let snapshotter = Arc::new(client.snapshotter(&flags.snapshotter.snapshotter).await?);
        unpack(client, &snapshotter, &resolved.manifest, flags.sync_fs).await
    };
    let unpacked = unpacked.await;
    print(if unpacked.is_ok() { "done\n" } else { "\n" })?;
    unpacked
}

#[cfg(test)]
mod tests {
    use super::super::tests::flags;
    use super::*;

    #[test]
    fn without_a_base_name_one_is_generated_and_nothing_is_filtered() {
        let (_, naming) = flags(&["-"]).options().unwrap();
        assert!(naming.prefix.starts_with("import-20") && !naming.only_prefixed);
        let (_, naming) = flags(&["--base-name", "a/b", "--digests", "x"]).options().unwrap();
        assert!(naming.only_prefixed);
        assert_eq!((naming.prefix.as_str(), naming.digests), ("a/b", DigestNames::All));
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused_as_upstream_does() {
        let refused = |words: &[&str]| flags(words).options().unwrap_err().to_string();
        assert_eq!(
            refused(&["--skip-digest-for-named", "x"]),
            "--skip-digest-for-named must be specified with --digests option"
        );
        assert_eq!(
            refused(&["--local", "--discard-unpacked-layers", "--no-unpack", "x"]),
            "--discard-unpacked-layers and --no-unpack are incompatible options"
        );
    }
}
