//! UpdateRuntimeConfig: the addresses of the node's pods become a network configuration, where the administrator has given a
//! template for it and nobody has put another one there.

mod template;

use std::net::IpAddr;
use std::path::Path;

use api::cri::{UpdateRuntimeConfigRequest, UpdateRuntimeConfigResponse};
use template::Values;
use types::{Error, Result, ResultExt};

use crate::cri::Cri;

/// The file that is written.
const FILE: &str = "10-containerd-net.conflist";

/// Answers the call.
pub async fn run(cri: &Cri, request: UpdateRuntimeConfigRequest) -> Result<UpdateRuntimeConfigResponse> {
    let network = request.runtime_config.unwrap_or_default().network_config.unwrap_or_default();
    if network.pod_cidr.is_empty() {
        return Ok(UpdateRuntimeConfigResponse {});
    }
    let values = values(&network.pod_cidr).context(|| "get routes")?;
    let cni = &cri.config.runtime.cni;
    if cni.conf_template.is_empty() {
        tracing::info!("no cni config template is specified: others will write the configuration");
        return Ok(UpdateRuntimeConfigResponse {});
    }
    let networks = cri.network.of("");
    // Either is fine: pods can be set up, or could be if what is configured were ready.
    if networks.status().await.is_ok() || networks.refresh().is_ok() {
        tracing::info!(template = cni.conf_template, "network plugin is ready: the template is not used");
        return Ok(UpdateRuntimeConfigResponse {});
    }
    let (from, to) = (cni.conf_template.clone(), cni.conf_dir.clone());
    crate::blocking(move || write(Path::new(&from), &to, &values)).await?;
    Ok(UpdateRuntimeConfigResponse {})
}

fn write(template: &Path, dir: &Path, values: &Values) -> Result<()> {
    let failed = || format!("failed to parse cni config template {template:?}");
    let text = std::fs::read_to_string(template).context(failed)?;
    let filled = template::fill(&text, values).context(failed)?;
    std::fs::create_dir_all(dir).context(|| format!("failed to create cni config directory {dir:?}"))?;
    let file = dir.join(FILE);
    sys::fs::atomic_write(&file, filled.as_bytes(), 0o644)
        .context(|| format!("failed to generate cni config file {file:?}"))
}

/// What templates can name.
fn values(cidrs: &str) -> Result<Values> {
    let cidrs: Vec<String> = cidrs.split(',').map(|cidr| cidr.trim().to_owned()).collect();
    let families = cidrs.iter().map(|cidr| is_v4(cidr)).collect::<Result<Vec<bool>>>()?;
    let route = |v4: bool, route: &str| families.contains(&v4).then(|| route.to_owned());
    let routes = [route(true, "0.0.0.0/0"), route(false, "::/0")].into_iter().flatten().collect();
    let first = cidrs.first().cloned().unwrap_or_default();
    Ok(Values {
        texts: [("PodCIDR", first)].into(),
        lists: [("PodCIDRRanges", cidrs), ("Routes", routes)].into(),
    })
}

/// Whether a range of addresses is of IPv4.
fn is_v4(cidr: &str) -> Result<bool> {
    let bad = || Error::invalid(format!("invalid CIDR address: {cidr}"));
    let (address, length) = cidr.split_once('/').ok_or_else(bad)?;
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let length: u8 = length.parse().map_err(|_| bad())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    if length > most { Err(bad()) } else { Ok(address.is_ipv4()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_of_both_families_become_routes() {
        let both = values("10.0.0.0/24, 2001:db8::/64").unwrap();
        assert_eq!(both.texts["PodCIDR"], "10.0.0.0/24");
        assert_eq!(both.lists["Routes"], ["0.0.0.0/0", "::/0"]);
        assert_eq!(values("2001:db8::/64").unwrap().lists["Routes"], ["::/0"]);
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/24,"] {
            assert!(values(bad).unwrap_err().to_string().contains("invalid CIDR address"), "{bad}");
        }
    }

    #[test]
    fn a_template_becomes_a_network_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let template = dir.path().join("template");
        std::fs::write(&template, r#"{"subnet": "{{.PodCIDR}}"}"#).unwrap();
        let to = dir.path().join("net.d");
        write(&template, &to, &values("10.0.0.0/24").unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(to.join(FILE)).unwrap(), r#"{"subnet": "10.0.0.0/24"}"#);
        std::fs::write(&template, "{{.Nothing}}").unwrap();
        let error = write(&template, &to, &values("10.0.0.0/24").unwrap()).unwrap_err();
        assert!(error.to_string().contains("failed to parse cni config template"), "{error}");
    }
}
