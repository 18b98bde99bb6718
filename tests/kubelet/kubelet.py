"""Runs the tests: those that bother nobody beside each other, those that end programs one by one, then what is left behind.

    kubelet.py WORK PROGRAMS KUBELET CGROUP [WORD...]     tests whose names have one of the words; all without
"""

import concurrent.futures
import inspect
import os
import sys
import time
import traceback

import faults
import inside
import node as nodes
import observe
import pods
import reclaim
import streams

BESIDE = int(os.environ.get("BESIDE", "4"))


def tests_of(module):
    """The functions of a module that take a node alone and are no predicates: names of more than three words."""
    return [f for name, f in inspect.getmembers(module, inspect.isfunction)
            if f.__module__ == module.__name__ and list(inspect.signature(f).parameters) == ["node"] and name.count("_") >= 3]


class Tally:
    def __init__(self, node):
        self.node, self.passed, self.failed = node, 0, 0

    def run(self, test):
        name, began = f"{test.__module__}::{test.__name__}", time.monotonic()
        try:
            skipped = test(self.node)
            self.passed += not skipped
            print(f"SKIPPED {name}: {skipped}" if skipped else f"ok      {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception as error:
            self.failed += 1
            where = [f for f in traceback.extract_tb(error.__traceback__) if f.name == test.__name__][-1:]
            at = f"{os.path.basename(where[0].filename)}:{where[0].lineno}" if where else "?"
            print(f"FAILED  {name} ({time.monotonic() - began:.1f} s) {at}: {type(error).__name__}: {error}", flush=True)


def nothing_is_left_behind(node):
    """Without a manifest there is no pod, and of pods nothing."""
    for name in os.listdir(node.manifests):
        os.remove(f"{node.manifests}/{name}")
    nodes.until("no pod is left", lambda: not node.pods(), 120)
    nodes.until("no container is left", lambda: not node.ctr("containers", "ls", "-q").split(), 90)
    left = {
        "tasks": node.ctr("tasks", "ls", "-q").split(),
        "snapshots": [line.split()[0] for line in node.ctr("snapshots", "ls").splitlines()[1:] if "Committed" not in line],
        "leases": node.ctr("leases", "ls", "-q").split(),
        "shims": shims(),
        "addresses": [a for a in os.listdir(f"{node.work}/ipam/pods") if a[0].isdigit()] if os.path.exists(
            f"{node.work}/ipam/pods") else [],
        "mounts": mounts(),
        "logs": os.listdir(f"{node.work}/logs"),
        "volumes": os.listdir(f"{node.work}/kubelet/pods"),
    }
    assert not any(left.values()), left


def shims():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                words = file.read().split("\0")
        except OSError:
            continue
        if "shim" in os.path.basename(words[0]):
            found.append(" ".join(words))
    return found


def mounts():
    with open("/proc/self/mountinfo") as file:
        places = [line.split()[4] for line in file]
    return [p for p in places if p.startswith("/run/containerd/") or "/netns/" in p]


def main():
    work, programs, kubelet, cgroup, *words = sys.argv[1:]
    node = nodes.Node(work, programs, kubelet, cgroup)
    tally = Tally(node)
    wanted = lambda test: not words or any(word in f"{test.__module__}::{test.__name__}" for word in words)
    node.start_daemon()
    node.start_kubelet()
    try:
        beside = [t for module in (pods, inside, streams, observe) for t in tests_of(module) if wanted(t)]
        with concurrent.futures.ThreadPoolExecutor(BESIDE) as pool:
            list(pool.map(tally.run, beside))
        for test in (t for module in (faults, reclaim) for t in tests_of(module) if wanted(t)):
            tally.run(test)
        tally.run(nothing_is_left_behind)
    finally:
        node.stop_kubelet()
        node.stop_daemon()
    print(f"{tally.passed} passed, {tally.failed} failed")
    sys.exit(1 if tally.failed else 0)


main()
