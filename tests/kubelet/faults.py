"""The kubelet and the daemon end, are killed and come back while pods live. Nothing of this may end a container."""

import os
import signal
import threading
import time

import client
from node import BUSYBOX, NODE, box, maps_owners, number_of, phase, status, statuses, until
from observe import BUSY, check_summary

COUNT = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.05; done"
HTTP = "mkdir -p /www; echo hello >/www/index.html; httpd -f -p 8080 -h /www"


def three(node):
    """Pods with all that hangs on a daemon: a probe by exec, one by HTTP, a log that grows, a user namespace where runc can."""
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 30}
    node.add("counts", [box(COUNT, livenessProbe=probe)])
    node.add("serves", [box(HTTP, readinessProbe={"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1})])
    node.add("own", [box()], hostUsers=not maps_owners())
    return {name: node.running(name) for name in ("counts", "serves", "own")}


def same(node, before):
    """Each pod is as it was: the same containers, none started again, the address as well."""
    for name, was in before.items():
        now = node.running(name)
        assert status(now)["containerID"] == status(was)["containerID"], name
        assert status(now)["restartCount"] == 0 and now["status"]["podIP"] == was["status"]["podIP"], (name, now["status"])
    # The kubelet waits a while before it connects again.
    until("commands are run", lambda: node.run("own", "echo here") == (200, "here\n"), 30)
    assert node.sh("counts", "echo here") == "here\n"


def log_is_whole(node):
    """No line of the log is missing, from its oldest on."""
    numbers = [int(line.split()[-1]) for line in node.log("counts").splitlines()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "lines are missing"
    until("it grows", lambda: int(node.log("counts", tailLines=1).split()[-1]) > numbers[-1])


def end(node, before):
    for name in before:
        node.remove(name)
    for name in before:
        node.gone(name)


def pods_survive_a_kubelet(node):
    before = three(node)
    node.stop_kubelet()
    node.start_kubelet()
    same(node, before)
    log_is_whole(node)
    end(node, before)


def pods_survive_a_daemon_that_is_restarted(node):
    before = three(node)
    node.stop_daemon()
    time.sleep(2)
    node.start_daemon()
    same(node, before)
    log_is_whole(node)
    end(node, before)


def pods_survive_a_daemon_that_is_killed(node):
    before = three(node)
    for _ in range(3):
        node.stop_daemon(signal.SIGKILL)
        node.start_daemon()
        same(node, before)
    log_is_whole(node)
    end(node, before)


def a_follower_of_a_log_does_not_need_the_daemon_to_stay(node):
    before = three(node)
    follower = node.follow("counts", tailLines=1)
    first = int(follower.line().split()[-1])
    node.stop_daemon(signal.SIGKILL)
    seen = [int(follower.line().split()[-1]) for _ in range(20)]
    node.start_daemon()
    seen += [int(follower.line().split()[-1]) for _ in range(20)]
    assert seen == list(range(first + 1, first + 41)), seen
    follower.close()
    same(node, before)
    end(node, before)


def what_ends_while_there_is_no_daemon_is_noticed_by_the_next(node):
    node.add("brief", [box("until [ -e /data/go ]; do sleep 0.1; done; exit 4",
                           volumeMounts=[{"name": "data", "mountPath": "/data"}])], restartPolicy="Never",
             volumes=[{"name": "data", "hostPath": {"path": f"{node.share}/brief", "type": "DirectoryOrCreate"}}])
    node.add("loops", [box("until [ -e /data/go ]; do sleep 0.1; done; rm /data/go; exit 6",
                           volumeMounts=[{"name": "data", "mountPath": "/data"}])],
             volumes=[{"name": "data", "hostPath": {"path": f"{node.share}/loops", "type": "DirectoryOrCreate"}}])
    node.running("brief")
    node.running("loops")
    node.stop_daemon(signal.SIGKILL)
    for name in ("brief", "loops"):
        open(f"{node.share}/{name}/go", "w").close()
    until("it has ended", lambda: not os.path.exists(f"{node.share}/loops/go"))
    time.sleep(1)
    node.start_daemon()
    assert status(node.wait("brief", phase("Failed")))["state"]["terminated"]["exitCode"] == 4
    pod = node.wait("loops", lambda pod: status(pod)["restartCount"] == 1 and status(pod)["ready"])
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 6
    for name in ("brief", "loops"):
        node.remove(name)
        node.gone(name)


def a_manifest_that_goes_while_everything_is_down_takes_its_pod_along(node):
    node.add("leaves", [box()])
    uid = node.running("leaves")["metadata"]["uid"]
    node.stop_kubelet()
    node.stop_daemon(signal.SIGKILL)
    node.remove("leaves")
    node.start_daemon()
    node.start_kubelet()
    until("it is gone", lambda: not node.containers_of(uid), 90)


def pods_come_and_go_while_the_daemon_is_killed(node):
    """The daemon is killed at any instant of starting and ending: every pod runs in the end, then none is left."""
    stop = threading.Event()

    def kill():
        for pause in (0.3, 0.7, 1.1, 0.5, 1.7):
            if stop.wait(pause + 1):
                return
            node.stop_daemon(signal.SIGKILL)
            node.start_daemon()

    names = [f"storm{i}" for i in range(8)]
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for name in names:
            node.add(name, [box(), box("sleep 1000", "other")], terminationGracePeriodSeconds=1)
            time.sleep(0.5)
        killer.join()
        for name in names:
            assert set(statuses(node.running(name, 180))) == {"main", "other"}
    finally:
        stop.set()
        killer.join()
    killer = threading.Thread(target=kill)
    stop.clear()
    killer.start()
    for name in names:
        node.remove(name)
        time.sleep(0.3)
    killer.join()
    for name in names:
        node.gone(name, 180)


def what_a_kubelet_can_be_told_to_use_works(node):
    """Gates that are off in 1.36: events of containers, statistics and metrics by the runtime, lists as streams."""
    node.stop_kubelet()
    node.start_kubelet(gates={"EventedPLEG": True, "PodAndContainerStatsFromCRI": True, "CRIListStreaming": True,
                              "ContainerStopSignals": True})
    try:
        node.add("gates", [
            box(BUSY, volumeMounts=[{"name": "data", "mountPath": "/data"}], resources={"limits": {"cpu": "200m", "memory": "64Mi"}})],
            volumes=[{"name": "data", "emptyDir": {}}])
        node.add("signal", [box("trap 'echo usr1; exit 0' USR1; while :; do sleep 0.1; done",
                                lifecycle={"stopSignal": "SIGUSR1"})], os={"name": "linux"}, restartPolicy="Never")
        node.running("gates")
        check_summary("gates")
        labels = {"pod": f"gates-{NODE}", "namespace": "default", "container": "main"}
        until("metrics are the runtime's", lambda: number_of(
            client.get("/metrics/cadvisor"), "container_cpu_usage_seconds_total", image=BUSYBOX, **labels) > 0)
        node.add("crashes", [box("sleep 1; exit 3")])
        node.wait("crashes", lambda pod: status(pod)["restartCount"] >= 2)
        assert number_of(client.get("/metrics"), "kubelet_evented_pleg_connection_success_count") >= 1
        end(node, {"gates": None, "signal": None, "crashes": None})
    finally:
        node.stop_kubelet()
        node.start_kubelet()
