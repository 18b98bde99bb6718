//! A spec, as plugins want it: what an adjustment needs of the machine.

use std::path::Path;

use ::nri::spec::{Propagation, Tools};
use ::nri::wire::ContainerAdjustment;
use serde_json::{Value, json};
use sys::mount::table;
use types::{Error, Result};

use crate::config::Runtime;
use crate::cri::{Cri, blocking};

/// Adjusts a spec; on the blocking pool, as mounts and vendors' files are looked at.
pub async fn adjust(cri: &Cri, mut spec: Value, wanted: ContainerAdjustment) -> Result<Value> {
    if wanted == ContainerAdjustment::default() {
        return Ok(spec);
    }
    let cri = cri.clone();
    let adjusted = blocking(move || {
        let settings = &cri.config.runtime;
        let tools = Tools {
            inject: &|spec, names| crate::spec::inject_devices(spec, names, settings),
            block_io: &|class| block_io(class, settings),
            propagation: &|path| propagation(path),
            without_hugepages: settings.disable_hugetlb,
        };
        ::nri::spec::adjust(&mut spec, &wanted, &tools)?;
        Ok(spec)
    });
    adjusted.await.map_err(|error| error.context("failed to NRI-adjust container Spec"))
}

/// No classes can be defined here yet.
fn block_io(class: &str, settings: &Runtime) -> Result<Value> {
    if settings.ignore_blockio {
        return Ok(json!({}));
    }
    Err(Error::precondition(format!("blockio disabled, refusing to set blockio class {class:?}")))
}

/// Of the mount that a path is on: of those with the longest target the last one.
fn propagation(path: &Path) -> Result<Propagation> {
    let entries = table::read()?;
    let on = entries.iter().filter(|entry| path.starts_with(&entry.target));
    let entry = on.max_by_key(|entry| entry.target.components().count());
    let entry = entry.ok_or_else(|| Error::not_found(format!("the mount of {}", path.display())))?;
    let has = |kind: &str| entry.propagation.iter().any(|tag| tag.starts_with(kind));
    Ok(match (has("shared:"), has("master:")) {
        (true, _) => Propagation::Shared,
        (false, true) => Propagation::Slave,
        (false, false) => Propagation::Private,
    })
}
