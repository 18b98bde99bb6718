//! A writer of ustar archives that also writes what no honest archiver would.

/// What an entry is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A directory.
    Dir,
    /// A symbolic link to this.
    Symlink(String),
    /// Another name of this entry.
    Hardlink(String),
}

/// One entry of an archive. The name is written as it is.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its path in the archive.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
}

impl Entry {
    /// A file of mode 0644.
    pub fn file(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), kind: Kind::File(bytes.into()), mode: 0o644, owner: (0, 0) }
    }

    /// A directory of mode 0755.
    pub fn dir(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: Kind::Dir, mode: 0o755, owner: (0, 0) }
    }

    /// A symbolic link.
    pub fn symlink(name: impl Into<String>, target: impl Into<String>) -> Self {
        Self { name: name.into(), kind: Kind::Symlink(target.into()), mode: 0o777, owner: (0, 0) }
    }

    /// A hard link.
    pub fn hardlink(name: impl Into<String>, target: impl Into<String>) -> Self {
        Self { name: name.into(), kind: Kind::Hardlink(target.into()), mode: 0o644, owner: (0, 0) }
    }

    /// The same with these permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The same with this owner and group.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (flag, link, data): (u8, &str, &[u8]) = match &self.kind {
            Kind::File(bytes) => (b'0', "", bytes),
            Kind::Dir => (b'5', "", &[]),
            Kind::Symlink(target) => (b'2', target, &[]),
            Kind::Hardlink(target) => (b'1', target, &[]),
        };
        assert!(self.name.len() <= 100 && link.len() <= 100, "ustar names are short: {}", self.name);
        let mut header = [0_u8; 512];
        put(&mut header, 0, self.name.as_bytes());
        put(&mut header, 100, format!("{:07o}", self.mode).as_bytes());
        put(&mut header, 108, format!("{:07o}", self.owner.0).as_bytes());
        put(&mut header, 116, format!("{:07o}", self.owner.1).as_bytes());
        put(&mut header, 124, format!("{:011o}", data.len()).as_bytes());
        put(&mut header, 136, b"14000000000");
        put(&mut header, 148, b"        ");
        put(&mut header, 156, &[flag]);
        put(&mut header, 157, link.as_bytes());
        put(&mut header, 257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
}

/// The archive of `entries`, with its end mark.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        entry.write(&mut out);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn put(header: &mut [u8; 512], at: usize, bytes: &[u8]) {
    header[at..at + bytes.len()].copy_from_slice(bytes);
}
