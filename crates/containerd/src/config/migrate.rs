//! Older versions of the configuration, brought to the current one step by step.
//!
//! Version 3 has the listeners in sections of their own (`[grpc]`, `[ttrpc]`, `[debug]`, `[metrics]`); in version 4 they
//! are plugins `io.containerd.server.v1.*`. Versions 1 and 2 are a later issue.

use toml::{Table, Value};

/// Moves the sections of version 3 to where version 4 has them. A plugin section that is there already wins.
pub fn to_version_4(config: &mut Table) {
    let grpc = section(config, "grpc");
    let ttrpc = section(config, "ttrpc");
    let metrics = section(config, "metrics");
    let mut debug = section(config, "debug");

    let listener = pick(&mut debug, &["address", "uid", "gid"]);
    if !debug.is_empty() {
        config.insert("debug".into(), debug.into());
    }
    let (tcp, local) = split_tcp(grpc);
    let plugins = config.entry("plugins").or_insert_with(|| Table::new().into());
    let Value::Table(plugins) = plugins else { return };
    let mut add = |id: &str, section: Table| {
        if !section.is_empty() && !plugins.contains_key(id) {
            plugins.insert(id.to_owned(), section.into());
        }
    };
    add("io.containerd.server.v1.debug", listener);
    add("io.containerd.server.v1.grpc-tcp", tcp);
    // An unset ttrpc address is derived from that of grpc when the tree is read, uid and gid included.
    add("io.containerd.server.v1.ttrpc", ttrpc);
    add("io.containerd.server.v1.grpc", local);
    let mut metrics = metrics;
    add("io.containerd.metrics.v1.grpc-prometheus", pick(&mut metrics, &["grpc_histogram"]));
    add("io.containerd.server.v1.metrics", metrics);
}

fn section(config: &mut Table, key: &str) -> Table {
    match config.remove(key) {
        Some(Value::Table(table)) => table,
        _ => Table::new(),
    }
}

fn pick(from: &mut Table, keys: &[&str]) -> Table {
    keys.iter().filter_map(|key| Some(((*key).to_owned(), from.remove(*key)?))).collect()
}

/// The TCP listener's settings and the local socket's; sizes of messages hold for both.
fn split_tcp(mut grpc: Table) -> (Table, Table) {
    let mut tcp = Table::new();
    let keys = [
        ("tcp_address", "address"),
        ("tcp_tls_ca", "tls_ca"),
        ("tcp_tls_cert", "tls_cert"),
        ("tcp_tls_key", "tls_key"),
        ("tcp_tls_common_name", "tls_common_name"),
    ];
    for (old, new) in keys {
        match grpc.remove(old) {
            Some(Value::String(text)) if text.is_empty() => {}
            Some(value) => drop(tcp.insert(new.to_owned(), value)),
            None => {}
        }
    }
    (tcp, grpc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listeners_of_version_3_become_plugins() {
        let mut config: Table =
            "[grpc]\naddress='/a'\nuid=5\n[debug]\nlevel='debug'\naddress='/d'\n[metrics]\naddress=''"
                .parse()
                .unwrap();
        to_version_4(&mut config);
        assert_eq!(config["plugins"]["io.containerd.server.v1.grpc"]["uid"].as_integer(), Some(5));
        assert_eq!(config["plugins"]["io.containerd.server.v1.debug"]["address"].as_str(), Some("/d"));
        assert_eq!(config["debug"]["level"].as_str(), Some("debug"));
        assert!(!config.contains_key("grpc"));
    }

    #[test]
    fn a_plugin_section_wins_over_the_old_one() {
        let mut config: Table =
            "[grpc]\naddress='/old'\n[plugins.'io.containerd.server.v1.grpc']\naddress='/new'"
                .parse()
                .unwrap();
        to_version_4(&mut config);
        assert_eq!(config["plugins"]["io.containerd.server.v1.grpc"]["address"].as_str(), Some("/new"));
    }
}
