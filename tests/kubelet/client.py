"""The kubelet's HTTPS API: requests, logs that are followed, and streams over WebSockets and SPDY/3.1.

Certificates are not checked: the kubelet makes its own at each first start. Only the standard library is used.
"""

import base64
import http.client
import json
import os
import queue
import socket
import ssl
import struct
import threading
import urllib.parse
import zlib

HOST, PORT = "127.0.0.1", 10250
PATIENCE = 60


def tls():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection((HOST, PORT), PATIENCE))


def path_of(path, **query):
    """A path with a query; a list becomes several pairs."""
    pairs = [(k, v) for k, value in query.items() for v in (value if isinstance(value, list) else [value])]
    return path + ("?" + urllib.parse.urlencode(pairs) if pairs else "")


def request(method, path, **query):
    """Status and body."""
    connection = http.client.HTTPSConnection(HOST, PORT, timeout=PATIENCE, context=ssl._create_unverified_context())
    try:
        connection.request(method, path_of(path, **query))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def get(path, **query):
    """The body of an answer that must be 200, as text."""
    status, body = request("GET", path, **query)
    assert status == 200, f"GET {path_of(path, **query)}: {status} {body[:300]!r}"
    return body.decode("utf-8", "replace")


def get_json(path, **query):
    return json.loads(get(path, **query))


class Follower:
    """Lines of a log while it grows."""

    def __init__(self, path, **query):
        self.connection = http.client.HTTPSConnection(
            HOST, PORT, timeout=PATIENCE, context=ssl._create_unverified_context())
        self.connection.request("GET", path_of(path, follow="true", **query))
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.status

    def line(self):
        """The next line; None at the end of the stream."""
        return self.answer.readline().decode() or None

    def close(self):
        self.connection.close()


def upgrade(path, headers, method="GET"):
    """A connection on which another protocol is spoken now, its reader, and the headers of the answer."""
    sock = tls()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{PORT}", "Connection: Upgrade"]
    lines += [f"{k}: {v}" for k, v in headers]
    sock.sendall("\r\n".join(lines + ["", ""]).encode())
    reader = sock.makefile("rb")
    status = reader.readline().decode().split(" ", 2)
    answer = {}
    while (line := reader.readline().decode().strip()):
        key, _, value = line.partition(":")
        answer[key.lower()] = value.strip()
    if status[1] != "101":
        body = reader.read(int(answer.get("content-length", 0)))
        sock.close()
        raise Refused(int(status[1]), body.decode("utf-8", "replace"))
    return sock, reader, answer


class Refused(Exception):
    """An upgrade that was answered with an error."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body[:300]}")
        self.status, self.body = status, body


class Channels:
    """Remote commands over a WebSocket: 0 stdin, 1 stdout, 2 stderr, 3 the end, 4 size of the terminal."""

    def __init__(self, path, protocol="v5.channel.k8s.io"):
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock, self.reader, answer = upgrade(path, [
            ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", key),
            ("Sec-WebSocket-Protocol", protocol)])
        self.protocol = answer.get("sec-websocket-protocol")
        self.got = {1: b"", 2: b"", 3: b""}

    def send(self, channel, data):
        self.frame(2, bytes([channel]) + data)

    def end_stdin(self):
        """Version 5 only."""
        self.frame(2, b"\xff\x00")

    def resize(self, width, height):
        self.send(4, json.dumps({"Width": width, "Height": height}).encode())

    def frame(self, opcode, data):
        mask = os.urandom(4)
        size = len(data)
        head = bytes([0x80 | opcode])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 65536:
            head += b"\xfe" + struct.pack(">H", size)
        else:
            head += b"\xff" + struct.pack(">Q", size)
        repeated = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
        self.sock.sendall(head + mask + masked)

    def receive(self):
        """One message into `got`; False at the end."""
        head = self.reader.read(2)
        if len(head) < 2:
            return False
        size = head[1] & 127
        if size > 125:
            size = int.from_bytes(self.reader.read(2 if size == 126 else 8), "big")
        data = self.reader.read(size)
        opcode = head[0] & 15
        if opcode == 8:
            return False
        if opcode == 9:
            self.frame(10, data)
        elif opcode in (0, 1, 2) and data:
            self.got[data[0]] = self.got.get(data[0], b"") + data[1:]
        return True

    def until(self, channel, text):
        """Reads until a channel has said something."""
        while text not in self.got[channel]:
            assert self.receive(), f"ended before {text!r}: {self.got}"

    def to_end(self):
        """Everything until the end: stdout, stderr and the exit code (None if it was not told)."""
        while not self.got[3] and self.receive():
            pass
        while self.receive():
            pass
        self.close()
        return self.got[1], self.got[2], exit_code(self.got[3])

    def close(self):
        self.sock.close()


def exit_code(told):
    """What the error channel of version 4 and later says."""
    if not told:
        return None
    status = json.loads(told)
    if status["status"] == "Success":
        return 0
    for cause in status.get("details", {}).get("causes", []):
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise AssertionError(f"no exit code: {status}")


class Spdy:
    """A SPDY/3.1 connection as kubectl's: streams with a type, and bytes on them. As kubectl's it has no windows; header blocks
    of the peer are not read."""

    SYN_STREAM, SYN_REPLY, RST, PING = 1, 2, 3, 6

    def __init__(self, path, protocol):
        self.sock, self.reader, answer = upgrade(
            path, [("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", protocol)], "POST")
        self.protocol = answer.get("x-stream-protocol-version")
        self.deflate = zlib.compressobj()
        self.next, self.streams, self.lock = 1, {}, threading.Lock()
        threading.Thread(target=self.read, daemon=True).start()

    def open(self, headers, ended=False):
        """A new stream's number; `ended` if nothing will be written."""
        with self.lock:
            number, self.next = self.next, self.next + 2
            self.streams[number] = queue.Queue()
            block = struct.pack(">I", len(headers))
            for k, v in headers.items():
                block += struct.pack(">I", len(k)) + k.encode() + struct.pack(">I", len(v)) + v.encode()
            block = self.deflate.compress(block) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
            self.control(self.SYN_STREAM, struct.pack(">IIH", number, 0, 0) + block, 1 if ended else 0)
            return number

    def control(self, kind, body, flags=0):
        self.sock.sendall(struct.pack(">HHI", 0x8003, kind, flags << 24 | len(body)) + body)

    def write(self, number, data, end=False):
        for at in range(0, len(data), 16384):
            piece = data[at:at + 16384]
            with self.lock:
                self.sock.sendall(struct.pack(">II", number, len(piece)) + piece)
        if end:
            with self.lock:
                self.sock.sendall(struct.pack(">II", number, 1 << 24))

    def read(self):
        try:
            while len(head := self.reader.read(8)) == 8:
                word, rest = struct.unpack(">II", head)
                flags, body = rest >> 24, self.reader.read(rest & 0xFFFFFF)
                if not word & 0x80000000:
                    self.data(word, flags, body)
                elif word & 0xFFFF == self.PING:
                    with self.lock:
                        self.control(self.PING, body)
                elif word & 0xFFFF == self.RST:
                    self.ended(struct.unpack(">I", body[:4])[0])
                elif word & 0xFFFF == self.SYN_REPLY and flags & 1:
                    self.ended(struct.unpack(">I", body[:4])[0])
        except (OSError, ValueError):
            pass
        for stream in list(self.streams.values()):
            stream.put(None)

    def data(self, number, flags, body):
        if body:
            self.streams[number].put(body)
        if flags & 1:
            self.ended(number)

    def ended(self, number):
        if number in self.streams:
            self.streams[number].put(None)

    def all(self, number):
        """Everything that a stream says until it ends."""
        got = b""
        while (piece := self.streams[number].get(timeout=PATIENCE)) is not None:
            got += piece
        return got

    def close(self):
        self.sock.close()
