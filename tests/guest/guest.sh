#!/bin/bash
# Runs a command in a virtual machine with Debian's kernel (6.1, cgroup v2, AppArmor enforcing; or SELinux), which sees a tree
# of this machine read-only under a tmpfs: what a stock Debian 12 node is, wherever the tests run. No KVM is needed (TCG: 5 to
# 15 times slower than the host); a guest that runs `true` takes six seconds.
#
#   guest.sh [option...] -- COMMAND [ARG...]
#   guest.sh --fetch          only downloads the kernel, if it is not there
#
#   --out DIR       writable in the guest as /out; needed
#   --root DIR      the guest's root (default: this machine's /)
#   --show DIR      seen in the guest where it is here, even below /tmp, /var/tmp, /run or /var/lib, which are new and empty there
#   --apparmor DIR  where Debian's apparmor was unpacked, if it is not installed: its parser and what profiles include
#   --systemd       boot the root's systemd; COMMAND is a unit of its own, started after multi-user.target
#   --cgroup v2|v1|hybrid    (v2; systemd mounts v2)
#   --lsm apparmor|selinux|none   (apparmor); selinux: the policy in selinux/ is in force, and not with --systemd
#   --timeout S     (1800)
#   --memory MB     (4096)
#   --disk FILE     a raw image as /dev/vda; what the guest has not flushed is lost when it is killed
#   --cut MARK S    kill the guest S seconds after the file MARK has appeared in DIR of --out: a power loss
#
# The exit status is the command's; 125: the guest ended without an answer; 137: its power was cut. Needs root and Debian's qemu-system-x86,
# busybox-static, cpio, kmod and, for SELinux, secilc; the kernel is downloaded, not installed, into $GUEST_CACHE.
set -euo pipefail

cache=${GUEST_CACHE:-/var/cache/containerd-rs-guest}
out='' root=/ show='' fetch='' apparmor='' systemd='' cgroup=v2 lsm=apparmor timeout=1800 memory=4096 disk=() mark='' cut=0
while [ $# -gt 0 ]; do
    case $1 in
    --fetch) fetch=yes && shift ;;
    --out) out=$2 && shift 2 ;;
    --root) root=$2 && shift 2 ;;
    --show) show=$2 && shift 2 ;;
    --apparmor) apparmor=$2 && shift 2 ;;
    --systemd) systemd=yes && shift ;;
    --cgroup) cgroup=$2 && shift 2 ;;
    --lsm) lsm=$2 && shift 2 ;;
    --timeout) timeout=$2 && shift 2 ;;
    --memory) memory=$2 && shift 2 ;;
    --disk) disk=(-drive "file=$2,format=raw,if=virtio,cache=none") && shift 2 ;;
    --cut) mark=$2 cut=$3 && shift 3 ;;
    --) shift && break ;;
    *) echo "guest.sh: unknown option $1" >&2 && exit 2 ;;
    esac
done
if [ -z "$fetch" ] && { [ $# -eq 0 ] || [ -z "$out" ]; }; then
    sed -n '2,25p' "$0"
    exit 2
fi

# The kernel of Debian's cloud image and its modules, once.
fetch_kernel() {
    [ -e "$cache/ready" ] && return
    rm -rf "$cache" && mkdir -p "$cache"
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    (cd "$cache" && apt-get -q -o APT::Sandbox::User=root download "$package" >&2)
    dpkg-deb -x "$cache"/linux-image-*.deb "$cache" && rm "$cache"/linux-image-*.deb
    depmod -b "$cache" "$(kernel_version)"
    make_initrd && touch "$cache/ready"
}

kernel_version() { ls "$cache/lib/modules"; }

# Busybox, and the modules without which the shared tree cannot be reached.
make_initrd() {
    local dir module n=100
    dir=$(mktemp -d)
    mkdir -p "$dir"/{bin,modules,proc,sys,dev,lower,upper,new,out}
    cp "$(command -v busybox)" "$dir/bin/busybox"
    for module in virtio_pci virtiofs overlay; do
        modprobe -d "$cache" -S "$(kernel_version)" --show-depends "$module" | awk '/^insmod/ { print $2 }'
    done | awk '!seen[$0]++' | while read -r module; do
        cp "$module" "$dir/modules/$n.ko"
        n=$((n + 1))
    done
    cat > "$dir/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
mount -t virtiofs root /lower -o ro
mount -t tmpfs -o size=80% upper /upper && mkdir /upper/upper /upper/work
mount -t overlay root /new -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work
mkdir -p /new/proc /new/sys /new/dev /new/out
for dir in proc sys dev; do mount --move /$dir /new/$dir; done
mount -t virtiofs out /new/out
/bin/busybox sh /new/out/.guest/prepare /new
exec switch_root /new $(cat /new/out/.guest/program)
INIT
    chmod +x "$dir/init"
    (cd "$dir" && find . | cpio -o -H newc --quiet | gzip -1) > "$cache/initrd"
    rm -rf "$dir"
}

# What the guest reads below /out/.guest: the program to boot, what to do before it, the command.
write_orders() {
    mkdir -p "$out/.guest" && rm -f "$out/.guest/status"
    {
        echo 'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb'
        # Without a name it would be all variables.
        declare -p PATH $(compgen -v | grep -E '^(TEST_|RUST_|CARGO_MANIFEST_DIR|CONTAINERD_|CTR_|SUITE|BUSYBOX|[A-Z_]+_DIR$)' || true) \
            2> /dev/null \
            | sed '/^declare -[^ ]* PATH=/d; s/^declare -[^ ]* /export /'
        printf 'cd %q 2> /dev/null || cd /\n' "$PWD"
        printf '%q ' "$@"
        echo
    } > "$out/.guest/command"
    # Prepared by the initrd, as what the shared tree brings of its own is not wanted.
    cat > "$out/.guest/prepare" <<PREPARE
mkdir -p \$1/lib/modules/$(kernel_version)
cp -a /new/out/.guest/modules/. \$1/lib/modules/$(kernel_version)/
PREPARE
    [ "$lsm" != selinux ] || compile_policy
    rm -rf "$out/.guest/modules"
    cp -a "$cache/lib/modules/$(kernel_version)" "$out/.guest/modules"
    if [ -n "$systemd" ]; then
        echo /lib/systemd/systemd > "$out/.guest/program"
        cat >> "$out/.guest/prepare" <<'PREPARE'
mkdir -p $1/etc/systemd/system/multi-user.target.wants
# The root is an overlay already, and another one cannot lie on it; no device manager tells of the terminal.
mkdir -p $1/var/lib/containerd && mount -t tmpfs tmpfs $1/var/lib/containerd
ln -s /dev/null $1/etc/systemd/system/serial-getty@ttyS0.service
cat > $1/etc/systemd/system/guest-command.service <<UNIT
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /out/.guest/run
[Install]
WantedBy=multi-user.target
UNIT
ln -s ../guest-command.service $1/etc/systemd/system/multi-user.target.wants/
PREPARE
    else
        echo /bin/bash /out/.guest/init > "$out/.guest/program"
        write_init
    fi
    cat > "$out/.guest/run" <<'RUN'
setsid bash /out/.guest/command < /dev/null > /dev/ttyS1 2>&1
echo $? > /out/.guest/status
sync
echo o > /proc/sysrq-trigger
sleep 60
RUN
}

# What the guest loads before it does anything else, and what tells container runtimes of it.
compile_policy() {
    local dir=$out/.guest/selinux sources
    sources=$(dirname "$0")/selinux
    rm -rf "$dir" && mkdir -p "$dir/contexts"
    cp "$sources/lxc_contexts" "$dir/contexts/"
    {
        seq -f '(category c%g)' 0 1023
        echo "(categoryorder ($(seq -s ' ' -f 'c%g' 0 1023)))"
    } > "$dir/categories.cil"
    secilc --mls true --policyvers 33 --output "$dir/policy" --filecontext "$dir/file_contexts" \
        "$sources/policy.cil" "$dir/categories.cil"
}

# Without systemd: mounts as a distribution has them, nothing else runs.
write_init() {
    cat > "$out/.guest/init" <<INIT
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
show=$(printf %q "$show")
apparmor=$(printf %q "$apparmor")
# What its parser is configured to read is in /usr/share.
[ -z "\$apparmor" ] || { cp -a "\$apparmor/etc/." /etc/ && cp -a "\$apparmor/sbin/." /sbin/ && cp -a "\$apparmor/usr/share/." /usr/share/; }
[ -z "\$show" ] || { mkdir /shown && mount --bind "\$show" /shown; }
for dir in /tmp /var/tmp /run /var/lib; do mount -t tmpfs -o mode=1777 tmpfs \$dir; done
chmod 755 /run /var/lib
[ -z "\$show" ] || { mkdir -p "\$show" && mount --move /shown "\$show"; }
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t securityfs securityfs /sys/kernel/security
if [ $lsm = selinux ]; then
    mount -t selinuxfs selinuxfs /sys/fs/selinux
    mkdir -p /etc/selinux && cp -a /out/.guest/selinux /etc/selinux/containerd-rs-guest
    printf 'SELINUX=enforcing\nSELINUXTYPE=containerd-rs-guest\n' > /etc/selinux/config
    # The kernel takes it in one piece.
    dd if=/out/.guest/selinux/policy of=/sys/fs/selinux/load bs=16M status=none
    echo 1 > /sys/fs/selinux/enforce
fi
# What udev makes; crun reads what it is told from /dev/stdin.
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
[ -e /dev/stdin ] || { ln -s fd/0 /dev/stdin; ln -s fd/1 /dev/stdout; ln -s fd/2 /dev/stderr; }
if [ $cgroup = v2 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    for name in \$(cat /sys/fs/cgroup/cgroup.controllers); do echo +\$name > /sys/fs/cgroup/cgroup.subtree_control; done
else
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    for name in cpu,cpuacct cpuset memory devices freezer blkio pids hugetlb; do
        mkdir /sys/fs/cgroup/\$name && mount -t cgroup -o \$name cgroup /sys/fs/cgroup/\$name
    done
    mkdir /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
    [ $cgroup = hybrid ] && mkdir /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
fi
modprobe -qa loop fuse veth bridge nf_tables
ip link set lo up
hostname guest
ulimit -n 65536
exec bash /out/.guest/run
INIT
}

# Shares a directory with the guest by virtiofs.
share() {
    "$virtiofsd" --socket-path="$work/$1.sock" -o source="$2" -o sandbox=chroot -o cache="$3" -o xattr -f \
        > "$work/$1.log" 2>&1 &
    echo $! >> "$work/pids"
    for _ in $(seq 200); do
        [ -S "$work/$1.sock" ] && return
        sleep 0.05
    done
    cat "$work/$1.log" >&2
    exit 1
}

cleanup() {
    local pid
    for pid in $(cat "$work/pids" 2> /dev/null); do kill "$pid" 2> /dev/null || true; done
    rm -rf "$work" "$out/.guest/modules"
}

if [ -n "$fetch" ]; then
    fetch_kernel
    exit
fi
virtiofsd=$(command -v virtiofsd || echo /usr/lib/qemu/virtiofsd)
work=$(mktemp -d)
trap cleanup EXIT
mkdir -p "$out" && out=$(realpath "$out")
# Orders and answers lie there: two guests at once would take each other's.
exec 8> "$out/.lock"
flock -w 60 8 || { echo "guest.sh: another guest has $out" >&2 && exit 1; }
fetch_kernel
write_orders "$@"
share root "$root" always
share out "$out" auto
case $lsm in
none) flags='apparmor=0 selinux=0' ;;
selinux) flags='security=selinux selinux=1 apparmor=0' ;;
*) flags='apparmor=1 security=apparmor' ;;
esac
# Ends qemu after a time, or by a power cut.
guard() {
    local left=$((timeout * 10))
    while [ $left -gt 0 ] && { [ -z "$mark" ] || [ ! -e "$out/$mark" ]; }; do
        sleep 0.1
        left=$((left - 1))
    done
    [ $left -eq 0 ] || sleep "$cut"
    kill -KILL "$1"
}

code=0
qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$memory" -nodefaults -no-reboot \
    -object memory-backend-memfd,id=memory,size="${memory}M",share=on -numa node,memdev=memory \
    -chardev socket,id=root,path="$work/root.sock" -device vhost-user-fs-pci,chardev=root,tag=root \
    -chardev socket,id=out,path="$work/out.sock" -device vhost-user-fs-pci,chardev=out,tag=out \
    "${disk[@]}" -display none -serial file:"$out/.guest/console" -serial stdio \
    -kernel "$(echo "$cache"/boot/vmlinuz*)" -initrd "$cache/initrd" \
    -append "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check $flags systemd.unified_cgroup_hierarchy=1" < /dev/null &
qemu=$!
guard $qemu > "$work/guard" 2>&1 &
echo $! >> "$work/pids"
# The shell need not tell of a guest that was killed.
{ wait $qemu; } 2> "$work/wait" || code=$?
if [ -e "$out/.guest/status" ]; then
    exit "$(cat "$out/.guest/status")"
fi
if [ -n "$mark" ] && [ -e "$out/$mark" ]; then
    exit 137
fi
echo "guest.sh: the guest ended without an answer (status $code); the end of its console:" >&2
tail -15 "$out/.guest/console" >&2
exit 125
