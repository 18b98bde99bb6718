#!/bin/sh
# Runs upstream's integration/client of containerd 2.3.4 against the containerd of a directory.
#
#   run.sh BIN [TEST FLAGS...]      e.g.  run.sh target/debug -test.run TestContent
#
# BIN holds containerd and containerd-shim-runc-v2. Results stand in $OUT (default: $WORK/last): `log`, and `results`,
# one line a test, sorted, without times, to be compared with another run's. See README.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$1" && pwd)
shift
WORK=${WORK:-/var/tmp/containerd-rs-client-suite}
OUT=${OUT:-$WORK/last}
PORT=${PORT:-5017}
VERSION=v2.3.4
mkdir -p "$WORK" "$OUT"

# Everything of one run lives in its own directory and namespaces; what it mounts and leaves running goes with it.
if [ "${CLIENT_SUITE_INSIDE:-}" != yes ]; then
    CLIENT_SUITE_INSIDE=yes WORK=$WORK OUT=$OUT PORT=$PORT exec \
        unshare --mount --pid --fork --kill-child --mount-proc --propagation slave "$0" "$bin" "$@"
fi

BUSYBOX=${BUSYBOX:-$(command -v busybox)}
[ -x "$WORK/registry" ] && [ "$WORK/registry" -nt "$here/registry.go" ] || go build -o "$WORK/registry" "$here/registry.go"
rm -f "$OUT/registry"
"$WORK/registry" "127.0.0.1:$PORT" "$BUSYBOX" >"$OUT/registry" &
registry=$!
trap 'kill $registry 2>/dev/null || true' EXIT
while ! grep -qs . "$OUT/registry"; do kill -0 $registry; sleep 0.1; done
digest=$(cut -d' ' -f2 "$OUT/registry")

# A copy of the module, in which the images come from our registry. The flag -image-list is read too late for most tests.
stamp="$VERSION $PORT $digest $(sha256sum "$here/run.sh")"
if [ "$(cat "$WORK/stamp" 2>/dev/null || true)" != "$stamp" ]; then
    (cd "$here/.." && go mod download "github.com/containerd/containerd/v2@$VERSION" 2>/dev/null) ||
        (cd "$WORK" && GO111MODULE=on go mod download "github.com/containerd/containerd/v2@$VERSION")
    chmod -R u+w "$WORK/source" 2>/dev/null || true
    rm -rf "$WORK/source"
    cp -r "$(go env GOMODCACHE)/github.com/containerd/containerd/v2@$VERSION" "$WORK/source"
    chmod -R u+w "$WORK/source"
    cd "$WORK/source/integration"
    sed -i -E "s#(ghcr.io|registry.k8s.io)([/\"])#localhost:$PORT\2#; s#busybox@sha256:[0-9a-f]{64}#busybox@$digest#" \
        images/image_list.go client/image_test.go client/client_test.go
    # The label has no port.
    sed -i 's#LabelDistributionSource + "." + source#LabelDistributionSource + ".localhost"#' client/image_test.go
    sed -i "s#/var/lib/containerd-test#$WORK/daemon/root#; s#/run/containerd-test#$WORK/daemon/state#" client/client_unix.go
    (cd client && go test -c -o "$WORK/client.test" .)
    (cd failpoint/cmd/runc-fp && go build -o "$WORK/bin/runc-fp" .)
    echo "$stamp" >"$WORK/stamp"
fi

rm -rf "$OUT/daemon"
mkdir -p "$WORK/daemon" "$OUT/daemon"
mount --bind "$OUT/daemon" "$WORK/daemon"
# runc's state and clients' FIFOs, wherever the daemon is.
mkdir -p /run/containerd
mount -t tmpfs tmpfs /run/containerd
cd "$WORK/source/integration/client"
code=0
env -u CONTAINERD_ADDRESS PATH="$bin:$WORK/bin:$PATH" timeout -s QUIT "$((${LIMIT:-600} + 60))" \
    "$WORK/client.test" -test.v -test.root -no-criu -test.timeout "${LIMIT:-600}s" -test.skip "${SKIP:-TestBindLowPortNonOpt}" "$@" >"$OUT/log" 2>&1 || code=$?
grep -aoE -- '^ *--- (PASS|FAIL|SKIP): [^ ]+' "$OUT/log" | sed 's/^ *//' | sort >"$OUT/results"
echo "exit $code: $(grep -c PASS "$OUT/results") passed, $(grep -c FAIL "$OUT/results") failed, $(grep -c SKIP "$OUT/results") skipped; see $OUT"
exit $code
