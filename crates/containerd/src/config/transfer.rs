//! Pulling, pushing and who may veto a pull: `io.containerd.transfer.v1.local`, `io.containerd.image-verifier.v1.bindir`.

use std::path::PathBuf;
use std::time::Duration;

use types::platform::Platform;

use super::section::Section;

/// Settings of transfers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Requests for content that a pull has open at a time.
    pub downloads: usize,
    /// Bytes of a piece when a layer is fetched in several at once; below 512 it is fetched as one.
    pub layer_buffer: usize,
    /// Blobs that a push uploads at a time.
    pub uploads: usize,
    /// Layers that are unpacked at a time; 1, upstream's default, leaves it to the number of processors.
    pub unpacks: usize,
    /// The most bytes of a layer unpacked; 0 is what the disk has to spare.
    pub max_unpacked_layer: u64,
    /// The most bytes of an index, manifest or config; 0 is the default.
    pub max_manifest_size: u64,
    /// How deep indexes may nest; 0 is the default.
    pub max_index_depth: usize,
    /// Where `hosts.toml` files are, unless the request says otherwise; colons separate directories.
    pub hosts: String,
    /// Into what images may be unpacked; `None` is any snapshotter that is there.
    pub unpack: Option<Vec<Unpack>>,
    /// Whether the whole platform must match, not only the operating system.
    pub check_platform: bool,
}

/// One way to unpack an image: `unpack_config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpack {
    /// Images for it.
    pub platform: Platform,
    /// Gets the layers.
    pub snapshotter: String,
    /// Applies them; empty is whichever is there.
    pub differ: String,
    /// The media type of the configs that it is for; empty is any.
    pub config_type: String,
    /// The media types of layers that it is for; empty is any.
    pub layer_types: Vec<String>,
    /// Whether it may be left out where its snapshotter or differ is not there.
    pub optional: bool,
}

/// Programs that may veto a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    /// Where they are.
    pub directory: PathBuf,
    /// The most that are asked; below 0 is all.
    pub most: i64,
    /// How long each may take.
    pub limit: Duration,
}

/// Settings of transfers.
pub fn read(plugins: &mut Section) -> Transfer {
    let mut section = plugins.section("io.containerd.transfer.v1.local");
    // As upstream: nothing and less than nothing are no limit.
    let limit = |section: &mut Section, key: &str, default: i64| match section.integer(key, default) {
        ..=0 => usize::MAX,
        number => usize::try_from(number).unwrap_or(usize::MAX),
    };
    // What is stored is read again by whoever unpacks, runs or exports it: these may be less, not more.
    let at_most = |section: &mut Section, key: &str, most: u64| {
        let number = section.integer(key, 0);
        if number > most {
            section.mistake(format!(
                "io.containerd.transfer.v1: {key} {number} is more than {most}, the most that there is"
            ));
        }
        number
    };
    let max_manifest_size = at_most(&mut section, "max_manifest_size", images::walk::DOCUMENT_LIMIT);
    let max_index_depth = at_most(&mut section, "max_index_depth", images::walk::MAX_DEPTH as u64);
    let unpack = section.sections("unpack_config").map(|all| all.into_iter().map(unpack).collect());
    Transfer {
        downloads: limit(&mut section, "max_concurrent_downloads", 3),
        layer_buffer: section.integer("concurrent_layer_fetch_buffer", 0),
        uploads: limit(&mut section, "max_concurrent_uploaded_layers", 3),
        unpacks: limit(&mut section, "max_concurrent_unpacks", 1),
        max_unpacked_layer: section.integer("max_unpacked_layer", 0),
        max_manifest_size,
        max_index_depth: usize::try_from(max_index_depth).unwrap_or(usize::MAX),
        hosts: section.string("config_path", ""),
        unpack,
        check_platform: section.boolean("check_platform_supported"),
    }
}

fn unpack(mut section: Section) -> Unpack {
    let written = section.string("platform", "");
    let platform = written.parse().unwrap_or_else(|_| {
        section.mistake(format!("io.containerd.transfer.v1: platform configuration {written} invalid"));
        Platform::host()
    });
    Unpack {
        platform,
        snapshotter: section.string("snapshotter", ""),
        differ: section.string("differ", ""),
        config_type: section.string("config_type", ""),
        layer_types: section.strings("layer_types", &[]),
        optional: section.boolean("optional"),
    }
}

/// Programs that may veto a pull.
pub fn verifier(plugins: &mut Section) -> Verifier {
    let mut section = plugins.section("io.containerd.image-verifier.v1.bindir");
    Verifier {
        directory: section.string("bin_dir", "/opt/containerd/image-verifier/bin").into(),
        most: section.integer("max_verifiers", 10),
        limit: section.duration("per_verifier_timeout", Duration::from_secs(10)),
    }
}
