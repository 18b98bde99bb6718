//! What the runtimes of handlers can do: their shims say so, asked once, when somebody first wants to know.

use api::containerd::types::RuntimeInfo;
use api::cri::{RuntimeHandler, RuntimeHandlerFeatures};
use prost::Message;
use serde_json::Value;
use tokio::sync::OnceCell;
use types::{Error, Result};

use crate::config::Handler;
use crate::cri::Cri;
use crate::pod;

/// Since this version of Linux mounts can be made read-only with all that is below.
const RECURSIVE_READ_ONLY: (u32, u32) = (5, 12);

/// What is known of them.
#[derive(Debug, Default)]
pub struct Known(OnceCell<Vec<RuntimeHandler>>);

impl Known {
    /// All handlers by name; without a name, the default one.
    pub async fn list(&self, cri: &Cri) -> Vec<RuntimeHandler> {
        self.0.get_or_init(|| ask_all(cri)).await.clone()
    }
}

async fn ask_all(cri: &Cri) -> Vec<RuntimeHandler> {
    let mut handlers = Vec::new();
    for (name, handler) in &cri.config.runtime.runtimes {
        let features = match ask(cri, handler).await {
            Ok(features) => Some(features),
            Err(error) => {
                tracing::debug!(handler = name, %error, "a runtime does not say what it can do");
                None
            }
        };
        if *name == cri.config.runtime.default_runtime {
            handlers.insert(0, RuntimeHandler { name: String::new(), features });
        }
        handlers.push(RuntimeHandler { name: name.clone(), features });
    }
    handlers
}

async fn ask(cri: &Cri, handler: &Handler) -> Result<RuntimeHandlerFeatures> {
    let path = Some(&handler.runtime_path).filter(|path| !path.is_empty());
    let options = pod::options(handler)?;
    let info = cri.runtime.info(path.unwrap_or(&handler.runtime_type), options.as_ref()).await?;
    let info = RuntimeInfo::decode(info.as_slice())
        .map_err(|e| Error::invalid(format!("decode runtime info: {e}")))?;
    let features = info.features.ok_or_else(|| Error::not_found("runtime info has no features"))?;
    let features: Value = serde_json::from_slice(&features.value)
        .map_err(|error| Error::invalid(format!("decode features of a runtime: {error}")))?;
    Ok(understand(&features, kernel()))
}

/// What kubelets want to know of it.
fn understand(features: &Value, kernel: (u32, u32)) -> RuntimeHandlerFeatures {
    let has = |list: &Value, word: &str| list.as_array().is_some_and(|all| all.iter().any(|one| one == word));
    let linux = &features["linux"];
    RuntimeHandlerFeatures {
        recursive_read_only_mounts: has(&features["mountOptions"], "rro") && kernel >= RECURSIVE_READ_ONLY,
        user_namespaces: has(&linux["namespaces"], "user")
            && linux["mountExtensions"]["idmap"]["enabled"] == true,
    }
}

/// The version of the kernel.
fn kernel() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_runtime_says_counts_as_far_as_the_kernel_can_do_it() {
        let features = json!({
            "mountOptions": ["ro", "rro"],
            "linux": {"namespaces": ["pid", "user"], "mountExtensions": {"idmap": {"enabled": true}}},
        });
        let all = RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: true };
        assert_eq!(understand(&features, (5, 12)), all);
        assert!(!understand(&features, (5, 11)).recursive_read_only_mounts);
        let none = RuntimeHandlerFeatures::default();
        assert_eq!(understand(&json!({}), (6, 0)), none);
        assert_eq!(understand(&json!({"linux": {"namespaces": ["user"]}}), (6, 0)), none);
        assert!(kernel() > (3, 0));
    }
}
