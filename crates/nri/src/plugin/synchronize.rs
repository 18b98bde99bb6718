//! All that is there, told to a plugin that comes: in as many messages as it takes.

use prost::Message;
use types::{Error, Result, ResultExt};

use super::Plugin;
use crate::nri::Snapshot;
use crate::wire::{ContainerUpdate, SynchronizeRequest, SynchronizeResponse};

const OPERATION: &str = "Synchronize";
/// Of one message: what ttrpc takes, less what is around it.
const ROOM: usize = api::ttrpc::MAX_MESSAGE - 4096;

/// Tells a plugin all that is there; gives what it wants to have updated.
pub async fn synchronize(plugin: &Plugin, all: &Snapshot) -> Result<Vec<ContainerUpdate>> {
    let doing = || format!("failed to synchronize plugin {}", plugin.full_name());
    let mut updates = Vec::new();
    for request in pieces(all, ROOM) {
        let more = request.more;
        let answer = plugin.counted(OPERATION, plugin.call(OPERATION, request.encode_to_vec())).await;
        let answer: SynchronizeResponse = answer.map_err(Error::from).context(doing)?;
        plugin.wanted(OPERATION, answer.update.len(), 0);
        if more && (!answer.update.is_empty() || !answer.more) {
            let error = Error::precondition("plugin does not handle split sync requests");
            return Err(error.context(doing()));
        }
        updates = answer.update;
    }
    Ok(updates)
}

/// At least one message; each as full as it can be. What is larger than a message alone is alone in one.
fn pieces(all: &Snapshot, room: usize) -> Vec<SynchronizeRequest> {
    let mut pieces = Vec::new();
    let mut piece = SynchronizeRequest::default();
    let mut size = 0;
    let mut fit = |piece: &mut SynchronizeRequest, length: usize| {
        let length = length + prost::length_delimiter_len(length) + 1;
        if size > 0 && size + length > room {
            piece.more = true;
            pieces.push(std::mem::take(piece));
            size = 0;
        }
        size += length;
    };
    for pod in &all.pods {
        fit(&mut piece, pod.encoded_len());
        piece.pods.push(pod.clone());
    }
    for container in &all.containers {
        fit(&mut piece, container.encoded_len());
        piece.containers.push(container.clone());
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Container, PodSandbox};

    #[test]
    fn everything_is_told_in_order_in_messages_that_fit() {
        let id = |n: usize| format!("{n:0>40}");
        let all = Snapshot {
            pods: (0..30).map(|n| PodSandbox { id: id(n), ..PodSandbox::default() }).collect(),
            containers: (0..70).map(|n| Container { id: id(n), ..Container::default() }).collect(),
        };
        for room in [1, 50, 200, 1 << 20] {
            let pieces = pieces(&all, room);
            let (last, others) = pieces.split_last().unwrap();
            assert!(!last.more && others.iter().all(|piece| piece.more));
            for piece in &pieces {
                let one = piece.pods.len() + piece.containers.len() == 1;
                assert!(one || piece.encoded_len() <= room + 2, "{room}");
            }
            let pods: Vec<_> = pieces.iter().flat_map(|piece| piece.pods.clone()).collect();
            let containers: Vec<_> = pieces.iter().flat_map(|piece| piece.containers.clone()).collect();
            assert_eq!((pods, containers), (all.pods.clone(), all.containers.clone()));
        }
    }

    #[test]
    fn nothing_is_told_in_one_message() {
        assert_eq!(pieces(&Snapshot::default(), 10), [SynchronizeRequest::default()]);
    }
}
