"""Every verb of crictl, in the order in which a person would try them.

    crictl.py WORK PROGRAMS KUBELET CGROUP [WORD...]     the kubelet is not used
"""

import json
import os
import subprocess
import sys
import time
import traceback

import node as nodes
from node import ADDRESS, BUSYBOX, until

CRICTL = [os.environ["CRICTL"], "-c", f"{sys.argv[1]}/crictl.yaml"]
OTHER = "gcr.io/k8s-staging-cri-tools/test-image-1:latest"
HTTP = "mkdir -p /www; echo served >/www/index.html; httpd -f -p 8080 -h /www"
VERBS = """attach checkpoint completion config create events exec imagefsinfo images info inspect inspecti inspectp logs metricdescs
metricsp pods port-forward ps pull rm rmi rmp run runp runtime-config start stats statsp stop stopp update update-runtime-config
version help""".split()


class Crictl:
    def __init__(self, work, cgroup):
        self.work, self.cgroup, self.used = work, cgroup, set()
        with open(f"{work}/crictl.yaml", "w") as file:
            file.write(f"runtime-endpoint: unix://{ADDRESS}\nimage-endpoint: unix://{ADDRESS}\ntimeout: 30\n")

    def try_(self, *words, **more):
        self.used.add(words[0])
        return subprocess.run([*CRICTL, *words], capture_output=True, text=True, timeout=60, **more)

    def __call__(self, *words, **more):
        done = self.try_(*words, **more)
        assert done.returncode == 0, f"crictl {' '.join(words)}: {done.returncode} {done.stdout} {done.stderr}"
        return done.stdout.strip()

    def json(self, *words):
        return json.loads(self(words[0], "-o", "json", *words[1:]))

    def start(self, *words):
        """One that goes on; ended by the caller."""
        self.used.add(words[0])
        return subprocess.Popen(["timeout", "30", *CRICTL, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def file(self, name, content):
        with open(f"{self.work}/{name}.json", "w") as file:
            json.dump(content, file)
        return f"{self.work}/{name}.json"

    def pod(self, name, **more):
        return self.file(name, {
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "attempt": 1}, "labels": {"pod": name},
            "log_directory": f"{self.work}/logs", "linux": {"cgroup_parent": f"{self.cgroup}/{name}"}, **more})

    def container(self, name, script, **more):
        return self.file(f"c-{name}", {
            "metadata": {"name": name}, "image": {"image": BUSYBOX}, "command": ["sh", "-c", script], "log_path": f"{name}.log",
            "linux": {"resources": {"memory_limit_in_bytes": 64 << 20}}, "labels": {"container": name}, **more})


def the_runtime_is_asked(c):
    version = c("version")
    assert "RuntimeName:  containerd" in version and "RuntimeApiVersion:  v1" in version, version
    c("update-runtime-config", "--pod-cidr", "10.213.91.0/24")
    info = until("the network is ready", lambda: (told := json.loads(c("info"))) and all(
        x["status"] for x in told["status"]["conditions"] if x["type"] in ("RuntimeReady", "NetworkReady")) and told)
    assert info["config"] and info["runtimeHandlers"], info.keys()
    assert "CGROUPFS" in c("runtime-config").upper(), c("runtime-config")
    assert c.json("imagefsinfo")["status"]["imageFilesystems"][0]["fsId"]["mountpoint"].startswith("/")
    assert "crictl" in c("completion")
    c("config", "--set", "debug=false")
    assert c("config", "--get", "timeout").startswith("30")
    assert "COMMANDS" in c("help")


def images_are_pulled_listed_and_removed(c):
    assert "Image is up to date for sha256:" in c("pull", BUSYBOX) and c("pull", OTHER)
    assert [i["repoTags"] for i in c.json("images", OTHER)["images"]] == [[OTHER]]
    (told,) = [c.json("inspecti", OTHER)]
    told = told["status"] if "status" in told else told[0]["status"]
    assert told["repoTags"] == [OTHER] and int(told["size"]) > 0, told
    assert "Deleted" in c("rmi", OTHER)
    assert c.json("images", OTHER).get("images") in (None, [])
    done = c.try_("pull", "registry.k8s.io/absent:1")
    assert done.returncode and "not found" in done.stderr, done.stderr
    done = c.try_("inspecti", "absent:1")
    assert done.returncode and "no such image" in done.stderr, done.stderr


def a_container_goes_through_its_life(c):
    events = c.start("events")
    time.sleep(0.5)
    config = c.pod("life")
    pod = c("runp", config)
    told = c.json("inspectp", pod)
    assert told["status"]["state"] == "SANDBOX_READY" and told["status"]["network"]["ip"].startswith("10.213.91."), told
    container = c("create", pod, c.container("main", "echo out; echo err >&2; " + HTTP), config)
    state = lambda: c.json("inspect", container)["status"]["state"]
    assert state() == "CONTAINER_CREATED"
    c("start", container)
    assert state() == "CONTAINER_RUNNING"
    assert [p["id"] for p in c.json("pods", "--name", "life", "--state", "ready")["items"]] == [pod]
    assert [x["id"] for x in c.json("ps", "--pod", pod, "--state", "running")["containers"]] == [container]
    assert "main" in c("ps") and "life" in c("pods")
    until("its log is there", lambda: sorted(c.try_("logs", container).stdout.split() + c.try_("logs", container).stderr.split()) == ["err", "out"])
    assert c("exec", "-s", container, "echo", "sync") == "sync"
    assert c("exec", container, "echo", "spdy") == "spdy" and c("exec", "-r", "websocket", container, "echo", "ws") == "ws"
    done = c.try_("exec", container, "sh", "-c", "exit 7")
    assert done.returncode and "exit code 7" in done.stderr + done.stdout or done.returncode == 7, done
    c("update", "--memory", str(96 << 20), container)
    assert c.json("inspect", container)["status"]["resources"]["linux"]["memoryLimitInBytes"] == str(96 << 20)
    forwards(c, pod)
    measures(c, pod, container)
    c("stop", "-t", "0", container)
    assert state() == "CONTAINER_EXITED"
    c("rm", container)
    c("stopp", pod)
    assert c.json("inspectp", pod)["status"]["state"] == "SANDBOX_NOTREADY"
    c("rmp", pod)
    assert not c.json("pods").get("items")
    events.terminate()
    told = events.communicate()[0]
    for kind in ("CREATED", "STARTED", "STOPPED", "DELETED"):
        assert f"CONTAINER_{kind}_EVENT" in told, (kind, told[-2000:])


def forwards(c, pod):
    for transport, port in (("spdy", 18080), ("websocket", 18081)):
        forward = c.start("port-forward", "-r", transport, pod, f"{port}:8080")
        get = lambda: subprocess.run(["curl", "-s", f"http://127.0.0.1:{port}/"], capture_output=True, text=True).stdout == "served\n"
        try:
            until(f"a port is forwarded over {transport}", get, 20)
        finally:
            forward.terminate()
            forward.communicate()


def measures(c, pod, container):
    stats = until("it is measured", lambda: c.json("stats", "--id", container)["stats"])
    assert int(stats[0]["memory"]["workingSetBytes"]["value"]) > 0, stats
    assert [s["attributes"]["id"] for s in c.json("statsp", "--id", pod)["stats"]] == [pod]
    names = {d["name"] for d in c.json("metricdescs")["descriptors"]}
    assert "container_cpu_usage_seconds_total" in names, names
    told = c.json("metricsp")["podMetrics"]
    assert [m["podSandboxId"] for m in told] == [pod] and told[0]["containerMetrics"], told


def what_is_attached_to_answers(c):
    config = c.pod("attach")
    container = c("run", c.container("talks", "read x; echo heard $x; sleep 1000", stdin=True, stdin_once=False), config)
    pod = c.json("ps", "--id", container)["containers"][0]["podSandboxId"]
    attach = c.start("attach", "-i", container)
    attach.stdin.write("word\n")
    attach.stdin.flush()
    heard = attach.stdout.readline()
    assert heard == "heard word\n", (heard, c("logs", container))
    attach.terminate()
    attach.wait()
    c("rmp", "-f", pod)


def a_container_is_checkpointed(c):
    c.used.add("checkpoint")
    if subprocess.run("command -v criu", shell=True, capture_output=True).returncode:
        return "there is no CRIU"
    container = c("run", c.container("frozen", "while :; do sleep 0.1; done"), c.pod("frozen"))
    c("checkpoint", "--export", f"{c.work}/checkpoint.tar", container)
    assert os.path.getsize(f"{c.work}/checkpoint.tar") > 10000
    c("rmp", "-a", "-f")


def mistakes_are_told_as_containerd_tells_them(c):
    for words, text in [
        (["inspectp", "absent"], "not found"), (["inspect", "absent"], "not found"), (["start", "absent"], "not found"),
        (["exec", "absent", "true"], "not found"), (["logs", "absent"], "not found"), (["attach", "absent"], "not found"),
        (["port-forward", "absent", "1"], "not found"), (["create", "absent", c.container("x", "true"), c.pod("x")], "not found"),
    ]:
        done = c.try_(*words)
        assert done.returncode and text in done.stderr, (words, done.stderr)


def every_verb_was_used(c):
    listed = [line.split()[0].rstrip(",") for line in c("help").split("COMMANDS:")[1].split("GLOBAL OPTIONS")[0].splitlines() if line.strip()]
    assert sorted(listed) == sorted(VERBS), "other verbs than those that are known"
    assert set(listed) - c.used == set(), set(listed) - c.used


TESTS = [the_runtime_is_asked, images_are_pulled_listed_and_removed, a_container_goes_through_its_life,
         what_is_attached_to_answers, a_container_is_checkpointed, mistakes_are_told_as_containerd_tells_them, every_verb_was_used]


def main():
    work, programs, kubelet, cgroup, *words = sys.argv[1:]
    node = nodes.Node(work, programs, kubelet, cgroup)
    node.start_daemon()
    crictl, failed, passed = Crictl(work, cgroup), 0, 0
    for test in TESTS:
        if words and not any(word in test.__name__ for word in words):
            continue
        try:
            skipped = test(crictl)
            passed += not skipped
            print(f"SKIPPED {test.__name__}: {skipped}" if skipped else f"ok      {test.__name__}", flush=True)
        except Exception as error:
            failed += 1
            at = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == __file__][-1]
            print(f"FAILED  {test.__name__} line {at}: {type(error).__name__}: {error}", flush=True)
    subprocess.run([*CRICTL, "rmp", "-a", "-f"], capture_output=True)
    node.stop_daemon()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
