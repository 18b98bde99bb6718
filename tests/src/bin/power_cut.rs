//! The image of the power-cut test: `power_cut DIR SEED` writes
//!
//! ```text
//!   DIR/image.tar             four layers, three of them of thousands of small files
//!   DIR/expected/<chain id>   what the layer's files are, as `sha256sum --check` reads it
//! ```
//!
//! The sums come from the bytes before they are packed, so that what is compared with them has been through nothing of
//! ours but what is tested. See xtask/src/power_cut.rs.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a harness fails by panicking")]

use std::fs;
use std::path::Path;

use containerd_tests::archive::{self, Image, Packing};
use containerd_tests::tar::{Entry, Kind};

/// Small enough that ext4 delays where they go, as those of a distribution's image.
const LARGEST: u64 = 6_000;
const LAYERS: u64 = 3;
const FILES: u64 = 1000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, seed] = &arguments[..] else { panic!("usage: power_cut DIR SEED") };
    let (dir, mut random) = (Path::new(dir), seed.parse::<u64>().expect("SEED is a number") | 1);
    fs::create_dir_all(dir.join("expected")).unwrap();
    let mut image = Image::named("docker.io/library/power-cut:1");
    for number in 0..=LAYERS {
        let entries = if number == 0 { archive::base_layer() } else { layer(number, &mut random) };
        image = image.layer(&entries, Packing::Gzip);
        fs::write(dir.join("expected").join(image.chain_id()), sums(&entries)).unwrap();
    }
    fs::write(dir.join("image.tar"), image.oci()).unwrap();
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
