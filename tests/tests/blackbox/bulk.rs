//! Much output and input: every byte arrives, however slowly it is read.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use containerd_tests::Daemon;

const PIECE: usize = 64 << 10;

/// Bytes that follow no pattern, the same each time.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, buffer: &mut [u8]) {
        for place in buffer.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            place.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}

#[test]
fn a_quarter_of_a_gibibyte_comes_back_byte_for_byte_to_a_slow_reader() {
    echoed(256 << 20);
}

#[test]
#[ignore = "takes minutes: cargo xtask soak leaks"]
fn a_gibibyte_comes_back_byte_for_byte_to_a_slow_reader() {
    echoed(1 << 30);
}

/// Sends so many bytes through a container's standard input and output.
fn echoed(bytes: usize) {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("echo"));
    let mut command = daemon.client(daemon.ctr_binary(), &["run", "--rm", image, &id, "cat"]);
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let (mut noise, mut buffer) = (Noise(7), vec![0; PIECE]);
        for _ in 0..bytes / PIECE {
            noise.fill(&mut buffer);
            stdin.write_all(&buffer).unwrap();
        }
    });
    let mut stdout = client.stdout.take().unwrap();
    let (mut noise, mut wanted, mut got) = (Noise(7), vec![0; PIECE], vec![0; PIECE]);
    for n in 0..bytes / PIECE {
        // Slow at first, and now and then: everything in between is full by then.
        if n < 50 || n % 256 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        noise.fill(&mut wanted);
        stdout.read_exact(&mut got).unwrap();
        assert!(got == wanted, "differs within piece {n}");
    }
    assert_eq!(stdout.read(&mut got).unwrap(), 0);
    writer.join().unwrap();
    assert!(client.wait().unwrap().success());
}
