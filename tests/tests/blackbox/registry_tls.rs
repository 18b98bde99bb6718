//! Certificates of registries: a bad one is an error that says what is bad, and nothing is sent to whoever showed it.

use std::fs;
use std::path::PathBuf;

use containerd_tests::binaries::beyond_upstream;
use registry::fake::{Certificate, Setup};

use crate::registry_lies::{Bench, WAYS, Way};

fn bench(kind: Certificate, way: Way) -> Bench {
    Bench::new(Setup { tls: Some(kind), ..Setup::default() }, way)
}

/// A directory of hosts that believes in the registry's authority, and verifies.
fn hosts(bench: &Bench) -> PathBuf {
    let root = bench.daemon.dir().join("certs.d");
    let directory = root.join(bench.fake.host());
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("ca.crt"), bench.fake.ca().unwrap()).unwrap();
    let text = format!("server = {:?}\nca = \"ca.crt\"\nskip_verify = false\n", bench.fake.origin());
    fs::write(directory.join("hosts.toml"), text).unwrap();
    root
}

#[test]
fn a_bad_certificate_is_refused_by_what_is_bad() {
    if beyond_upstream("errors name the host, and nothing is left") {
        return;
    }
    for way in WAYS {
        for (kind, words) in [
            (Certificate::Expired, "expired"),
            (Certificate::WrongName, "not valid for name"),
            (Certificate::UnknownAuthority, "unknown authority"),
        ] {
            let bench = bench(kind, way);
            let hosts = hosts(&bench);
            bench.refused(&["--hosts-dir", hosts.to_str().unwrap()], words);
            assert!(bench.fake.requests().is_empty(), "{way:?} {kind:?}");
        }
    }
}

#[test]
fn a_certificate_of_the_configured_authority_is_good() {
    if beyond_upstream("--local") {
        return;
    }
    for way in WAYS {
        for kind in [Certificate::Good, Certificate::SelfSigned] {
            let bench = bench(kind, way);
            let hosts = hosts(&bench);
            bench.good(&["--hosts-dir", hosts.to_str().unwrap()]);
        }
    }
}

#[test]
fn a_mistake_in_the_file_is_told_with_its_line() {
    if beyond_upstream("a file with a mistake is refused") {
        return;
    }
    for way in WAYS {
        let bench = bench(Certificate::Good, way);
        let hosts = hosts(&bench);
        fs::write(hosts.join(bench.fake.host()).join("hosts.toml"), "\nskip_verify = \"no\"\n").unwrap();
        bench.refused(
            &["--hosts-dir", hosts.to_str().unwrap()],
            "hosts.toml:2: skip_verify must be true or false",
        );
        assert!(bench.fake.requests().is_empty(), "{way:?}");
    }
}
