//! What a runtime says of itself: its shim executed with `-info`.

use std::time::Duration;

use api::containerd::types::RuntimeInfo;
use prost::Message;
use tokio::process::Command;
use types::{Any, Error, Result, ResultExt};

use crate::launch;
use crate::runtime::Runtime;

/// How long a shim may take for it.
const LIMIT: Duration = Duration::from_secs(30);

impl Runtime {
    /// Asks the shim of `runtime`, which may depend on the options. What it answers is returned byte for byte: a
    /// `containerd.types.RuntimeInfo`. Cancel safe.
    pub async fn info(&self, runtime: &str, options: Option<&Any>) -> Result<Vec<u8>> {
        let shim = crate::binary::resolve(runtime, &self.inner.launcher.binary)
            .context(|| "failed to resolve runtime path")?;
        let mut command = Command::new(&shim);
        command.arg("-info").process_group(0).kill_on_drop(true);
        let stdin =
            options.map_or_else(Vec::new, |options| api::any::to_wire(options.clone()).encode_to_vec());
        let doing = || format!("failed to run [{} -info]", shim.display());
        let output = launch::run(command, &stdin, LIMIT).await.context(doing)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::unknown(format!(
                "{}: {} (stderr: {said:?})",
                doing(),
                launch::words(output.status)
            )));
        }
        RuntimeInfo::decode(output.stdout.as_slice()).map_err(|e| {
            Error::unknown(format!("failed to unmarshal stdout from [{} -info]: {e}", shim.display()))
        })?;
        Ok(output.stdout)
    }
}
