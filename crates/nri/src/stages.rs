//! How far pods and containers are, as plugins have been told: none is told twice of an end, nor of the end of something that
//! it never heard of.

use std::collections::HashMap;

use crate::wire::{Container, ContainerState, PodSandbox};

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It was made.
    Created,
    /// It runs.
    Running,
    /// It has ended.
    Stopped,
}

/// By id; what is not in it is gone, or was never there.
#[derive(Debug, Default)]
pub struct Stages(HashMap<String, Stage>);

impl Stages {
    /// Of all that is there, for a plugin that comes.
    pub fn refresh(&mut self, pods: &[PodSandbox], containers: &[Container]) {
        for pod in pods {
            self.0.entry(pod.id.clone()).or_insert(Stage::Running);
        }
        for container in containers {
            match container.state() {
                ContainerState::ContainerCreated => self.set(&container.id, Stage::Created),
                ContainerState::ContainerRunning | ContainerState::ContainerPaused => {
                    self.set(&container.id, Stage::Running);
                }
                ContainerState::ContainerStopped => self.set(&container.id, Stage::Stopped),
                ContainerState::ContainerUnknown => self.forget(&container.id),
            }
        }
    }

    /// Something has come so far.
    pub fn set(&mut self, id: &str, stage: Stage) {
        self.0.insert(id.to_owned(), stage);
    }

    /// It is gone.
    pub fn forget(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// Nobody is told anything any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether plugins are to be told that it ends.
    pub fn can_stop(&self, id: &str) -> bool {
        matches!(self.0.get(id), Some(Stage::Created | Stage::Running))
    }

    /// Whether plugins are to be told that it is removed.
    pub fn can_be_removed(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_once_and_only_of_what_was_told_before() {
        let mut stages = Stages::default();
        assert!(!stages.can_stop("a") && !stages.can_be_removed("a"));
        stages.set("a", Stage::Running);
        assert!(stages.can_stop("a"));
        stages.set("a", Stage::Stopped);
        assert!(!stages.can_stop("a") && stages.can_be_removed("a"));
        stages.forget("a");
        assert!(!stages.can_be_removed("a"));
    }

    #[test]
    fn a_plugin_that_comes_late_is_told_of_the_end_of_what_it_found() {
        let mut stages = Stages::default();
        stages.set("pod", Stage::Stopped);
        let pods = ["pod", "other"].map(|id| PodSandbox { id: id.to_owned(), ..PodSandbox::default() });
        let state = ContainerState::ContainerRunning.into();
        let container = Container { id: "c".to_owned(), state, ..Container::default() };
        stages.refresh(&pods, &[container]);
        assert!(!stages.can_stop("pod") && stages.can_stop("other") && stages.can_stop("c"));
    }
}
