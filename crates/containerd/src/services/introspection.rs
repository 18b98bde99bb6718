//! `containerd.services.introspection.v1.Introspection`.

use std::borrow::Cow;
use std::os::unix::fs::MetadataExt;

use api::containerd::services::introspection::v1::{
    Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
};
use grpc::introspection::introspection_server;
use tonic::{Request, Response, Status};
use types::filters::{Fields, Filters};
use types::{Error, ResultExt};

use super::reply::reply;

/// What the daemon says about itself.
pub struct Introspection {
    /// The parts that were started, or failed to.
    pub plugins: Vec<Plugin>,
    /// The name of this daemon's root, for ever.
    pub uuid: String,
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

#[tonic::async_trait]
impl introspection_server::Introspection for Introspection {
    async fn plugins(&self, request: Request<PluginsRequest>) -> Result<Response<PluginsResponse>, Status> {
        let filters = reply(Filters::parse(&request.into_inner().filters))?;
        let plugins =
            self.plugins.iter().filter(|plugin| filters.matches(&Filterable(plugin))).cloned().collect();
        Ok(Response::new(PluginsResponse { plugins }))
    }

    async fn server(&self, _: Request<()>) -> Result<Response<ServerResponse>, Status> {
        let namespace = std::fs::metadata("/proc/self/ns/pid").context(|| "stat /proc/self/ns/pid");
        Ok(Response::new(ServerResponse {
            uuid: self.uuid.clone(),
            pid: std::process::id().into(),
            pidns: reply(namespace)?.ino(),
            deprecations: Vec::new(),
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
        if request.options.is_some() {
            // Asking a shim what it can do (`-info`) comes with CRI, which is what asks.
            return reply(Err(Error::unimplemented(
                "plugin does not provided extra information: not implemented",
            )));
        }
        Ok(Response::new(PluginInfoResponse { plugin: Some(plugin.clone()), extra: None }))
    }
}
