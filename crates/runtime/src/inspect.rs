//! What lies below root and state about tasks, for whoever looks from outside: read, never changed, with or without a
//! daemon. `containerd check` compares it with what runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::containerd::task::v3 as wire;
use api::containerdrs::shim::v1 as ours;
use prost::Message;
use types::{Error, Namespace, Result};

use crate::bundle::Layout;
use crate::connect::Connections;
use crate::key::TaskKey;
use crate::load::scan;
use crate::ttrpc::{Call, Client, Failure};

/// A task's bundle.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Whose it is.
    pub namespace: Namespace,
    /// The task's id.
    pub id: String,
    /// The bundle.
    pub path: PathBuf,
    /// Where its shim listens, if it ever did.
    pub address: Option<String>,
    /// The shim's program.
    pub binary: Option<PathBuf>,
    /// Init's number, if it ever had one.
    pub pid: Option<u32>,
    /// The container's control group, as its specification names it.
    pub cgroup: Option<String>,
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// Bundles with a name.
    pub bundles: Vec<Inspected>,
    /// Directories without a bundle, and what was on its way out.
    pub leftovers: Vec<PathBuf>,
}

/// What a shim says of itself.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its version; empty if it does not tell.
    pub version: String,
    /// Its number.
    pub pid: u32,
    /// How long it took.
    pub took: Duration,
}

/// Reads the directories of `root` and `state`.
pub fn inspect(root: &Path, state: &Path) -> Result<Inspection> {
    let layout = Layout::new(root, state);
    let found = scan(&layout)?;
    let mut inspection = Inspection::default();
    for key in &found.bundles {
        let bundle = layout.bundle(key);
        inspection.bundles.push(Inspected {
            namespace: key.namespace().clone(),
            id: key.id().to_owned(),
            address: bundle.read_bootstrap().ok().flatten().map(|bootstrap| bootstrap.address),
            binary: bundle.read_binary().ok().flatten(),
            pid: bundle.init_pid(),
            cgroup: bundle.cgroup(),
            path: bundle.path,
        });
    }
    inspection.bundles.sort_by(|a, b| a.path.cmp(&b.path));
    let works = found.works.difference(&found.bundles).map(|key| layout.bundle(key).work);
    let hidden = found.hidden.iter().flat_map(|key| layout.bundle(key).hidden());
    inspection.leftovers = works.chain(hidden).filter(|path| path.exists()).collect();
    inspection.leftovers.sort();
    Ok(inspection)
}

/// Asks the shim at `address` who it is: by our own service, else by the one that all have.
pub async fn ask(task: &Inspected, address: &str, limit: Duration) -> Result<Answer> {
    let begun = Instant::now();
    let dial = Connections::default();
    let connecting = tokio::time::timeout(limit, dial.connect(address));
    let client = connecting.await.map_err(|_| Error::deadline(format!("dial {address}: timeout")))??;
    let key = TaskKey::new(&task.namespace, &task.id)?;
    let info =
        call(&client, &key, (api::ttrpc::SHIM, "Info"), ours::InfoRequest {}.encode_to_vec(), limit).await;
    let mut answer = match info {
        Ok(payload) => {
            let info = ours::InfoResponse::decode(payload.as_slice()).unwrap_or_default();
            Answer { version: info.version, pid: info.pid, ..Answer::default() }
        }
        Err(Failure::Answer(_)) => {
            let request = wire::ConnectRequest { id: task.id.clone() }.encode_to_vec();
            let service = ("containerd.task.v3.Task", "Connect");
            match call(&client, &key, service, request, limit).await {
                Ok(payload) => {
                    let connected = wire::ConnectResponse::decode(payload.as_slice()).unwrap_or_default();
                    Answer { version: connected.version, pid: connected.shim_pid, ..Answer::default() }
                }
                // It lives, and speaks an older service.
                Err(Failure::Answer(_)) => Answer::default(),
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(failure) => return Err(failure.into()),
    };
    answer.took = begun.elapsed();
    Ok(answer)
}

async fn call(
    client: &Client,
    key: &TaskKey,
    (service, method): (&str, &str),
    payload: Vec<u8>,
    limit: Duration,
) -> Result<Vec<u8>, Failure> {
    let call = Call { service, method, namespace: key.namespace(), timeout: Some(limit) };
    client.call(call, payload).await
}
