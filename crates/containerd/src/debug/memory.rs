//! How much memory the daemon has, by the kernel's account and by the allocator's.

use std::fmt::Write;

/// What the kernel tells about all mappings together, and the name here.
const ROLLUP: [(&str, &str); 6] = [
    ("Rss", "rss"),
    ("Pss", "pss"),
    ("Pss_Anon", "pss_anonymous"),
    ("Pss_File", "pss_file"),
    ("Private_Dirty", "private_dirty"),
    ("Swap", "swap"),
];

/// Names and bytes; what cannot be read is left out.
pub fn numbers() -> Vec<(&'static str, u64)> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let mut numbers = parse(&rollup);
    if let Some(heap) = sys::memory::heap() {
        numbers.extend([
            ("heap_from_kernel", heap.from_kernel),
            ("heap_mapped", heap.mapped),
            ("heap_in_use", heap.in_use),
            ("heap_free", heap.free),
        ]);
    }
    numbers
}

/// The same for people.
pub fn text() -> String {
    numbers().into_iter().fold(String::new(), |mut text, (name, bytes)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<18} {bytes:>12} bytes");
        text
    })
}

fn parse(rollup: &str) -> Vec<(&'static str, u64)> {
    let find = |wanted: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    ROLLUP.iter().filter_map(|(key, name)| Some((*name, find(key)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_of_the_kernel_become_bytes() {
        let rollup = "55-7f ---p 0 0:0 0 [rollup]\nRss:  12 kB\nPss:               3 kB\nPss_Anon:  x kB\n";
        assert_eq!(parse(rollup), [("rss", 12288), ("pss", 3072)]);
    }

    #[test]
    fn this_process_has_memory() {
        let text = text();
        assert!(text.contains("pss ") && text.contains("heap_in_use"), "{text}");
    }
}
