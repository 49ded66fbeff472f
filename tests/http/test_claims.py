"""Requests that tell of much and send little. What a header claims takes no RAM: it is
refused where the body can't have it, and otherwise waited for; meanwhile and afterwards
all others are served."""

import json
import resource
import struct
from contextlib import ExitStack

import numpy as np
import pytest

import harness
import tensors
import wire
from test_binary_bodies import resident
from test_scarce_memory import virtual_size

MIB = 1 << 20
BINARY = {"Content-Type": tensors.MEDIA_TYPE}
MOST_BYTES = 1 << 40  # of a body: so that an honest length may be large, too
ROOM = 400 * MIB  # of address space
GROWTH = 64 * MIB  # of what is resident
ROWS = 500_000_000
PATIENT = ("--body-timeout", 3600)  # with clients that stand still


def header(shapes, dtype="F32", size=4):
    """What comes before the numbers of a file with these tensors, and their bytes."""
    table, at = {}, 0
    for name, (rows, cols) in shapes.items():
        table[name] = {"dtype": dtype, "shape": [rows, cols], "data_offsets": [at, at + rows * cols * size]}
        at += rows * cols * size
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text, at


REQUESTS = {
    "put": ("PUT", "/v1/memories/claimed", {"keys": (ROWS, 64), "values": (ROWS, 1)}),
    "put_wide": ("PUT", "/v1/memories/claimed", {"values": (2_000_000, 65536), "keys": (2_000_000, 65536)}),
    "rows": ("POST", "/v1/memories/small/rows", {"keys": (ROWS, 2), "values": (ROWS, 2)}),
    "attend": ("POST", "/v1/memories/small/attend", {"queries": (ROWS, 2)}),
    "ad_hoc": ("POST", "/v1/attend", {"queries": (1, 2), "keys": (ROWS, 2), "values": (ROWS, 1)}),
    "ad_hoc_queries": ("POST", "/v1/attend", {"queries": (ROWS, 2), "keys": (1, 2), "values": (1, 1)}),
}
each_request = pytest.mark.parametrize("method,path,shapes", REQUESTS.values(), ids=REQUESTS)


def head(method, path, framing):
    return wire.request(f"{method} {path} HTTP/1.1".encode(),
                        f"Content-Type: {tensors.MEDIA_TYPE}".encode(), framing)


def of_length(length):
    return b"Content-Length: %d" % length


CHUNKED = b"Transfer-Encoding: chunked"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Watched:
    """A daemon whose memory is limited and looked at, where that can be done."""

    def __init__(self, start_daemon, *flags):
        flags = ("--max-body-bytes", MOST_BYTES, *PATIENT, "--io-threads", 1, "--threads", 2, *flags)
        usual = start_daemon(*flags)
        self.use(usual)
        limit = virtual_size(usual.pid) + ROOM
        usual.stop()
        # a sanitizer or wrapper needs the address space, and memory, for itself
        self.can_look = not harness.WRAP and limit <= 8192 * MIB
        preexec = (lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))) if self.can_look else None
        self.daemon = start_daemon(*flags, preexec=preexec)
        self.use(self.daemon)
        self.before = resident(self.daemon, "VmHWM")

    def use(self, daemon):
        """As others do; each time it has to work."""
        keys = np.arange(2000, dtype="f4").reshape(1000, 2)
        reply = daemon.put("/v1/memories/small", tensors.dump({"keys": keys, "values": keys}), BINARY)
        assert reply.status in (200, 201), reply
        assert daemon.post("/v1/memories/small/rows", {"keys": [[1, 2]], "values": [[3, 4]]}).json["rows"] == 1001
        query = {"queries": [[3, 4]] * 50}
        assert daemon.post("/v1/memories/small/attend", query).status == 200
        assert daemon.post("/v1/attend", {**query, "keys": [[1, 2]], "values": [[5]]}).json["outputs"] == [[5]] * 50
        assert daemon.get("/healthz").status == 200

    def check(self):
        """It works, and has not grown."""
        self.use(self.daemon)
        if self.can_look:
            growth = resident(self.daemon, "VmHWM") - self.before
            assert growth < GROWTH, f"{growth >> 20} MiB"

    def wait_for_requests(self, count):
        """Until so many are under way, beside the one that asks."""
        harness.wait_until(
            lambda: self.daemon.metric("attentiond_requests_in_flight") == count + 1, 30, f"{count} requests")


@pytest.fixture
def watched(start_daemon):
    return Watched(start_daemon)


@each_request
def test_with_nothing_behind_it(watched, method, path, shapes):
    """The body is the header, or hardly more: 400 that says so."""
    start, size = header(shapes)
    for more in (b"", b"\0" * 100):
        with wire.Wire(watched.daemon) as connection:
            reply = connection.ask(head(method, path, of_length(len(start + more))) + start + more)
        assert (reply.status, reply.code) == (400, "invalid_tensors"), reply
        assert reply.json.get("pointer", "") == ""
        assert f"tells of {size} bytes of numbers, the body has {len(more)}" in reply.json["detail"], reply
    watched.check()
    assert watched.daemon.get("/v1/memories/claimed").status == 404


@each_request
def test_in_chunks_with_nothing_behind_it(watched, method, path, shapes):
    start, _ = header(shapes)
    with wire.Wire(watched.daemon) as connection:
        reply = connection.ask(head(method, path, CHUNKED) + chunk(start) + b"0\r\n\r\n")
        assert (reply.status, reply.code) == (400, "invalid_tensors"), reply
    watched.check()


@pytest.mark.parametrize("framing", [of_length(MOST_BYTES // 4), CHUNKED], ids=["length", "chunked"])
def test_refused_before_the_body_has_come(watched, framing):
    """It can't have all that its header tells of, and need not be sent to be told so."""
    start, size = header({"keys": (ROWS, 640), "values": (ROWS, 1)})
    assert size > MOST_BYTES
    body = chunk(start) if framing == CHUNKED else start
    for _ in range(3):
        with wire.Wire(watched.daemon) as connection:
            connection.send(head("PUT", "/v1/memories/claimed", framing) + body)
            reply, = connection.replies()
            assert (reply.status, reply.code) == ((413, "body_too_large") if framing == CHUNKED
                                                  else (400, "invalid_tensors")), reply
            assert f"tells of {size} bytes of numbers" in reply.json["detail"]
    watched.check()


@each_request
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_with_silence_behind_it(watched, method, path, shapes, framing):
    """All of it may still come: it is waited for, with the RAM of what has come. An upload's
    next number is looked at as the first ones were."""
    start, size = header(shapes)
    start += b"\0" * 3000
    nan = b"\0\0\xc0\x7f"
    sent = head(method, path, CHUNKED) + chunk(start) if framing == "chunked" else (
        head(method, path, of_length(len(start) - 3000 + size)) + start)
    with ExitStack() as stack:
        waiting = [stack.enter_context(wire.Wire(watched.daemon)).send(sent) for _ in range(20)]
        watched.wait_for_requests(len(waiting))
        watched.check()
        for connection in waiting:
            assert not connection.is_closed() and connection.received == b""
            if method == "PUT":
                reply = connection.ask(chunk(nan) if framing == "chunked" else nan)
                name, (_, cols) = next(iter(shapes.items()))
                assert (reply.status, reply.code) == (400, "invalid_number"), reply
                assert reply.json["pointer"] == f"/{name}/{750 // cols}/{750 % cols}"
    watched.wait_for_requests(0)
    watched.check()


@pytest.mark.parametrize("first", ["keys", "values"])
def test_rows_of_a_few_numbers_before_large_ones(watched, first):
    """All keys have come, of one number each, and no value: they have 65,536. What they
    take is in proportion to the keys. That all have come is told by the last one."""
    rows = 1_000_000
    second = "values" if first == "keys" else "keys"
    start, size = header({first: (rows, 1), second: (rows, 65536)}, "F16", 2)
    few = np.ones(rows, "f2")
    few[-1] = np.nan
    with wire.Wire(watched.daemon, timeout=60) as connection:
        connection.send(head("PUT", "/v1/memories/claimed", of_length(len(start) + size)) + start + few.tobytes())
        reply = connection.reply()
        assert (reply.status, reply.code) == (400, "invalid_number"), reply
        assert reply.json["pointer"] == f"/{first}/{rows - 1}/0"
    watched.check()


# ---- The RAM of all memories together

LIMIT = 64 * MIB
DIM = 64


def body_of(mebibytes):
    rows = mebibytes * MIB // (2 * DIM * 4)
    numbers = np.zeros((rows, DIM), "f4")
    return tensors.dump({"keys": numbers, "values": numbers})


def put(daemon, name, mebibytes):
    return daemon.put(f"/v1/memories/{name}", body_of(mebibytes), BINARY)


def refused_by_header(daemon, body):
    """The reply to a PUT of which the header has come, and little more."""
    with wire.Wire(daemon) as connection:
        connection.send(head("PUT", "/v1/memories/refused", of_length(len(body))) + body[:1000])
        reply, = connection.replies()
        assert (reply.status, reply.code) == (507, "ram_full"), reply
    assert daemon.get("/v1/memories/refused").status == 404


def send_until_answered(connection, data):
    for at in range(0, len(data), 65536):
        if connection.is_closed() or connection.received or not connection.try_send(data[at:at + 65536]):
            return


def test_what_was_announced_keeps_no_ram_from_others(start_daemon):
    """An upload has the RAM that it has filled. Who finds it used up is refused then."""
    daemon = start_daemon("--max-ram-bytes", LIMIT, *PATIENT)
    body = body_of(50)
    with wire.Wire(daemon) as connection:
        connection.send(head("PUT", "/v1/memories/late", of_length(len(body))) + body[:1000])
        harness.wait_until(lambda: daemon.metric("attentiond_requests_in_flight") == 2, 30, "the upload")
        assert put(daemon, "early", 40).status == 201
        send_until_answered(connection, body[1000:])
        reply = connection.reply()
        assert (reply.status, reply.code) == (507, "ram_full"), reply
        assert str(LIMIT) in reply.json["detail"]
    assert daemon.get("/v1/memories/late").status == 404
    assert put(daemon, "other", 20).status == 201, "what the refused one had is not there again"
    assert daemon.delete("/v1/memories/other").status == 204
    assert daemon.delete("/v1/memories/early").status == 204
    assert put(daemon, "late", 50).status == 201


def test_what_does_not_fit_is_refused_by_its_header(start_daemon):
    """Whether it never could, or not beside what is there."""
    daemon = start_daemon("--max-ram-bytes", LIMIT, *PATIENT)
    assert put(daemon, "there", 40).status == 201
    for mebibytes in (30, 70):
        refused_by_header(daemon, body_of(mebibytes))
    assert put(daemon, "new", 20).status == 201


def test_what_just_fits(start_daemon):
    """RAM for the memory to the byte is enough, however its parts come."""
    shapes = [(64, 64), (1, 40), (40, 1)]
    bodies = [tensors.dump({name: np.zeros((2_000_000 // (dk + dv), dim), "f4") for name, dim in
                            sorted((("keys", dk), ("values", dv)), reverse=turned)})
              for dk, dv in shapes for turned in (False, True)]
    usual = start_daemon()
    for body in bodies:
        takes = usual.put("/v1/memories/m", body, BINARY).json["bytes"]
        exact, little = (start_daemon("--max-ram-bytes", takes - less, *PATIENT) for less in (0, 1))
        assert exact.put("/v1/memories/m", body, BINARY).status == 201
        refused_by_header(little, body)
        assert exact.stop() == little.stop() == 0


def test_broken_uploads_give_back_what_they_had(start_daemon):
    daemon = start_daemon("--max-ram-bytes", LIMIT, *PATIENT)
    body = body_of(50)
    sent = head("PUT", "/v1/memories/cut", of_length(len(body))) + body
    for share in (0.1, 0.5, 0.9, 0.99):
        with wire.Wire(daemon) as connection:
            connection.send(sent[:int(len(sent) * share)])
            harness.wait_until(lambda: daemon.metric("attentiond_requests_in_flight") == 2, 30, "the upload")
            connection.reset()
        harness.wait_until(lambda: daemon.metric("attentiond_requests_in_flight") == 1, 30, "its end")
        assert daemon.get("/v1/memories/cut").status == 404
    assert put(daemon, "whole", 55).status == 201
