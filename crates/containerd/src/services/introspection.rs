//! `containerd.services.introspection.v1.Introspection`.

use std::borrow::Cow;
use std::os::unix::fs::MetadataExt;

use api::ProtoAny;
use api::containerd::services::introspection::v1::{
    DeprecationWarning, Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse,
    ServerResponse,
};
use api::containerd::types::{RuntimeInfo, RuntimeRequest};
use api::{any, convert};
use grpc::introspection::introspection_server;
use prost::{Message, Name};
use runtime::Runtime;
use tonic::{Request, Response, Status};
use types::filters::{Fields, Filters};
use types::{Error, Result as Outcome, ResultExt};

use super::deprecations::Deprecations;
use super::reply::reply;

/// What the daemon says about itself.
pub struct Introspection {
    /// The parts that were started, or failed to.
    pub plugins: Vec<Plugin>,
    /// The name of this daemon's root, for ever.
    pub uuid: String,
    /// What was used although it goes away.
    pub deprecations: Deprecations,
    /// Who can ask shims about themselves.
    pub runtime: Runtime,
}

struct Filterable<'a>(&'a Plugin);

impl Fields for Filterable<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        let present = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned().into());
        match path.first()?.as_str() {
            "type" => present(&self.0.r#type),
            "id" => present(&self.0.id),
            _ => None,
        }
    }
}

/// What else a client wants to know of a plugin.
fn request(options: ProtoAny) -> Outcome<RuntimeRequest> {
    let doing = "failed to unmarshal plugin info Options";
    let options = any::from_wire(options);
    if !options.is(&RuntimeRequest::full_name()) {
        return Err(Error::unknown(format!("{doing}: type with url {}: not found", options.type_url)));
    }
    RuntimeRequest::decode(options.value.as_slice()).map_err(|e| Error::unknown(format!("{doing}: {e}")))
}

impl Introspection {
    /// What a plugin answers to `options`: a runtime what its shim can do, others nothing.
    async fn extra(&self, plugin: &Plugin, options: ProtoAny) -> Outcome<ProtoAny> {
        let request = request(options)?;
        if plugin.init_err.is_some() {
            return Err(Error::precondition(
                "cannot get extra info, plugin not successfully loaded: failed precondition",
            ));
        }
        if (plugin.r#type.as_str(), plugin.id.as_str()) != ("io.containerd.runtime.v2", "task") {
            return Err(Error::unimplemented("plugin does not provided extra information: not implemented"));
        }
        let options = request.options.map(any::from_wire);
        let value = self.runtime.info(&request.runtime_path, options.as_ref()).await?;
        Ok(ProtoAny { type_url: RuntimeInfo::full_name(), value })
    }
}

#[tonic::async_trait]
impl introspection_server::Introspection for Introspection {
    async fn plugins(&self, request: Request<PluginsRequest>) -> Result<Response<PluginsResponse>, Status> {
        let class_first = |error: Error| Error::invalid(format!("invalid argument: {error}"));
        let filters = reply(Filters::parse(&request.into_inner().filters).map_err(class_first))?;
        let plugins =
            self.plugins.iter().filter(|plugin| filters.matches(&Filterable(plugin))).cloned().collect();
        Ok(Response::new(PluginsResponse { plugins }))
    }

    async fn server(&self, _: Request<()>) -> Result<Response<ServerResponse>, Status> {
        let namespace = std::fs::metadata("/proc/self/ns/pid").context(|| "stat /proc/self/ns/pid");
        let warning = |(id, message, last): (&str, &str, _)| DeprecationWarning {
            id: id.to_owned(),
            message: message.to_owned(),
            last_occurrence: convert::timestamp(last),
        };
        Ok(Response::new(ServerResponse {
            uuid: self.uuid.clone(),
            pid: std::process::id().into(),
            pidns: reply(namespace)?.ino(),
            deprecations: self.deprecations.used().into_iter().map(warning).collect(),
        }))
    }

    async fn plugin_info(
        &self,
        request: Request<PluginInfoRequest>,
    ) -> Result<Response<PluginInfoResponse>, Status> {
        let request = request.into_inner();
        let found =
            self.plugins.iter().find(|plugin| plugin.r#type == request.r#type && plugin.id == request.id);
        let Some(plugin) = found else {
            let missing = format!("plugin {}.{} not found: not found", request.r#type, request.id);
            return reply(Err(Error::not_found(missing)));
        };
        let extra = match request.options {
            Some(options) => Some(reply(self.extra(plugin, options).await)?),
            None => None,
        };
        Ok(Response::new(PluginInfoResponse { plugin: Some(plugin.clone()), extra }))
    }
}
