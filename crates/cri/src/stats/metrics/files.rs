//! Open files of a container's processes. A container may have any number of them: only so many are looked at, and then the
//! numbers say that there are at least as many.

/// Processes that are looked at.
const MOST_PROCESSES: usize = 512;
/// Files that are looked at.
const MOST_FILES: u64 = 16 << 10;

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// Open files, sockets among them.
    pub files: u64,
    /// Sockets.
    pub sockets: u64,
}

impl Descriptors {
    /// Counts those of processes. One that ends meanwhile has none.
    pub fn count(processes: &[u32]) -> Self {
        let mut count = Self::default();
        for process in processes.iter().take(MOST_PROCESSES) {
            for file in std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten() {
                if count.files >= MOST_FILES {
                    return count;
                }
                count.files += 1;
                let target = std::fs::read_link(file.path());
                let socket = target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
                count.sockets += u64::from(socket);
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted_among_files() {
        let _socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let count = Descriptors::count(&[std::process::id(), u32::MAX]);
        assert!(count.sockets >= 1 && count.files > count.sockets);
        assert_eq!(Descriptors::count(&[]), Descriptors::default());
    }
}
