"""What a container finds: volumes, names, users, namespaces, limits."""

import os

from node import box, maps_owners, ready, status, until


def volumes_of_all_kinds_are_mounted(node):
    place = f"{node.share}/volumes"
    os.makedirs(f"{place}/sub/deep")
    with open(f"{place}/file", "w") as file:
        file.write("of the host\n")
    node.add("volumes", [box(
        env=[{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
             {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
             {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}],
        resources={"limits": {"memory": "64Mi"}},
        volumeMounts=[
            {"name": "memory", "mountPath": "/memory"}, {"name": "host", "mountPath": "/host", "readOnly": True},
            {"name": "host", "mountPath": "/sub", "subPath": "sub"}, {"name": "file", "mountPath": "/file"},
            {"name": "disk", "mountPath": "/expr", "subPathExpr": "$(NAME)"}, {"name": "disk", "mountPath": "/disk"},
            {"name": "facts", "mountPath": "/facts"},
            {"name": "host", "mountPath": "/strict", "readOnly": True, "recursiveReadOnly": "IfPossible"},
            {"name": "made", "mountPath": "/made"}])],
        labels={"colour": "blue"},
        volumes=[
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}}, {"name": "disk", "emptyDir": {}},
            {"name": "host", "hostPath": {"path": place, "type": "Directory"}},
            {"name": "file", "hostPath": {"path": f"{place}/file", "type": "File"}},
            {"name": "made", "hostPath": {"path": f"{place}/made", "type": "DirectoryOrCreate"}},
            {"name": "facts", "downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "requests.cpu"}}]}}])
    pod = node.running("volumes")
    sh = lambda script: node.sh("volumes", script).strip()
    assert sh("cat /file /host/file") == "of the host\nof the host"
    assert sh("touch /host/x 2>/dev/null || echo refused") == sh("touch /strict/sub/x 2>/dev/null || echo refused") == "refused"
    assert sh("stat -f -c %T /memory") == "tmpfs" and int(sh("stat -f -c '%b' /memory")) * 4096 <= 4 << 20
    assert sh("echo here >/expr/x; cat /disk/volumes-node/x") == "here"
    assert sh("touch /sub/new /made/new; ls -d /sub/deep") == "/sub/deep" and os.path.exists(f"{place}/sub/new")
    assert 'colour="blue"' in sh("cat /facts/labels") and sh("cat /facts/cpu") == "0"
    assert sh("echo $NAME $IP $LIMIT") == f"volumes-node {pod['status']['podIP']} 64"
    node.remove("volumes")
    node.gone("volumes")
    assert os.path.exists(f"{place}/made/new")


def an_image_is_a_volume(node):
    image = "registry.k8s.io/e2e-test-images/httpd:2.4.39-4"
    node.add("imagevolume", [box(volumeMounts=[
        {"name": "image", "mountPath": "/image", "readOnly": True},
        {"name": "image", "mountPath": "/www", "subPath": "srv/www", "readOnly": True}])],
        volumes=[{"name": "image", "image": {"reference": image, "pullPolicy": "IfNotPresent"}}])
    node.running("imagevolume")
    assert "httpd" in node.sh("imagevolume", "cat /image/srv/www/index.html /www/index.html")
    assert node.sh("imagevolume", "touch /www/x 2>/dev/null || echo refused") == "refused\n"
    node.remove("imagevolume")
    node.gone("imagevolume")


def mounts_made_on_the_host_and_in_a_container_are_seen_by_each_other(node):
    place = f"{node.share}/spread"
    os.makedirs(f"{place}/a")
    os.makedirs(f"{place}/b")
    volume = [{"name": "spread", "hostPath": {"path": place}}]
    node.add("spread", [
        box(name="two", securityContext={"privileged": True},
            volumeMounts=[{"name": "spread", "mountPath": "/spread", "mountPropagation": "Bidirectional"}]),
        box(name="one", volumeMounts=[{"name": "spread", "mountPath": "/spread", "mountPropagation": "HostToContainer"}])],
        volumes=volume)
    node.running("spread")
    node.sh("spread", "mount -t tmpfs none /spread/a && echo inner >/spread/a/x", "two")
    assert node.sh("spread", "cat /spread/a/x", "one") == "inner\n"
    with open(f"{place}/a/x") as file:
        assert file.read() == "inner\n"
    node.sh("spread", "umount /spread/a", "two")
    node.remove("spread")
    node.gone("spread")


def names_and_addresses_are_those_of_the_pod(node):
    node.add("names", [box()], hostname="rose", subdomain="garden",
             hostAliases=[{"ip": "10.9.8.7", "hostnames": ["thorn"]}], dnsPolicy="None",
             dnsConfig={"nameservers": ["10.1.2.3"], "searches": ["a.test"], "options": [{"name": "ndots", "value": "3"}]})
    node.add("cluster", [box()], dnsPolicy="ClusterFirst")
    pod = node.running("names")
    sh = lambda script: node.sh("names", script)
    assert sh("hostname").strip() == "rose"
    assert sh("cat /etc/resolv.conf").split() == "search a.test nameserver 10.1.2.3 options ndots:3".split()
    hosts = sh("cat /etc/hosts")
    assert "10.9.8.7\tthorn" in hosts and f"{pod['status']['podIP']}\trose.garden.default.svc.cluster.local" in hosts, hosts
    assert pod["status"]["podIP"] in sh("ip -4 addr show eth0")
    node.running("cluster")
    assert "nameserver 10.96.0.10" in node.sh("cluster", "cat /etc/resolv.conf")
    node.remove("names")
    node.remove("cluster")


def a_port_of_the_host_leads_to_a_pod_and_pods_to_each_other(node):
    serve = "mkdir /www; echo {0} >/www/index.html; httpd -f -p 80 -h /www"
    node.add("served", [box(serve.format("served"), ports=[{"containerPort": 80, "hostPort": 8088, "hostIP": "10.213.90.1"}])])
    node.add("asks", [box()])
    pod = node.running("served")
    node.running("asks")
    assert node.sh("asks", f"wget -q -O - http://{pod['status']['podIP']}") == "served\n"
    assert node.sh("asks", "wget -q -O - http://10.213.90.1:8088") == "served\n"
    node.remove("served")
    node.remove("asks")
    node.gone("served")


def namespaces_are_the_hosts_if_that_is_asked_for(node):
    node.add("hosts", [box("httpd -f -p 8099 -h /bin")], hostNetwork=True, hostPID=True, hostIPC=True)
    node.add("shared", [box("sleep 4321", "one"), box(name="two")], shareProcessNamespace=True)
    node.running("hosts")
    assert "10.213.90.1" in node.sh("hosts", "ip address")
    for kind in ("net", "pid", "ipc"):
        assert node.sh("hosts", f"readlink /proc/self/ns/{kind}").strip() == os.readlink(f"/proc/self/ns/{kind}"), kind
    node.running("shared")
    assert "sleep 4321" in node.sh("shared", "ps", "two")
    node.remove("hosts")
    node.remove("shared")


def a_pod_has_users_of_its_own(node):
    if not maps_owners():
        return "runc cannot map the owners of mounts (1.2 can)"
    place = f"{node.share}/userns"
    os.makedirs(place)
    os.chmod(place, 0o777)
    node.add("userns", [box("touch /out/mine; echo x >/disk/x; while :; do sleep 0.1; done", volumeMounts=[
        {"name": "out", "mountPath": "/out"}, {"name": "disk", "mountPath": "/disk"},
        {"name": "facts", "mountPath": "/facts"}])],
        hostUsers=False, volumes=[{"name": "out", "hostPath": {"path": place}}, {"name": "disk", "emptyDir": {}},
                                  {"name": "facts", "downwardAPI": {"items": [
                                      {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}])
    node.running("userns")
    first, host, size = node.sh("userns", "cat /proc/self/uid_map").split()
    assert first == "0" and int(host) >= 65536 and size == "65536", (first, host, size)
    told = node.sh("userns", "id -u; cat /facts/name; echo; stat -c %u /disk/x").split()
    assert told == ["0", "userns-node", "0"], told
    # The kubelet asks for mounts with the pod's ids: on the host the files are root's.
    assert os.stat(f"{place}/mine").st_uid == 0
    assert node.run("userns", "id -u")[1] == "0\n"
    node.remove("userns")
    node.gone("userns")


def security_contexts_are_kept(node):
    node.add("secure", [box(securityContext={
        "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
        volumeMounts=[{"name": "disk", "mountPath": "/disk"}])],
        securityContext={"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456, "supplementalGroups": [4567],
                         "seccompProfile": {"type": "RuntimeDefault"},
                         "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"},
                                     {"name": "net.core.somaxconn", "value": "777"}]},
        volumes=[{"name": "disk", "emptyDir": {}}])
    node.add("strong", [box(securityContext={"privileged": True})])
    node.add("root", [box(securityContext={"runAsNonRoot": True})])
    node.running("secure")
    sh = lambda script: node.sh("secure", script).strip()
    assert sh("id -u; id -g; id -G").split() == ["1234", "2345", "2345", "3456", "4567"]
    told = dict(line.split(":\t") for line in sh("grep -E '^(NoNewPrivs|Seccomp|CapBnd|CapEff):' /proc/self/status").splitlines())
    assert told == {"NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0000000000000400", "CapEff": "0000000000000000"}, told
    assert sh("touch /x 2>/dev/null || echo refused") == "refused" and sh("touch /disk/x; stat -c %g /disk/x") == "3456"
    assert sh("cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/ip_unprivileged_port_start").split() == ["777", "80"]
    node.running("strong")
    assert node.sh("strong", "grep CapEff /proc/self/status; ls /dev/kmsg; mount -t tmpfs none /mnt && echo mounted").split()[-1] == "mounted"
    pod = node.wait("root", lambda pod: status(pod)["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError")
    assert "root" in status(pod)["state"]["waiting"]["message"]
    for name in ("secure", "strong", "root"):
        node.remove(name)


def limits_are_those_of_the_control_group(node):
    limits = {"limits": {"memory": "48Mi", "cpu": "250m"}, "requests": {"memory": "48Mi", "cpu": "250m"}}
    node.add("limits", [box(resources=limits)])
    pod = node.running("limits")
    assert pod["status"]["qosClass"] == "Guaranteed"
    uid, container = pod["metadata"]["uid"], status(pod)["containerID"].removeprefix("containerd://")
    group = f"{node.cgroup}/kubepods/pod{uid}/{container}"
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        memory, cpu = f"/sys/fs/cgroup{group}/memory.max", f"/sys/fs/cgroup{group}/cpu.max"
    else:
        memory, cpu = f"/sys/fs/cgroup/memory{group}/memory.limit_in_bytes", f"/sys/fs/cgroup/cpu{group}/cpu.cfs_quota_us"
    with open(memory) as file:
        assert int(file.read()) == 48 << 20
    with open(cpu) as file:
        assert file.read().split()[0] == "25000"
    told = status(pod).get("resources", {}).get("limits", {})
    assert told == {"memory": "48Mi", "cpu": "250m"}, told
    node.remove("limits")
    node.gone("limits")
    until("its group is gone", lambda: not os.path.exists(os.path.dirname(os.path.dirname(memory))))
    assert ready(pod)
