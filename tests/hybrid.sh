#!/bin/bash
# hybrid.sh COMMAND [ARG...]: run a command where crun accepts this machine's hybrid cgroup tree.
# crun refuses hybrid mode while any controller belongs to cgroup v2 ("drop all controllers from cgroupv2"). In a mount
# namespace of its own this gives the command a /sys/fs/cgroup with the machine's hierarchies bound in, and hugetlb,
# net_cls,net_prio and perf_event mounted as cgroup v1, which takes them from v2 while it runs. Nothing that exists is changed.
set -euo pipefail
if [ "${1:-}" != --inside ]; then exec unshare -m --propagation private "$0" --inside "$@"; fi
shift; T=$(mktemp -d); mkdir "$T/cg"; mount -t tmpfs -o mode=755 cg "$T/cg"
for d in /sys/fs/cgroup/*; do
    if [ -L "$d" ]; then cp -P "$d" "$T/cg/"; elif [ -d "$d" ]; then mkdir "$T/cg/${d##*/}"; mount --rbind "$d" "$T/cg/${d##*/}"; fi
done
mount --move "$T/cg" /sys/fs/cgroup; rmdir "$T/cg" "$T"
mounted=()
for c in hugetlb net_cls,net_prio perf_event; do
    [ -e "/sys/fs/cgroup/$c" ] && continue
    mkdir "/sys/fs/cgroup/$c"
    # One that has just been given up by somebody else takes a moment to go.
    for _ in {1..100}; do mount -t cgroup -o "$c" cg "/sys/fs/cgroup/$c" 2>/dev/null && break; sleep 0.1; done
    if mountpoint -q "/sys/fs/cgroup/$c"; then mounted+=("/sys/fs/cgroup/$c"); else rmdir "/sys/fs/cgroup/$c"; fi
done
code=0; "$@" || code=$?
# A hierarchy with groups in it outlives its mounts, and upstream's shim looks in all hierarchies that there are.
for d in ${mounted[@]+"${mounted[@]}"}; do
    find "$d" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true
    umount "$d" || true
    controller=${d##*/}; controller=${controller%%,*}
    for _ in {1..100}; do grep -q "^$controller[[:space:]]0[[:space:]]" /proc/cgroups && break; sleep 0.1; done
done
exit "$code"
