//! What is the local store's own: its layout, restarts, a full disk, speed.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;
use crate::testsuite::{self, Features};

struct Area {
    dir: tempfile::TempDir,
    store: Arc<LocalStore>,
}

impl Area {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = LocalStore::open(dir.path().join("content")).unwrap();
        Self { dir, store }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("content").join(path)
    }

    async fn writer(&self, reference: &str) -> Box<dyn Writer> {
        self.store
            .writer(WriterOptions { reference: reference.to_owned(), ..Default::default() })
            .await
            .unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conformance_suite_passes() {
    let area = Area::new();
    testsuite::all(&*area.store, Features { labels: false }).await;
    assert_eq!(fs::read_dir(area.path("ingest")).unwrap().count(), 0, "the suite leaves no ingest behind");
}

#[tokio::test]
async fn files_lie_where_upstream_has_them() {
    let area = Area::new();
    let mut writer = area.writer("layer-1").await;
    writer.write(Bytes::from_static(b"hello")).await.unwrap();
    writer.digest().await.unwrap();
    let ingest = area.path("ingest").join(Digest::of(b"layer-1").hex());
    assert_eq!(fs::read(ingest.join("ref")).unwrap(), b"layer-1");
    assert_eq!(fs::read(ingest.join("data")).unwrap(), b"hello");
    assert!(types::time::parse_rfc3339(&fs::read_to_string(ingest.join("startedat")).unwrap()).is_some());
    writer.commit(5, None, Labels::new()).await.unwrap();

    let blob = area.path("blobs/sha256").join(Digest::of(b"hello").hex());
    assert_eq!(blob, area.store.path(&Digest::of(b"hello")));
    assert_eq!((fs::read(&blob).unwrap(), mode(&blob)), (b"hello".to_vec(), 0o444));
    assert!(!ingest.exists());
    for dir in ["", "blobs", "blobs/sha256", "ingest"] {
        assert_eq!(mode(&area.path(dir)), 0o700, "{dir}");
    }
}

#[tokio::test]
async fn an_ingest_that_go_wrote_is_resumed_after_a_restart() {
    let area = Area::new();
    let ingest = area.path("ingest").join(Digest::of(b"layer-2").hex());
    fs::create_dir(&ingest).unwrap();
    for (name, text) in [
        ("ref", "layer-2"),
        ("startedat", "2026-01-02T03:04:05.123456789+02:00"),
        ("updatedat", "2026-01-02T03:04:06+02:00"),
        ("total", "11"),
        ("data", "hello "),
    ] {
        fs::write(ingest.join(name), text).unwrap();
    }
    let store = LocalStore::open(area.path("")).unwrap();
    let options = WriterOptions { reference: "layer-2".to_owned(), total: 11, expected: None };
    let mut writer = store.writer(options).await.unwrap();
    let status = writer.status().await.unwrap();
    assert_eq!((status.offset, status.total), (6, 11));
    assert_eq!(types::time::rfc3339(status.started_at), "2026-01-02T01:04:05.123456789Z");
    writer.write(Bytes::from_static(b"world")).await.unwrap();
    writer.commit(11, Some(Digest::of(b"hello world")), Labels::new()).await.unwrap();
}

#[tokio::test]
async fn a_torn_ingest_begins_anew_or_is_swept_by_a_restart() {
    let area = Area::new();
    let now = types::time::rfc3339(std::time::SystemTime::now());
    let torn = |files: &[(&str, &[u8])]| {
        let dir = area.path("ingest").join(Digest::of(b"torn").hex());
        fs::create_dir(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        dir
    };
    let killed_in_commit: &[(&str, &[u8])] = &[("ref", b"torn"), ("startedat", now.as_bytes())];
    let killed_in_abort: &[(&str, &[u8])] = &[("data", b"garbage"), ("startedat", now.as_bytes())];
    let no_time: &[(&str, &[u8])] = &[("ref", b"torn"), ("startedat", b""), ("data", b"garbage")];
    let times = (now.as_bytes(), b"garbage");
    let no_ref: &[(&str, &[u8])] =
        &[("ref", b"to\xff"), ("startedat", times.0), ("updatedat", times.0), ("data", times.1)];
    for files in [killed_in_commit, killed_in_abort, no_time, no_ref] {
        let dir = torn(files);
        let writer = area.writer("torn").await;
        assert_eq!(writer.status().await.unwrap().offset, 0);
        assert_eq!(fs::read(dir.join("data")).unwrap(), b"");
        drop(writer);
        area.store.abort("torn").await.unwrap();

        let dir = torn(files);
        let store = LocalStore::open(area.path("")).unwrap();
        assert!(!dir.exists(), "{files:?}");
        assert!(store.list_statuses(&[]).await.unwrap().is_empty());
    }
    drop(area.writer("whole").await);
    let store = LocalStore::open(area.path("")).unwrap();
    assert_eq!(store.list_statuses(&[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn another_total_begins_anew() {
    let area = Area::new();
    let open = async |total| {
        area.store.writer(WriterOptions { reference: "r".to_owned(), total, expected: None }).await.unwrap()
    };
    let mut writer = open(10).await;
    writer.write(Bytes::from_static(b"12345")).await.unwrap();
    drop(writer);
    assert_eq!(open(0).await.status().await.unwrap().offset, 5);
    let status = open(20).await.status().await.unwrap();
    assert_eq!((status.offset, status.total), (0, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_dropped_in_the_middle_of_a_write_frees_its_reference_when_that_ends() {
    let area = Area::new();
    for _ in 0..20 {
        let mut writer = area.writer("big").await;
        let before = writer.status().await.unwrap().offset;
        writer.write(Bytes::from(vec![7; 8 << 20])).await.unwrap();
        drop(writer);
        let writer = area.writer("big").await;
        assert_eq!(writer.status().await.unwrap().offset, before + (8 << 20));
        drop(writer);
        area.store.abort("big").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_by_name_and_the_ingest_goes_on_later() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let disk = types::mount::Mount {
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        target: String::new(),
        options: vec!["size=1m".to_owned()],
    };
    let disk = sys::mount::TempMount::below(dir.path(), &[disk]).unwrap();
    let store = LocalStore::open(disk.path().join("content")).unwrap();
    let options = WriterOptions { reference: "layer-big".to_owned(), ..Default::default() };
    let mut writer = store.writer(options.clone()).await.unwrap();
    let piece = Bytes::from(vec![1; 300 << 10]);
    let error = loop {
        if let Err(error) = writer.write(piece.clone()).await {
            break error;
        }
    };
    assert_eq!(error.class(), types::Class::ResourceExhausted);
    assert!(error.to_string().contains("layer-big"), "{error}");
    let offset = writer.status().await.unwrap().offset;
    assert!(offset > 600 << 10);
    drop(writer);

    let mut writer = store.writer(options).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset, offset);
    let expected = Digest::of(&vec![1; usize::try_from(offset).unwrap()]);
    writer.commit(offset, Some(expected), Labels::new()).await.unwrap();
    drop(writer);
    drop(store);
    disk.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarter_of_a_gigabyte_is_written_and_committed_in_seconds() {
    let area = Area::new();
    let piece = Bytes::from((0..1_u32 << 20).map(|i| i.to_le_bytes()[0]).collect::<Vec<_>>());
    let begin = Instant::now();
    let mut writer = area.writer("big").await;
    for _ in 0..256 {
        writer.write(piece.clone()).await.unwrap();
    }
    let written = begin.elapsed();
    writer.commit(256 << 20, None, Labels::new()).await.unwrap();
    eprintln!("256 MiB: written in {written:?}, durable after {:?}", begin.elapsed());
    // Generous: the hash of a debug build and a busy machine are in it.
    assert!(begin.elapsed().as_secs() < 30);
}

/// The child of the next test: writes blobs until it is killed, and says which were acknowledged.
fn write_until_killed(root: &str) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = LocalStore::open(root).unwrap();
        for i in 0_usize.. {
            let bytes = Bytes::from(format!("{root} {i} ").repeat(i % 7 * 9_000 + 1));
            let options = WriterOptions { reference: format!("ref-{}", i % 5), ..Default::default() };
            let mut writer = store.writer(options).await.unwrap();
            // What an earlier life left under this reference is of another blob.
            writer.truncate(0).await.unwrap();
            for piece in bytes.chunks(300_000) {
                writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            match writer.commit(bytes.len() as u64, None, Labels::new()).await {
                Ok(()) => println!("committed {}", Digest::of(&bytes)),
                Err(error) => assert!(error.is_already_exists(), "{error}"),
            }
        }
    });
}

#[test]
fn a_kill_at_any_moment_leaves_whole_blobs_and_resumable_ingests() {
    const ROOT: &str = "CONTENT_TEST_ROOT";
    if let Ok(root) = std::env::var(ROOT) {
        return write_until_killed(&root);
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    for round in 0..10_u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "local::tests::a_kill_at_any_moment_leaves_whole_blobs_and_resumable_ingests",
                "--nocapture",
            ])
            .env(ROOT, dir.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = io::BufRead::lines(io::BufReader::new(child.stdout.take().unwrap()));
        // Every moment is as good as any other: each round lets it go on for some more blobs, and a little longer.
        let wanted = 3 + usize::try_from(round).unwrap() * 2;
        let mut said: Vec<String> = lines
            .by_ref()
            .map_while(io::Result::ok)
            .filter(|line| line.starts_with("committed "))
            .take(wanted)
            .collect();
        std::thread::sleep(std::time::Duration::from_micros(round * 431));
        child.kill().unwrap();
        child.wait().unwrap();
        said.extend(lines.map_while(io::Result::ok));
        tokio::runtime::Runtime::new().unwrap().block_on(check(dir.path(), &said));
    }
}

async fn check(root: &Path, said: &[String]) {
    let store = LocalStore::open(root).unwrap();
    for digest in said.iter().filter_map(|line| line.strip_prefix("committed ")) {
        store.info(&digest.parse().unwrap()).await.unwrap();
    }
    let mut digests = Vec::new();
    let mut each = |info: Info| {
        digests.push(info.digest);
        Ok(())
    };
    store.walk(&Filters::default(), &mut each).await.unwrap();
    assert!(digests.len() >= said.len().min(1));
    for digest in &digests {
        assert_eq!(&Digest::of(&fs::read(store.path(digest)).unwrap()), digest);
        store.delete(digest).await.unwrap();
    }
    for status in store.list_statuses(&[]).await.unwrap() {
        let options = WriterOptions { reference: status.reference, ..Default::default() };
        assert_eq!(store.writer(options).await.unwrap().status().await.unwrap().offset, status.offset);
    }
}

#[tokio::test]
async fn a_blob_that_is_not_whole_is_replaced_by_who_has_it() {
    let area = Area::new();
    let digest = Digest::of(b"hello");
    let expecting =
        |total| WriterOptions { reference: "again".to_owned(), total, expected: Some(digest.clone()) };
    for half in [&b""[..], b"hel"] {
        drop(fs::remove_file(area.store.path(&digest)));
        fs::create_dir_all(area.path("blobs/sha256")).unwrap();
        fs::write(area.store.path(&digest), half).unwrap();
        let mut writer = area.store.writer(expecting(5)).await.unwrap();
        writer.write(Bytes::from_static(b"hello")).await.unwrap();
        writer.commit(5, Some(digest.clone()), Labels::new()).await.unwrap();
        assert_eq!(fs::read(area.store.path(&digest)).unwrap(), b"hello");
    }
    assert!(area.store.writer(expecting(5)).await.err().unwrap().is_already_exists());
}
