//! What `ctr registry explain` shows.

use registry::Settings;
use registry::fake::{Fake, Fault, When};

use crate::setup::{client_with, image};

#[tokio::test]
async fn files_hosts_and_their_answers_are_told_in_order() {
    let (mirror, fake) = (Fake::start(), Fake::start());
    let (image, reference) = image(&fake);
    mirror.fault(When::path(""), Fault::Status(503));
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("_default");
    std::fs::create_dir(&directory).unwrap();
    let text = format!(
        "[host.{:?}]\ncapabilities = [\"pull\"]\n[host.{:?}.header]\nx-a = \"secret\"",
        mirror.origin(),
        mirror.origin()
    );
    std::fs::write(directory.join("hosts.toml"), text).unwrap();
    let settings = Settings { config_path: vec![root.path().to_owned()], ..Settings::default() };
    let client = client_with(settings, std::sync::Arc::new(registry::Anonymous));
    let explanation = client.explain(&reference).await.unwrap();
    let text = explanation.to_string();
    assert_eq!(explanation.hosts.len(), 2, "{text}");
    assert!(explanation.hosts[0].answer.is_err() && explanation.hosts[0].namespace.is_some(), "{text}");
    assert!(explanation.hosts[1].answer.as_ref().unwrap().contains(image.manifest.digest.as_str()), "{text}");
    assert!(
        explanation.files.iter().any(|(path, found)| *found && path.ends_with("_default/hosts.toml")),
        "{text}"
    );
    assert!(text.contains("503") && text.contains("x-a") && !text.contains("secret"), "{text}");
}
