//! The interfaces of a pod, as the kernel shows them for its first process: no namespace is entered.

use api::cri::{NetworkInterfaceUsage, NetworkUsage};
use types::{Error, Result};

use super::number;

/// The interface that counts most.
const FIRST: &str = "eth0";

/// The counters of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Received.
    pub rx: Counters,
    /// Sent.
    pub tx: Counters,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were not as they should be.
    pub errors: u64,
    /// Packets for which there was no room.
    pub dropped: u64,
}

/// The interfaces that the process `pid` sees, but for `lo`.
pub fn read(pid: u32) -> Result<Vec<Interface>> {
    let path = format!("/proc/{pid}/net/dev");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::from(e).context(format!("read {path}")))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Interface> {
    // Two lines are a heading.
    text.lines().skip(2).filter_map(interface).filter(|interface| interface.name != "lo").collect()
}

fn interface(line: &str) -> Option<Interface> {
    let (name, numbers) = line.rsplit_once(':')?;
    let numbers: Vec<u64> =
        numbers.split_whitespace().map(|number| number.parse().unwrap_or_default()).collect();
    let counters = |at: usize| {
        let [bytes, packets, errors, dropped] = *numbers.get(at..at + 4)? else { return None };
        Some(Counters { bytes, packets, errors, dropped })
    };
    Some(Interface { name: name.trim().to_owned(), rx: counters(0)?, tx: counters(8)? })
}

/// The interface that counts most, if there is any.
pub fn first(interfaces: &[Interface]) -> Option<&Interface> {
    interfaces.iter().find(|interface| interface.name == FIRST).or(interfaces.first())
}

/// As the CRI tells it.
pub fn usage(interfaces: &[Interface], timestamp: i64) -> NetworkUsage {
    let usage = |interface: &Interface| NetworkInterfaceUsage {
        name: interface.name.clone(),
        rx_bytes: number(interface.rx.bytes),
        rx_errors: number(interface.rx.errors),
        tx_bytes: number(interface.tx.bytes),
        tx_errors: number(interface.tx.errors),
    };
    NetworkUsage {
        timestamp,
        default_interface: first(interfaces).map(usage),
        interfaces: interfaces.iter().map(usage).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_as_the_kernel_shows_them() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
             lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  \
             net1: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n  \
             eth0:18446744073709551615 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n  bad: 1 2\n";
        let interfaces = parse(text);
        assert_eq!(interfaces.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["net1", "eth0"]);
        assert_eq!(interfaces[0].rx, Counters { bytes: 1, packets: 2, errors: 3, dropped: 4 });
        assert_eq!(interfaces[0].tx, Counters { bytes: 5, packets: 6, errors: 7, dropped: 8 });
        assert_eq!(first(&interfaces).unwrap().rx.bytes, u64::MAX);
        assert_eq!(usage(&interfaces, 1).default_interface.unwrap().name, "eth0");
        assert!(usage(&[], 1).default_interface.is_none());
    }

    #[test]
    fn this_process_has_interfaces_or_none() {
        assert!(read(std::process::id()).is_ok());
        assert!(read(u32::MAX).is_err());
    }
}
