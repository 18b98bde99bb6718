//! Pulls of the CRI: as those that clients ask for, but that the CRI says by itself who it is, and when it has waited enough.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::cri::{PullRequest, Puller};
use api::containerd::types::transfer as wire;
use api::convert;
use async_trait::async_trait;
use images::Event;
use images::pull::Keep;
use registry::{Ask, Credential, Credentials};
use tokio::sync::watch;
use types::oci::Descriptor;
use types::platform::Platform;
use types::{Class, Digest, Error, Result, Scope};

use super::progress::Progress;
use super::pull::Wishes;
use super::registry::Registry;
use super::store::ImageStore;
use super::{Gone, Job, Leftovers, leased, pull};
use crate::services::House;
use crate::work::Change;

/// The namespace that Kubernetes' images are in.
const NAMESPACE: &str = "k8s.io";

/// Pulls for the CRI.
pub struct CriPulls(House);

impl CriPulls {
    /// With what the house has.
    pub fn new(house: &House) -> Self {
        Self(house.clone())
    }
}

#[async_trait]
impl Puller for CriPulls {
    async fn pull(&self, request: PullRequest) -> Result<Descriptor> {
        let scope = Scope::new(NAMESPACE.parse()?);
        let (caller, gone) = watch::channel(());
        let change = Change::new("pull image", NAMESPACE, request.reference.as_str());
        let job = Job {
            house: self.0.clone(),
            scope,
            progress: Progress::default(),
            gone: Gone(gone),
            leftovers: Leftovers::default(),
        };
        // A task of its own, which cleans up when the caller has gone.
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.0.work.detach(change, async move {
            let done = run(job, request).await;
            let told = done.as_ref().map(drop).map_err(|error| Error::new(error.class(), error.to_string()));
            // Nobody waits for it any more.
            drop(answer.send(done));
            told
        });
        let done = answered.await.unwrap_or_else(|_| Err(Error::internal("the pull panicked")));
        drop(caller);
        self.0.work.trim();
        done
    }
}

/// Pulls, until it is done or does not get on any more.
async fn run(mut job: Job, request: PullRequest) -> Result<Descriptor> {
    let from = Registry::of_cri(&request, job.house.transfers.settings(), Arc::new(Logins(request.clone())))?;
    let to = ImageStore(store(&request));
    let watched = Arc::new(Watched::default());
    let wishes = Wishes {
        keep: if request.discard_layers { Keep::Snapshots } else { Keep::Layers },
        sync: request.sync,
        remote: request.remote,
        progress: Some(Arc::clone(&watched) as Arc<dyn images::Progress>),
    };
    let name = request.reference.clone();
    let named = job.house.db.images(&job.scope);
    let (give_up, mut caller) = (watch::channel(()), job.gone.clone());
    job.gone = Gone(give_up.1);
    let pulling = leased(&mut job, Some(&name), async |job| pull::run(job, from, to, wishes).await);
    let mut pulling = std::pin::pin!(pulling);
    let why = tokio::select! {
        done = &mut pulling => return done.and_then(|()| Ok(named.get(&name)?.target)),
        gone = caller.wait() => gone,
        () = watched.stuck(request.progress_timeout) => {
            let limit = request.progress_timeout;
            tracing::error!(image = name, ?limit, "cancel pulling image because of no progress");
            Error::new(Class::Canceled, format!("no progress in {limit:?}: context canceled"))
        }
    };
    // Who was told to end takes back what it did, and only then ends.
    drop(give_up.0);
    drop(pulling.await);
    Err(why.context(format!("pull {name}")))
}

fn store(request: &PullRequest) -> wire::ImageStore {
    let host = || Some(convert::platform_to_wire(Platform::host()));
    wire::ImageStore {
        name: request.reference.clone(),
        labels: request.labels.clone(),
        platforms: host().into_iter().collect(),
        unpacks: vec![wire::UnpackConfiguration {
            platform: host(),
            snapshotter: request.snapshotter.clone(),
        }],
        ..wire::ImageStore::default()
    }
}

/// Who the kubelet, or the configuration, says that we are.
struct Logins(PullRequest);

#[async_trait]
impl Credentials for Logins {
    async fn credentials(&self, ask: &Ask<'_>) -> Result<Option<Credential>> {
        // There is no better answer than the one that was refused.
        if ask.refused > 0 {
            return Ok(None);
        }
        let login = self.0.login(ask.host)?;
        Ok(login.map(|login| match login.user {
            Some(user) => Credential::Basic { user, secret: login.secret },
            None => Credential::RefreshToken(login.secret),
        }))
    }
}

/// Notes whether blobs that are being fetched get on. What has to be unpacked may take as long as it takes.
#[derive(Default)]
struct Watched(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// What is being fetched, and how far it has come.
    fetched: BTreeMap<Digest, u64>,
    /// When something of it last came.
    at: Option<Instant>,
}

impl Watched {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Each change is of one field.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when nothing has come for so long although something should. Zero is never. Cancel safe.
    async fn stuck(&self, limit: Duration) {
        if limit.is_zero() {
            return std::future::pending().await;
        }
        loop {
            let idle = self.seen().idle(Instant::now());
            if idle >= limit {
                return;
            }
            tokio::time::sleep((limit - idle).max(Duration::from_millis(10))).await;
        }
    }
}

impl Seen {
    /// How long nothing has come that should.
    fn idle(&self, now: Instant) -> Duration {
        match self.at {
            Some(at) if !self.fetched.is_empty() => now.saturating_duration_since(at),
            _ => Duration::ZERO,
        }
    }

    fn note(&mut self, event: Event<'_>, now: Instant) {
        match event {
            Event::Fetching(digest, at, total) if at < total => {
                let before = self.fetched.insert(digest.clone(), at);
                self.at = self.at.filter(|_| before == Some(at)).or(Some(now));
            }
            Event::Fetching(digest, ..) | Event::Fetched(digest) | Event::Exists(digest) => {
                self.fetched.remove(digest);
                self.at = Some(now);
            }
            Event::Extracting(..) | Event::Unpacked(_) => self.at = Some(now),
            _ => {}
        }
    }
}

impl images::Progress for Watched {
    fn report(&self, event: Event<'_>) {
        self.seen().note(event, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_is_stuck_if_what_is_being_fetched_does_not_come() {
        let (mut seen, layer, begun) = (Seen::default(), Digest::of(b"layer"), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(seen.idle(after(9)), Duration::ZERO);
        seen.note(Event::Fetching(&layer, 1, 10), after(10));
        assert_eq!(seen.idle(after(15)), Duration::from_secs(5));
        seen.note(Event::Fetching(&layer, 1, 10), after(16));
        assert_eq!(seen.idle(after(17)), Duration::from_secs(7));
        seen.note(Event::Fetching(&layer, 2, 10), after(18));
        assert_eq!(seen.idle(after(19)), Duration::from_secs(1));
        seen.note(Event::Fetched(&layer), after(20));
        assert_eq!(seen.idle(after(99)), Duration::ZERO);
    }

    #[tokio::test]
    async fn without_a_limit_nothing_is_stuck() {
        let watched = Watched::default();
        images::Progress::report(&watched, Event::Fetching(&Digest::of(b"layer"), 1, 10));
        let never = tokio::time::timeout(Duration::from_millis(50), watched.stuck(Duration::ZERO));
        assert!(never.await.is_err());
        watched.stuck(Duration::from_millis(20)).await;
    }
}
