#!/usr/bin/env bash
# Run the Kubernetes CRI conformance suite (critest) or its benchmarks, with
# every image served by a local registry. See README.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

dir=${CONFORMANCE_DIR:-/var/tmp/cri-conformance}
port=${CONFORMANCE_PORT:-5999}
bridge=${CONFORMANCE_BRIDGE:-crt0}
subnet=${CONFORMANCE_SUBNET:-10.213.47.0/24}
cni_bin=${CNI_BIN_DIR:-/usr/lib/cni}
mode=suite
label=
skip_file=$here/skip.txt
expect=
seed=1
timeout=30m
handler=
config=
patch_digest=0
daemon=
oci_runtime=
shim=
keep=0
filled=0
focus=()
extra_skip=()
params=
parallel=1
bench_image=registry.k8s.io/e2e-test-images/bench-layers:1

usage() {
    cat <<USAGE
usage: critest.sh [options] prepare        write the configuration, fill the registry
       critest.sh [options] SOCKET         run against a daemon that is up
       critest.sh [options] --daemon BIN   start BIN --config FILE, run, stop it
       critest.sh [options] clean          remove the bridge and the directory

  -d, --dir DIR        working directory            [$dir]
  -p, --port PORT      registry port on 127.0.0.1   [$port]
  -m, --mode MODE      suite | ws | bench           [$mode]
                         suite  all specs
                         ws     streaming specs over websockets
                         bench  benchmark specs, with a latency summary
      --label NAME     name of the result directory [the mode]
      --skip FILE      skip list                    [skip.txt beside this script]
      --skip-re REGEX  skip these specs too         (repeatable)
      --focus REGEX    run only these specs         (repeatable)
      --expect FILE    compare with a result table written by an earlier run
      --handler NAME   runtime handler
      --seed N         order of the specs           [$seed]
      --timeout T      limit for the whole run      [$timeout]
      --patch-digest   run a copy of critest whose one fixed image digest is
                       replaced by that of the locally built image
      --config FILE    configuration for --daemon   [DIR/containerd.toml, generated]
      --oci-runtime F  runtime binary in the generated configuration [runc]
      --shim FILE      shim binary in the generated configuration [from PATH]
      --bench-params FILE     benchmark parameters [generated]
      --bench-parallel N      lifecycles at a time, pods and containers [$parallel]
      --bench-image REF       image of the pull benchmark [the 8-layer one]
      --filled         the registry has the images already
      --keep           leave the registry (and the daemon) running
Environment: CONFORMANCE_DIR CONFORMANCE_PORT CONFORMANCE_BRIDGE
CONFORMANCE_SUBNET CNI_BIN_DIR BUSYBOX NGINX CC CRITEST CRICTL PYTHON
USAGE
}

die() { echo "critest.sh: $*" >&2; exit 2; }
warn() { echo "critest.sh: warning: $*" >&2; }

target=
while [ $# -gt 0 ]; do
    case $1 in
    --patch-digest) patch_digest=1; shift; continue ;;
    --keep) keep=1; shift; continue ;;
    --filled) filled=1; shift; continue ;;
    -h|--help) usage; exit 0 ;;
    -*) [ $# -ge 2 ] || die "$1 needs a value" ;;
    *) [ -z "$target" ] || die "one SOCKET only"; target=$1; shift; continue ;;
    esac
    case $1 in
    -d|--dir) dir=$2 ;;
    -p|--port) port=$2 ;;
    -m|--mode) mode=$2 ;;
    --label) label=$2 ;;
    --skip) skip_file=$2 ;;
    --skip-re) extra_skip+=("$2") ;;
    --focus) focus+=("$2") ;;
    --expect) expect=$2 ;;
    --handler) handler=$2 ;;
    --seed) seed=$2 ;;
    --timeout) timeout=$2 ;;
    --config) config=$2 ;;
    --oci-runtime) oci_runtime=$2 ;;
    --shim) shim=$2 ;;
    --bench-params) params=$2 ;;
    --bench-parallel) parallel=$2 ;;
    --bench-image) bench_image=$2 ;;
    --daemon) daemon=$2 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift 2
done
[ -n "$target$daemon" ] || { usage >&2; exit 2; }
case $mode in suite|ws|bench) ;; *) die "unknown mode $mode" ;; esac
label=${label:-$mode}

if [ "$target" = clean ]; then
    ip link delete "$bridge" 2>/dev/null || true
    if grep -q " $dir/" /proc/self/mountinfo; then
        die "mounts remain below $dir; remove the pods first"
    fi
    rm -rf "$dir"
    exit 0
fi

critest=${CRITEST:-critest}
crictl=${CRICTL:-crictl}
python=${PYTHON:-python3}
for tool in "$critest" "$crictl" "$python" docker-registry; do
    command -v "$tool" >/dev/null || die "$tool is not on PATH"
done
for tool in iptables ipcmk ipcrm; do
    command -v "$tool" >/dev/null || warn "$tool is not on PATH; some specs will fail"
done
for tool in bridge host-local portmap loopback; do
    [ -x "$cni_bin/$tool" ] || warn "no CNI plugin $cni_bin/$tool"
done

umask 022
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# Containers with a user namespace run as an unprivileged host user and must
# be able to walk to the rootfs, so no directory above it may be private.
check=$dir
while [ "$check" != / ]; do
    [ $(( 0$(stat -c %a "$check") & 1 )) -eq 1 ] ||
        warn "$check is not world-searchable; user namespace specs may fail"
    check=$(dirname "$check")
done

registry_pid=
daemon_pid=
socket=

stop_pid() {
    kill "$1" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$1" 2>/dev/null || true
}

cri() { "$crictl" -r "unix://$socket" -i "unix://$socket" "$@" 2>/dev/null; }

cleanup() {
    # critest leaves its host shared memory segments behind.
    if [ -s "$dir/shm.ids" ]; then
        while read -r id; do ipcrm -m "$id" 2>/dev/null || true; done < "$dir/shm.ids"
        rm -f "$dir/shm.ids"
    fi
    # So do its mount specs when they fail.
    local m
    while read -r _ _ _ _ m _; do
        case $m in "$dir"/tmp/*) umount -l "$m" 2>/dev/null || true ;; esac
    done < <(tac /proc/self/mountinfo)
    rm -rf --one-file-system "$dir/tmp"
    if [ "$keep" = 1 ]; then
        [ -z "$registry_pid" ] || echo "registry left running: pid $registry_pid"
        [ -z "$daemon_pid" ] || echo "daemon left running: pid $daemon_pid, socket $socket"
        return
    fi
    if [ -n "$daemon_pid" ]; then
        if [ -n "$(timeout 20 "$crictl" -r "unix://$socket" pods -q 2>/dev/null)" ]; then
            timeout 120 "$crictl" -r "unix://$socket" rmp -a -f >/dev/null 2>&1 || true
        fi
        stop_pid "$daemon_pid"
    fi
    [ -z "$registry_pid" ] || stop_pid "$registry_pid"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

http_ok() {
    "$python" - "$1" <<'PY' 2>/dev/null
import sys, urllib.request
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], timeout=2)
PY
}

start_registry() {
    if http_ok "http://127.0.0.1:$port/v2/"; then
        echo "registry: using the one on 127.0.0.1:$port"
        return
    fi
    mkdir -p "$dir/registry"
    cat > "$dir/registry.yml" <<YML
version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: $dir/registry
http:
  addr: 127.0.0.1:$port
YML
    setsid docker-registry serve "$dir/registry.yml" > "$dir/registry.log" 2>&1 &
    registry_pid=$!
    for _ in $(seq 100); do
        if http_ok "http://127.0.0.1:$port/v2/"; then
            echo "registry: pid $registry_pid on 127.0.0.1:$port"
            return
        fi
        kill -0 "$registry_pid" 2>/dev/null || break
        sleep 0.1
    done
    die "the registry did not start, see $dir/registry.log"
}

fill_registry() {
    if [ ! -f "$dir/images/refs.json" ]; then
        "$python" "$here/images.py" build --out "$dir/images"
    fi
    "$python" "$here/images.py" push --out "$dir/images" --registry "127.0.0.1:$port"
}

write_config() {
    local name restrict_oom=false socket_dir=
    for name in registry.k8s.io k8s.gcr.io gcr.io public.ecr.aws docker.io; do
        mkdir -p "$dir/certs.d/$name"
        # The mirror is also the origin: a missing image fails at once and
        # nothing leaves this machine.
        cat > "$dir/certs.d/$name/hosts.toml" <<TOML
server = "http://127.0.0.1:$port"

[host."http://127.0.0.1:$port"]
  capabilities = ["pull", "resolve"]
TOML
    done

    mkdir -p "$dir/cni/net.d" "$dir/cni/ipam"
    cat > "$dir/cni/net.d/10-conformance.conflist" <<JSON
{
  "cniVersion": "1.0.0",
  "name": "conformance",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "$bridge",
      "isGateway": true,
      "ipMasq": true,
      "promiscMode": true,
      "ipam": {
        "type": "host-local",
        "dataDir": "$dir/cni/ipam",
        "ranges": [[{ "subnet": "$subnet" }]],
        "routes": [{ "dst": "0.0.0.0/0" }]
      }
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
JSON

    # Sandboxes ask for oom_score_adj -998. Lowering it takes CAP_SYS_RESOURCE,
    # which nested and restricted hosts may not have.
    if ! (echo -998 > "/proc/$BASHPID/oom_score_adj") 2>/dev/null; then
        restrict_oom=true
    fi
    # A socket path has 107 characters at most; shim sockets have 64-character names.
    if [ ${#dir} -le 40 ]; then
        socket_dir=$dir/s
    else
        warn "$dir is too long for shim sockets, the daemon's default directory is used"
    fi

    cat > "$dir/containerd.toml" <<TOML
version = 3
root = "$dir/root"
state = "$dir/state"

[grpc]
  address = "$dir/daemon.sock"

[ttrpc]
  address = "$dir/daemon.sock.ttrpc"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "$dir/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = $restrict_oom

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["$cni_bin"]
  conf_dir = "$dir/cni/net.d"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = "$shim"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "$oci_runtime"

[plugins."io.containerd.nri.v1.nri"]
  socket_path = "$dir/nri.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "$dir/opt"

[plugins."io.containerd.shim.v1.manager"]
  socket_dir = "$socket_dir"
TOML
    config=${config:-$dir/containerd.toml}

    cat <<TEXT
daemon configuration needed (a complete example is $dir/containerd.toml):
  CRI registry config_path  $dir/certs.d
  CNI conf_dir              $dir/cni/net.d
  CNI plugin directory      $cni_bin
  sandbox image             any registry.k8s.io/pause tag from 3.8 to 3.10.2 except 3.9
TEXT
    [ "$restrict_oom" = false ] ||
        echo "  restrict_oom_score_adj    true (no CAP_SYS_RESOURCE on this host)"
}

write_bench_params() {
    [ -z "$params" ] || return 0
    params=$dir/bench.yaml
    cat > "$params" <<YAML
containersNumber: 40
containersNumberParallel: $parallel
containerBenchmarkTimeoutSeconds: 120
podsNumber: 40
podsNumberParallel: $parallel
podBenchmarkTimeoutSeconds: 120
imagesNumber: 20
imagesNumberParallel: 1
imageBenchmarkTimeoutSeconds: 120
imagePullingBenchmarkImage: $bench_image
podContainerStartBenchmarkTimeoutSeconds: 30
YAML
}

check_ports() {
    # Host ports fixed in the suite.
    local p
    for p in 12000 12001 12002 12003; do
        if (exec 3<> "/dev/tcp/127.0.0.1/$p") 2>/dev/null; then
            warn "port $p is in use; port mapping specs will fail"
        fi
    done
}

check_cgroups() {
    # With cgroup v1 every hierarchy a process is in has to be mounted, or
    # metrics and OOM notices of containers cannot be read.
    local id controllers
    while IFS=: read -r id controllers _; do
        case $controllers in ''|name=*) continue ;; esac
        grep -Eq " - cgroup [^ ]+ ([^ ]*,)?${controllers%%,*}(,|\$)" /proc/self/mountinfo ||
            warn "cgroup v1 controller $controllers is active but not mounted here; stats and OOM specs may fail"
    done < /proc/self/cgroup
}

wait_socket() {
    local n=150
    while [ "$n" -gt 0 ]; do
        if cri version >/dev/null; then
            return
        fi
        if [ -n "$daemon_pid" ] && ! kill -0 "$daemon_pid" 2>/dev/null; then
            daemon_pid=
            die "the daemon exited, see $dir/daemon.log"
        fi
        n=$((n - 1))
        sleep 0.2
    done
    die "no CRI answer on $socket"
}

leftovers() {
    local pods ctrs ips=0 veth=0 shims=0 mounts f
    pods=$(cri pods -q | wc -l)
    ctrs=$(cri ps -aq | wc -l)
    for f in "$dir/cni/ipam/conformance"/*; do
        case ${f##*/} in [0-9]*) ips=$((ips + 1)) ;; esac
    done
    for f in "/sys/class/net/$bridge/brif"/*; do
        [ -e "$f" ] && veth=$((veth + 1))
    done
    for f in /proc/[0-9]*; do
        if tr '\0' ' ' < "$f/cmdline" 2>/dev/null | grep -q -- "shim.* -address $socket"; then
            shims=$((shims + 1))
        fi
    done 2>/dev/null
    mounts=$(grep -c " $dir/state/" /proc/self/mountinfo || true)
    echo "left over: $pods pods, $ctrs containers, $ips addresses, $veth bridge ports, $shims shims, $mounts mounts"
}

patched_critest() {
    # Go stores the reference as one string, and every digest has one length.
    "$python" - "$(command -v "$critest")" "$dir/critest.patched" \
        "$(cat "$dir/images/test-image-digest")" <<'PY'
import os, re, sys
source, target, digest = sys.argv[1:]
data = open(source, "rb").read()
pattern = rb"(k8s-staging-cri-tools/test-image-digest@)sha256:[0-9a-f]{64}"
data, n = re.subn(pattern, lambda m: m.group(1) + digest.encode(), data)
if n != 1:
    sys.exit(f"expected the digest reference once in critest, found it {n} times")
with open(target, "wb") as f:
    f.write(data)
os.chmod(target, 0o755)
PY
    critest=$dir/critest.patched
}

# critest makes host shared memory segments with ipcmk; note their ids.
wrap_ipcmk() {
    local real
    real=$(command -v ipcmk) || return 0
    mkdir -p "$dir/bin"
    cat > "$dir/bin/ipcmk" <<SH
#!/bin/sh
out=\$($real "\$@") || exit
echo "\$out"
echo "\${out##*: }" >> "$dir/shm.ids"
SH
    chmod 755 "$dir/bin/ipcmk"
}

start_registry
[ "$filled" = 1 ] || fill_registry
write_config
if [ "$target" = prepare ]; then
    exit 0
fi

if [ -n "$daemon" ]; then
    command -v "$daemon" >/dev/null || die "$daemon is not on PATH"
    socket=${target:-$dir/daemon.sock}
    socket=${socket#unix://}
    # In a session of its own: a signal meant for this script must not stop the
    # daemon before the pods are gone.
    setsid "$daemon" --config "$config" > "$dir/daemon.log" 2>&1 &
    daemon_pid=$!
else
    socket=${target#unix://}
fi
wait_socket
cri version | sed 's/^/  /'
check_ports
check_cgroups

args=(-runtime-endpoint "unix://$socket" -image-endpoint "unix://$socket"
      -ginkgo.seed "$seed" -ginkgo.timeout "$timeout" -ginkgo.no-color)
[ -z "$handler" ] || args+=(-runtime-handler "$handler")
[ "$patch_digest" = 0 ] || patched_critest

if [ "$mode" != bench ]; then
    if [ -f "$skip_file" ]; then
        while IFS= read -r line; do
            case $line in ''|'#'*) continue ;; esac
            if [ "$patch_digest" = 1 ] && [[ $line == *"[fixed digest]"* ]]; then
                continue
            fi
            extra_skip+=("${line%%  \#*}")
        done < "$skip_file"
    fi
    [ "$mode" != ws ] || {
        args+=(-websocket-exec -websocket-attach -websocket-portforward)
        focus+=("Streaming")
    }
fi
for re in ${extra_skip[@]+"${extra_skip[@]}"}; do args+=(-ginkgo.skip "$re"); done
for re in ${focus[@]+"${focus[@]}"}; do args+=(-ginkgo.focus "$re"); done

result=$dir/results/$label
rm -rf "$result"
mkdir -p "$result" "$dir/tmp"
args+=(-ginkgo.json-report "$result/report.json")
[ "$mode" != bench ] || {
    write_bench_params
    args+=(-benchmark -benchmarking-params-file "$params" -benchmarking-output-dir "$result")
}
wrap_ipcmk
echo "load average before: $(cut -d' ' -f1-3 /proc/loadavg)"

rc=0
started=$(date +%s.%N)
PATH=$dir/bin:$PATH TMPDIR=$dir/tmp "$critest" "${args[@]}" > "$result/critest.log" 2>&1 || rc=$?
finished=$(date +%s.%N)
{
    echo "critest: exit $rc after $(awk "BEGIN { printf \"%.1f\", $finished - $started }") s, log in $result/critest.log"
    leftovers
    if [ "$mode" = bench ]; then
        "$python" "$here/report.py" bench "$result"
    else
        "$python" "$here/report.py" suite "$result/report.json" \
            --table "$result/specs.tsv" ${expect:+--expect "$expect"}
    fi
} > "$result/summary.txt" || rc=$?
cat "$result/summary.txt"
exit "$rc"
