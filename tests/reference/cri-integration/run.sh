#!/bin/bash
# Runs upstream's CRI integration tests (integration/ of containerd 2.3.4) against the containerd of a directory, offline.
#
#   run.sh BIN [TEST FLAGS...]      e.g.  run.sh target/dist -test.run TestContainer
#
# BIN holds containerd, ctr and containerd-shim-runc-v2. Results stand in $OUT (default: $WORK/last): `log`, `daemon.log`, and
# `results`, one line a test, sorted, without times, to be compared with another run's. See README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
conformance=$here/../../conformance
WORK=${WORK:-/var/tmp/containerd-rs-cri-integration}
OUT=${OUT:-$WORK/last}
CNI_BIN_DIR=${CNI_BIN_DIR:-/usr/lib/cni}
VERSION=v2.3.4
PORT=5997
# They fetch releases of containerd from GitHub, or are Windows'.
SKIP=${SKIP:-TestUpgrade|TestIssue10467}

build() {
    mkdir -p "$WORK/bin"
    [ "$(cat "$WORK/stamp" 2>/dev/null || true)" != "$VERSION" ] || return 0
    (cd "$here/.." && GO111MODULE=on go mod download "github.com/containerd/containerd/v2@$VERSION" 2>/dev/null) ||
        (cd "$WORK" && GO111MODULE=on go mod download "github.com/containerd/containerd/v2@$VERSION")
    if [ ! -d "$WORK/source" ]; then
        cp -r "$(go env GOMODCACHE)/github.com/containerd/containerd/v2@$VERSION" "$WORK/source"
        chmod -R u+w "$WORK/source"
    fi
    cd "$WORK/source"
    export GOFLAGS=-buildvcs=false GOTOOLCHAIN=local
    (cd integration && nice -n 10 go test -c -o "$WORK/cri.test" .)
    for program in cni-bridge-fp containerd-shim-runc-fp-v1 loopback-v2; do
        nice -n 10 go build -o "$WORK/bin/$program" "./integration/failpoint/cmd/$program"
    done
    cd - >/dev/null
    echo "$VERSION" >"$WORK/stamp"
}

outside() {
    local bin code=0
    bin=$(cd "$1" && pwd)
    shift
    build
    if [ ! -f "$WORK/images/digest" ]; then
        python3 "$conformance/images.py" build --out "$WORK/images" --bench-layers 0
        python3 "$here/images.py" "$WORK/images" >"$WORK/images/digest"
    fi
    CRI_SUITE_INSIDE=yes WORK=$WORK OUT=$OUT CNI_BIN_DIR=$CNI_BIN_DIR SKIP=$SKIP \
        unshare --mount --net --pid --fork --kill-child --mount-proc --propagation slave "$0" "$bin" "$@" || code=$?
    # Pods of these tests have no parent of their own: what they leave is beside other daemons' groups. The log has their names.
    find /sys/fs/cgroup -depth -type d -path '*/k8s.io/*' | while read -r group; do
        grep -qF "${group##*/}" "$OUT/daemon.log" && rmdir "$group" 2>/dev/null
    done || true
    exit $code
}

# What tests expect of a machine, in the places where they look for it: networks, mirrors, a second runtime.
machine() {
    local bin=$1 place name
    mount --make-rshared /
    for place in /etc/containerd /etc/cni /opt/cni /run/containerd /run/netns /var/run/netns /run/nri /var/lib/cni \
        /run/containerd-test /usr/local/bin /var/lib/containerd /tmp; do
        mkdir -p "$place"
        mount -t tmpfs tmpfs "$place"
    done
    rm -rf "$WORK/root"
    mkdir -p "$WORK/root" /var/lib/containerd-test /etc/cni/net.d /opt/cni/bin /tmp/failpoint-cni-net.d
    mount --bind "$WORK/root" /var/lib/containerd-test
    echo "127.0.0.1 localhost ghcr.io registry.k8s.io docker.io" >"$WORK/hosts"
    mount --bind "$WORK/hosts" /etc/hosts
    mount --make-rshared /
    cp "$CNI_BIN_DIR"/* "$WORK/bin/cni-bridge-fp" /opt/cni/bin/
    cp "$WORK/bin/loopback-v2" /usr/local/bin/
    network containerd-net bridge cni0 10.88 2001:4860:4860:: '' >/etc/cni/net.d/10-containerd-net.conflist
    network containerd-net-failpoint cni-bridge-fp cni-fp 10.89 2001:4860:4861:: \
        '"capabilities": {"io.kubernetes.cri.pod-annotations": true},' >/tmp/failpoint-cni-net.d/10-containerd-net.conflist
    ip link set lo up
    ip link add host0 type veth peer name host1
    ip link set host1 up
    ip address add 10.213.92.1/24 dev host0
    ip link set host0 up
    ip route add default via 10.213.92.254
}

network() {
    cat <<JSON
{"cniVersion": "1.0.0", "name": "$1", "plugins": [
  {"type": "$2", "bridge": "$3", "isGateway": true, "ipMasq": true, "promiscMode": true, $6 "ipam": {
     "type": "host-local", "ranges": [[{"subnet": "$4.0.0/16"}], [{"subnet": "$5/64"}]],
     "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
}

# One that is ghcr.io and registry.k8s.io, for daemons and for Go's client, by an authority that is made here.
registry() {
    [ -f "$WORK/tls.crt" ] ||
        openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=registry -keyout "$WORK/tls.key" -out "$WORK/tls.crt" \
            -addext 'subjectAltName=DNS:ghcr.io,DNS:registry.k8s.io,DNS:docker.io' 2>/dev/null
    export SSL_CERT_FILE=$WORK/tls.crt
    serve $PORT ''
    python3 "$conformance/images.py" push --out "$WORK/images" --registry "127.0.0.1:$PORT"
    serve 443 "$(printf '  tls:\n    certificate: %s/tls.crt\n    key: %s/tls.key' "$WORK" "$WORK")"
}

serve() {
    printf 'version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:%s\n%s\n' \
        "$WORK/registry" "$1" "$2" >"$WORK/registry.$1.yml"
    docker-registry serve "$WORK/registry.$1.yml" >>"$WORK/registry.log" 2>&1 &
    for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && break; sleep 0.1; done
}

configure() {
    cat >"$WORK/config.toml" <<TOML
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  drain_exec_sync_io_timeout = "10s"
  restrict_oom_score_adj = $1
[plugins."io.containerd.snapshotter.v1.overlayfs"]
  slow_chown = true
[plugins."io.containerd.nri.v1.nri"]
  disable = false
  socket_path = "/var/run/nri-test.sock"
  plugin_path = "/no/pre-launched/nri/plugins"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc-fp]
  cni_conf_dir = "/tmp/failpoint-cni-net.d"
  cni_max_conf_num = 1
  pod_annotations = ["io.containerd.runtime.v2.shim.failpoint.*"]
  runtime_type = "runc-fp.v1"
TOML
}

# Daemons that tests start themselves ask for an oom_score_adj that this machine may not give: here they get 0.
without_adjustment() {
    mkdir -p /tmp/bin
    cat >/tmp/bin/runc <<SH
#!/bin/sh
bundle=
for word in "\$@"; do
    [ "\$bundle" != next ] || bundle=\$word
    [ "\$word" != --bundle ] || bundle=next
done
[ ! -f "\$bundle/config.json" ] || sed -i 's/"oomScoreAdj": *-[0-9]*/"oomScoreAdj":0/' "\$bundle/config.json"
exec $(command -v runc) "\$@"
SH
    chmod 755 /tmp/bin/runc
    export PATH="/tmp/bin:$PATH"
}

# The tests kill the daemon and expect somebody to start it again.
keep_alive() {
    while :; do
        containerd --log-level debug --config "$WORK/config.toml" --address /run/containerd-test/containerd.sock \
            --state /run/containerd-test --root /var/lib/containerd-test >>"$OUT/daemon.log" 2>&1 || true
        sleep 5
    done
}

inside() {
    local bin=$1 code=0 restrict=false
    shift
    rm -rf "$OUT"
    mkdir -p "$OUT" "$WORK/registry"
    machine "$bin"
    registry
    echo "BusyBoxByDigest = \"ghcr.io/containerd/busybox@$(cat "$WORK/images/digest")\"" >"$WORK/list.toml"
    (echo -998 >"/proc/$BASHPID/oom_score_adj") 2>/dev/null || restrict=true
    configure $restrict
    export PATH="$bin:$WORK/bin:$PATH"
    [ $restrict = false ] || without_adjustment
    keep_alive &
    for _ in $(seq 100); do ctr -a /run/containerd-test/containerd.sock version >/dev/null 2>&1 && break; sleep 0.1; done
    cd "$WORK/source/integration"
    "$WORK/cri.test" -test.v -test.timeout "${LIMIT:-1800}s" -test.skip "$SKIP" -cri-endpoint unix:///run/containerd-test/containerd.sock \
        -containerd-bin containerd -build-dir "$bin" -image-list "$WORK/list.toml" "$@" >"$OUT/log" 2>&1 || code=$?
    grep -aoE -- '^ *--- (PASS|FAIL|SKIP): [^ ]+' "$OUT/log" | sed 's/^ *//' | sort >"$OUT/results"
    echo "exit $code: $(grep -c PASS "$OUT/results") passed, $(grep -c FAIL "$OUT/results") failed, $(grep -c SKIP "$OUT/results") skipped; see $OUT"
    return $code
}

if [ "${CRI_SUITE_INSIDE:-}" = yes ]; then inside "$@"; else outside "$@"; fi
