//! Who refers to a digest, by the API and by the tag.

use registry::fake::{Fake, Fault, Setup, When};
use types::oci::image::media;

use crate::setup::{client, image};

const SIGNATURE: &str = "application/vnd.test.signature";

fn signed(setup: Setup) -> Fake {
    let fake = Fake::with(setup);
    let (image, _) = image(&fake);
    for (kind, tag) in [(SIGNATURE, "a"), ("application/vnd.test.sbom", "b")] {
        let manifest = serde_json::json!({
            "schemaVersion": 2, "artifactType": kind, "config": image.config, "subject": image.manifest,
        });
        fake.add_manifest("library/x", Some(tag), media::OCI_MANIFEST, manifest.to_string());
    }
    fake
}

#[tokio::test]
async fn the_api_tells_all_or_those_of_a_type() {
    let fake = signed(Setup::default());
    let (image, reference) = image(&fake);
    let fetcher = client().fetcher(&reference);
    assert_eq!(fetcher.referrers(&image.manifest.digest, &[]).await.unwrap().len(), 2);
    let found = fetcher.referrers(&image.manifest.digest, &[SIGNATURE.into()]).await.unwrap();
    assert_eq!((found.len(), found[0].artifact_type.as_str()), (1, SIGNATURE));
    assert!(fetcher.referrers(&image.config.digest, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn without_the_api_a_tag_tells() {
    let fake = signed(Setup { no_referrers: true, ..Setup::default() });
    let (image, reference) = image(&fake);
    let fetcher = client().fetcher(&reference);
    assert!(fetcher.referrers(&image.manifest.digest, &[]).await.unwrap().is_empty());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [image.config]}).to_string();
    let tag = image.manifest.digest.as_str().replace(':', "-");
    fake.add_manifest("library/x", Some(&tag), media::OCI_INDEX, index);
    assert_eq!(fetcher.referrers(&image.manifest.digest, &[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn pages_that_never_end_and_lists_that_are_none_are_refused() {
    let fake = signed(Setup::default());
    let (image, reference) = image(&fake);
    let page = format!("<{}/v2/library/x/referrers/{}>; rel=\"next\"", fake.origin(), image.manifest.digest);
    for (fault, words) in [
        (Fault::Header("link", page), "more than 16 pages"),
        (Fault::Header("link", "<http://h.example/>; rel=next".into()), "on another host"),
        (Fault::Body("[]".into()), "no index of referrers"),
        (Fault::Endless, "larger than the limit"),
    ] {
        fake.heal();
        fake.fault(When::path("/referrers/"), fault);
        let error = client().fetcher(&reference).referrers(&image.manifest.digest, &[]).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
