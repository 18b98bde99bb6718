"""A node: a containerd, a kubelet in standalone mode, its static pods. Everything is below one directory.

    <work>/manifests  <pod>.json, what the kubelet runs      <work>/kubelet   its root       <work>/logs     of pods
    <work>/containerd.toml, root, state, cni, certs.d        <work>/share     for hostPath   <work>/*.log    of programs
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import client

ADDRESS = "/run/containerd/containerd.sock"
NODE = "node"
BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.29-2"
# What the kubelet would set for the whole machine; it is shown files with these values instead.
SYSCTLS = {"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
           "kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000}


def until(what, condition, patience=60):
    """The first true answer of a condition; its last answer or error is told if it never is."""
    end, last = time.monotonic() + patience, None
    while time.monotonic() < end:
        try:
            last = condition()
            if last:
                return last
        except (OSError, AssertionError, KeyError, IndexError, TypeError, ValueError) as error:
            last = repr(error)
        time.sleep(0.1)
    raise AssertionError(f"not within {patience} s: {what} (last: {str(last)[:600]})")


def maps_owners():
    """Whether runc can map the owners of mounts (1.2 can), as pods with users of their own need it."""
    told = json.loads(subprocess.run(["runc", "features"], capture_output=True, text=True, check=True).stdout)
    return told.get("linux", {}).get("mountExtensions", {}).get("idmap", {}).get("enabled", False)


class Node:
    def __init__(self, work, programs, kubelet, cgroup):
        self.work, self.programs, self.cgroup = work, programs, cgroup
        self.kubelet_program = kubelet
        self.daemon = self.kubelet = None
        self.uids, self.count = {}, 0
        self.manifests, self.share = f"{work}/manifests", f"{work}/share"
        for name in ("manifests", "share", "kubelet", "logs", "certs"):
            os.makedirs(f"{work}/{name}", exist_ok=True)

    # The daemon.

    def start_daemon(self):
        log = open(f"{self.work}/containerd.log", "a")
        path = f"{self.programs}:{os.environ['PATH']}"
        self.daemon = subprocess.Popen(
            [f"{self.programs}/containerd", "-c", f"{self.work}/containerd.toml"], stdout=log, stderr=log,
            env={**os.environ, "PATH": path}, start_new_session=True)
        until("the daemon answers", lambda: self.ctr("version") is not None)

    def stop_daemon(self, number=signal.SIGTERM):
        self.daemon.send_signal(number)
        self.daemon.wait(60)

    def ctr(self, *arguments):
        done = subprocess.run([f"{self.programs}/ctr", "-a", ADDRESS, "-n", "k8s.io", *arguments],
                              capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise OSError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    # The kubelet.

    def start_kubelet(self, gates=None, **settings):
        """Starts it with more settings than those of every test, and waits until it is healthy."""
        config = self.config(gates or {})
        config.update(settings)
        with open(f"{self.work}/kubelet.json", "w") as file:
            json.dump(config, file, indent=1)
        log = open(f"{self.work}/kubelet.log", "a")
        command = [self.kubelet_program, f"--config={self.work}/kubelet.json", f"--root-dir={self.work}/kubelet",
                   f"--cert-dir={self.work}/certs", f"--hostname-override={NODE}", "--node-ip=10.213.90.1",
                   "--pod-cidr=10.213.91.0/24", "--node-labels=kind=test", "--v=4"]
        self.kubelet = subprocess.Popen(["unshare", "--mount", "--propagation", "shared", "sh", "-c", self.shown(), "kubelet",
                                         *command], stdout=log, stderr=log, start_new_session=True)
        try:
            until("the kubelet is healthy", lambda: self.kubelet.poll() is None and client.get("/healthz") == "ok", 90)
        except AssertionError:
            with open(f"{self.work}/kubelet.log") as log:
                sys.stderr.writelines(log.readlines()[-15:])
            raise

    def shown(self):
        """A script that shows settings of the kernel as the kubelet wants them, so that it changes none."""
        lines = ["mount --make-rprivate /proc"]
        for name, value in SYSCTLS.items():
            file = f"{self.work}/sysctl.{os.path.basename(name)}"
            with open(file, "w") as out:
                out.write(f"{value}\n")
            lines.append(f"mount --bind {file} /proc/sys/{name}")
        return "set -e\n" + "\n".join(lines) + '\nexec "$@"'

    def config(self, gates):
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "staticPodPath": self.manifests, "volumePluginDir": f"{self.work}/plugins", "podLogsDir": f"{self.work}/logs",
            "fileCheckFrequency": "1s", "syncFrequency": "5s", "volumeStatsAggPeriod": "5s",
            "containerRuntimeEndpoint": f"unix://{ADDRESS}", "failCgroupV1": False, "failSwapOn": False,
            "cgroupRoot": self.cgroup, "cgroupDriver": "cgroupfs", "enforceNodeAllocatable": ["pods"],
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"}, "address": "127.0.0.1", "healthzPort": 0,
            "resolvConf": f"{self.work}/resolv.conf", "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local",
            "containerLogMaxSize": "64Ki", "containerLogMaxFiles": 3, "containerLogMonitorInterval": "3s",
            "imageMinimumGCAge": "1s", "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
            "evictionHard": {"imagefs.available": "1Mi", "nodefs.available": "1Mi", "memory.available": "1Mi"},
            "serializeImagePulls": False, "registryPullQPS": 0, "makeIPTablesUtilChains": False,
            "crashLoopBackOff": {"maxContainerRestartPeriod": "4s"}, "podPidsLimit": 4096,
            "allowedUnsafeSysctls": ["net.core.somaxconn"], "memorySwap": {},
            "featureGates": {"KubeletCrashLoopBackOffMax": True, "ContainerCheckpoint": True, **gates},
        }

    def stop_kubelet(self):
        if self.kubelet:
            self.kubelet.terminate()
            self.kubelet.wait(60)
            self.kubelet = None

    # Pods.

    def add(self, name, containers, **spec):
        """Writes the manifest of a static pod. Its UID is the manifest's hash: a turn makes it another than one that was there."""
        self.count += 1
        metadata = {"name": name, "namespace": "default", "annotations": {"turn": str(self.count)}}
        if "labels" in spec:
            metadata["labels"] = spec.pop("labels")
        spec.setdefault("terminationGracePeriodSeconds", 2)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}
        new = f"{self.work}/{name}.new"
        with open(new, "w") as file:
            json.dump(pod, file, indent=1)
        os.rename(new, f"{self.manifests}/{name}.json")

    def remove(self, name):
        os.remove(f"{self.manifests}/{name}.json")

    def pods(self):
        pods = {pod["metadata"]["name"].removesuffix(f"-{NODE}"): pod for pod in client.get_json("/pods")["items"] or []}
        self.uids.update((name, pod["metadata"]["uid"]) for name, pod in pods.items())
        return pods

    def pod(self, name):
        return self.pods()[name]

    def wait(self, name, condition, patience=60):
        """The pod, when a condition of it holds."""
        found = {}

        def holds():
            found["pod"] = self.pod(name)
            return condition(found["pod"]) or brief(found["pod"]) and False

        try:
            until(f"pod {name}", holds, patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; {brief(found.get('pod'))}") from None
        return found["pod"]

    def running(self, name, patience=60):
        return self.wait(name, ready, patience)

    def gone(self, name, patience=60):
        """Returns when nothing of a pod runs. The kubelet forgets a static pod at once, while it is still ending it."""
        until(f"pod {name} is gone", lambda: name not in self.pods() and not self.tasks_of(self.uids[name]), patience)

    def tasks_of(self, uid):
        """Ids of containers and sandboxes of a pod that run."""
        running = {line.split()[0] for line in self.ctr("tasks", "ls").splitlines() if "RUNNING" in line}
        return running & self.containers_of(uid)

    def containers_of(self, uid):
        """Ids of its containers and sandboxes, of those that have ended, too. The kubelet removes them once a minute."""
        return set(self.ctr("containers", "ls", "-q", f'labels."io.kubernetes.pod.uid"=={uid}').split())

    def log(self, name, container="main", **query):
        return client.get(f"/containerLogs/default/{name}-{NODE}/{container}", **query)

    def follow(self, name, container="main", **query):
        return client.Follower(f"/containerLogs/default/{name}-{NODE}/{container}", **query)

    def run(self, name, command, container="main"):
        """What a command in a container says, by the kubelet's ExecSync."""
        status, body = client.request("POST", f"/run/default/{name}-{NODE}/{container}", cmd=command)
        return status, body.decode("utf-8", "replace")

    def exec(self, name, command, container="main", protocol="v5.channel.k8s.io", **query):
        streams = {"input": 0, "output": 1, "error": 1, "tty": 0, **query}
        path = client.path_of(f"/exec/default/{name}-{NODE}/{container}", command=command, **streams)
        return client.Channels(path, protocol)

    def sh(self, name, script, container="main"):
        """stdout of a shell's script in a container, which must succeed."""
        out, err, code = self.exec(name, ["sh", "-c", script], container).to_end()
        assert code == 0, f"{script}: {code} {out} {err}"
        return out.decode()


def statuses(pod, kind="containerStatuses"):
    return {status["name"]: status for status in pod["status"].get(kind) or []}


def status(pod, name="main"):
    return statuses(pod)[name]


def condition(pod, kind):
    return any(c["type"] == kind and c["status"] == "True" for c in pod["status"].get("conditions") or [])


def ready(pod):
    return pod["status"].get("phase") == "Running" and condition(pod, "Ready") and all(
        s["ready"] for s in statuses(pod).values())


def phase(wanted):
    return lambda pod: pod["status"].get("phase") == wanted


def brief(pod):
    """What a failure should say of a pod."""
    if not pod:
        return "no such pod"
    told = {n: {k: s.get(k) for k in ("ready", "restartCount", "state", "lastState")} for kind in
            ("initContainerStatuses", "containerStatuses") for n, s in statuses(pod, kind).items()}
    return f"{pod['status'].get('phase')} {pod['status'].get('reason')} {json.dumps(told)}"


def box(script=None, name="main", **more):
    """A container that runs a shell's script; without one it waits to be ended."""
    script = script or "trap 'exit 0' TERM; while :; do sleep 0.1; done"
    return {"name": name, "image": BUSYBOX, "command": ["sh", "-c", script], **more}


def number_of(text, metric, **labels):
    """The value of a metric that has all these labels."""
    for line in text.splitlines():
        found = re.match(r"([a-zA-Z_:]+)(?:\{(.*)\})? ([^ ]+)", line)
        if found and found[1] == metric and all(f'{k}="{v}"' in (found[2] or "") for k, v in labels.items()):
            return float(found[3])
    raise KeyError(f"{metric}{labels}")
