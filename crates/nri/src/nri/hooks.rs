//! The hooks, each with the call of the CRI that it belongs to. Who calls has looked whether anybody is there
//! ([`Nri::is_active`]), and has a message at hand only then.

use prost::Message;
use types::{Result, ResultExt};

use super::{Inner, Nri, Turn};
use crate::merge::{Creation, Updating};
use crate::stages::Stage;
use crate::validator;
use crate::wire::{
    Container, ContainerAdjustment, CreateContainerRequest, CreateContainerResponse, Event, LinuxResources,
    PodSandbox, StateChangeEvent, StopContainerResponse, UpdateContainerResponse, UpdatePodSandboxRequest,
    UpdatePodSandboxResponse, ValidateContainerAdjustmentRequest, ValidateContainerAdjustmentResponse,
};

/// A pod or a container, and its pod.
struct Told {
    pod: PodSandbox,
    container: Option<Container>,
}

impl Nri {
    /// A pod runs. If a plugin refuses, all of them are told that it ends.
    pub async fn run_pod_sandbox(&self, pod: PodSandbox) -> Result<()> {
        let mut turn = self.0.turn().await;
        turn.stages.set(&pod.id, Stage::Running);
        let told =
            self.0.tell(&mut turn, Event::RunPodSandbox, &Told { pod: pod.clone(), container: None }).await;
        drop(turn);
        if told.is_err() {
            for ended in [self.stop_pod_sandbox(pod.clone()).await, self.remove_pod_sandbox(pod).await] {
                if let Err(error) = ended {
                    tracing::error!(%error, "tell NRI plugins of the end of a pod that one refuses");
                }
            }
        }
        told.context(|| "NRI RunPodSandbox failed")
    }

    /// A pod's limits are to change.
    pub async fn update_pod_sandbox(
        &self,
        pod: PodSandbox,
        overhead: Option<LinuxResources>,
        resources: Option<LinuxResources>,
    ) -> Result<()> {
        let mut turn = self.0.turn().await;
        let request = UpdatePodSandboxRequest {
            pod: Some(pod),
            overhead_linux_resources: overhead,
            linux_resources: resources,
        };
        let request = request.encode_to_vec();
        let asked: Result<()> = async {
            for plugin in &turn.plugins {
                let asked = plugin.ask::<UpdatePodSandboxResponse>(Event::UpdatePodSandbox, request.clone());
                asked.await?;
            }
            Ok(())
        }
        .await;
        self.0.count(&mut turn);
        asked
    }

    /// They have changed.
    pub async fn post_update_pod_sandbox(&self, pod: PodSandbox) -> Result<()> {
        let mut turn = self.0.turn().await;
        self.0.tell(&mut turn, Event::PostUpdatePodSandbox, &Told { pod, container: None }).await
    }

    /// A pod has ended.
    pub async fn stop_pod_sandbox(&self, pod: PodSandbox) -> Result<()> {
        let mut turn = self.0.turn().await;
        if !turn.stages.can_stop(&pod.id) {
            return Ok(());
        }
        turn.stages.set(&pod.id, Stage::Stopped);
        self.0.tell(&mut turn, Event::StopPodSandbox, &Told { pod, container: None }).await
    }

    /// A pod is removed.
    pub async fn remove_pod_sandbox(&self, pod: PodSandbox) -> Result<()> {
        let mut turn = self.0.turn().await;
        if !turn.stages.can_be_removed(&pod.id) {
            return Ok(());
        }
        turn.stages.forget(&pod.id);
        self.0.tell(&mut turn, Event::RemovePodSandbox, &Told { pod, container: None }).await
    }

    /// A container is to be made; gives what is to be adjusted.
    pub async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<ContainerAdjustment> {
        let mut turn = self.0.turn().await;
        turn.stages.set(&container.id, Stage::Created);
        let created = self.0.create(&turn, Creation::new(pod, container)).await;
        self.0.count(&mut turn);
        let (adjustment, others) = created?.finish();
        let (evictions, updates) = others.finish();
        self.0.evict(evictions).await;
        // What cannot be updated is no reason not to make a container.
        self.0.apply(updates).await;
        Ok(adjustment)
    }

    /// It was made.
    pub async fn post_create_container(&self, pod: PodSandbox, container: Container) -> Result<()> {
        let mut turn = self.0.turn().await;
        self.0.tell(&mut turn, Event::PostCreateContainer, &Told { pod, container: Some(container) }).await
    }

    /// It is to be started.
    pub async fn start_container(&self, pod: PodSandbox, container: Container) -> Result<()> {
        let mut turn = self.0.turn().await;
        turn.stages.set(&container.id, Stage::Running);
        let told = Told { pod, container: Some(container) };
        let told = self.0.tell(&mut turn, Event::StartContainer, &told).await;
        told.context(|| "NRI container start failed")
    }

    /// It was started.
    pub async fn post_start_container(&self, pod: PodSandbox, container: Container) -> Result<()> {
        let mut turn = self.0.turn().await;
        self.0.tell(&mut turn, Event::PostStartContainer, &Told { pod, container: Some(container) }).await
    }

    /// Its limits are to change; gives others, if a plugin wants others.
    pub async fn update_container(
        &self,
        pod: PodSandbox,
        container: Container,
        resources: LinuxResources,
    ) -> Result<Option<LinuxResources>> {
        let mut turn = self.0.turn().await;
        let mut updating = Updating::new(pod, container, resources);
        let asked: Result<_> = async {
            for plugin in turn.plugins.iter().filter(|plugin| plugin.wants(Event::UpdateContainer)) {
                let request = updating.request.encode_to_vec();
                let answer = plugin.ask::<UpdateContainerResponse>(Event::UpdateContainer, request).await?;
                if let Some(answer) = answer {
                    plugin.wanted("UpdateContainer", answer.update.len(), answer.evict.len());
                    updating.add(answer, plugin.full_name())?;
                }
            }
            Ok(updating)
        }
        .await;
        self.0.count(&mut turn);
        let updating = asked.context(|| "NRI container update failed")?;
        let (resources, others) = updating.finish();
        let (evictions, updates) = others.finish();
        self.0.evict(evictions).await;
        self.0.apply(updates).await;
        Ok(resources)
    }

    /// They have changed.
    pub async fn post_update_container(&self, pod: PodSandbox, container: Container) -> Result<()> {
        let mut turn = self.0.turn().await;
        self.0.tell(&mut turn, Event::PostUpdateContainer, &Told { pod, container: Some(container) }).await
    }

    /// It has ended.
    pub async fn stop_container(&self, pod: PodSandbox, container: Container) -> Result<()> {
        let mut turn = self.0.turn().await;
        self.0.stopped(&mut turn, &Told { pod, container: Some(container) }).await
    }

    /// It is removed.
    pub async fn remove_container(&self, pod: PodSandbox, container: Container) -> Result<()> {
        let mut turn = self.0.turn().await;
        let id = container.id.clone();
        if !turn.stages.can_be_removed(&id) {
            return Ok(());
        }
        let told = Told { pod, container: Some(container) };
        if let Err(error) = self.0.stopped(&mut turn, &told).await {
            tracing::error!(container = id, %error, "tell NRI plugins of the end of a container");
        }
        turn.stages.forget(&id);
        self.0.tell(&mut turn, Event::RemoveContainer, &told).await
    }
}

impl Inner {
    /// Tells all plugins, until one refuses.
    async fn tell(&self, turn: &mut Turn, event: Event, told: &Told) -> Result<()> {
        let old = StateChangeEvent {
            event: event.into(),
            pod: Some(told.pod.clone()),
            container: told.container.clone(),
        };
        let request = told.encode();
        let all: Result<()> = async {
            for plugin in &turn.plugins {
                plugin.tell(event, request.clone(), &old).await?;
            }
            Ok(())
        }
        .await;
        self.count(turn);
        all
    }

    async fn stopped(&self, turn: &mut Turn, told: &Told) -> Result<()> {
        let id = told.container.as_ref().map(|container| container.id.as_str()).unwrap_or_default();
        if !turn.stages.can_stop(id) {
            return Ok(());
        }
        turn.stages.set(id, Stage::Stopped);
        let request = told.encode();
        let mut others = crate::merge::Others::default();
        let mut owners = crate::owners::Owners::default();
        let asked: Result<_> = async {
            for plugin in &turn.plugins {
                let asked =
                    plugin.ask::<StopContainerResponse>(Event::StopContainer, request.clone()).await?;
                if let Some(answer) = asked {
                    plugin.wanted("StopContainer", answer.update.len(), 0);
                    others.add(&mut owners, answer.update, plugin.full_name())?;
                }
            }
            Ok(())
        }
        .await;
        self.count(turn);
        asked?;
        self.apply(others.finish().1).await;
        Ok(())
    }

    /// Asks all plugins, and those that have a say in what others adjust.
    async fn create(&self, turn: &Turn, mut creation: Creation) -> Result<Creation> {
        let validates = |plugin: &&crate::plugin::Plugin| plugin.wants(Event::ValidateContainerAdjustment);
        let checked = self.config.validator.enable || turn.plugins.iter().any(|plugin| validates(&plugin));
        let pristine = checked.then(|| creation.request.clone());
        for plugin in turn.plugins.iter().filter(|plugin| plugin.wants(Event::CreateContainer)) {
            let request = creation.request.encode_to_vec();
            let answer = plugin.ask::<CreateContainerResponse>(Event::CreateContainer, request).await?;
            if let Some(answer) = answer {
                plugin.wanted("CreateContainer", answer.update.len(), answer.evict.len());
                creation.add(answer, plugin.full_name())?;
            }
        }
        let Some(CreateContainerRequest { pod, container }) = pristine else { return Ok(creation) };
        let request = ValidateContainerAdjustmentRequest {
            pod,
            container,
            adjust: Some(creation.adjustment().clone()),
            update: creation.others.updates().to_vec(),
            owners: Some(creation.owners()),
            plugins: turn.plugins.iter().map(crate::plugin::Plugin::instance).collect(),
        };
        if self.config.validator.enable {
            validator::check(&self.config.validator, &request)?;
        }
        let request = request.encode_to_vec();
        let all =
            turn.plugins.iter().filter(validates).map(async |plugin| validate(plugin, request.clone()).await);
        for validated in futures_util::future::join_all(all).await {
            validated?;
        }
        Ok(creation)
    }
}

async fn validate(plugin: &crate::plugin::Plugin, request: Vec<u8>) -> Result<()> {
    let name = plugin.full_name();
    let doing = || format!("validator plugin {name} failed");
    let answer = plugin.ask(Event::ValidateContainerAdjustment, request).await.context(doing)?;
    // Who is to say whether a container may be has not said so.
    let answer: ValidateContainerAdjustmentResponse =
        answer.ok_or_else(|| types::Error::unavailable("no answer").context(doing()))?;
    if !answer.reject {
        return Ok(());
    }
    let reason = if answer.reason.is_empty() { "unknown rejection reason" } else { &answer.reason };
    let text = format!("validator {name:?} rejected container adjustment, reason: {reason}");
    Err(types::Error::new(types::Class::PermissionDenied, text))
}

impl Told {
    /// Requests about pods and containers all have the pod first and the container second.
    fn encode(&self) -> Vec<u8> {
        let request =
            CreateContainerRequest { pod: Some(self.pod.clone()), container: self.container.clone() };
        request.encode_to_vec()
    }
}
