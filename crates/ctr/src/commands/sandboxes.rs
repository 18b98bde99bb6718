//! `ctr sandboxes`: what the daemon's sandbox services are asked, as far as it has them.

use std::time::SystemTime;

use api::ProtoAny;
use api::containerd::services::sandbox::v1 as wire;
use api::containerd::types::{Sandbox, sandbox};
use clap::Subcommand;
use remote::from_status;
use serde::Serialize;
use types::any::RUNTIME_SPEC;
use types::time::rfc3339;
use types::{Error, Labels, Result, ResultExt};

use super::info::AnyValue;
use super::{print, refused};
use crate::cli::{self, Globals};
use crate::client::Client;
use crate::flags::Words;
use crate::go::{self, Columns, json};
use crate::log;

/// What a namespace's label says which controller its sandboxes have.
const DEFAULT_LABEL: &str = "containerd.io/defaults/sandboxer";
/// The controller where nobody says otherwise.
const DEFAULT: &str = "shim";

/// `ctr sandboxes ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a new sandbox
    #[command(visible_aliases = ["create", "c", "r"])]
    Run {
        /// Runtime name
        #[arg(long, default_value = "io.containerd.runc.v2")]
        runtime: String,
        /// Sandbox controller to use: shim, or a proxy plugin's name (default: what the namespace's label says)
        #[arg(long)]
        sandboxer: Option<String>,
        #[command(flatten)]
        words: Words,
    },
    /// List sandboxes
    #[command(visible_alias = "ls")]
    List {
        /// The list of filters to apply when querying sandboxes from the store
        #[arg(long)]
        filters: Vec<String>,
        #[arg(hide = true)]
        extra: Vec<String>,
    },
    /// Remove sandboxes
    #[command(visible_alias = "rm")]
    Remove {
        /// Ignore shutdown errors when removing sandbox
        #[arg(long, short)]
        force: bool,
        #[command(flatten)]
        ids: Words,
    },
    /// Get info about a sandbox
    #[command(visible_alias = "i")]
    Info(Words),
}

/// Runs a command.
pub async fn run(globals: &Globals, command: Command) -> Result<()> {
    match command {
        Command::Run { words, .. } if words.words.len() != 2 => cli::show_help(&["sandboxes", "run"]),
        Command::Run { runtime, sandboxer, words } => create(globals, runtime, sandboxer, &words).await,
        Command::List { filters, extra: _ } => list(&Client::open(globals)?, filters).await,
        Command::Remove { force, ids } => {
            let client = Client::open(globals)?;
            for id in &ids.words {
                remove(&client, id, force).await;
            }
            Ok(())
        }
        Command::Info(words) => info(&Client::open(globals)?, words.first()).await,
    }
}

async fn create(globals: &Globals, runtime: String, sandboxer: Option<String>, words: &Words) -> Result<()> {
    let (path, id) = (words.get(0), words.get(1));
    let spec = std::fs::read(path)
        .map_err(|e| go::path_error("open", path, e))
        .context(|| "failed to read sandbox config")?;
    let spec: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&spec)
        .map_err(|e| Error::invalid(format!("failed to parse sandbox config: {e}")))?;
    let client = Client::open(globals)?;
    if id.is_empty() {
        return refused("failed to create new sandbox: sandbox ID must be specified");
    }
    let sandboxer = match sandboxer {
        Some(named) => named,
        None => client.default(DEFAULT_LABEL).await?.unwrap_or_else(|| DEFAULT.into()),
    };
    let any = |name: &str, value| ProtoAny { type_url: name.into(), value };
    let now = api::convert::timestamp(SystemTime::now());
    let sandbox = Sandbox {
        sandbox_id: id.into(),
        runtime: Some(sandbox::Runtime {
            name: runtime,
            options: Some(any("google.protobuf.Empty", Vec::new())),
        }),
        spec: Some(any(RUNTIME_SPEC, json::compact(&spec)?.into_bytes())),
        created_at: now,
        updated_at: now,
        sandboxer: sandboxer.clone(),
        ..Default::default()
    };
    made(&client, sandbox).await.context(|| "failed to create new sandbox")?;
    let request = wire::ControllerStartRequest { sandbox_id: id.into(), sandboxer };
    client.sandbox_controller().start(request).await.map_err(from_status).context(|| "failed to start")?;
    print(format!("{id}\n"))
}

async fn made(client: &Client, sandbox: Sandbox) -> Result<()> {
    let request = wire::StoreCreateRequest { sandbox: Some(sandbox.clone()) };
    client.sandboxes().create(request).await.map_err(from_status)?;
    let sandboxer = sandbox.sandboxer.clone();
    let request = wire::ControllerCreateRequest {
        sandbox_id: sandbox.sandbox_id.clone(),
        sandboxer: sandboxer.clone(),
        sandbox: Some(sandbox),
        ..Default::default()
    };
    let created = client.sandbox_controller().create(request).await.map(drop).map_err(from_status);
    created.context(|| format!("failed to create sandbox with {sandboxer} sandboxer"))
}

async fn list(client: &Client, filters: Vec<String>) -> Result<()> {
    let request = wire::StoreListRequest { filters };
    let found = client.sandboxes().list(request).await.map_err(from_status);
    let found = found.context(|| "failed to list sandboxes")?.into_inner().list;
    let mut table = Columns::narrow();
    table.line("ID\tCREATED\tRUNTIME\t");
    for sandbox in found {
        let created = go::time::plain(api::convert::time(sandbox.created_at));
        let runtime = sandbox.runtime.unwrap_or_default().name;
        table.line(format!("{}\t{created}\t{runtime}\t", sandbox.sandbox_id));
    }
    print(table.finish())
}

/// As upstream: what fails is logged, and the next one follows.
async fn remove(client: &Client, id: &str, force: bool) {
    let sandbox = match load(client, id).await {
        Ok(sandbox) => sandbox,
        Err(error) => return log::error(&format!("failed to load sandbox {id}"), Some(&error)),
    };
    let (sandbox_id, sandboxer) = (id.to_owned(), sandbox.sandboxer.clone());
    let request = wire::ControllerStopRequest { sandbox_id, sandboxer, timeout_secs: 0 };
    if let Err(error) = client.sandbox_controller().stop(request).await.map_err(from_status) {
        log::error(&format!("failed to stop sandbox {id}"), Some(&error));
        if !force {
            return;
        }
    }
    match shutdown(client, id, sandbox.sandboxer).await {
        Ok(()) => log::info(&format!("deleted: {id}")),
        Err(error) => log::error(&format!("failed to shutdown sandbox {id}"), Some(&error)),
    }
}

async fn shutdown(client: &Client, id: &str, sandboxer: String) -> Result<()> {
    let missing_is_fine = |result: Result<()>| match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    };
    let request = wire::ControllerShutdownRequest { sandbox_id: id.into(), sandboxer };
    let ended = client.sandbox_controller().shutdown(request).await.map(drop).map_err(from_status);
    missing_is_fine(ended).context(|| "failed to shutdown sandbox")?;
    let request = wire::StoreDeleteRequest { sandbox_id: id.into() };
    let deleted = client.sandboxes().delete(request).await.map(drop).map_err(from_status);
    missing_is_fine(deleted).context(|| "failed to delete sandbox from store")
}

async fn load(client: &Client, id: &str) -> Result<Sandbox> {
    let request = wire::StoreGetRequest { sandbox_id: id.into() };
    let found = client.sandboxes().get(request).await.map_err(from_status)?.into_inner().sandbox;
    found.ok_or_else(|| Error::internal("sandbox service answered no sandbox"))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    #[serde(rename = "ID")]
    id: String,
    labels: Option<Labels>,
    runtime: ShownRuntime,
    spec: Option<AnyValue>,
    sandboxer: String,
    created_at: String,
    updated_at: String,
    extensions: std::collections::BTreeMap<String, AnyValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownRuntime {
    name: String,
    options: Option<AnyValue>,
}

async fn info(client: &Client, id: &str) -> Result<()> {
    if id.is_empty() {
        return refused("sandbox id must be provided: invalid argument");
    }
    let missing = |e: Error| Error::new(e.class(), format!("failed to load sandbox {id}"));
    let sandbox = load(client, id).await.map_err(missing)?;
    let runtime = sandbox.runtime.unwrap_or_default();
    print(json::shown(&Shown {
        id: sandbox.sandbox_id,
        labels: Some(sandbox.labels).filter(|labels| !labels.is_empty()),
        runtime: ShownRuntime { name: runtime.name, options: runtime.options.map(Into::into) },
        spec: sandbox.spec.map(Into::into),
        sandboxer: sandbox.sandboxer,
        created_at: rfc3339(api::convert::time(sandbox.created_at)),
        updated_at: rfc3339(api::convert::time(sandbox.updated_at)),
        extensions: sandbox.extensions.into_iter().map(|(key, any)| (key, any.into())).collect(),
    })?)
}
