//! What is compared with a layer, what counts as a difference, and that mending makes it whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::Store as _;
use diff::verify::{self, Difference, Verdict};
use types::mount::Mount;
use types::oci::image::media;

use crate::archive::{Archive, Header, gzip, store_layer};
use crate::place::{Place, bind, is_root, overlay};

/// Compares `tar` with what is seen of all layers.
async fn compare(place: &Place, tar: &[u8]) -> Verdict {
    let layer = store_layer(&place.store, media::OCI_LAYER_GZIP, tar).await;
    let blob = place.store.reader(&layer.digest).await.unwrap().into();
    let view = place.view();
    let (path, runtime) = (view.path().to_owned(), tokio::runtime::Handle::current());
    let verdict = tokio::task::spawn_blocking(move || verify::compare(blob, &path, runtime)).await.unwrap();
    view.close().unwrap();
    verdict.unwrap()
}

/// The view that a snapshotter would answer with.
fn view(place: &Place) -> Vec<Mount> {
    match &place.layers[..] {
        [only] => vec![Mount { options: vec!["ro".into(), "rbind".into()], ..bind(only) }],
        layers => {
            let lowers: Vec<String> = layers.iter().rev().map(|l| l.display().to_string()).collect();
            vec![overlay(vec![format!("lowerdir={}", lowers.join(":")), "index=off".into()])]
        }
    }
}

fn found(verdict: &Verdict) -> BTreeMap<&Path, &Difference> {
    verdict.differences.iter().map(|(path, difference)| (path.as_path(), difference)).collect()
}

fn layers() -> [Vec<u8>; 2] {
    let base = Archive::default()
        .dir("usr")
        .dir("usr/lib")
        .file("usr/lib/libc", "c")
        .symlink("lib", "usr/lib")
        .file("gone", "x")
        .dir("again")
        .file("again/old", "")
        .end();
    let next = Archive::default()
        .file("first", "1")
        .file("twice", "one")
        .file("twice", "another")
        .file("lib/new", "2")
        .hardlink("libc2", "usr/lib/libc")
        .hardlink("first2", "first")
        .file(".wh.gone", "")
        .file(".wh.again", "")
        .file("again/new", "n")
        .entry(Header::new(b'5', "own").mode(0o700).owner(3, 4), b"")
        .entry(Header::new(b'0', "own/su").mode(0o4755).size(2), b"su")
        .entry(Header::new(b'3', "null").mode(0o666).device(1, 3), b"")
        .symlink("own/link", "su")
        .end();
    [base, next]
}

async fn place() -> Place {
    let mut place = Place::new();
    for layer in layers() {
        place.apply_layer(&layer).await.unwrap();
    }
    place
}

#[tokio::test]
async fn what_was_extracted_is_the_same_as_the_layer() {
    if !is_root() {
        return;
    }
    let place = place().await;
    for (layer, entries) in layers().iter().zip([7, 11]) {
        let verdict = compare(&place, &gzip(layer)).await;
        // The base is seen through the layer above it, which hides some of it.
        let hidden = if entries == 7 { vec![Path::new("again/old"), Path::new("gone")] } else { vec![] };
        assert_eq!(found(&verdict).into_keys().collect::<Vec<_>>(), hidden);
        assert_eq!((verdict.diff_id, verdict.entries >= entries), (types::Digest::of(layer), true));
    }
}

#[tokio::test]
async fn what_a_power_loss_takes_is_found_and_mended() {
    if !is_root() {
        return;
    }
    let place = place().await;
    let [_, next] = layers();
    let top = place.layers[1].clone();
    let at = |name: &str| top.join(name);
    std::fs::write(at("first"), "").unwrap();
    std::fs::write(at("twice"), "anothex").unwrap();
    std::fs::write(at("own/su"), "s").unwrap();
    std::fs::remove_file(at("null")).unwrap();
    std::fs::remove_file(at("gone")).unwrap();
    std::fs::remove_file(at("own/link")).unwrap();
    std::fs::create_dir(at("own/link")).unwrap();
    std::os::unix::fs::chown(at("own"), Some(0), None).unwrap();
    let verdict = compare(&place, &gzip(&next)).await;
    let wanted: [(&str, Difference); 7] = [
        ("first", Difference::Size(0, 1)),
        ("gone", Difference::Visible),
        ("null", Difference::Missing),
        ("own", Difference::Attributes),
        ("own/link", Difference::Other),
        ("own/su", Difference::Size(1, 2)),
        ("twice", Difference::Bytes),
    ];
    let wanted: BTreeMap<&Path, &Difference> = wanted.iter().map(|(p, d)| (Path::new(*p), d)).collect();
    assert_eq!(found(&verdict), wanted);

    assert_eq!(verify::top_of(&view(&place)).unwrap(), top);
    let layer = store_layer(&place.store, media::OCI_LAYER_GZIP, &gzip(&next)).await;
    let diff_id = verify::mend(Arc::clone(&place.store) as _, &layer, &view(&place)).await.unwrap();
    assert_eq!(diff_id, types::Digest::of(&next));
    assert_eq!(found(&compare(&place, &gzip(&next)).await), BTreeMap::new());
    // Nothing below was touched.
    assert_eq!(std::fs::read(place.layers[0].join("gone")).unwrap(), b"x");
}

#[tokio::test]
async fn the_lowest_layer_is_mended_in_its_directory() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    let [base, _] = layers();
    place.apply_layer(&base).await.unwrap();
    std::fs::remove_dir_all(place.layers[0].join("usr")).unwrap();
    let missing: Vec<PathBuf> = compare(&place, &base).await.differences.into_keys().collect();
    assert_eq!(missing, ["usr", "usr/lib", "usr/lib/libc"].map(PathBuf::from));
    let layer = store_layer(&place.store, media::OCI_LAYER_GZIP, &base).await;
    verify::mend(Arc::clone(&place.store) as _, &layer, &view(&place)).await.unwrap();
    assert_eq!(found(&compare(&place, &base).await), BTreeMap::new());
}
