//! What an image may not exceed: how large its documents are, how deep its indexes nest, how much a layer inflates to. The error
//! names the limit, nothing is left, and what is within it is pulled.

use containerd_tests::binaries::{self, beyond_upstream};
use containerd_tests::tar::{self, Entry};
use containerd_tests::{Daemon, Ledger};
use registry::fake::Setup;
use serde_json::{Value, json};
use types::oci::Descriptor;
use types::oci::image::media;

use crate::registry_lies::{Bench, REPOSITORY, WAYS, Way, packed};

/// A daemon with this key in its section about transfers, and an image to pull.
fn limited(key: &str) -> Bench {
    let section = format!("[plugins.'io.containerd.transfer.v1.local']\n{key}\n");
    let daemon = Daemon::prepare(binaries::tested(), binaries::suite()).configured(&section);
    daemon.launch();
    Bench::with(Setup::default(), Way::Transfer, daemon)
}

/// The name points to an index of this from now on.
fn index(bench: &Bench, of: &Descriptor, padding: usize) -> Descriptor {
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_INDEX,
        "manifests": [of],
        "annotations": {"padding": "x".repeat(padding)},
    });
    bench.fake.add_manifest(REPOSITORY, Some("1"), media::OCI_INDEX, index.to_string())
}

/// The same, with so many indexes around it.
fn nested(bench: &Bench, depth: usize) {
    (0..depth).fold(bench.image.manifest.clone(), |inner, _| index(bench, &inner, 0));
}

#[test]
fn indexes_nest_only_so_deep() {
    if beyond_upstream("max_index_depth") {
        return;
    }
    for way in WAYS {
        let bench = Bench::new(Setup::default(), way);
        nested(&bench, 4);
        bench.good(&[]);
        nested(&bench, 5);
        bench.refused(&[], "max_index_depth");
    }
    let bench = limited("max_index_depth = 1");
    nested(&bench, 1);
    bench.good(&[]);
    nested(&bench, 2);
    bench.refused(&[], "nested more than 1 deep, all that plugins.\"io.containerd.transfer.v1.local\".max_index_depth allows");
}

#[test]
fn documents_are_only_so_large() {
    if beyond_upstream("max_manifest_size") {
        return;
    }
    const MIB: usize = 1 << 20;
    for way in WAYS {
        let bench = Bench::new(Setup::default(), way);
        index(&bench, &bench.image.manifest, 7 * MIB);
        bench.good(&[]);
        index(&bench, &bench.image.manifest, 8 * MIB);
        bench.refused(&[], "max_manifest_size");
        // Not the first one, but one that it names: neither is fetched.
        let large = index(&bench, &bench.image.manifest, 8 * MIB);
        index(&bench, &large, 0);
        bench.fake.forget_requests();
        bench.refused(&[], "max_manifest_size");
        assert_eq!(bench.fake.count("GET", large.digest.as_str()), 0, "{way:?}");
    }
    let bench = limited("max_manifest_size = 4096");
    index(&bench, &bench.image.manifest, 1000);
    bench.good(&[]);
    index(&bench, &bench.image.manifest, 4000);
    bench.refused(&[], "max_manifest_size is 4096 bytes");
}

#[test]
fn a_config_is_a_document_too() {
    if beyond_upstream("max_manifest_size") {
        return;
    }
    for way in WAYS {
        let bench = Bench::new(Setup::default(), way);
        let (_, manifest) = bench.fake.manifest(REPOSITORY, "1").unwrap();
        let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let config = format!("{}{}", " ".repeat(8 << 20), "{}");
        manifest["config"]["size"] = config.len().into();
        manifest["config"]["digest"] = bench.fake.add_blob(REPOSITORY, config).to_string().into();
        bench.fake.add_manifest(REPOSITORY, Some("1"), media::OCI_MANIFEST, manifest.to_string());
        bench.refused(&[], "max_manifest_size");
    }
}

#[test]
fn a_layer_that_never_ends_when_it_is_unpacked() {
    if beyond_upstream("max_unpacked_layer") {
        return;
    }
    let bench = limited("max_unpacked_layer = 16777216");
    let honest = bench.fake.manifest(REPOSITORY, "1").unwrap().1;
    let bomb = packed(&tar::archive(&[Entry::file("zeros", vec![0; 64 << 20])]));
    assert!(bomb.bytes.len() < 1 << 20);
    bench.fake.add_image(REPOSITORY, "1", &[bomb]);
    let before = Ledger::take(&bench.daemon);
    bench.pull(&[]).expect_code(1).says("max_unpacked_layer");
    Ledger::check(&before, &bench.daemon);
    bench.fake.add_manifest(REPOSITORY, Some("1"), media::OCI_MANIFEST, honest);
    bench.good(&[]);
}
