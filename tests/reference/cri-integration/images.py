#!/usr/bin/env python3
"""The images that upstream's CRI integration tests name, made as those of `tests/conformance/images.py` are, whose
tools and programs they share.

    images.py OUT        adds them to a store that `images.py build --out OUT` has filled; prints the digest of busybox
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../conformance"))
import images as made

# Takes the memory that it is asked for (-m 1 --vm-bytes NNNM --vm-hang 0 -t SECONDS) and keeps it.
STRESS_C = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    size_t mib = 0;
    unsigned seconds = 30;
    for (int i = 1; i + 1 < argc; i++) {
        if (!strcmp(argv[i], "--vm-bytes")) mib = strtoul(argv[i + 1], 0, 10);
        if (!strcmp(argv[i], "-t")) seconds = strtoul(argv[i + 1], 0, 10);
    }
    /* A little more: what is asked for has to be seen on top of what was there. */
    char *memory = malloc((mib + 8) << 20);
    if (!memory) return 1;
    memset(memory, 1, (mib + 8) << 20);
    while (seconds) seconds = sleep(seconds);
    return 0;
}
"""


def main(out):
    store = made.Store(out)
    store.load()
    # Those of a run before would be pushed first.
    store.refs = [ref for ref in store.refs if ref[0] != "ghcr.io" and not ref[1].endswith("/resource-consumer")]
    busybox = made.find_busybox(out, os.environ.get("BUSYBOX"))
    tree = made.busybox_tree(busybox)
    tree.file("etc/os-release", "ID=none\n")
    # Root is in this group, and a test expects it.
    kind, mode, text = tree.nodes["etc/group"]
    tree.nodes["etc/group"] = (kind, mode, text + b"wheel:x:10:root\n")
    # A test looks at where it leads.
    del tree.nodes["bin/sh"]
    tree.symlink("bin/sh", "/bin/busybox")
    base = made.Layer(store, tree)
    other = made.Tree()
    other.file("foreign", "not a runnable platform, of another image\n")
    filler = made.Layer(store, other)

    def image(name, tag, extra=(), **config):
        config.setdefault("Cmd", ["sh"])
        config["Env"] = [made.PATH_ENV]
        layers = [base] + [made.Layer(store, tree) for tree in extra]
        return store.image(name, [tag], layers, config, "docker", True, filler)

    digest = image("ghcr.io/containerd/busybox", "1.36")
    image("ghcr.io/containerd/alpine", "3.14.0", [made.marker("etc/alpine-release")])

    volumes = made.Tree()
    for path in ("test_dir/test_file", "C:/weird_test_dir/weird_test_file", ":colon_prefixed/colon_prefixed_file"):
        volumes.file(path, "test_content\n")
    image("ghcr.io/containerd/volume-copy-up", "2.2", [volumes],
          Volumes={"/test_dir": {}, "C:/weird_test_dir": {}, "/:colon_prefixed": {}})

    # One layer of it is larger than 3 MiB and does not get smaller by compression: a pull of it can be watched.
    owned = made.Tree()
    owned.dir("test_dir")
    owned.owners["test_dir"] = 65534
    owned.file("large", os.urandom(4 << 20))
    image("ghcr.io/containerd/volume-ownership", "2.1", [owned], Volumes={"/test_dir": {}})

    nginx = made.nginx_tree(made.find_nginx(out, os.environ.get("NGINX")), 80)
    kind, mode, text = nginx.nodes["etc/nginx/nginx.conf"]
    nginx.nodes["etc/nginx/nginx.conf"] = (kind, mode, text.replace(b"error_log stderr;", b"error_log /dev/stderr notice;"))
    image("ghcr.io/containerd/nginx", "1.27.0", [nginx], Cmd=["nginx", "-g", "daemon off;"])

    stress = made.Tree()
    stress.copy_in(made.compile_c(out, "stress", STRESS_C), "usr/bin/stress", 0o755)
    image("registry.k8s.io/e2e-test-images/resource-consumer", "1.10", [stress], Cmd=["sleep", "100000"])
    store.save()
    print(digest)


main(*sys.argv[1:])
