#!/usr/bin/env python3
"""Build every image the CRI conformance suite needs and push it to a registry.

Nothing is fetched from an image registry. The content comes from Debian
packages (busybox, nginx), from two small C programs in this file and from
generated data; the result is a content store of blobs and manifests (Docker
schema 2 and OCI media types, single manifests and multi-platform lists) that
`push` uploads to a distribution registry over plain HTTP.

  images.py build --out DIR
  images.py push  --out DIR --registry 127.0.0.1:5000
  images.py list  --out DIR

Only the Python standard library is used. External programs: cc (with a static
C library), ldd, and, where busybox or nginx are not given by path or
installed, apt-get and dpkg-deb (to unpack the package, never to install it).
"""

import argparse
import gzip
import hashlib
import http.client
import io
import json
import os
import platform
import random
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import urllib.parse

EPOCH = 1700000000
CREATED = "2023-11-14T22:13:20Z"
ALL_ARCHES = ["amd64", "arm", "arm64", "ppc64le", "s390x"]
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm",
            "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}
ARCH = MACHINES.get(platform.machine(), platform.machine())

MEDIA = {
    "docker": {
        "manifest": "application/vnd.docker.distribution.manifest.v2+json",
        "index": "application/vnd.docker.distribution.manifest.list.v2+json",
        "config": "application/vnd.docker.container.image.v1+json",
        "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    },
    "oci": {
        "manifest": "application/vnd.oci.image.manifest.v1+json",
        "index": "application/vnd.oci.image.index.v1+json",
        "config": "application/vnd.oci.image.config.v1+json",
        "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
    },
}

PAUSE_C = r"""
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static void quit(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0) ; }
int main(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = quit;
    sigaction(SIGINT, &a, 0);
    sigaction(SIGTERM, &a, 0);
    a.sa_handler = reap;
    a.sa_flags = SA_NOCLDSTOP;
    sigaction(SIGCHLD, &a, 0);
    for (;;)
        pause();
}
"""

NNP_C = r"""
#include <stdio.h>
#include <unistd.h>
int main(void)
{
    printf("Effective uid: %d\n", (int)geteuid());
    return 0;
}
"""

# Debian's busybox lacks these two applets; the suite needs `pgrep NAME` and
# `ipcs -m`.
PGREP_SH = """#!/bin/sh
# pgrep PATTERN: pids whose command name contains PATTERN
found=1
for dir in /proc/[0-9]*; do
    { read -r name < "$dir/comm"; } 2>/dev/null || continue
    case "$name" in
    *"$1"*) echo "${dir#/proc/}"; found=0 ;;
    esac
done
exit $found
"""

IPCS_SH = """#!/bin/sh
# ipcs -m: the shared memory segments of this IPC namespace
echo '------ Shared Memory Segments --------'
exec cat /proc/sysvipc/shm
"""

PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""

GROUP = """root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
mail:x:8:
www-data:x:33:
users:x:100:
nobody:x:65534:
"""

NGINX_CONF = """user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 256; }
http {
    access_log /dev/stdout;
    default_type text/html;
    server {
        listen %d;
        server_name localhost;
        location / { root /srv/www; index index.html; }
    }
}
"""

PATH_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def die(message):
    sys.exit("images.py: " + message)


def run(*argv, **kw):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, **kw).stdout


# --------------------------------------------------------------------------
# file trees and layers


class Tree:
    """An in-memory file tree which becomes one deterministic layer."""

    def __init__(self):
        self.nodes = {}
        # Who owns what is not root's: path -> uid and gid.
        self.owners = {}

    def _parents(self, path):
        parts = path.split("/")[:-1]
        for i in range(1, len(parts) + 1):
            self.nodes.setdefault("/".join(parts[:i]), ("dir", 0o755, None))

    def dir(self, path, mode=0o755):
        self._parents(path)
        self.nodes[path] = ("dir", mode, None)

    def file(self, path, data, mode=0o644):
        if isinstance(data, str):
            data = data.encode()
        self._parents(path)
        self.nodes[path] = ("file", mode, data)

    def symlink(self, path, target):
        self._parents(path)
        self.nodes[path] = ("symlink", 0o777, target)

    def hardlink(self, path, target):
        self._parents(path)
        self.nodes[path] = ("hardlink", 0o755, target)

    def copy_in(self, source, path, mode=None):
        with open(source, "rb") as f:
            data = f.read()
        self.file(path, data, mode or stat.S_IMODE(os.stat(source).st_mode))

    def tar(self):
        out = io.BytesIO()
        # A hard link has to follow its target.
        order = sorted(self.nodes,
                       key=lambda p: (self.nodes[p][0] == "hardlink", p))
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as t:
            for path in order:
                kind, mode, data = self.nodes[path]
                info = tarfile.TarInfo(path + ("/" if kind == "dir" else ""))
                info.mtime, info.mode = EPOCH, mode
                info.uid = info.gid = self.owners.get(path, 0)
                if kind == "dir":
                    info.type = tarfile.DIRTYPE
                    t.addfile(info)
                elif kind == "file":
                    info.size = len(data)
                    t.addfile(info, io.BytesIO(data))
                else:
                    info.type = (tarfile.SYMTYPE if kind == "symlink"
                                 else tarfile.LNKTYPE)
                    info.linkname = data
                    t.addfile(info)
        return out.getvalue()


class Layer:
    def __init__(self, store, tree, level=6):
        raw = tree.tar()
        blob = gzip.compress(raw, level, mtime=0)
        self.diff_id = "sha256:" + hashlib.sha256(raw).hexdigest()
        self.digest, self.size = store.add(blob), len(blob)


class Store:
    """Blobs by digest, and a list of (repository, reference, digest, type)."""

    def __init__(self, out):
        self.out = out
        self.blobs = os.path.join(out, "blobs", "sha256")
        os.makedirs(self.blobs, exist_ok=True)
        self.refs = []

    def add(self, data):
        digest = hashlib.sha256(data).hexdigest()
        path = os.path.join(self.blobs, digest)
        if not os.path.exists(path):
            with open(path + ".tmp", "wb") as f:
                f.write(data)
            os.rename(path + ".tmp", path)
        return "sha256:" + digest

    def get(self, digest):
        with open(os.path.join(self.blobs, digest.split(":")[1]), "rb") as f:
            return f.read()

    def json(self, value):
        data = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
        return self.add(data), len(data)

    def manifest(self, fmt, arch, layers, config):
        types = MEDIA[fmt]
        full = {
            "architecture": arch, "os": "linux", "created": CREATED,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [l.diff_id for l in layers]},
            "history": [{"created": CREATED, "created_by": "images.py"}
                        for _ in layers],
        }
        cd, cs = self.json(full)
        return self.json({
            "schemaVersion": 2, "mediaType": types["manifest"],
            "config": {"mediaType": types["config"], "digest": cd, "size": cs},
            "layers": [{"mediaType": types["layer"], "digest": l.digest,
                        "size": l.size} for l in layers],
        })

    def image(self, name, tags, layers, config, fmt="docker", multi=True,
              filler=None):
        """Register an image under registry/repository:tag for each tag."""
        registry, repo = name.split("/", 1)
        types = MEDIA[fmt]
        digest, size = self.manifest(fmt, ARCH, layers, config)
        media = types["manifest"]
        if multi:
            children = [(ARCH, digest, size)]
            for arch in ALL_ARCHES:
                if arch != ARCH:
                    d, s = self.manifest(fmt, arch, [filler], config)
                    children.append((arch, d, s))
            children.sort()
            for arch, d, _ in children:
                self.refs.append((registry, repo, d, d, types["manifest"]))
            media = types["index"]
            digest, size = self.json({
                "schemaVersion": 2, "mediaType": media,
                "manifests": [{"mediaType": types["manifest"], "digest": d,
                               "size": s,
                               "platform": {"architecture": a, "os": "linux"}}
                              for a, d, s in children],
            })
        for tag in tags:
            self.refs.append((registry, repo, tag, digest, media))
        return digest

    def save(self):
        with open(os.path.join(self.out, "refs.json"), "w") as f:
            json.dump(self.refs, f, indent=1)

    def load(self):
        with open(os.path.join(self.out, "refs.json")) as f:
            self.refs = [tuple(r) for r in json.load(f)]


# --------------------------------------------------------------------------
# programs from the system


def from_package(out, package, member):
    """Unpack a Debian package below out (nothing is installed)."""
    root = os.path.join(out, "pkg", package)
    path = os.path.join(root, member)
    if not os.path.exists(path):
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            die(f"need {member}: install {package} or give its path")
        os.makedirs(root, exist_ok=True)
        try:
            run("apt-get", "download", package, cwd=root)
        except subprocess.CalledProcessError as e:
            die(f"apt-get download {package} failed (run apt-get update "
                f"first?): {e.stderr.strip()}")
        debs = [f for f in os.listdir(root) if f.endswith(".deb")]
        run("dpkg-deb", "-x", os.path.join(root, debs[0]), root)
    return path


def libraries(program):
    """Absolute paths of the shared objects a program loads."""
    result = subprocess.run(["ldd", program], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    if "not found" in result.stdout:
        die(f"missing libraries for {program}:\n{result.stdout}")
    if result.returncode:
        return []
    return sorted(set(re.findall(r"(/\S+) \(0x", result.stdout)))


def standalone_shell(busybox):
    """True if this busybox's sh runs applets itself instead of using PATH."""
    r = subprocess.run(["sh", "-c", "ls /"], executable=busybox,
                       env={"PATH": "/nonexistent"},
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return r.returncode == 0


def find_busybox(out, given):
    """A busybox whose shell honours PATH; MaskedPaths needs that."""
    if given:
        return given
    installed = shutil.which("busybox")
    if installed and not standalone_shell(installed):
        return installed
    # busybox-static is built with a standalone shell, busybox is not.
    path = from_package(out, "busybox", "bin/busybox")
    if standalone_shell(path):
        print("images.py: warning: this busybox has a standalone shell; "
              "the MaskedPaths spec will fail", file=sys.stderr)
    return path


def find_nginx(out, given):
    return (given or shutil.which("nginx")
            or from_package(out, "nginx", "usr/sbin/nginx"))


def compile_c(out, name, source):
    path = os.path.join(out, name)
    cc = os.environ.get("CC", "cc")
    if not shutil.which(cc):
        die("no C compiler; install gcc and libc6-dev, or set CC")
    with open(path + ".c", "w") as f:
        f.write(source)
    run(cc, "-Os", "-static", "-s", "-o", path, path + ".c")
    return path


def add_program(tree, program, path):
    tree.copy_in(program, path, 0o755)
    for lib in libraries(program):
        tree.copy_in(lib, lib.lstrip("/"), 0o755)


def busybox_tree(busybox):
    tree = Tree()
    add_program(tree, busybox, "bin/busybox")
    for applet in run(busybox, "--list").split():
        if applet != "busybox":
            # Hard links: a symlink would make a masked /bin/ls mask them all.
            tree.hardlink("bin/" + applet, "bin/busybox")
    tree.file("bin/pgrep", PGREP_SH, 0o755)
    tree.file("bin/ipcs", IPCS_SH, 0o755)
    tree.file("etc/passwd", PASSWD)
    tree.file("etc/group", GROUP)
    tree.dir("root", 0o700)
    tree.dir("tmp", 0o1777)
    for path in ("home", "run", "usr/bin", "usr/sbin", "var/log", "var/tmp",
                 "var/www", "proc", "sys", "dev", "mnt"):
        tree.dir(path)
    tree.symlink("var/run", "../run")
    return tree


def nginx_tree(nginx, port):
    tree = Tree()
    add_program(tree, nginx, "usr/sbin/nginx")
    tree.file("etc/nginx/nginx.conf", NGINX_CONF % port)
    tree.file("srv/www/index.html", "<html><body>nginx</body></html>\n")
    for path in ("var/lib/nginx", "var/log/nginx", "usr/share/nginx"):
        tree.dir(path)
    return tree


def marker(name):
    tree = Tree()
    tree.file(name, "")
    return tree


# --------------------------------------------------------------------------
# the images


def build(args):
    store = Store(args.out)
    busybox = find_busybox(args.out, args.busybox)
    base = Layer(store, busybox_tree(busybox))
    # Manifests of other architectures exist only so that lists are complete.
    filler_tree = Tree()
    filler_tree.file("etc/placeholder", "not a runnable platform\n")
    filler = Layer(store, filler_tree)
    shell = {"Env": [PATH_ENV], "Cmd": ["sh"]}

    def image(name, tags, extra=(), config=None, fmt="docker", multi=True,
              layers=None):
        cfg = dict(shell)
        cfg.update(config or {})
        stack = layers if layers is not None else [base] + list(extra)
        return store.image(name, tags, stack, cfg, fmt, multi, filler)

    # registry.k8s.io: the general test images
    e2e = "registry.k8s.io/e2e-test-images/"
    image(e2e + "busybox", ["1.29-2"])

    nginx = find_nginx(args.out, args.nginx)
    nginx_cmd = {"Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT",
                 "ExposedPorts": {"80/tcp": {}}}
    image(e2e + "nginx", ["1.14-2"],
          [Layer(store, nginx_tree(nginx, 80))], nginx_cmd)

    httpd = Tree()
    httpd.file("srv/www/index.html", "<html><body>httpd</body></html>\n")
    httpd.file("usr/local/bin/httpd-foreground",
               "#!/bin/sh\necho 'httpd: serving on port 80'\n"
               "exec httpd -f -p 80 -h /srv/www\n", 0o755)
    image(e2e + "httpd", ["2.4.39-4"], [Layer(store, httpd)],
          {"Cmd": ["httpd-foreground"], "ExposedPorts": {"80/tcp": {}}})

    nnp = Tree()
    nnp.copy_in(compile_c(args.out, "nnp", NNP_C), "nnp", 0o4755)
    image(e2e + "nonewprivs", ["1.3"], [Layer(store, nnp)], {"Cmd": ["/nnp"]})

    # pause: the sandbox image of several releases; 3.9 is also a test image
    # and must have the same id in two registries but not share its id with
    # the sandbox image of the daemon.
    pause = Tree()
    pause.copy_in(compile_c(args.out, "pause", PAUSE_C), "pause", 0o755)
    pause_layer = Layer(store, pause)
    for tag in ("3.8", "3.9", "3.10", "3.10.1", "3.10.2"):
        cfg = {"Env": [PATH_ENV], "Entrypoint": ["/pause"], "WorkingDir": "/",
               "User": "65535:65535", "Labels": {"version": tag}}
        for registry in ("registry.k8s.io", "k8s.gcr.io"):
            store.image(registry + "/pause", [tag], [pause_layer], cfg,
                        "docker", True, filler)

    # gcr.io/k8s-staging-cri-tools: image manager and user tests
    staging = "gcr.io/k8s-staging-cri-tools/"
    for name in ("test-image-1", "test-image-2", "test-image-3",
                 "test-image-latest"):
        image(staging + name, ["latest"], [Layer(store, marker(name))])
    digest = image(staging + "test-image-digest", ["latest"],
                   [Layer(store, marker("test-image-digest"))])
    image(staging + "test-image-tags", ["1", "2", "3"],
          [Layer(store, marker("same-image"))])
    for tag in ("test", "all"):
        image(staging + "test-image-tag", [tag], [Layer(store, marker(tag))])
    for name, user in (("uid", "1002"), ("username", "www-data"),
                       ("uid-group", "1003:1004"),
                       ("username-group", "www-data:1004")):
        image(staging + "test-image-user-" + name, ["latest"],
              config={"User": user})

    group = Tree()
    group.file("etc/passwd", PASSWD +
               "default-user:x:1000:1000::/home/default-user:/bin/sh\n")
    group.file("etc/group", GROUP + "default-user:x:1000:\n"
               "group-defined-in-image:x:50000:default-user\n")
    group.dir("home/default-user")
    image(staging + "test-image-predefined-group", ["latest"],
          [Layer(store, group)], {"User": "1000"})

    image(staging + "hostnet-nginx-" + ARCH, ["latest"],
          [Layer(store, nginx_tree(nginx, 12003))],
          dict(nginx_cmd, ExposedPorts={"12003/tcp": {}}), multi=False)

    # public.ecr.aws: the images of the image benchmarks, as OCI indexes. No
    # layer is shared with another image, so a pull always transfers it all.
    def own_base(variant):
        tree = busybox_tree(busybox)
        tree.file("etc/variant", variant + "\n")
        return Layer(store, tree)

    for tag in ("1", "1-glibc", "1-musl", "1-uclibc", "1.35.0-glibc"):
        image("public.ecr.aws/docker/library/busybox", [tag], fmt="oci",
              layers=[own_base(tag)])

    # A larger image for pull benchmarks: several layers, many files, half of
    # the bytes incompressible. Deterministic.
    rng = random.Random(20231114)
    layers = [own_base("bench-layers")]
    for n in range(args.bench_layers):
        tree = Tree()
        for i in range(200):
            size = args.bench_mib * 1024 * 1024 // 200
            data = rng.randbytes(size // 2) + (b"%d-%d " % (n, i)) * (size // 10)
            tree.file(f"data/layer{n}/{i % 10}/{i}", data[:size])
        layers.append(Layer(store, tree, level=1))
    image(e2e + "bench-layers", ["1"], fmt="oci", layers=layers)

    store.save()
    with open(os.path.join(args.out, "test-image-digest"), "w") as f:
        f.write(digest + "\n")
    tags = [r for r in store.refs if not r[2].startswith("sha256:")]
    print(f"built {len(tags)} references, {len(os.listdir(store.blobs))} blobs")


# --------------------------------------------------------------------------
# push


class Registry:
    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.conn = http.client.HTTPConnection(host, int(port), timeout=60)

    def call(self, method, path, body=None, headers=None, ok=(200,)):
        self.conn.request(method, path, body, headers or {})
        r = self.conn.getresponse()
        data = r.read()
        if r.status not in ok:
            die(f"{method} {path}: {r.status} {data[:300]!r}")
        return r

    def blob(self, repo, digest, data):
        r = self.call("HEAD", f"/v2/{repo}/blobs/{digest}", ok=(200, 404))
        if r.status == 200:
            return 0
        r = self.call("POST", f"/v2/{repo}/blobs/uploads/",
                      headers={"Content-Length": "0"}, ok=(202,))
        where = urllib.parse.urlsplit(r.headers["Location"])
        query = urllib.parse.parse_qsl(where.query) + [("digest", digest)]
        self.call("PUT", where.path + "?" + urllib.parse.urlencode(query), data,
                  {"Content-Type": "application/octet-stream"}, ok=(201,))
        return len(data)

    def manifest(self, repo, ref, data, media):
        self.call("PUT", f"/v2/{repo}/manifests/{ref}", data,
                  {"Content-Type": media}, ok=(201,))


def push(args):
    store = Store(args.out)
    store.load()
    registry = Registry(args.registry)
    sent, done = 0, set()
    # Children of a list come before the list itself in refs. Registries are
    # told apart only by name: all share one namespace here, as mirrors do.
    for _, repo, ref, digest, media in store.refs:
        if (repo, ref) in done:
            continue
        done.add((repo, ref))
        data = store.get(digest)
        value = json.loads(data)
        if "config" in value:
            for blob in [value["config"]] + value["layers"]:
                if (repo, blob["digest"]) not in done:
                    done.add((repo, blob["digest"]))
                    sent += registry.blob(repo, blob["digest"],
                                          store.get(blob["digest"]))
        registry.manifest(repo, ref, data, media)
    print(f"pushed {sum(not r[2].startswith('sha256:') for r in store.refs)} "
          f"references ({sent / 1048576:.1f} MiB new)")


def show(args):
    store = Store(args.out)
    store.load()
    for registry, repo, ref, digest, media in store.refs:
        if not ref.startswith("sha256:"):
            print(f"{registry}/{repo}:{ref}\t{digest}\t{media}")


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    b = sub.add_parser("build", help="build the images into a blob store")
    b.add_argument("--out", required=True)
    b.add_argument("--busybox", default=os.environ.get("BUSYBOX"),
                   help="busybox whose shell is not standalone")
    b.add_argument("--nginx", default=os.environ.get("NGINX"))
    b.add_argument("--bench-layers", type=int, default=8, metavar="N",
                   help="layers of the large benchmark image (default 8)")
    b.add_argument("--bench-mib", type=int, default=8, metavar="N",
                   help="MiB per layer of that image (default 8)")
    b.set_defaults(func=build)
    u = sub.add_parser("push", help="push the built images")
    u.add_argument("--out", required=True)
    u.add_argument("--registry", required=True, metavar="HOST:PORT")
    u.set_defaults(func=push)
    l = sub.add_parser("list", help="print references and digests")
    l.add_argument("--out", required=True)
    l.set_defaults(func=show)
    args = p.parse_args()
    os.makedirs(args.out, exist_ok=True)
    args.func(args)


if __name__ == "__main__":
    main()
