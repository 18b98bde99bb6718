"""exec, attach, port-forward and logs by the kubelet's API, as kubectl uses them."""

import glob
import gzip
import hashlib
import json
import os
import shutil

import client
from node import NODE, box, ready, status, until


def a_command_says_what_it_has_to_say_and_how_it_ended(node):
    node.add("exec", [box()])
    node.running("exec")
    out, err, code = node.exec("exec", ["sh", "-c", "echo out; echo err >&2; exit 5"]).to_end()
    assert (out, err, code) == (b"out\n", b"err\n", 5)
    assert node.exec("exec", ["sh", "-c", "echo four; exit 4"], protocol="v4.channel.k8s.io").to_end() == (b"four\n", b"", 4)
    assert node.run("exec", "cat /etc/hostname") == (200, "exec-node\n")
    status_, body = node.run("exec", "cat /absent")
    assert status_ == 500 and "exit" in body, (status_, body)
    # 8 MiB through, and the end of stdin is told.
    channels = node.exec("exec", ["md5sum"], input=1)
    data = bytes(range(256)) * 4096
    for _ in range(8):
        channels.send(0, data)
    channels.end_stdin()
    out, _, code = channels.to_end()
    assert code == 0 and out.split()[0].decode() == hashlib.md5(data * 8).hexdigest(), out
    out, _, code = node.exec("exec", ["sh", "-c", "head -c 8388608 /dev/zero; echo end"]).to_end()
    assert code == 0 and len(out) == 8388608 + 4 and out.endswith(b"end\n"), (code, len(out))
    node.remove("exec")


def a_terminal_has_a_size_and_talks(node):
    node.add("terminal", [box()])
    node.running("terminal")
    channels = node.exec("terminal", ["sh"], input=1, tty=1, error=0)
    channels.resize(97, 31)
    channels.send(0, b"until stty size | grep 97; do sleep 0.1; done; echo sum $((40+2))\n")
    channels.until(1, b"sum 42")
    assert b"31 97" in channels.got[1], channels.got
    channels.send(0, b"exit 6\n")
    assert channels.to_end()[2] == 6
    node.remove("terminal")


def a_command_over_spdy(node):
    node.add("spdy", [box()])
    node.running("spdy")
    path = client.path_of(f"/exec/default/spdy-{NODE}/main", command=["sh", "-c", "cat; echo err >&2; exit 9"],
                          input=1, output=1, error=1)
    spdy = client.Spdy(path, "v4.channel.k8s.io")
    assert spdy.protocol == "v4.channel.k8s.io", spdy.protocol
    end, stdin, out, err = (spdy.open({"streamtype": kind}) for kind in ("error", "stdin", "stdout", "stderr"))
    data = b"0123456789abcdef" * 65536
    spdy.write(stdin, data, end=True)
    got = spdy.all(out), spdy.all(err), client.exit_code(spdy.all(end))
    assert got == (data, b"err\n", 9), (len(got[0]), *got[1:])
    spdy.close()
    node.remove("spdy")


def who_attaches_talks_to_the_container(node):
    node.add("attach", [box("while read line; do echo heard $line; done; sleep 1000", stdin=True)])
    node.running("attach")
    channels = client.Channels(client.path_of(f"/attach/default/attach-{NODE}/main", input=1, output=1, error=1))
    channels.send(0, b"something\n")
    channels.until(1, b"heard something")
    channels.close()
    until("the log has it, too", lambda: "heard something" in node.log("attach"))
    node.remove("attach")


def a_port_is_forwarded_for_several_connections(node):
    node.add("forward", [box("mkdir /www; head -c 3000000 /dev/zero | tr '\\0' x >/www/big; echo small >/www/small; "
                             "httpd -f -p 127.0.0.1:8080 -h /www")])
    node.running("forward")
    node.sh("forward", "until wget -q -O - http://127.0.0.1:8080/small; do sleep 0.1; done")
    spdy = client.Spdy(f"/portForward/default/forward-{NODE}", "portforward.k8s.io")
    asked = []
    for request, name in enumerate(("small", "big", "small")):
        head = {"port": "8080", "requestid": str(request)}
        error = spdy.open({**head, "streamtype": "error"}, ended=True)
        data = spdy.open({**head, "streamtype": "data"})
        spdy.write(data, f"GET /{name} HTTP/1.0\r\n\r\n".encode())
        asked.append((name, error, data))
    for name, error, data in asked:
        body = spdy.all(data).split(b"\r\n\r\n", 1)[1]
        assert body == (b"small\n" if name == "small" else b"x" * 3000000), (name, len(body))
        assert spdy.all(error) == b""
    error = spdy.open({"port": "81", "requestid": "9", "streamtype": "error"}, ended=True)
    spdy.open({"port": "81", "requestid": "9", "streamtype": "data"})
    assert b"refused" in spdy.all(error)
    spdy.close()
    node.remove("forward")


def logs_are_read_followed_and_limited(node):
    node.add("logs", [box("for i in 1 2 3; do echo out $i; echo err $i >&2; done; "
                          "until [ -e /tmp/go ]; do sleep 0.1; done; echo later; printf unfinished; sleep 0.2; exit 0")],
             restartPolicy="Never")
    node.running("logs")
    lines = until("the log is there", lambda: (got := node.log("logs").splitlines()) and len(got) == 6 and got)
    assert sorted(lines) == sorted(f"{kind} {i}" for kind in ("out", "err") for i in (1, 2, 3)), lines
    assert node.log("logs", tailLines=1) == lines[-1] + "\n" and node.log("logs", limitBytes=4) == lines[0][:4]
    stamp, _, text = node.log("logs", timestamps="true", tailLines=1).strip().partition(" ")
    assert text == lines[-1] and stamp[10] == "T" and len(stamp) >= 30, stamp
    follower = node.follow("logs", tailLines=0)
    node.sh("logs", "touch /tmp/go")
    assert follower.line() == "later\n" and follower.line() == "unfinished" and follower.line() is None
    assert node.log("logs", tailLines=2) == "later\nunfinished"
    node.remove("logs")


def a_log_is_rotated_and_no_line_is_lost(node):
    script = "i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); [ $((i % 200)) = 0 ] && sleep 0.05; done; sleep 1000"
    node.add("rotated", [box(script)])
    pod = node.running("rotated")
    places = f"{node.work}/logs/default_rotated-{NODE}_{pod['metadata']['uid']}/main/0.log*"
    until("files are turned over and compressed", lambda: any(f.endswith(".gz") for f in glob.glob(places)), 90)
    # The kubelet shows the newest file alone, which may have been begun after the last line.
    numbers = until("the last line is there", lambda: (got := numbers_in(places))[-1:] == [39999] and got, 90)
    assert numbers == list(range(numbers[0], 40000)), f"lines are missing between {numbers[0]} and 39999 ({len(numbers)})"
    assert ready(node.pod("rotated")) and status(node.pod("rotated"))["restartCount"] == 0
    node.remove("rotated")


def numbers_in(places):
    """What the lines of a log that was turned over end with, oldest first; none while a file is being turned over."""
    numbers = []
    try:
        for name in sorted(glob.glob(places), key=lambda n: n.removesuffix(".gz").ljust(200, "z") if n.endswith("0.log") else n):
            with (gzip.open(name, "rt") if name.endswith(".gz") else open(name)) as file:
                numbers += [int(line.split()[-1]) for line in file]
    except (FileNotFoundError, EOFError):
        return []
    return numbers


def a_container_is_checkpointed(node):
    if not shutil.which("criu"):
        return "there is no CRIU"
    node.add("frozen", [box("i=0; while :; do i=$((i+1)); sleep 0.1; done")])
    node.running("frozen")
    code, body = client.request("POST", f"/checkpoint/default/frozen-{NODE}/main")
    assert code == 200, (code, body[:500])
    (archive,) = json.loads(body)["items"]
    assert os.path.getsize(archive) > 10000 and ready(node.running("frozen"))
    node.remove("frozen")
