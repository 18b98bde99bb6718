//! A shim that was found by its command line: what it runs, what it costs, and how to speak to it.

use std::time::Duration;

use sys::shims::Shim;
use types::Result;

use crate::commands::shim::connection::Connection;

/// The shims of the daemon at `address`, by namespace and id.
pub fn of_daemon(address: &str) -> Result<Vec<Shim>> {
    let mut shims = sys::shims::running()?;
    shims.retain(|shim| shim.address == address);
    Ok(shims)
}

/// Speaks to it; each call has `limit`.
pub fn connect(shim: &Shim, limit: Duration) -> Result<Connection> {
    let connection = Connection::open(&shim.sockets, &shim.namespace)?;
    connection.limit(limit)?;
    Ok(connection)
}

/// The file that it was started from; another may have taken its name.
pub fn binary(shim: &Shim) -> String {
    let link = std::fs::read_link(format!("/proc/{}/exe", shim.pid)).unwrap_or_default();
    let text = link.to_string_lossy().into_owned();
    text.strip_suffix(" (deleted)").map_or(text.clone(), str::to_owned)
}

/// Its proportional and private memory, in kilobytes.
pub fn memory(shim: &Shim) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", shim.pid)).unwrap_or_default();
    let of = |key: &str| -> u64 {
        let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB"));
        lines.filter_map(|number| number.trim().parse::<u64>().ok()).sum()
    };
    (of("Pss:"), of("Private_Clean:") + of("Private_Dirty:"))
}
