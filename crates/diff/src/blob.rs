//! A blob as a reader, for threads that may block.

use std::io::{self, Read};
use std::sync::Arc;

use content::Reader;
use tokio::runtime::Handle;

/// Read at a time.
pub(crate) const INPUT: usize = 128 << 10;

/// Reads a blob from its beginning. Positions are its own: several may read one open file.
pub struct BlobReader {
    blob: Arc<dyn Reader>,
    file: Option<std::fs::File>,
    runtime: Handle,
    at: u64,
}

impl BlobReader {
    /// A reader of `blob`, which asks on `runtime` for what is no local file.
    pub fn new(blob: Arc<dyn Reader>, runtime: Handle) -> Self {
        let file = blob.file();
        Self { blob, file, runtime, at: 0 }
    }

    /// The same, with a buffer.
    pub fn buffered(self) -> io::BufReader<Self> {
        io::BufReader::with_capacity(INPUT, self)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let count = match &self.file {
            Some(file) => file.read_at(buf, self.at)?,
            None => {
                let read = self.blob.read_at(self.at, buf.len());
                let bytes = self.runtime.block_on(read).map_err(io::Error::other)?;
                buf[..bytes.len()].copy_from_slice(&bytes);
                bytes.len()
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}
