//! How plugins come and go.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use types::{Error, Result, ResultExt};

use super::{Domain, Inner, Nri};
use crate::plugin::{self, Origin, Plugin, Terms, Unsolicited};
use crate::wire::{UpdateContainersRequest, UpdateContainersResponse};

/// How many may be about to register.
const COMING: usize = 32;

impl Nri {
    /// Launches the plugins that are there already, and has others connect from now on. A plugin that cannot be launched is told
    /// in the log, and is no error.
    pub async fn start(&self, domain: Arc<dyn Domain>) -> Result<()> {
        if self.0.domain.set(domain).is_err() {
            return Err(Error::precondition("NRI was started before"));
        }
        for found in plugin::discover(&self.0.config)? {
            let name = format!("{}-{}", found.index, found.name);
            let launched = async {
                let (socket, origin) = plugin::launch(found)?;
                self.0.admit(socket, origin).await
            };
            if let Err(error) = launched.await {
                tracing::warn!(plugin = name, %error, "failed to start pre-installed NRI plugin");
            }
        }
        if self.0.config.connections { self.listen() } else { Ok(()) }
    }

    fn listen(&self) -> Result<()> {
        let path = &self.0.config.socket;
        let doing = || format!("failed to create socket {:?}", path.display().to_string());
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context(doing),
            _ => {}
        }
        if let Some(dir) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).context(doing)?;
        }
        let listener = UnixListener::bind(path).context(doing)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).context(doing)?;
        let task = tokio::spawn(accept(listener, Arc::downgrade(&self.0)));
        let mut listening = self.0.listening.lock().unwrap_or_else(PoisonError::into_inner);
        *listening = Some(task.abort_handle());
        Ok(())
    }
}

async fn accept(listener: UnixListener, nri: Weak<Inner>) {
    let mut coming = JoinSet::new();
    loop {
        let full = coming.len() >= COMING;
        tokio::select! {
            Some(_) = coming.join_next() => {}
            accepted = listener.accept(), if !full => match accepted {
                Ok((socket, _)) => {
                    let Some(nri) = nri.upgrade() else { return };
                    coming.spawn(async move {
                        if let Err(error) = nri.admit(socket, Origin::External).await {
                            tracing::error!(%error, "failed to start external NRI plugin");
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would spin.
                    tracing::warn!(%error, "accept on NRI socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

impl Inner {
    /// Registers, configures and synchronizes a plugin.
    async fn admit(self: &Arc<Self>, socket: UnixStream, origin: Origin) -> Result<()> {
        let plugin = plugin::connect(socket, origin, &self.terms()).await?;
        // A call that does not end must not keep plugins away, nor the calls that would wait behind us.
        let quiet = tokio::time::timeout(self.config.registration_timeout, self.calls.write()).await;
        if quiet.is_err() {
            tracing::warn!(plugin = plugin.full_name(), "a plugin comes in the middle of a call");
        }
        let mut turn = self.turn().await;
        let all = self.domain()?.snapshot().await;
        let updates = plugin::synchronize(&plugin, &all).await?;
        turn.stages.refresh(&all.pods, &all.containers);
        self.apply(updates).await;
        self.watch(&plugin);
        tracing::info!(plugin = plugin.full_name(), "plugin connected and synchronized");
        turn.plugins.push(plugin);
        turn.plugins.sort_by(|a, b| a.index().cmp(b.index()));
        self.count(&mut turn);
        Ok(())
    }

    /// Forgets a plugin as soon as it is gone.
    fn watch(self: &Arc<Self>, plugin: &Plugin) {
        let (closed, name) = (plugin.when_closed(), plugin.full_name().to_owned());
        let nri = Arc::downgrade(self);
        tokio::spawn(async move {
            closed.await;
            tracing::info!(plugin = name, "connection to plugin closed");
            if let Some(nri) = nri.upgrade() {
                let mut turn = nri.turn().await;
                nri.count(&mut turn);
            }
        });
    }

    fn terms(self: &Arc<Self>) -> Terms {
        let nri = Arc::downgrade(self);
        let unsolicited: Unsolicited = Arc::new(move |asked| {
            let nri = nri.upgrade();
            Box::pin(async move {
                let nri = nri.ok_or_else(|| Error::unavailable("NRI ends"))?;
                Ok(nri.unsolicited(asked).await)
            })
        });
        Terms {
            config: Arc::clone(&self.config),
            identity: self.identity.clone(),
            namespace: self.namespace.clone(),
            observe: Arc::clone(&self.observe),
            unsolicited,
        }
    }

    /// What a plugin asks for of its own accord has its turn as well.
    async fn unsolicited(&self, asked: UpdateContainersRequest) -> UpdateContainersResponse {
        let _turn = self.turn().await;
        self.evict(asked.evict).await;
        UpdateContainersResponse { failed: self.apply(asked.update).await }
    }
}
