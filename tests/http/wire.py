"""HTTP by hand: bytes out, bytes in, and what the bytes that came mean.

For tests of what no proper client does, so nothing here uses a client library:
a Wire is a socket that remembers all it read, and parse() reads replies as
RFC 9112 says and fails on what is not one.
"""

import json
import socket
import struct

import harness

HOST = b"Host: test\r\n"


def request(line, *headers, body=b""):
    """b"GET / HTTP/1.1" and header lines, as one request with a Host."""
    return b"\r\n".join([line, HOST[:-2], *headers, b"", body])


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def header(self, name):
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self):
        return harness.strict_json(self.body.decode("utf-8"))

    @property
    def code(self):
        """The code of a problem reply."""
        assert self.header("Content-Type") == "application/problem+json", self
        assert self.json["status"] == self.status
        return self.json["code"]

    def __repr__(self):
        return f"Reply({self.status}, {self.headers}, {self.body[:200]!r})"


def parse_one(data, head_only=False):
    """(Reply, what follows it), or None where the reply is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    lines = data[:end].split(b"\r\n")
    version, status, _ = lines[0].split(b" ", 2)
    assert version == b"HTTP/1.1", lines[0]
    headers = []
    for line in lines[1:]:
        name, value = line.split(b":", 1)
        headers.append((name.decode().lower(), value.strip().decode()))
    status = int(status)
    length = 0
    if status >= 200 and status != 204:
        lengths = [value for name, value in headers if name == "content-length"]
        assert len(lengths) == 1, headers
        length = 0 if head_only else int(lengths[0])
    body = data[end + 4 : end + 4 + length]
    if len(body) < length:
        return None
    return Reply(status, headers, body), data[end + 4 + length :]


def parse(data, head_only=False):
    """All replies in `data`; fails where something is left over."""
    replies = []
    while data:
        parsed = parse_one(data, head_only)
        assert parsed, f"no whole reply: {data[:300]!r}"
        reply, data = parsed
        replies.append(reply)
    return replies


class Wire:
    """A connection. It waits with harness.patience()."""

    def __init__(self, daemon, timeout=10, receive_buffer=None):
        self.timeout = harness.patience(timeout)
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(self.timeout)
        self.socket.connect(("127.0.0.1", daemon.port))
        self.received = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Closes with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data):
        self.socket.sendall(data)
        return self

    def try_send(self, data):
        """Like send(); a daemon that hung up meanwhile is no failure."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def read_some(self, most=1 << 20):
        """False at the end, whether it was orderly or not."""
        try:
            piece = self.socket.recv(most)
        except ConnectionResetError:
            return False
        self.received += piece
        return bool(piece)

    def read_to_end(self):
        """All until the daemon closes; fails where it does not."""
        try:
            while self.read_some():
                pass
        except socket.timeout:
            raise AssertionError(f"still open after {self.timeout} s, got {self.received[:300]!r}") from None
        return self.received

    def replies(self, head_only=False):
        """All replies until the daemon closes."""
        return parse(self.read_to_end(), head_only)

    def reply(self, head_only=False):
        """The next reply; what follows it is kept for the next call."""
        while True:
            parsed = parse_one(self.received, head_only)
            if parsed:
                reply, self.received = parsed
                return reply
            assert self.read_some(), f"closed after {self.received[:300]!r}"

    def ask(self, data, head_only=False):
        return self.send(data).reply(head_only)

    def is_closed(self):
        """True where the daemon has closed already, without waiting."""
        self.socket.settimeout(0)
        try:
            return not self.read_some()
        except BlockingIOError:
            return False
        finally:
            self.socket.settimeout(self.timeout)

    def has_more(self):
        """True where something is there to be read, the end included."""
        return self.is_closed() or bool(self.received)


def exchange(daemon, data, half_close=False):
    """Sends all and reads to the daemon's close."""
    with Wire(daemon) as wire:
        wire.try_send(data)
        if half_close:
            try:
                wire.half_close()
            except OSError:
                pass
        return wire.read_to_end()


def assert_alive(daemon):
    with Wire(daemon) as wire:
        assert wire.ask(request(b"GET /healthz HTTP/1.1")).status == 200


def post(path, body, *headers):
    """A POST of JSON with a Content-Length."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    length = b"Content-Length: %d" % len(body)
    return request(b"POST %s HTTP/1.1" % path.encode(), length, *headers, body=body)


# ---- Requests whose answers are known, small, slow to compute or large ----

SMALL = {"keys": [[1, 0], [0, 1]], "values": [[1], [2]], "queries": [[1, 0]]}


def small():
    return post("/v1/attend", SMALL)


def slow_to_compute():
    """About a second of work, a short reply."""
    rows = [[row % 97 / 97.0, row % 89 / 89.0] for row in range(10_000)]
    hidden = [[0.5, -0.25]] * 64
    return post("/v1/attend", {
        "keys": rows, "values": rows, "queries": rows[:500], "weights": "none",
        "score": {"type": "additive", "w_q": hidden, "w_k": hidden, "v": [0.1] * 64}})


LARGE_REPLY_BYTES = 8 << 20  # at least


def large_reply():
    """A short request whose reply is longer than what sockets hold."""
    keys = [[row / 1000] for row in range(1000)]
    return post("/v1/attend", {"keys": keys, "values": keys, "queries": keys + keys})
