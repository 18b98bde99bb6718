"""What a kubelet takes back when a disk is short. Static pods count as critical: it evicts none of them, so what is seen of an
eviction is what precedes it. (Collection by imageGCHighThresholdPercent is the same call, five minutes after a start at the
earliest.)"""

import os

from node import BUSYBOX, box, phase, until

OTHERS = [f"gcr.io/k8s-staging-cri-tools/test-image-{n}:latest" for n in (1, 2, 3)]


def images(node):
    return set(node.ctr("images", "ls", "-q").split())


def use_other_images(node):
    """Pulls them, and returns when no container has them any more."""
    for number, image in enumerate(OTHERS):
        node.add(f"once{number}", [box("exit 0", image=image)], restartPolicy="Never")
    for number in range(len(OTHERS)):
        node.wait(f"once{number}", phase("Succeeded"))
        node.remove(f"once{number}")
    for number in range(len(OTHERS)):
        until("its containers are removed", lambda: not node.containers_of(node.uids[f"once{number}"]), 90)
    assert set(OTHERS) <= images(node)


def images_that_nobody_uses_go_when_their_filesystem_is_almost_full(node):
    node.add("user", [box()])
    node.running("user")
    use_other_images(node)
    node.stop_kubelet()
    place = os.statvfs(node.work)
    much = (place.f_bavail * place.f_frsize >> 20) + (20 << 10)
    try:
        node.start_kubelet(evictionHard={
            "imagefs.available": f"{much}Mi", "nodefs.available": "1Mi", "memory.available": "1Mi"})
        until("they are gone", lambda: not set(OTHERS) & images(node), 90)
        assert BUSYBOX in images(node) and node.running("user")
        assert node.sh("user", "echo here") == "here\n"
        with open(f"{node.work}/kubelet.log") as log:
            assert 'nodeCondition=["DiskPressure"]' in log.read()
        node.remove("user")
        node.gone("user")
    finally:
        node.stop_kubelet()
        node.start_kubelet()
