//! The families of this process, `process_*`, as Prometheus' own collector names them. What cannot be read is left out.

use std::time::SystemTime;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::text::{Kind, Page};

/// Writes the families.
pub fn write(page: &mut Page) {
    let stat = Stat::read();
    if let Some(stat) = &stat {
        let help = "Seconds of processor time spent, in user and kernel mode.";
        page.single("process_cpu_seconds_total", Kind::Counter, help, ticks(stat.user + stat.kernel));
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        page.single("process_max_fds", Kind::Gauge, "How many descriptors may be open.", limit);
    }
    if let Some((received, sent)) = network() {
        let help = "Bytes received over IP by this network namespace.";
        page.single("process_network_receive_bytes_total", Kind::Counter, help, received);
        let help = "Bytes sent over IP by this network namespace.";
        page.single("process_network_transmit_bytes_total", Kind::Counter, help, sent);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // The directory itself is open while it is read.
        page.single("process_open_fds", Kind::Gauge, "Open descriptors.", open.count().saturating_sub(1));
    }
    let Some(stat) = stat else { return };
    let resident = stat.resident * page_size() as u64;
    page.single("process_resident_memory_bytes", Kind::Gauge, "Resident memory in bytes.", resident);
    if let Some(started) = stat.started_at() {
        let help = "When the process was started, in seconds since 1970.";
        page.single("process_start_time_seconds", Kind::Gauge, help, started);
    }
    page.single("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory in bytes.", stat.virtual_bytes);
    let limit = getrlimit(Resource::As).current.unwrap_or(u64::MAX);
    page.single("process_virtual_memory_max_bytes", Kind::Gauge, "How large virtual memory may be.", limit);
}

fn ticks(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}

/// What is wanted of `/proc/self/stat`.
struct Stat {
    user: u64,
    kernel: u64,
    /// In ticks since the machine was started.
    started: u64,
    virtual_bytes: u64,
    /// In pages.
    resident: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// The name of the program, in brackets, may have anything in it; the state, field 3, follows its last one.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<_> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some(Self {
            user: field(14)?,
            kernel: field(15)?,
            started: field(22)?,
            virtual_bytes: field(23)?,
            resident: field(24)?,
        })
    }

    fn started_at(&self) -> Option<f64> {
        let uptime = std::fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = uptime.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        let started = boot + ticks(self.started);
        // A clock that was set since then.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
        Some(started.min(now))
    }
}

/// Bytes received and sent: a line of names, and one of numbers below it.
fn network() -> Option<(u64, u64)> {
    octets(&std::fs::read_to_string("/proc/self/net/netstat").ok()?)
}

fn octets(text: &str) -> Option<(u64, u64)> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, numbers) = (lines.next()?.split(' '), lines.next()?.split(' '));
    let pairs: Vec<_> = names.zip(numbers).collect();
    let find = |wanted: &str| pairs.iter().find(|(name, _)| *name == wanted)?.1.parse().ok();
    Some((find("InOctets")?, find("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_bracket_in_its_name_is_measured() {
        let mut text = String::from("7 (a) b) S");
        (4..=52).for_each(|field| text.push_str(&format!(" {field}")));
        let stat = Stat::parse(&text).unwrap();
        assert_eq!((stat.user, stat.kernel, stat.started), (14, 15, 22));
        assert_eq!((stat.virtual_bytes, stat.resident), (23, 24));
        assert!(Stat::parse("7 (a) S 1").is_none());
    }

    #[test]
    fn bytes_of_the_network_are_found_by_name() {
        assert_eq!(octets("TcpExt: A\nTcpExt: 1\nIpExt: X InOctets OutOctets\nIpExt: 1 2 3\n"), Some((2, 3)));
        assert_eq!(octets("IpExt: InOctets\n"), None);
    }

    #[test]
    fn this_process_has_all_of_the_families() {
        let mut page = Page::default();
        write(&mut page);
        let text = page.finish();
        assert_eq!(text.matches("# TYPE process_").count(), 9, "{text}");
        assert!(text.contains("process_start_time_seconds 1"), "{text}");
    }
}
