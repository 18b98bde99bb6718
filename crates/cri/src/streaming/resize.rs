//! Sizes of a terminal, as JSON one after another.

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use super::connection::Inbound;

/// More than a size can be.
const MOST: usize = 4096;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Size {
    width: u16,
    height: u16,
}

/// Sizes that a client sends.
#[derive(Debug)]
pub struct Sizes {
    input: Inbound,
    text: BytesMut,
}

impl Sizes {
    /// From a stream.
    pub fn new(input: Inbound) -> Self {
        Self { input, text: BytesMut::new() }
    }

    /// The next size, columns and rows; none when there will be no more, or what comes is no size. Cancel safe.
    pub async fn next(&mut self) -> Option<(u32, u32)> {
        loop {
            while let Some(size) = take(&mut self.text)? {
                if size.width > 0 && size.height > 0 {
                    return Some((size.width.into(), size.height.into()));
                }
            }
            let more: Bytes = self.input.next().await?;
            if self.text.len() + more.len() > MOST {
                return None;
            }
            self.text.extend_from_slice(&more);
        }
    }
}

/// The first size in `text`, if it is whole; none at all if it is no size.
fn take(text: &mut BytesMut) -> Option<Option<Size>> {
    let mut sizes = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let size = match sizes.next() {
        None => return Some(None),
        Some(Err(error)) if error.is_eof() => return Some(None),
        Some(size) => size.ok()?,
    };
    let taken = sizes.byte_offset();
    drop(text.split_to(taken));
    Some(Some(size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8], step: usize) -> Vec<(u16, u16)> {
        let (mut buffer, mut sizes) = (BytesMut::new(), Vec::new());
        for piece in text.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(Some(size)) = take(&mut buffer) {
                sizes.push((size.width, size.height));
            }
        }
        sizes
    }

    #[test]
    fn sizes_are_read_however_they_arrive() {
        let text = b"{\"Width\":80,\"Height\":24}\n{\"Width\":100, \"Height\":50}{\"Height\":1}\n";
        for step in [1, 7, text.len()] {
            assert_eq!(all(text, step), [(80, 24), (100, 50), (0, 1)]);
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise: Vec<u8>, step in 1..9_usize) {
            let _ = all(&noise, step);
        }
    }
}
