"""What the kubelet tells of its pods: statistics, metrics, events that the runtime's answers feed."""

import client
from node import NODE, box, number_of, ready, status, until

BUSY = "dd if=/dev/zero of=/data/file bs=1M count=8; dd if=/dev/zero of=/root/file bs=1M count=4; while :; do :; done"


def summary_of(name):
    """What /stats/summary has of a pod."""
    for pod in client.get_json("/stats/summary").get("pods", []):
        if pod["podRef"]["name"] == f"{name}-{NODE}":
            return pod
    raise KeyError(name)


def busy(node, name):
    node.add(name, [box(BUSY, volumeMounts=[{"name": "data", "mountPath": "/data"}],
                        resources={"limits": {"cpu": "200m", "memory": "64Mi"}})], volumes=[{"name": "data", "emptyDir": {}}])
    return node.running(name)


def check_summary(name):
    """A summary is whole when each of its parts has been measured."""
    def whole():
        pod = summary_of(name)
        (container,) = pod["containers"]
        assert container["cpu"]["usageNanoCores"] > 50_000_000 and container["cpu"]["usageCoreNanoSeconds"] > 0, container
        assert container["memory"]["workingSetBytes"] > 0 and container["memory"]["rssBytes"] > 0, container
        assert container["rootfs"]["usedBytes"] >= 4 << 20 and container["rootfs"]["capacityBytes"] > 0, container
        assert container["logs"]["usedBytes"] > 0, container
        assert pod["network"]["name"] == "eth0" and pod["network"]["rxBytes"] > 0, pod["network"]
        assert pod["memory"]["workingSetBytes"] >= container["memory"]["workingSetBytes"] // 2 and pod["cpu"]["usageNanoCores"] > 0
        assert pod["volume"][0]["usedBytes"] >= 8 << 20, pod["volume"]
        assert pod["ephemeral-storage"]["usedBytes"] >= 12 << 20, pod["ephemeral-storage"]
        assert pod["process_stats"]["process_count"] >= 1, pod
        return True

    until(f"the summary of {name} is whole", whole, 60)


def pods_and_their_containers_are_measured(node):
    busy(node, "busy")
    check_summary("busy")
    told = client.get_json("/stats/summary")["node"]
    for place in (told["runtime"]["imageFs"], told["fs"]):
        assert 0 < place["availableBytes"] < place["capacityBytes"] and place["inodesFree"] > 0, place
    assert told["runtime"]["imageFs"]["usedBytes"] > 1 << 20, told["runtime"]
    assert told["runtime"].get("containerFs", {}).get("usedBytes", 0) > 0, told["runtime"]
    resource = client.get("/metrics/resource")
    assert number_of(resource, "container_cpu_usage_seconds_total", pod=f"busy-{NODE}", container="main") > 0
    assert number_of(resource, "pod_memory_working_set_bytes", pod=f"busy-{NODE}") > 0
    node.remove("busy")


def the_kubelets_own_collector_names_containers(node):
    pod = busy(node, "watched")
    name = status(pod)["containerID"].removeprefix("containerd://")

    def named():
        text = client.get("/metrics/cadvisor")
        labels = {"pod": f"watched-{NODE}", "namespace": "default", "container": "main"}
        return number_of(text, "container_cpu_usage_seconds_total", name=name, **labels) > 0 and \
            number_of(text, "container_memory_working_set_bytes", image=status(pod)["image"], **labels) > 0 and \
            number_of(text, "container_network_receive_bytes_total", pod=f"watched-{NODE}", interface="eth0") > 0

    until("cAdvisor has them", named, 60)
    node.remove("watched")


def probes_and_calls_are_counted(node):
    node.add("counted", [box(livenessProbe={"exec": {"command": ["true"]}, "periodSeconds": 1})])
    node.running("counted")
    until("a probe is counted", lambda: number_of(
        client.get("/metrics/probes"), "prober_probe_total", pod=f"counted-{NODE}", probe_type="Liveness", result="successful"))
    text = client.get("/metrics")
    for call in ("run_podsandbox", "create_container", "start_container", "podsandbox_status", "version", "status"):
        assert number_of(text, "kubelet_runtime_operations_total", operation_type=call) > 0, call
    assert ready(node.pod("counted"))
    node.remove("counted")
