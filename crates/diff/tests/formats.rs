//! What an archive means: what Go's archive/tar makes of it, or an error, and never much memory or time (SEC-067, 086).
//!
//! `reference/listing.txt` is what `reference/list.go` says of the archives that [`zoo`] makes. To make it anew:
//! `CONTAINERD_TAR_ZOO=<dir> cargo test -p containerd-diff --test formats`, then `go run list.go <dir>`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends where it fails")]

mod archive;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use archive::{Archive, Header, record};
use diff::tar::{Entry, Kind, Reader};
use types::{Digest, Result};

/// A small generator of numbers that is the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % below
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.roll(from.len())]
    }
}

const SIZES: [&[u8]; 12] = [
    b"00000000000\0",
    b"00000000003\0",
    b"00000001000\0",
    b"         10 ",
    b"\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\x80\0\0\0\0\0\0\0\0\0\0\x05",
    b"\x80\0\0\0\0\0\0\0\0\0\x02\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\0\0\0\x80\0\0\0\0\0\0\0",
    b"77777777777\0",
    b"12\0 garbage\0",
    b"-0000000001\0",
];
const PAX: [(&str, &[u8]); 26] = [
    ("size", b"3"),
    ("size", b"512"),
    ("size", b"0"),
    ("size", b"-1"),
    ("size", b"x"),
    ("size", b""),
    ("path", b"pax/name"),
    ("path", b"pax/dir/"),
    ("path", b""),
    ("linkpath", b"pax-link"),
    ("uid", b"70000"),
    ("gid", b"+5"),
    ("uid", b"0x10"),
    ("mtime", b"1.5"),
    ("mtime", b"-1.5"),
    ("mtime", b"1.x"),
    ("mtime", b"9223372036854775807"),
    ("SCHILY.xattr.user.a", b"1"),
    ("SCHILY.xattr.user.a", b""),
    ("SCHILY.xattr.user.b", b"\0\n=2"),
    ("GNU.sparse.major", b"1"),
    ("GNU.sparse.minor", b"0"),
    ("GNU.sparse.map", b"0,1,4,2"),
    ("GNU.sparse.numblocks", b"2"),
    ("GNU.sparse.size", b"10"),
    ("comment", b"hello"),
];

/// Archives that a careless or a wicked writer might write; the same ones on every machine.
fn zoo() -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for seed in 0..600 {
        let mut dice = Dice(seed);
        let mut archive = Archive::default();
        for _ in 0..=dice.roll(3) {
            archive = member(archive, &mut dice);
        }
        let mut bytes = archive.file("last", "the end").end();
        match dice.roll(12) {
            0 => bytes.truncate(dice.roll(bytes.len())),
            1 => bytes.truncate(bytes.len() - 1024),
            2 => bytes.truncate(bytes.len() - 512),
            3 => bytes.extend([7; 512]),
            _ => {}
        }
        all.insert(format!("{seed:04}.tar"), bytes);
    }
    all
}

fn member(mut archive: Archive, dice: &mut Dice) -> Archive {
    let body = &b"abcdefghijklmnopqrstuvwxyz"[..dice.roll(27)];
    if dice.roll(5) == 0 {
        let records: Vec<_> = (0..=dice.roll(2)).map(|_| PAX[dice.roll(PAX.len())]).collect();
        archive = archive.pax(&records);
    }
    if dice.roll(5) == 0 {
        archive = archive.long(*dice.pick(&[&b'L', &b'K']), dice.pick(&["long/name", "", "a\0b", "dir/"]));
    }
    match dice.roll(16) {
        0 => return sparse_one(archive, dice),
        1 => return old_sparse(archive, dice),
        2 => {
            let records = record("path", b"global");
            return archive.entry(Header::new(b'g', "global").size(records.len() as u64), &records);
        }
        _ => {}
    }
    let flag = *dice.pick(&[&b'0', &b'0', &b'0', &0, &b'1', &b'2', &b'3', &b'5', &b'6', &b'7', &b'Z']);
    let name = dice.pick(&["a", "dir/", "b/c", "./x", "/abs", "../up", "n\u{e4}me"]);
    let mut header = Header::new(flag, name).size(body.len() as u64).link("target");
    header = match dice.roll(6) {
        0 => header.gnu(),
        1 => header.raw(257, &[0; 8]),
        2 => header.raw(345, b"some/prefix"),
        3 => header.raw(508, b"tar\0"),
        _ => header,
    };
    header = match dice.roll(20) {
        0 => header.raw(124, SIZES[dice.roll(SIZES.len())]),
        1 => header.raw(108, b"\x80\0\0\0\0\x0f\x42\x40"),
        2 => header.raw(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfb"),
        3 => header.raw(100, b"  644 \0\0"),
        4 => header.device(dice.roll(300) as u32, dice.roll(70_000) as u32),
        _ => header,
    };
    archive.entry(header, body)
}

/// GNU's format 1.0, with a map that may lie.
fn sparse_one(archive: Archive, dice: &mut Dice) -> Archive {
    let map = dice.pick(&[
        "1\n0\n3\n",
        "2\n0\n1\n5\n2\n",
        "0\n",
        "1\n8\n3\n",
        "2\n5\n2\n0\n1\n",
        "1\n0\n4\n",
        "x\n",
        "1\n0",
    ]);
    let mut body = map.as_bytes().to_vec();
    body.resize(512, 0);
    body.extend(b"abc");
    let size = dice.pick(&[&b"10"[..], b"8", b"3", b"-1"]);
    archive
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", size),
        ])
        .entry(Header::new(b'0', "GNUSparseFile.0/real").size(body.len() as u64), &body)
}

fn old_sparse(mut archive: Archive, dice: &mut Dice) -> Archive {
    let octal = |value: u32| format!("{value:011o}\0").into_bytes();
    let regions = dice.roll(4) as u32;
    let mut header = Header::new(b'S', "old").gnu().raw(483, &octal(100)).size(u64::from(regions) * 2);
    for at in 0..regions {
        let offset = if dice.roll(9) == 0 { 99 } else { at * 10 };
        header = header.raw(386 + at as usize * 24, &octal(offset)).raw(398 + at as usize * 24, &octal(2));
    }
    let extended = dice.roll(3) == 0;
    if extended {
        header = header.raw(482, &[1]).size(u64::from(regions) * 2 + 1);
    }
    archive.0.extend(header.sealed());
    if extended {
        let mut block = [0; 512];
        block[..12].copy_from_slice(&octal(90));
        block[12..24].copy_from_slice(&octal(1));
        archive.0.extend(block);
    }
    archive.0.extend(&b"0123456789"[..(regions * 2 + u32::from(extended)) as usize]);
    archive.0.resize(archive.0.len().next_multiple_of(512), 0);
    archive
}

/// The body as the file that it makes, holes filled.
fn contents(reader: &mut Reader<&[u8]>, entry: &Entry) -> Result<Vec<u8>> {
    let body = reader.read_body(1 << 30)?;
    let Some(regions) = &entry.sparse else { return Ok(body) };
    let mut file = vec![0; usize::try_from(entry.size).unwrap()];
    let mut rest = &body[..];
    for region in regions {
        let (here, after) = rest.split_at(region.length as usize);
        file[region.offset as usize..][..here.len()].copy_from_slice(here);
        rest = after;
    }
    Ok(file)
}

fn list(bytes: &[u8]) -> Result<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut reader = Reader::new(bytes);
    let mut text = String::new();
    while let Some(entry) = reader.next_entry()? {
        let file = contents(&mut reader, &entry)?;
        let flag = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
            Kind::Other(flag) => flag,
        };
        let xattrs: BTreeMap<String, String> =
            entry.xattrs.iter().map(|(key, value)| (hex(key), hex(value))).collect();
        let xattrs: Vec<String> = xattrs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        writeln!(
            text,
            "{flag} {} {} mode={:o} uid={} gid={} size={} mtime={}.{:09} dev={}:{} [{}] {}",
            hex(&entry.name),
            hex(&entry.link),
            entry.mode,
            entry.uid,
            entry.gid,
            entry.size,
            entry.mtime.secs,
            entry.mtime.nanos,
            entry.device.0,
            entry.device.1,
            xattrs.join(" "),
            &Digest::of(&file).hex()[..16]
        )
        .unwrap();
    }
    Ok(text)
}

#[test]
fn every_archive_means_what_go_makes_of_it_or_is_refused() {
    let zoo = zoo();
    if let Some(dir) = std::env::var_os("CONTAINERD_TAR_ZOO") {
        for (name, bytes) in &zoo {
            std::fs::write(std::path::Path::new(&dir).join(name), bytes).unwrap();
        }
    }
    let reference = include_str!("reference/listing.txt");
    let mut wanted: BTreeMap<&str, &str> = BTreeMap::new();
    for part in reference.split("# ").skip(1) {
        let (name, lines) = part.split_once('\n').unwrap();
        wanted.insert(name, lines);
    }
    assert_eq!(wanted.len(), zoo.len());
    let (mut equal, mut refused) = (0, 0);
    for (name, bytes) in &zoo {
        match (list(bytes), wanted[name.as_str()]) {
            (Ok(ours), go) if ours == go => equal += 1,
            // Go refuses it, or we are stricter.
            (Err(_), _) => refused += 1,
            (Ok(ours), go) => panic!("{name}: a third answer\n{ours}\nwhere Go says\n{go}"),
        }
    }
    let go_refuses = wanted.values().filter(|lines| **lines == "error\n").count();
    assert!(equal > 150, "{equal} equal, {refused} refused, Go refuses {go_refuses}");
    assert!(refused - go_refuses < 60, "too strict: {refused} refused, Go refuses {go_refuses}");
}

/// Of a forged archive, how far it comes; it must not take long.
fn refused(bytes: &[u8]) -> String {
    let start = Instant::now();
    let error = list(bytes).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2), "{error}");
    error.to_string()
}

#[test]
fn bombs_in_headers_are_refused_at_once() {
    let huge =
        |flag: u8, size: u64| Archive::default().entry(Header::new(flag, "x").size(size), &[b'1'; 4096]).0;
    for flag in [b'x', b'g', b'L', b'K'] {
        refused(&huge(flag, 4 << 30));
        refused(&huge(flag, (1 << 20) + 1));
    }
    let many = |key: &str| (0..60_000).flat_map(|n| record(&format!("{key}{n}"), b"1")).collect::<Vec<u8>>();
    let xattrs = many("SCHILY.xattr.user.");
    refused(
        &Archive::default()
            .entry(Header::new(b'x', "x").size(xattrs.len() as u64), &xattrs)
            .file("f", "")
            .end(),
    );
    // A map of a million regions, in each of the forms.
    let map = (0..100_000).flat_map(|n| format!("{n},0,").into_bytes()).collect::<Vec<u8>>();
    refused(
        &Archive::default()
            .pax(&[("GNU.sparse.numblocks", b"100000"), ("GNU.sparse.map", &map)])
            .file("f", "")
            .end(),
    );
    let mut body = b"1000000\n".to_vec();
    body.extend((0..400_000).flat_map(|_| *b"0\n"));
    let one = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")];
    refused(&Archive::default().pax(&one).file("f", &body).end());
    let mut chain = Header::new(b'S', "old").gnu().raw(482, &[1]).sealed().to_vec();
    let mut block = [0; 512];
    block[504] = 1;
    (0..4096).for_each(|_| chain.extend(block));
    refused(&chain);
    let mut headers = Archive::default();
    for _ in 0..64 {
        headers = headers.long(b'L', "again");
    }
    refused(&headers.file("f", "").end());
    let sizes =
        [b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"];
    for size in sizes {
        refused(&Archive::default().entry(Header::new(b'0', "f").raw(124, size), b"x").end());
    }
}

#[test]
fn an_archive_without_an_end_is_whole_and_one_cut_in_a_body_is_not() {
    let whole = Archive::default().file("a", "body");
    assert!(list(&whole.0).is_ok());
    assert!(list(&whole.0[..512 + 2]).is_err() && list(&whole.0[..100]).is_err());
    assert!(list(b"").unwrap().is_empty());
    assert!(refused(&[&[0; 512][..], &whole.0].concat()).contains("zeros"));
}

#[test]
fn a_nested_archive_is_the_body_of_its_member() {
    let inner = Archive::default().file("inner", "smuggled").end();
    let size = inner.len().to_string();
    // The header says 0 and PAX the truth: a reader that believes the header would list `inner` (TARmageddon).
    let tar = Archive::default()
        .pax(&[("size", size.as_bytes())])
        .entry(Header::new(b'0', "outer").size(0), &inner)
        .end();
    let text = list(&tar).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(&format!("size={size}")));
}
