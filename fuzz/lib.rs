//! What the targets share: archives out of noise.

/// Makes noise look like a tar archive: a block that says `ustar` gets a right checksum, or nothing behind the checksum
/// would ever be reached.
pub fn seal(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if block[257..].starts_with(b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}
