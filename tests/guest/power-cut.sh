#!/bin/bash
# What runs in the guest of `cargo xtask power-cut`. The disk that loses power is /dev/vda, with the daemon's root on it.
#
#   power-cut.sh pull      starts the daemon, makes /out/pulling, brings the image in, makes /out/pulled, and waits for the end
#   power-cut.sh verify    what is left: each blob and layer that the databases call committed, by `ctr content check` and by
#                          sha256sum alone; then the same pull again, which has to make everything whole, and a container
#
# UNDURABLE makes the daemon lose what it should not. /out/bin has the programs (/out/peer those of another containerd, if it is
# to be tested), /out/served the image's blobs, /out/expected/<chain id> the sums of each layer's files.
set -u
exec 9> /out/trace
BASH_XTRACEFD=9 PS4='+ $SECONDS '
set -x
# Nearer than the shared directory, where each start of a program takes seconds.
mkdir -p /run/c/bin /run/c/peer
cp -a /out/bin/. /run/c/bin/
cp -a /out/peer/. /run/c/peer/
export PATH=/run/c/peer:/run/c/bin:$PATH CONTAINERD_ADDRESS=/run/c/c.sock
root=/data/root

# A registry of the image in this machine.
serve() {
    ip link set lo up 2> /dev/null || busybox ip link set lo up
    power_cut serve /out /run/c/reference &
    for _ in $(seq 600); do
        [ ! -e /run/c/reference ] || break
        sleep 0.1
    done
    image=$(cat /run/c/reference)
}

pull() {
    ctr images pull --plain-http "$image"
}

fail() {
    echo "BROKEN $*"
    broken=yes
}

start() {
    mkdir -p /data /run/c
    modprobe -a virtio_blk ext4 overlay
    mount /dev/vda /data || exit 3
    # The call by which a snapshotter makes a layer durable then answers without doing anything.
    without=''
    [ -z "${UNDURABLE:-}" ] || without='strace --seccomp-bpf -f -o /run/c/strace -e trace=syncfs -e inject=syncfs:retval=0'
    $without containerd --root "$root" --state /run/c/state --address /run/c/c.sock --log-level info > /run/c/log 2>&1 &
    for _ in $(seq 600); do
        ctr version > /run/c/version 2>&1 && return
        sleep 0.1
    done
    echo "BROKEN the daemon does not answer:"
    tail -5 /run/c/log
    exit 3
}

# The committed snapshots as lines of `chain-id directory`; without a directory where no view can be made. One view of the
# topmost tells them all, as each `ctr` takes seconds here.
layers() {
    local chain parent mounts dirs top
    ctr snapshots ls | awk '/Committed/ { print $1, ($2 == "Committed" ? "" : $2) }' > /run/c/committed
    top=$(awk '{ name[$1]; below[$2] } END { for (n in name) if (!(n in below)) print n }' /run/c/committed | head -1)
    [ -n "$top" ] || return
    mounts=$(ctr snapshots view --mounts check "$top" 2>&1) || echo "$mounts" >&2
    ctr snapshots rm check > /dev/null
    dirs=$(sed -n 's/.*lowerdir=\([^,"]*\).*/\1/p; t; s/.*"[Ss]ource": *"\(\/[^"]*\)".*/\1/p' <<< "$mounts" | head -1 | tr : '\n')
    chain=$top
    while [ -n "$chain" ]; do
        echo "$chain $(head -1 <<< "$dirs")"
        dirs=$(tail -n +2 <<< "$dirs")
        chain=$(awk -v chain="$chain" '$1 == chain { print $2 }' /run/c/committed)
    done
}

# Compares with sums that nothing of a containerd has made.
verify_alone() {
    local digest chain dir sums lines
    blobs=0 layers=0 files=0
    for digest in $(ctr content ls -q); do
        blobs=$((blobs + 1))
        sums=$(sha256sum "$root/io.containerd.content.v1.content/blobs/sha256/${digest#sha256:}" 2>&1 | cut -d' ' -f1)
        # What nobody refers to is collected meanwhile.
        [ "sha256:$sums" = "$digest" ] || ! ctr content ls -q | grep -q "$digest" || fail "blob $digest"
    done
    layers > /run/c/layers
    while read -r chain dir; do
        layers=$((layers + 1))
        lines=$(wc -l < "/out/expected/$chain")
        files=$((files + lines))
        [ -d "$dir" ] || fail "layer $chain: it has no directory"
        (cd "$dir" && sha256sum --check --quiet "/out/expected/$chain") > /run/c/sums 2>&1 \
            || fail "layer $chain: $(grep -c 'FAILED' /run/c/sums) of $lines files, $(find "$dir" -type f -size 0 | wc -l) empty"
    done < /run/c/layers
    [ "$layers" = "$(wc -l < /run/c/committed)" ] || fail "layers that belong to no chain: $(cat /run/c/committed)"
}

verify() {
    broken='' 
    start
    verify_alone
    echo "COMMITTED $blobs blobs, $layers layers of $files files"
    /run/c/bin/ctr content check > /run/c/check 2>&1
    code=$?
    if [ "$code" != 0 ]; then
        fail "ctr content check: exit $code"
        cat /run/c/check
    fi
    serve
    pull > /run/c/pull 2>&1 || fail "the next pull: $(tail -3 /run/c/pull)"
    verify_alone
    [ "$layers" = "$(ls /out/expected | wc -l)" ] || fail "after the next pull there are $layers layers"
    last=$(ls /out/expected | wc -l)
    ran=$(ctr run --rm "$image" again sh -c "cat /layer$((last - 1))/0/0 | wc -c" 2>&1)
    [ "${ran:-0}" -gt 0 ] 2> /dev/null || fail "the container: $ran"
    echo "HEALED $blobs blobs, $layers layers of $files files"
    [ -z "$broken" ] || exit 1
}

case $1 in
pull)
    start
    serve
    touch /out/pulling
    pull || exit 4
    touch /out/pulled
    # Long enough for a cut after the end, too.
    sleep 60
    ;;
verify) verify ;;
esac
