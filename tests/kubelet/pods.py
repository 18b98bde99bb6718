"""How pods and containers begin, are probed, fail, start again and end."""

import os
import time

from node import BUSYBOX, box, brief, condition, phase, status, statuses

HTTP = "mkdir -p /www; echo hello >/www/index.html; httpd -f -p 8080 -h /www"


def an_init_container_ends_before_the_two_others_start_and_share_a_volume(node):
    mount = [{"name": "shared", "mountPath": "/shared"}]
    node.add("two", [
        box("cat /shared/first && echo one >/shared/one && sleep 1000", "one", volumeMounts=mount),
        box("until cat /shared/one; do sleep 0.1; done; sleep 1000", "two", volumeMounts=mount)],
        initContainers=[box("sleep 1; echo first >/shared/first", "init", volumeMounts=mount)],
        volumes=[{"name": "shared", "emptyDir": {}}])
    pod = node.running("two")
    init = statuses(pod, "initContainerStatuses")["init"]["state"]["terminated"]
    assert init["exitCode"] == 0 and init["reason"] == "Completed", init
    for name in ("one", "two"):
        of = status(pod, name)
        assert of["containerID"].startswith("containerd://") and len(of["containerID"]) == 13 + 64, of
        assert of["image"] == BUSYBOX and of["imageID"].startswith("registry.k8s.io/e2e-test-images/busybox@sha256:"), of
        assert of["state"]["running"]["startedAt"] >= init["finishedAt"], (of, init)
    assert pod["status"]["podIP"].startswith("10.213.91."), pod["status"]
    assert pod["status"]["podIPs"] == [{"ip": pod["status"]["podIP"]}]
    assert "one" in node.log("two", "two")
    node.remove("two")
    node.gone("two")


def probes_of_three_kinds_make_a_pod_ready_and_unready(node):
    fast = {"periodSeconds": 1, "failureThreshold": 3}
    node.add("probed", [
        box(HTTP, "http", readinessProbe={"httpGet": {"path": "/", "port": 8080}, **fast},
            startupProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 30}),
        box("touch /tmp/ready; sleep 1000", "exec",
            readinessProbe={"exec": {"command": ["cat", "/tmp/ready"]}, **fast, "failureThreshold": 1})])
    pod = node.running("probed")
    assert all(s["started"] for s in statuses(pod).values()), brief(pod)
    node.sh("probed", "rm /tmp/ready", "exec")
    pod = node.wait("probed", lambda pod: not condition(pod, "Ready"))
    assert statuses(pod)["exec"]["restartCount"] == 0 and statuses(pod)["http"]["ready"], brief(pod)
    node.sh("probed", "touch /tmp/ready", "exec")
    node.running("probed")
    node.remove("probed")


def a_container_whose_liveness_probe_fails_starts_again(node):
    probe = {"exec": {"command": ["test", "!", "-e", "/tmp/ill"]}, "periodSeconds": 1, "failureThreshold": 1}
    node.add("alive", [box(livenessProbe=probe), box("sleep 1000", "beside")])
    first = status(node.running("alive"))["containerID"]
    node.sh("alive", "touch /tmp/ill")
    pod = node.wait("alive", lambda pod: status(pod)["restartCount"] == 1 and status(pod)["ready"])
    last = status(pod)["lastState"]["terminated"]
    assert last["containerID"] == first != status(pod)["containerID"] and last["exitCode"] == 0, last
    assert statuses(pod)["beside"]["restartCount"] == 0
    node.remove("alive")


def a_probe_that_hangs_is_given_up_after_its_timeout(node):
    probe = {"exec": {"command": ["sleep", "600"]}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1}
    node.add("hangs", [box("sleep 1000", livenessProbe=probe)], terminationGracePeriodSeconds=1)
    pod = node.wait("hangs", lambda pod: status(pod)["restartCount"] >= 1)
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 137, brief(pod)
    node.remove("hangs")
    node.gone("hangs")


def a_container_that_crashes_is_started_again_with_growing_pauses(node):
    node.add("crash", [box("echo try; exit 3")])
    pod = node.wait("crash", lambda pod: status(pod)["restartCount"] >= 2 and
                    status(pod)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff", 90)
    last = status(pod)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (3, "Error"), last
    assert node.log("crash", previous="true") == "try\n"
    node.remove("crash")
    node.gone("crash")


def ends_of_pods_that_start_nothing_again(node):
    node.add("done", [box("exit 0"), box("exit 0", "other")], restartPolicy="Never")
    node.add("failed", [box("exit 7")], restartPolicy="Never")
    node.add("again", [box("test -e /data/was || { touch /data/was; exit 1; }",
                           volumeMounts=[{"name": "data", "mountPath": "/data"}])],
             restartPolicy="OnFailure", volumes=[{"name": "data", "emptyDir": {}}])
    assert all(s["state"]["terminated"]["reason"] == "Completed"
               for s in statuses(node.wait("done", phase("Succeeded"))).values())
    assert status(node.wait("failed", phase("Failed")))["state"]["terminated"]["exitCode"] == 7
    assert status(node.wait("again", phase("Succeeded")))["restartCount"] == 1
    for name in ("done", "failed", "again"):
        node.remove(name)
        node.gone(name)


def a_container_without_memory_was_OOMKilled(node):
    limits = {"limits": {"memory": "24Mi", "cpu": "500m"}, "requests": {"memory": "8Mi"}}
    # A shell that stays, so that it is init that dies: a v1 node kills one process, a v2 node the group.
    node.add("hungry", [box("a=x; while :; do a=$a$a$a; done", resources=limits)], restartPolicy="Never")
    last = status(node.wait("hungry", phase("Failed")))["state"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "OOMKilled"), last
    node.remove("hungry")


def what_cannot_be_started_is_told(node):
    node.add("noimage", [box("sleep 1000", image="registry.k8s.io/absent:1")])
    node.add("never", [box("sleep 1000", image="registry.k8s.io/absent:2", imagePullPolicy="Never")])
    node.add("noprogram", [{"name": "main", "image": BUSYBOX, "command": ["/absent"]}])
    node.add("badname", [box("sleep 1000", image="REGISTRY/Bad Name")])
    waiting = lambda *reasons: lambda pod: status(pod)["state"].get("waiting", {}).get("reason") in reasons
    pod = node.wait("noimage", waiting("ErrImagePull", "ImagePullBackOff"))
    node.wait("noimage", waiting("ImagePullBackOff"))
    node.wait("never", waiting("ErrImageNeverPull"))
    node.wait("badname", waiting("InvalidImageName"))
    pod = node.wait("noprogram", lambda pod: status(pod).get("lastState", {}).get("terminated"))
    last = status(pod)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (128, "StartError"), last
    assert "/absent" in last["message"] and "no such file or directory" in last["message"], last
    for name in ("noimage", "never", "badname", "noprogram"):
        node.remove(name)
        node.gone(name)


def a_pod_that_is_removed_ends_by_hook_and_signal_in_its_time(node):
    place = f"{node.share}/graceful"
    os.makedirs(place)
    node.add("graceful", [
        box("trap 'echo term >>/out/log; sleep 1; echo end >>/out/log; exit 0' TERM; while :; do sleep 0.1; done",
            lifecycle={"postStart": {"exec": {"command": ["sh", "-c", "echo post >>/out/log"]}},
                       "preStop": {"exec": {"command": ["sh", "-c", "echo pre >>/out/log; sleep 1"]}}},
            volumeMounts=[{"name": "out", "mountPath": "/out"}])],
        volumes=[{"name": "out", "hostPath": {"path": place}}], terminationGracePeriodSeconds=20)
    node.running("graceful")
    node.remove("graceful")
    node.gone("graceful")
    with open(f"{place}/log") as log:
        assert log.read().split() == ["post", "pre", "term", "end"]


def a_container_that_ignores_its_signal_is_killed_when_its_time_is_up(node):
    node.add("stubborn", [box("trap '' TERM; while :; do sleep 0.1; done")], terminationGracePeriodSeconds=3)
    node.running("stubborn")
    began = time.monotonic()
    node.remove("stubborn")
    node.gone("stubborn")
    assert time.monotonic() - began >= 2.5, "it was killed before its time"


def sidecars_start_first_and_end_last(node):
    place = f"{node.share}/sidecar"
    os.makedirs(place)
    mount = {"volumeMounts": [{"name": "out", "mountPath": "/out"}]}
    says = "echo {0} starts >>/out/log; trap 'echo {0} ends >>/out/log; exit 0' TERM; while :; do sleep 0.1; done"
    node.add("sidecar", [box(says.format("main"), **mount)],
             initContainers=[box(says.format("side"), "side", restartPolicy="Always", **mount,
                                 startupProbe={"exec": {"command": ["grep", "side", "/out/log"]}, "periodSeconds": 1})],
             volumes=[{"name": "out", "hostPath": {"path": place}}], terminationGracePeriodSeconds=20)
    node.running("sidecar")
    node.remove("sidecar")
    node.gone("sidecar")
    with open(f"{place}/log") as log:
        assert log.read().splitlines() == ["side starts", "main starts", "main ends", "side ends"]


def a_manifest_that_changes_is_another_pod(node):
    node.add("changed", [box(env=[{"name": "TURN", "value": "1"}])])
    first = node.running("changed")
    node.add("changed", [box(env=[{"name": "TURN", "value": "2"}])])
    node.wait("changed", lambda pod: pod["metadata"]["uid"] != first["metadata"]["uid"])
    node.running("changed")
    assert node.sh("changed", "echo $TURN") == "2\n"
    node.remove("changed")


def last_words_of_a_container_are_told(node):
    node.add("words", [
        box("echo -n farewell >/dev/termination-log; exit 1"),
        box("echo in the log; exit 1", "log", terminationMessagePolicy="FallbackToLogsOnError")], restartPolicy="Never")
    pod = node.wait("words", phase("Failed"))
    assert status(pod)["state"]["terminated"]["message"] == "farewell"
    assert status(pod, "log")["state"]["terminated"]["message"] == "in the log\n"
    node.remove("words")


def a_pod_whose_pause_dies_is_made_again(node):
    node.add("orphan", [box()])
    first = node.running("orphan")
    (sandbox,) = node.tasks_of(first["metadata"]["uid"]) - {status(first)["containerID"].removeprefix("containerd://")}
    task = node.ctr("tasks", "ls")
    pid = next(line.split()[1] for line in task.splitlines() if line.startswith(sandbox))
    os.kill(int(pid), 9)
    node.wait("orphan", lambda pod: status(pod)["containerID"] != status(first)["containerID"] and status(pod)["ready"], 90)
    node.remove("orphan")
    node.gone("orphan")

