//! Layers that are extracted before those below them, in any order, look as if they had been applied one after another.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use diff::arriving::{Arriving, unpack};
use diff::compression::Wrapping;
use diff::extract::{Later, Stop, Target, rebase};
use types::Result;

use crate::archive::{Archive, Header};
use crate::place::{Place, is_root};

/// The same numbers for the same seed.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn path(&mut self) -> String {
        let parts: Vec<&str> = (0..1 + self.below(3)).map(|_| self.pick(&["a", "b", "c"])).collect();
        parts.join("/")
    }
}

fn layer(rng: &mut Rng) -> Vec<u8> {
    let mut tar = Archive::default();
    let mut made: Vec<String> = Vec::new();
    for _ in 0..1 + rng.below(7) {
        let path = rng.path();
        // Mostly layers that can be applied at all.
        let in_the_way = made.iter().any(|other| path == *other || path.starts_with(&format!("{other}/")));
        if in_the_way && rng.below(8) > 0 {
            continue;
        }
        let (parent, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(p, n)| (p, n));
        let slash = if parent.is_empty() { "" } else { "/" };
        let owner = rng.below(5) as u32;
        let kind = rng.below(12);
        if kind >= 4 {
            made.push(path.clone());
        }
        tar = match kind {
            0..4 => {
                let mode = [0o755, 0o700, 0o2775][rng.below(3)];
                tar.entry(Header::new(b'5', &path).mode(mode).owner(owner, 1).mtime(1000 + owner as u64), b"")
            }
            4..8 => tar.file(&path, format!("{}", rng.0)),
            8 => tar.symlink(&path, rng.pick(&["a", "b", "/c", "../b", "/a/b", "missing"])),
            9 => tar.hardlink(&path, &rng.path()),
            10 => tar.file(&format!("{parent}{slash}.wh.{name}"), ""),
            _ => tar.file(&format!("{parent}{slash}.wh..wh..opq"), ""),
        };
    }
    tar.end()
}

async fn extract(tar: &[u8], target: Target) -> Result<Later, Stop> {
    let (sender, arriving) = Arriving::channel();
    let work = tokio::task::spawn_blocking(move || {
        unpack(arriving, Wrapping::Detect, target, None, &AtomicBool::new(false)).map(|(later, _)| later)
    });
    for piece in tar.chunks(700) {
        sender.send(piece.to_vec().into()).await;
    }
    sender.end().await;
    work.await.unwrap()
}

/// Extracts all layers in an order of its own, then puts one on the other.
async fn side_by_side(place: &mut Place, tars: &[Vec<u8>], rng: &mut Rng) -> Result<()> {
    let mut order: Vec<usize> = (0..tars.len()).collect();
    for at in 0..order.len() {
        order.swap(at, rng.below(tars.len()));
    }
    let mut extracted = BTreeMap::new();
    for at in order {
        let dir = place.path(&format!("tree{at}"));
        std::fs::create_dir(&dir).unwrap();
        let target = if at == 0 { Target::View(dir.clone()) } else { Target::Rebase(dir.clone()) };
        extracted.insert(at, (dir, extract(&tars[at], target).await));
    }
    for (at, (dir, extracted)) in extracted {
        let lowers: Vec<PathBuf> = place.layers.iter().rev().cloned().collect();
        let done =
            extracted.and_then(|later| rebase(&dir, &later, if at == 0 { Vec::new() } else { lowers }));
        match done {
            Ok(()) => place.layers.push(dir),
            Err(Stop::NeedsMergedView) => drop(place.apply_layer(&tars[at]).await?),
            Err(Stop::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}

async fn one_after_another(place: &mut Place, tars: &[Vec<u8>]) -> Result<()> {
    for tar in tars {
        place.apply_layer(tar).await?;
    }
    Ok(())
}

/// Everything that a container could see. Of directories that came from nowhere the time is that of the test.
fn seen(place: &Place) -> BTreeMap<PathBuf, String> {
    let view = place.view();
    let mut all = BTreeMap::new();
    let mut todo = vec![view.path().to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(meta) = std::fs::symlink_metadata(&path) else {
            // Overlayfs lists a whiteout in a directory that no layer below has.
            all.insert(
                path.strip_prefix(view.path()).unwrap().to_owned(),
                "a name without a file".to_owned(),
            );
            continue;
        };
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let body = match () {
            () if meta.is_file() => std::fs::read_to_string(&path).unwrap(),
            () if meta.is_symlink() => std::fs::read_link(&path).unwrap().display().to_string(),
            () => String::new(),
        };
        let time = if meta.mtime() < 1_500_000_000 { meta.mtime() } else { 0 };
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let facts = format!("{:o} {}:{} {links} {time} {body}", meta.mode(), meta.uid(), meta.gid());
        let shown = path.strip_prefix(view.path()).unwrap_or(Path::new("")).to_owned();
        if !shown.as_os_str().is_empty() {
            all.insert(shown, facts);
        }
    }
    view.close().unwrap();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_in_any_order_look_as_one_after_another() {
    if !is_root() {
        return;
    }
    let (mut compared, mut failed) = (0, 0);
    for seed in 1..70_u64 {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let tars: Vec<Vec<u8>> = (0..2 + rng.below(3)).map(|_| layer(&mut rng)).collect();
        let (mut one, mut other) = (Place::new(), Place::new());
        let wanted = one_after_another(&mut one, &tars).await;
        let found = side_by_side(&mut other, &tars, &mut rng).await;
        match (wanted, found) {
            (Ok(()), Ok(())) => {
                assert_eq!(seen(&one), seen(&other), "seed {seed}");
                compared += 1;
            }
            (Err(_), Err(_)) => failed += 1,
            (wanted, found) => panic!("seed {seed}: {wanted:?} one after another, {found:?} side by side"),
        }
    }
    assert!(compared > 20 && failed > 0, "{compared} compared, {failed} failed in both ways");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_goes_away_is_no_end() {
    let place = Place::new();
    let tar = Archive::default().file("a", "1").file("b", "2").end();
    let (sender, arriving) = Arriving::channel();
    let target = Target::View(place.path("root"));
    let work = tokio::task::spawn_blocking(move || {
        unpack(arriving, Wrapping::Detect, target, None, &AtomicBool::new(false))
    });
    // Everything but the end: a valid archive, as archives may just stop.
    sender.send(tar[..1024].to_vec().into()).await;
    drop(sender);
    assert!(
        matches!(work.await.unwrap(), Err(Stop::Failed(error)) if error.class() == types::Class::Canceled)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_pull_left_comes_first() {
    let place = Place::new();
    let tar = Archive::default().file("a", "1".repeat(5000)).end();
    std::fs::write(place.path("half"), &tar[..3000]).unwrap();
    let (sender, arriving) = Arriving::channel();
    let arriving = arriving.after(std::fs::File::open(place.path("half")).unwrap(), 3000);
    let target = Target::View(place.path("root"));
    let work = tokio::task::spawn_blocking(move || {
        unpack(arriving, Wrapping::Detect, target, None, &AtomicBool::new(false))
    });
    sender.send(tar[3000..].to_vec().into()).await;
    sender.end().await;
    assert_eq!(work.await.unwrap().unwrap().1.digest, types::Digest::of(&tar));
    assert_eq!(std::fs::read(place.root("a")).unwrap().len(), 5000);
}
