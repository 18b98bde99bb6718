//! Our ctr and upstream's say and do the same: each command line is given to both, against upstream's daemon.
//!
//! `CTR_UPSTREAM` names upstream's ctr 2.3; `containerd` and its shim are beside it, runc on the PATH. Without it, or
//! without root, the tests say so and pass. Daemon, root, state and FIFOs are private and go with the test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod image;

use bench::{Bench, Said};

/// Flags of `run`, the image's name without its host, and the rest of the command line.
const RUNS: &[&str] = &[
    "@bb sp sleep 100",
    "--env A=b --env FOO=x --env PATH @bb sp sleep 100",
    "--env-file @env --env C=9 @bb sp sleep 100",
    "--user web @bb sp sleep 100",
    "--user 1000 @bb sp sleep 100",
    "--user web:wheel @bb sp sleep 100",
    "--user 5:7 @bb sp sleep 100",
    "-u only @bb sp sleep 100",
    "--privileged @bb sp sleep 100",
    "--privileged --privileged-without-host-devices @bb sp sleep 100",
    "--seccomp @bb sp sleep 100",
    "--seccomp --cap-add CAP_SYS_ADMIN --cap-add CAP_SYS_PTRACE --cap-drop CAP_CHOWN @bb sp sleep 100",
    "--seccomp --seccomp-profile @profile @bb sp sleep 100",
    "--net-host @bb sp sleep 100",
    "--mount type=bind,src=/tmp,dst=/host,options=rbind:ro --mount type=tmpfs,src=tmpfs,dst=/run @bb sp sleep 100",
    "--read-only --cwd /tmp --hostname h1 @bb sp sleep 100",
    "--cpus 1.5 --cpuset-cpus 0 --cpu-shares 2 @bb sp sleep 100",
    "--cpu-quota 20000 --cpu-period 100000 --memory-limit 100000000 @bb sp sleep 100",
    "--with-ns network:/proc/1/ns/net --with-ns cgroup:/proc/1/ns/cgroup @bb sp sleep 100",
    "--allow-new-privs --cgroup /ctr-golden/bar --rlimit-nofile 100:200 @bb sp sleep 100",
    "--device /dev/null --device /dev/net @bb sp sleep 100",
    "--label a=b --label c --annotation d=e --snapshotter-label x=y @bb sp sleep 100",
    "--rootfs-propagation shared @bb sp sleep 100",
    "--runc-binary runc --runc-root @dir/runc @bb sp sleep 100",
    "--sandbox foo --platform linux/amd64 --no-pivot @bb sp sleep 100",
    "--uidmap 0:100000:65536 --gidmap 0:100000:65536 @bb sp sleep 100",
    "--snapshotter native @bb sp sleep 100",
    "@entry sp",
    "@entry sp sleep 100",
    "@number sp sleep 100",
    "--rootfs --user web --env X=y @rootfs sp true",
    "@bb sp nosuch",
    "--user nobody @bb sp sleep 100",
    "--user a:b:c @bb sp sleep 100",
    "--memory-limit 1 --with-ns foo @bb sp",
    "--privileged-without-host-devices @bb sp",
    "--cpus 1 --cpu-quota 5 @bb sp",
    "@missing sp",
];

/// Command lines whose whole output is compared, in this order.
const OTHERS: &[&str] = &[
    "oci spec",
    "oci spec --platform windows/amd64",
    "info",
    "plugins ls",
    "plugins ls -q type~=snapshotter",
    "images ls",
    "images ls -q name~=entry",
    "images check",
    "images label @bb x=y",
    "images label @bb x=",
    "images usage @bb",
    "images rm nope",
    "images tag @bb other:1",
    "images rm other:1",
    "content ls -q",
    "content get sha256:00",
    "content active",
    "snapshots ls",
    "snapshots tree",
    "snapshots usage -b",
    "snapshots prepare --mounts --target /mnt mine",
    "snapshots mounts /mnt mine",
    "snapshots rm mine",
    "snapshots info nope",
    "namespaces ls",
    "namespaces label default a=b",
    "namespaces ls",
    "namespaces label default a=",
    "namespaces ls -q",
    "namespaces rm default",
    "leases ls",
    "containers create @bb c1 sh",
    "containers ls",
    "containers ls -q id==c1",
    "containers info nope",
    "tasks ls",
    "tasks kill c1",
    "tasks rm c1",
    "tasks ps nope",
    "containers rm c1 nope",
    "run",
    "run @bb",
    "run --rm -d @bb x",
    "run -tty -null-io",
    "-n nope run x y",
    "nonsense",
];

#[test]
fn containers_have_the_same_spec_record_and_outcome() {
    let Some(bench) = Bench::new() else { return };
    let mut differ = Vec::new();
    for line in RUNS {
        let [theirs, ours] = bench.both(|ctr| {
            let dumped = bench.path("spec.json");
            std::fs::remove_file(&dumped).ok();
            let flags = format!("run -d --null-io --dump-config {} ", dumped.display());
            let said = ctr.say(&(flags + line));
            let spec = std::fs::read_to_string(&dumped).unwrap_or_default();
            let record = ctr.say("containers info sp").without(&["\"CreatedAt\"", "\"UpdatedAt\""]);
            ctr.say("tasks rm -f sp");
            ctr.say("containers rm sp");
            ctr.say("snapshots rm sp");
            // Upstream leaves the snapshot of a run that failed to its collector.
            (said.sorted(), spec, if said.code == 0 { record } else { Said::default() })
        });
        if theirs != ours {
            differ.push(format!("{line}\n  upstream: {theirs:?}\n  ours:     {ours:?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn commands_print_and_exit_alike() {
    let Some(bench) = Bench::new() else { return };
    let mut differ = Vec::new();
    // One after the other as a whole: the second begins with the state that the first left, which is none.
    let [theirs, ours] =
        bench.both(|ctr| OTHERS.iter().map(|line| ctr.say(line).sorted()).collect::<Vec<_>>());
    for ((line, theirs), ours) in OTHERS.iter().zip(theirs).zip(ours) {
        if theirs != ours {
            differ.push(format!("{line}\n  upstream: {theirs:?}\n  ours:     {ours:?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
