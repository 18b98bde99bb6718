//! 3 -> 4: the listeners' sections `[grpc]`, `[ttrpc]`, `[debug]` (its address) and `[metrics]` become plugins.
//!
//! A plugin's section that is there already wins.

use toml::{Table, Value};

use super::super::{Findings, plugins, take_table};

const TCP: &[(&str, &str)] = &[
    ("tcp_address", "address"),
    ("tcp_tls_ca", "tls_ca"),
    ("tcp_tls_cert", "tls_cert"),
    ("tcp_tls_key", "tls_key"),
    ("tcp_tls_common_name", "tls_common_name"),
];
const SIZES: &[(&str, &str)] =
    &[("max_recv_message_size", "max_recv_message_size"), ("max_send_message_size", "max_send_message_size")];
const SOCKET: &[(&str, &str)] = &[("address", "address"), ("uid", "uid"), ("gid", "gid")];

/// Moves the sections.
pub fn to_plugins(config: &mut Table, findings: &mut Findings) {
    let [grpc, ttrpc, metrics] = ["grpc", "ttrpc", "metrics"].map(|key| take_table(config, key));
    for (name, section, known) in [
        ("grpc", &grpc, &[SOCKET, SIZES, TCP][..]),
        ("ttrpc", &ttrpc, &[SOCKET]),
        ("metrics", &metrics, &[&[("address", ""), ("grpc_histogram", "")]]),
    ] {
        for key in section.keys().filter(|key| !known.iter().any(|keys| has(keys, key))) {
            findings.warnings.push(format!("Ignoring unknown key in TOML: {name}.{key}"));
        }
    }
    let debug = debug_listener(config);
    let Some(plugins) = plugins(config) else { return };
    let mut add = |id: &str, section: Table| {
        let uri = format!("io.containerd.{id}");
        if !section.is_empty() && !plugins.contains_key(&uri) {
            plugins.insert(uri, section.into());
        }
    };
    add("server.v1.debug", debug);
    add("server.v1.grpc", local(&grpc));
    add("server.v1.grpc-tcp", tcp(&grpc));
    add("server.v1.ttrpc", events(&ttrpc, &grpc));
    add("metrics.v1.grpc-prometheus", pick(&metrics, &[("grpc_histogram", "grpc_histogram")]));
    add("server.v1.metrics", pick(&metrics, &[("address", "address")]));
}

fn has(keys: &[(&str, &str)], key: &str) -> bool {
    keys.iter().any(|(known, _)| *known == key)
}

/// What is written and not empty, under its new name.
fn pick(from: &Table, keys: &[(&str, &str)]) -> Table {
    let set = |value: &&Value| !matches!(value, Value::String(text) if text.is_empty());
    let set = |value: &&Value| set(value) && !matches!(value, Value::Integer(0) | Value::Boolean(false));
    keys.iter()
        .filter_map(|(old, new)| Some(((*new).to_owned(), from.get(*old).filter(set)?.clone())))
        .collect()
}

/// A socket whose owner is root unless somebody else is named: 0 and unset are the same in version 3.
fn owned(mut socket: Table) -> Table {
    if socket.contains_key("address") {
        for key in ["uid", "gid"] {
            socket.entry(key).or_insert(Value::Integer(0));
        }
    }
    socket
}

fn debug_listener(config: &mut Table) -> Table {
    let Some(Value::Table(debug)) = config.get_mut("debug") else { return Table::new() };
    let socket = pick(debug, SOCKET);
    // Without an address its owner means nothing.
    SOCKET.iter().for_each(|(key, _)| drop(debug.remove(*key)));
    if socket.contains_key("address") { owned(socket) } else { Table::new() }
}

fn local(grpc: &Table) -> Table {
    let mut socket = owned(pick(grpc, SOCKET));
    socket.extend(pick(grpc, SIZES));
    socket
}

fn tcp(grpc: &Table) -> Table {
    let mut tcp = pick(grpc, TCP);
    if !tcp.contains_key("address") {
        return Table::new();
    }
    tcp.extend(pick(grpc, SIZES));
    tcp
}

/// The shims' socket stands beside the main one, and has its owner, unless it is said otherwise.
fn events(ttrpc: &Table, grpc: &Table) -> Table {
    let mut socket = pick(ttrpc, SOCKET);
    if !socket.contains_key("address")
        && let Some(Value::String(main)) = pick(grpc, SOCKET).get("address")
    {
        for (key, value) in pick(grpc, SOCKET) {
            socket.entry(key).or_insert(value);
        }
        socket.insert("address".into(), format!("{main}.ttrpc").into());
    }
    owned(socket)
}
