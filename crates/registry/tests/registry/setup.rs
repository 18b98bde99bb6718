//! A client with little patience.

use std::sync::Arc;
use std::time::Duration;

use registry::fake::{Fake, Image, Layer};
use registry::{Anonymous, Body, Credentials, Limits, Registry, Settings};
use types::Result;
use types::reference::Reference;

/// Limits that a test can wait for.
pub fn limits() -> Limits {
    Limits {
        headers: Duration::from_millis(700),
        idle: Duration::from_millis(400),
        first_wait: Duration::from_millis(10),
        longest_wait: Duration::from_millis(100),
        ..Limits::default()
    }
}

/// A client without credentials.
pub fn client() -> Registry {
    client_with(Settings::default(), Arc::new(Anonymous))
}

/// A client as `settings` has it, but for its limits.
pub fn client_with(settings: Settings, credentials: Arc<dyn Credentials>) -> Registry {
    Registry::new(Settings { limits: limits(), ..settings }, credentials).unwrap()
}

/// An image with one large and one small layer, and its reference.
pub fn image(fake: &Fake) -> (Image, Reference) {
    let large: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    let image = fake.add_image("library/x", "1", &[Layer::plain(large), Layer::plain("small")]);
    (image, Reference::normalize(&fake.reference("library/x", "1")).unwrap())
}

/// All of `body`.
pub async fn drain(mut body: Body) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}
