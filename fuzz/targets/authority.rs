#![no_main]
//! What a client calls the daemon, made harmless in the bytes of its connection.

#[allow(dead_code, reason = "the daemon's own module")]
#[path = "../../crates/containerd/src/authority.rs"]
mod authority;

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use authority::Inward;
use libfuzzer_sys::fuzz_target;
use tokio::io::ReadBuf;

/// All that comes through, read in pieces of this size.
fn through(mut client: &[u8], room: usize) -> Vec<u8> {
    let (mut inward, mut got) = (Inward::default(), Vec::new());
    let mut context = Context::from_waker(Waker::noop());
    let mut bytes = vec![0; room];
    loop {
        let mut buf = ReadBuf::new(&mut bytes);
        let Poll::Ready(read) = inward.poll_read(Pin::new(&mut client), &mut context, &mut buf) else {
            panic!("a slice never waits");
        };
        read.expect("a slice never fails");
        match buf.filled() {
            [] => return got,
            filled => got.extend_from_slice(filled),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let whole = through(data, data.len().max(1));
    assert_eq!(whole, through(data, 7), "pieces do not matter");
    // Only the end of a frame that never came is missing.
    assert!(whole.len() <= data.len());
});
