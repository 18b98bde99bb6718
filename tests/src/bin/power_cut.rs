//! The image of the power-cut test: `power_cut DIR SEED` writes
//!
//! ```text
//!   DIR/image.tar             four layers, three of them of thousands of small files
//!   DIR/served/<number>       its blobs
//!   DIR/expected/<chain id>   what the layer's files are, as `sha256sum --check` reads it
//! ```
//!
//! and `power_cut serve DIR FILE` is a registry of it on 127.0.0.1 until it is killed; FILE says under which name.
//!
//! The sums come from the bytes before they are packed, so that what is compared with them has been through nothing of
//! ours but what is tested. See xtask/src/power_cut.rs.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a harness fails by panicking")]

use std::fs;
use std::path::Path;

use containerd_tests::archive::{self, Image, Packing};
use containerd_tests::tar::{Entry, Kind};
use registry::fake::Fake;

/// Small enough that ext4 delays where they go, as those of a distribution's image.
const LARGEST: u64 = 6_000;
const LAYERS: u64 = 3;
const REPOSITORY: &str = "library/power-cut";
const TAG: &str = "1";
const FILES: u64 = 1000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [serve, dir, file] if serve == "serve" => self::serve(Path::new(dir), Path::new(file)),
        [dir, seed] => write(dir, seed),
        _ => panic!("usage: power_cut DIR SEED | power_cut serve DIR FILE"),
    }
}

/// A registry of the image.
fn serve(dir: &Path, file: &Path) {
    let registry = Fake::start();
    for blob in fs::read_dir(dir.join("served")).unwrap() {
        archive::put(&registry, (REPOSITORY, TAG), fs::read(blob.unwrap().path()).unwrap());
    }
    // Under its name at once whole, as others wait for it.
    let new = file.with_extension("new");
    fs::write(&new, registry.reference(REPOSITORY, TAG)).unwrap();
    fs::rename(new, file).unwrap();
    loop {
        std::thread::park();
    }
}

/// The image and what must become of it.
fn write(dir: &str, seed: &str) {
    let (dir, mut random) = (Path::new(dir), seed.parse::<u64>().expect("SEED is a number") | 1);
    fs::create_dir_all(dir.join("expected")).unwrap();
    let mut image = Image::named("docker.io/library/power-cut:1");
    for number in 0..=LAYERS {
        let entries = if number == 0 { archive::base_layer() } else { layer(number, &mut random) };
        image = image.layer(&entries, Packing::Gzip);
        fs::write(dir.join("expected").join(image.chain_id()), sums(&entries)).unwrap();
    }
    fs::write(dir.join("image.tar"), image.oci()).unwrap();
    fs::create_dir_all(dir.join("served")).unwrap();
    let blobs = image.oci_entries().into_iter().filter(|entry| entry.name.starts_with("blobs/"));
    for (number, entry) in blobs.enumerate() {
        if let Kind::File(bytes) = entry.kind {
            fs::write(dir.join("served").join(number.to_string()), bytes).unwrap();
        }
    }
}

/// A layer of files with nothing in common.
fn layer(number: u64, random: &mut u64) -> Vec<Entry> {
    let top = format!("layer{number}");
    let mut entries = vec![Entry::dir(&top)];
    for file in 0..FILES {
        if file % 50 == 0 {
            entries.push(Entry::dir(format!("{top}/{}", file / 50)));
        }
        let size = 1 + next(random) % LARGEST;
        let bytes: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| next(random).to_le_bytes()).collect();
        entries.push(Entry::file(format!("{top}/{}/{file}", file / 50), bytes));
    }
    entries
}

fn sums(entries: &[Entry]) -> String {
    let files = entries.iter().filter_map(|entry| match &entry.kind {
        Kind::File(bytes) => Some(format!("{}  {}\n", archive::hex(bytes), entry.name)),
        Kind::Dir | Kind::Symlink(_) | Kind::Hardlink(_) => None,
    });
    files.collect()
}

/// Xorshift: any seed but 0 will do.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
