//! PullImage: fetched and unpacked by the daemon, then called by its tag, its digest and its id.

use std::sync::Arc;
use std::time::Instant;

use api::cri::{PodSandboxConfig, PullImageRequest, PullImageResponse};
use types::oci::Descriptor;
use types::reference::Reference;
use types::{Result, ResultExt};

use super::facts::Facts;
use super::{Auth, Image, PullRequest, normalize, records, watch};
use crate::Observed;
use crate::cri::Cri;

/// On a pod, in the words of older kubelets: the runtime handler whose snapshotter gets the image.
const RUNTIME_HANDLER: &str = "io.containerd.cri.runtime-handler";

/// Answers the call.
pub async fn run(cri: &Cri, request: PullImageRequest) -> Result<PullImageResponse> {
    let PullImageRequest { image, auth, sandbox_config } = request;
    let image = image.unwrap_or_default();
    let snapshotter = snapshotter(cri, sandbox_config.as_ref(), &image.runtime_handler);
    let image_ref = pull(cri, &image.image, auth.map(Auth::from), snapshotter).await?;
    Ok(PullImageResponse { image_ref })
}

/// The image of this name, pulled if it is not there.
pub async fn ensure(
    cri: &Cri,
    name: &str,
    pod: Option<&PodSandboxConfig>,
    handler: &str,
) -> Result<Arc<Image>> {
    match cri.images.resolve(name) {
        Err(error) if error.is_not_found() => {}
        found => return found,
    }
    let id = pull(cri, name, None, snapshotter(cri, pod, handler)).await?;
    cri.images.resolve(&id)
}

/// Pulls an image; answers with its id.
async fn pull(cri: &Cri, name: &str, auth: Option<Auth>, snapshotter: String) -> Result<String> {
    let mut counted = Counted::begin(cri);
    let facts = bring(cri, name, auth, snapshotter).await?;
    counted.size = Some(facts.size);
    Ok(facts.id.to_string())
}

/// A pull that is counted, however it ends.
struct Counted<'a> {
    cri: &'a Cri,
    begun: Instant,
    size: Option<u64>,
}

impl<'a> Counted<'a> {
    fn begin(cri: &'a Cri) -> Self {
        (cri.doors.observe)(Observed::PullBegun);
        Self { cri, begun: Instant::now(), size: None }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let brought = self.size.map(|size| (size, self.begun.elapsed()));
        (self.cri.doors.observe)(Observed::PullEnded { brought });
    }
}

async fn bring(cri: &Cri, name: &str, auth: Option<Auth>, snapshotter: String) -> Result<Facts> {
    let reference = normalize(name).context(|| format!("failed to parse image reference {name:?}"))?;
    let settings = &cri.config.images;
    let full = reference.to_string();
    let labels = records::labels(cri, &full);
    let request = PullRequest {
        reference: full.clone(),
        snapshotter,
        labels: labels.clone(),
        auth,
        auths: settings.auths.clone(),
        hosts: settings.hosts.clone(),
        headers: settings.headers.clone(),
        discard_layers: settings.discard_unpacked_layers,
        remote: !settings.disable_snapshot_annotations,
        sync: settings.sync_fs,
        progress_timeout: settings.progress_timeout,
    };
    let target =
        cri.doors.pull.pull(request).await.context(|| format!("failed to pull and unpack image {full:?}"))?;
    let store = cri.db.content(cri.scope(None));
    let (facts, _) = Facts::read(&*store, &target).await.context(|| "get image config descriptor")?;
    let id = facts.id.to_string();
    for name in names(&reference, &target, &id) {
        let pointed = records::point(cri, &name, &target, &labels).await;
        pointed.context(|| format!("failed to create image reference {name:?}"))?;
        watch::look(cri, &name).await.context(|| format!("failed to update image store {name:?}"))?;
    }
    Ok(facts)
}

/// Under which names an image is known that was pulled as `reference`.
fn names(reference: &Reference, target: &Descriptor, id: &str) -> Vec<String> {
    let tag = reference.tag.as_ref().map(|_| reference.to_string());
    let digest = reference.digest.as_ref().unwrap_or(&target.digest);
    let by_digest = format!("{}@{digest}", reference.locator);
    std::iter::once(id.to_owned()).chain(tag).chain([by_digest]).collect()
}

/// Whose snapshots the layers of an image become: those of the handler that is named, by an older kubelet in an annotation.
fn snapshotter(cri: &Cri, pod: Option<&PodSandboxConfig>, handler: &str) -> String {
    let annotated = || pod.and_then(|pod| pod.annotations.get(RUNTIME_HANDLER)).map(String::as_str);
    let handler = if handler.is_empty() { annotated().unwrap_or_default() } else { handler };
    cri.config.snapshotter(None, handler).to_owned()
}

#[cfg(test)]
mod tests {
    use types::Digest;
    use types::oci::image::media;

    use super::*;

    #[test]
    fn an_image_is_called_by_its_tag_its_digest_and_its_id() {
        let target = Descriptor::new(media::OCI_INDEX, Digest::of(b"x"), 1);
        let digest = target.digest.to_string();
        let named = |name: &str| names(&normalize(name).unwrap(), &target, "sha256:id");
        let by_digest = format!("docker.io/library/alpine@{digest}");
        assert_eq!(named("alpine"), ["sha256:id", "docker.io/library/alpine:latest", &by_digest]);
        assert_eq!(named(&format!("alpine@{digest}")), ["sha256:id", &by_digest]);
        assert_eq!(named(&format!("alpine:3@{digest}")), ["sha256:id", &by_digest]);
    }
}
