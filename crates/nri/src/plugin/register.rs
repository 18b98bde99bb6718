//! How a plugin comes: it registers, and is configured.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use runtime::ttrpc::{Call, Client, Request, serve_connection};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use types::{Error, Namespace, Result, ResultExt};

use super::{Plugin, Program, SERVICE};
use crate::config::Config;
use crate::event::Events;
use crate::nri::Identity;
use crate::observe::Observe;
use crate::wire::{
    ConfigureRequest, ConfigureResponse, Empty, RegisterPluginRequest, UpdateContainersRequest,
    UpdateContainersResponse,
};
use crate::{mux, name};

/// The service by which plugins call us.
const RUNTIME: &str = "nri.pkg.api.v1alpha1.Runtime";
/// The version of the protocol.
const VERSION: &str = "v0.12.0";

type Answer<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Does what a plugin asks for of its own accord.
pub type Unsolicited = Arc<dyn Fn(UpdateContainersRequest) -> Answer<UpdateContainersResponse> + Send + Sync>;

/// Where a plugin comes from.
#[derive(Debug)]
pub enum Origin {
    /// It has connected, and tells its name.
    External,
    /// We have launched it, and know its name.
    Launched {
        /// Two digits.
        index: String,
        /// The rest of its name.
        name: String,
        /// What it is configured with.
        config: String,
        /// Itself.
        program: Program,
    },
}

/// What holds for all plugins.
#[derive(Clone)]
pub struct Terms {
    /// The administrator's settings.
    pub config: Arc<Config>,
    /// Who we are.
    pub identity: Identity,
    /// What everything of the CRI is in.
    pub namespace: Namespace,
    /// Who counts.
    pub observe: Observe,
    /// See [`Unsolicited`].
    pub unsolicited: Unsolicited,
}

/// Waits until it has registered, and configures it.
pub async fn connect(socket: UnixStream, origin: Origin, terms: &Terms) -> Result<Plugin> {
    let split = mux::split(socket).context(|| "multiplex the connection of a plugin")?;
    let client = Client::new(split.plugin);
    let (registered, waiting) = oneshot::channel();
    let serving =
        tokio::spawn(serve_connection(split.runtime, handler(registered, terms.unsolicited.clone())));
    let mut plugin = Plugin {
        index: String::new(),
        name: String::new(),
        full: String::new(),
        events: Events::default(),
        old: AtomicU32::new(0),
        closed: AtomicBool::new(false),
        client,
        namespace: terms.namespace.clone(),
        observe: Arc::clone(&terms.observe),
        timeout: terms.config.request_timeout,
        serving: [split.task, serving.abort_handle()],
        program: None,
    };
    let request = tokio::select! {
        request = tokio::time::timeout(terms.config.registration_timeout, waiting) => request,
        () = plugin.client.closed() => {
            return Err(Error::unavailable("failed to register plugin, connection closed"));
        }
    };
    let request = request
        .map_err(|_| Error::deadline("plugin registration timed out"))?
        .map_err(|_| Error::unavailable("failed to register plugin, connection closed"))?;
    let config = match origin {
        Origin::External => {
            name::check_name(&request.plugin_name).context(|| "plugin registered with an invalid name")?;
            name::check_index(&request.plugin_idx).context(|| "plugin registered with an invalid index")?;
            (plugin.index, plugin.name) = (request.plugin_idx, request.plugin_name);
            String::new()
        }
        Origin::Launched { index, name, config, program } => {
            (plugin.index, plugin.name, plugin.program) = (index, name, Some(program));
            config
        }
    };
    plugin.full = format!("{}-{}", plugin.index, plugin.name);
    tracing::info!(plugin = plugin.full, version = request.nri_version, "plugin registered");
    plugin.events = configure(&plugin, config, terms).await?;
    Ok(plugin)
}

async fn configure(plugin: &Plugin, config: String, terms: &Terms) -> Result<Events> {
    let milliseconds = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let request = ConfigureRequest {
        config,
        runtime_name: terms.identity.name.clone(),
        runtime_version: terms.identity.version.clone(),
        registration_timeout: milliseconds(terms.config.registration_timeout),
        request_timeout: milliseconds(terms.config.request_timeout),
        nri_version: VERSION.to_owned(),
    };
    let call = Call {
        service: SERVICE,
        method: "Configure",
        namespace: &terms.namespace,
        timeout: Some(terms.config.request_timeout),
    };
    let doing = || format!("failed to configure plugin {}", plugin.full);
    let answer = plugin.client.call(call, request.encode_to_vec()).await.context(doing)?;
    let answer = ConfigureResponse::decode(answer.as_slice())
        .map_err(|e| Error::invalid(e.to_string()).context(doing()))?;
    Events::subscribed(answer.events)
        .map_err(|unknown| Error::invalid(format!("invalid plugin events: 0x{unknown:x}")).context(doing()))
}

/// Answers the calls of a plugin.
fn handler(
    registered: oneshot::Sender<RegisterPluginRequest>,
    unsolicited: Unsolicited,
) -> impl Fn(Request) -> Answer<Vec<u8>> + Send + Sync + 'static {
    let registered = Mutex::new(Some(registered));
    move |request| {
        if request.service != RUNTIME {
            return refuse(format!("service {}", request.service));
        }
        match request.method.as_str() {
            "RegisterPlugin" => {
                let sender = registered.lock().unwrap_or_else(PoisonError::into_inner).take();
                let done = register(&request.payload, sender);
                Box::pin(async move { done })
            }
            "UpdateContainers" => {
                let unsolicited = Arc::clone(&unsolicited);
                Box::pin(async move {
                    let asked = UpdateContainersRequest::decode(request.payload.as_slice())
                        .map_err(|e| Error::invalid(format!("decode UpdateContainersRequest: {e}")))?;
                    Ok(unsolicited(asked).await?.encode_to_vec())
                })
            }
            other => refuse(format!("method {other}")),
        }
    }
}

fn register(payload: &[u8], sender: Option<oneshot::Sender<RegisterPluginRequest>>) -> Result<Vec<u8>> {
    let request = RegisterPluginRequest::decode(payload)
        .map_err(|e| Error::invalid(format!("decode RegisterPluginRequest: {e}")))?;
    let sender = sender.ok_or_else(|| Error::already_exists("the plugin has registered before"))?;
    // Who waits may have given up this moment; then the connection goes.
    let _ = sender.send(request);
    Ok(Empty {}.encode_to_vec())
}

fn refuse(what: String) -> Answer<Vec<u8>> {
    Box::pin(async move { Err(Error::unimplemented(what)) })
}
