#!/bin/bash
# Runs a kubelet of Kubernetes 1.36 in standalone mode on the containerd of a directory: static pods, probes, volumes, logs,
# streams, statistics, restarts, kills, image collection and eviction. Offline: images come from a registry on this machine.
#
#   run.sh BIN [WORD...]      e.g.  run.sh target/dist probes       tests whose names have one of the words
#   SUITE=crictl run.sh BIN [WORD...]                               every verb of crictl instead, without a kubelet; half a minute
#
# BIN holds containerd, its shim and ctr, ours or upstream's. Environment:
#   KUBELET      the kubelet [.cache/reference/kubelet/kubelet, which `./x reference kubelet` builds]
#   CRICTL       crictl [.cache/reference/cri-tools/crictl, which `./x reference cri-tools` builds]
#   CNI_BIN_DIR  network plugins as programs [none: those that are built in]     WORK  everything [/var/tmp/containerd-rs-kubelet]
# runc (1.2 for user namespaces) and docker-registry are taken from PATH. Logs stay in $WORK/*.log.
#
# All of a run is in namespaces of its own (mounts, network, processes), and in a control group /NAME, which is removed after it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
WORK=${WORK:-/var/tmp/containerd-rs-kubelet}
KUBELET=${KUBELET:-$repository/.cache/reference/kubelet/kubelet}
CRICTL=${CRICTL:-$repository/.cache/reference/cri-tools/crictl}
SUITE=${SUITE:-kubelet}
PORT=5998

outside() {
    local bin group code=0
    bin=$(cd "$1" && pwd)
    shift
    [ $SUITE = crictl ] || [ -x "$KUBELET" ] ||
        { echo "NOT RUN: no kubelet at $KUBELET; \`./x reference kubelet\` builds it where Go is"; exit 0; }
    [ $SUITE = kubelet ] || [ -x "$CRICTL" ] ||
        { echo "NOT RUN: no crictl at $CRICTL; \`./x reference cri-tools\` builds it where Go is"; exit 0; }
    for tool in python3 docker-registry runc ip unshare; do
        command -v "$tool" >/dev/null || { echo "NOT RUN: the suite needs $tool"; exit 0; }
    done
    umask 022
    mkdir -p "$WORK"
    [ -f "$WORK/images/refs.json" ] ||
        python3 "$repository/tests/conformance/images.py" build --out "$WORK/images" --bench-layers 0
    group=/kubelet-$$
    cgroups "$group" make
    KUBELET_SUITE=$group WORK=$WORK KUBELET=$KUBELET CRICTL=$CRICTL SUITE=$SUITE unshare --mount --net --pid --fork --kill-child --mount-proc \
        --propagation slave "$0" "$bin" "$@" || code=$?
    cgroups "$group" remove
    exit $code
}

# A group in each hierarchy; cpuset wants to be told what it has. In a hybrid tree runtimes make one in version 2's as well.
cgroups() {
    local dir hierarchy
    for hierarchy in $(awk -v does="$2" '$3 == "cgroup" || ($3 == "cgroup2" && ($2 == "/sys/fs/cgroup" || does == "remove")) { print $2 }' /proc/mounts); do
        dir=$hierarchy$1
        if [ "$2" = make ]; then
            mkdir -p "$dir"
            for file in cpuset.cpus cpuset.mems; do
                [ ! -e "$dir/$file" ] || [ -s "$dir/$file" ] && [ -n "$(cat "$dir/$file" 2>/dev/null)" ] ||
                    [ ! -e "$dir/$file" ] || cat "$hierarchy/$file" >"$dir/$file"
            done
        elif [ -d "$dir" ]; then
            find "$dir" -depth -type d -exec rmdir {} + || true
        fi
    done
}

configure() {
    local name
    cd "$WORK"
    rm -rf root run manifests share kubelet logs certs ipam cache ./*.log
    mkdir -p certs.d net.d ipam run
    echo "nameserver 127.0.0.1" >resolv.conf
    for name in registry.k8s.io gcr.io public.ecr.aws docker.io; do
        mkdir -p "certs.d/$name"
        printf 'server = "http://127.0.0.1:%s"\n[host."http://127.0.0.1:%s"]\n  capabilities = ["pull", "resolve"]\n' \
            $PORT $PORT >"certs.d/$name/hosts.toml"
    done
    # The kubelet says which addresses pods have (--pod-cidr).
    cat >net.template <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": {
     "type": "host-local", "dataDir": "$WORK/ipam",
     "ranges": [{{range \$i, \$range := .PodCIDRRanges}}{{if \$i}}, {{end}}[{"subnet": "{{\$range}}"}]{{end}}],
     "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
    local restrict=false
    (echo -998 >"/proc/$BASHPID/oom_score_adj") 2>/dev/null || restrict=true
    cat >containerd.toml <<TOML
version = 3
root = "$WORK/root"
state = "/run/containerd"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "$WORK/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = $restrict
  enable_cdi = false

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["${CNI_BIN_DIR:-$WORK/none}"]
  conf_dir = "$WORK/net.d"
  conf_template = "$WORK/net.template"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.internal.v1.opt"]
  path = "$WORK/opt"
TOML
}

inside() {
    mount --make-rshared /
    for place in /run/containerd /run/netns /run/nri /var/run/netns /var/log/containers /var/lib/cni /etc/cni /opt/cni /var/lib/kubelet; do
        mkdir -p "$place"
        mount -t tmpfs tmpfs "$place"
    done
    mount --make-rshared /
    ip link set lo up
    ip link add host0 type veth peer name host1
    ip link set host1 up
    ip address add 10.213.90.1/24 dev host0
    ip link set host0 up
    ip route add default via 10.213.90.254
    mkdir -p "$WORK/registry"
    printf 'version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:%s\n' \
        "$WORK/registry" $PORT >"$WORK/registry.yml"
    docker-registry serve "$WORK/registry.yml" >"$WORK/registry.log" 2>&1 &
    for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null && break; sleep 0.1; done
    python3 "$repository/tests/conformance/images.py" push --out "$WORK/images" --registry "127.0.0.1:$PORT"
    python3 "$here/$SUITE.py" "$WORK" "$1" "$KUBELET" "$KUBELET_SUITE" "${@:2}"
}

if [ -n "${KUBELET_SUITE:-}" ]; then
    configure
    inside "$@"
else
    outside "$@"
fi
