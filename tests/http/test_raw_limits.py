"""Limits over bare sockets: time, sizes and the number of connections. A client
that dawdles, sends too much or comes too often is refused or cut off, and
those who behave do not notice."""

import json
import re
import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import harness
import wire
from wire import Wire, request

HEALTH = request(b"GET /healthz HTTP/1.1")
TIMED_OUT = "attentiond_connections_timed_out_total"


def assert_deadline(least, most, attempt):
    """attempt() begins before the daemon's clock does, and ends when the daemon has
    hung up. That is never too soon; deadlines are looked at every 100 ms. How often
    it was tried."""
    tries = []

    def timed():
        start = time.monotonic()
        attempt()
        tries.append(time.monotonic() - start)
        assert tries[-1] >= least - 0.05, f"{tries[-1]:.2f} s, expected {least} to {most} s"
        return tries[-1]

    harness.in_time(most, timed)
    return len(tries)


def drip(connection, data, pause, piece=1):
    """Sends a few bytes at a time until all is sent or the daemon hung up; whether it
    did."""
    for place in range(0, len(data), piece):
        if connection.is_closed() or not connection.try_send(data[place : place + piece]):
            return True
        time.sleep(pause)
    return False


# ---- Time ----


def test_slow_head(start_daemon):
    daemon = start_daemon("--head-timeout", 1)

    def attempt():
        with Wire(daemon) as connection:
            assert drip(connection, HEALTH[:-4] + b"\r\nX-A: " + b"a" * 1000, 0.2)
            assert connection.received == b""

    tries = assert_deadline(1, 2, attempt)
    assert daemon.metric(TIMED_OUT) == tries
    lines = [line for line in daemon.log_lines() if line["event"] == "connection_timed_out"]
    assert [(line["phase"], line["peer"]) for line in lines] == [("head", "127.0.0.1")] * tries


@pytest.mark.parametrize("sent", [b"", b"G", HEALTH[:-2]], ids=["nothing", "a byte", "most of it"])
def test_still_head(start_daemon, sent):
    daemon = start_daemon("--head-timeout", 1)

    def attempt():
        with Wire(daemon) as connection:
            connection.send(sent).read_to_end()

    assert_deadline(1, 2, attempt)


def test_idle_connection(start_daemon):
    """It lives for idle_timeout after each reply, and has then ended without
    being counted as late."""
    daemon = start_daemon("--idle-timeout", 2)
    with Wire(daemon) as connection:
        for _ in range(7):  # far from the limit each time, beyond it together
            assert connection.ask(HEALTH).status == 200
            time.sleep(0.4)

    def attempt():
        with Wire(daemon) as connection:
            assert connection.ask(HEALTH).status == 200
            connection.read_to_end()

    assert_deadline(2, 3, attempt)
    assert daemon.metric(TIMED_OUT) == 0


def test_head_begun_in_an_idle_connection(start_daemon):
    """From its first byte on, a head has head_timeout besides."""
    daemon = start_daemon("--idle-timeout", 1, "--head-timeout", 3)
    with Wire(daemon) as connection:
        assert connection.ask(HEALTH).status == 200
        time.sleep(0.2)
        connection.send(HEALTH[:20])
        time.sleep(1.5)
        assert connection.ask(HEALTH[20:]).status == 200

    def attempt():
        with Wire(daemon) as connection:
            assert connection.ask(HEALTH).status == 200
            time.sleep(0.2)
            assert drip(connection, HEALTH[:-4] + b"\r\nX-A: " + b"a" * 1000, 0.2)

    tries = assert_deadline(3.2, 5, attempt)
    assert daemon.metric(TIMED_OUT) == tries


BODY_OF = {
    "length": lambda size: (b"Content-Length: %d" % size, b" " * size),
    "chunked": lambda size: (b"Transfer-Encoding: chunked", b"%x\r\n" % size + b" " * size + b"\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("framing", BODY_OF)
def test_slow_body(start_daemon, framing):
    daemon = start_daemon("--body-timeout", 1)
    header, body = BODY_OF[framing](100_000)

    def attempt():
        with Wire(daemon) as connection:
            connection.send(request(b"POST /v1/attend HTTP/1.1", header))
            assert drip(connection, body, 0.2)

    tries = assert_deadline(1, 2, attempt)
    assert daemon.metric(TIMED_OUT) == tries


@pytest.mark.parametrize("framing", BODY_OF)
def test_body_that_moves(start_daemon, framing):
    """64 KiB buy a second: some 640 KiB/s may go on far beyond body_timeout."""
    daemon = start_daemon("--body-timeout", 1)
    header, body = BODY_OF[framing](35 * 64 << 10)
    with Wire(daemon) as connection:
        connection.send(request(b"POST /v1/attend HTTP/1.1", header))
        start = time.monotonic()
        assert not drip(connection, body, 0.1, piece=64 << 10)
        assert time.monotonic() - start > 3
        assert connection.reply().code == "invalid_json"
    assert daemon.metric(TIMED_OUT) == 0


def test_slow_reader(start_daemon):
    """Who reads nothing of a large reply is cut off; who reads it slowly, but
    reads it, is not."""
    daemon = start_daemon("--body-timeout", 1)
    with Wire(daemon, receive_buffer=4096) as still, Wire(daemon, timeout=60) as steady:
        still.send(wire.large_reply())
        steady.send(wire.large_reply())
        steady.read_some(65536)
        start = time.monotonic()
        while time.monotonic() - start < 4:
            steady.read_some(65536)
            time.sleep(0.05)
        harness.wait_until(lambda: daemon.metric(TIMED_OUT) == 1, 20, "the still reader to be cut off")
        reply = steady.reply()
        assert reply.status == 200 and len(reply.body) >= wire.LARGE_REPLY_BYTES
        assert len(still.read_to_end()) < wire.LARGE_REPLY_BYTES
    assert daemon.metric(TIMED_OUT) == 1


def test_computing_has_no_deadline(start_daemon):
    daemon = start_daemon("--head-timeout", 1, "--body-timeout", 1, "--idle-timeout", 1, "--threads", 1)
    data = wire.slow_to_compute()
    with ExitStack() as stack:
        # One worker, so that the last ones wait for longer than any timeout.
        connections = [stack.enter_context(Wire(daemon, timeout=60).send(data)) for _ in range(6)]
        for connection in connections:
            assert connection.reply().status == 200
    assert daemon.metric(TIMED_OUT) == 0


# ---- Sizes ----

LIMIT = 5000


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    daemon = harness.Daemon(tmp_path_factory.mktemp("limited"), ("--max-body-bytes", LIMIT))
    yield daemon
    daemon.assert_healthy_end()


def padded(size):
    """A body that is right, of exactly that length."""
    text = json.dumps(wire.SMALL).encode()
    return text + b" " * (size - len(text))


def chunked(body, size=1000):
    chunks = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def test_body_of_exactly_the_limit(limited):
    with Wire(limited) as connection:
        assert connection.ask(wire.post("/v1/attend", padded(LIMIT))).status == 200
        data = request(b"POST /v1/attend HTTP/1.1", b"Transfer-Encoding: chunked", body=chunked(padded(LIMIT)))
        assert connection.ask(data).status == 200


def assert_too_large(replies):
    assert [reply.status for reply in replies] == [413]
    assert replies[0].code == "body_too_large"
    assert replies[0].header("Connection") == "close"


@pytest.mark.parametrize("length", [LIMIT + 1, 10**9, 2**63, 2**64 - 2])
@pytest.mark.parametrize("expect", [b"X: y", b"Expect: 100-continue"], ids=["sends", "waits"])
def test_too_long_by_its_length(limited, length, expect):
    """Refused before any of the body is there."""
    with Wire(limited) as connection:
        connection.send(request(b"POST /v1/attend HTTP/1.1", b"Content-Length: %d" % length, expect))
        assert_too_large(connection.replies())


def test_too_long_but_sent_anyway(limited):
    """The refusal arrives although the client sends on for a while; a close
    with unread bytes would have destroyed it."""
    body = b" " * (8 << 20)
    for _ in range(5):
        with Wire(limited) as connection:
            connection.send(request(b"POST /v1/attend HTTP/1.1", b"Content-Length: %d" % len(body)))
            connection.send(body)
            assert_too_large(connection.replies())


def test_too_long_by_a_little(limited):
    for size in (LIMIT + 1, LIMIT + 1000, 100 * LIMIT):
        with Wire(limited) as connection:
            connection.send(request(
                b"POST /v1/attend HTTP/1.1", b"Transfer-Encoding: chunked", body=chunked(b" " * size)))
            assert_too_large(connection.replies())


def test_too_long_without_end(limited):
    """Who never stops is refused in the middle."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with Wire(limited) as connection:
        connection.send(request(b"POST /v1/attend HTTP/1.1", b"Transfer-Encoding: chunked"))
        for _ in range(100):
            connection.try_send(chunk)
        assert_too_large(connection.replies())


def test_long_chunk_is_not_waited_for(limited):
    """The size of a chunk is a claim; memory comes with the bytes."""
    with Wire(limited) as connection:
        connection.send(request(
            b"POST /v1/attend HTTP/1.1", b"Transfer-Encoding: chunked", body=b"7fffffffffffffff\r\n"))
        for _ in range(100):
            if not connection.try_send(b" " * 65536):
                break
        assert_too_large(connection.replies())


@pytest.mark.parametrize("target", [b"/" + b"a" * 9000, b"/healthz?" + b"&" * 100], ids=["length", "parameters"])
def test_long_target(daemon, target):
    replies = wire.parse(wire.exchange(daemon, request(b"GET %s HTTP/1.1" % target)))
    assert [(reply.status, reply.code) for reply in replies] == [(400, "invalid_request")]
    wire.assert_alive(daemon)


def test_target_within_the_limits(daemon):
    with Wire(daemon) as connection:
        assert connection.ask(request(b"GET /" + b"a" * 8000 + b" HTTP/1.1")).status == 404
        assert connection.ask(request(b"GET /nowhere?" + b"a=%20&" * 10 + b" HTTP/1.1")).status == 404
        assert connection.ask(HEALTH).status == 200


# ---- Numbers ----


def test_many_idle_connections(start_daemon):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 5000:
        pytest.skip("too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5000), hard))
    daemon = start_daemon("--max-connections", 4000)

    def ask_often():
        start = time.monotonic()
        for _ in range(20):
            with Wire(daemon) as connection:
                assert connection.ask(wire.small()).status == 200
        return time.monotonic() - start

    with ExitStack() as stack:
        for number in range(2000):
            connection = stack.enter_context(Wire(daemon))
            if number % 10 == 0:
                assert connection.ask(HEALTH).status == 200
        harness.in_time(2, ask_often)
        harness.wait_until(lambda: daemon.metric("attentiond_connections") <= 2001, 20, "the others to end")
        assert daemon.metric("attentiond_connections") >= 2000
    harness.wait_until(lambda: daemon.metric("attentiond_connections") <= 2, 20, "the connections to end")


def test_descriptors_are_made_room_for(start_daemon):
    """The soft limit of descriptors does not stand in the way."""
    daemon = start_daemon(
        "--max-connections", 300,
        preexec=lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    with ExitStack() as stack:
        connections = [stack.enter_context(Wire(daemon)) for _ in range(200)]
        for connection in connections:
            assert connection.ask(HEALTH).status == 200


def test_short_of_descriptors(start_daemon):
    """Without descriptors new clients wait, and are served when there are
    some again; those who are in do not notice."""
    daemon = start_daemon(
        "--max-connections", 300,
        preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    assert any(line["event"] == "few_descriptors" for line in daemon.log_lines())
    with ExitStack() as stack:
        connections = [stack.enter_context(Wire(daemon)) for _ in range(100)]
        assert connections[0].ask(HEALTH).status == 200
        for connection in connections[:60]:
            connection.close()
        for connection in connections[60:]:
            assert connection.ask(HEALTH).status == 200


def admitted(daemon):
    """A connection that has a place. The ones before it may not have left yet."""

    def ask():
        connection = Wire(daemon)
        if connection.ask(HEALTH).status == 200:
            return connection
        return connection.close()

    return harness.wait_until(ask, 10, "a place")


def test_too_many_connections(start_daemon):
    daemon = start_daemon("--max-connections", 10)
    with ExitStack() as stack:
        held = [stack.enter_context(admitted(daemon)) for _ in range(10)]
        for data in (HEALTH, wire.small(), request(b"POST /v1/attend HTTP/1.1", b"Content-Length: 99999999")):
            with Wire(daemon) as connection:
                connection.send(data)
                replies = connection.replies()
                assert [reply.status for reply in replies] == [503]
                assert replies[0].code == "overloaded"
                assert int(replies[0].header("Retry-After")) >= 1
                assert replies[0].header("Connection") == "close"
        # Those who are in stay in.
        for connection in held:
            assert connection.ask(HEALTH).status == 200
        held[0].close()
        admitted(daemon).close()
        text = held[1].ask(request(b"GET /metrics HTTP/1.1")).body.decode()
        assert "attentiond_connections_refused_total " in text
        assert "attentiond_connections_refused_total 0" not in text


def test_waiting_connection_gets_a_free_place(start_daemon):
    """A place is looked for when the request comes, not when the client does."""
    daemon = start_daemon("--max-connections", 2)

    def open_connections(connection):
        text = connection.ask(request(b"GET /metrics HTTP/1.1")).body.decode()
        return int(re.search(r"^attentiond_connections (\d+)$", text, re.M).group(1))

    with admitted(daemon) as first, admitted(daemon) as second, Wire(daemon) as third:
        harness.wait_until(lambda: open_connections(second) == 3, 10, "the third one to be there")
        first.close()
        harness.wait_until(lambda: open_connections(second) == 2, 10, "the first one to leave")
        assert third.ask(HEALTH).status == 200


def test_flood_beyond_all_limits(start_daemon):
    """Far more connections than are even refused one by one: they wait, and
    the server lives."""
    daemon = start_daemon("--max-connections", 5, "--head-timeout", 1, "--idle-timeout", 1)
    # Beyond its backlog the kernel loses handshakes that a client takes for
    # done, and tries again at doubling intervals: up to a minute of nothing.
    backlog = int(Path("/proc/sys/net/core/somaxconn").read_text())
    count = min(400, max(50, backlog))
    with ExitStack() as stack:
        connections = [stack.enter_context(Wire(daemon, timeout=30)) for _ in range(count)]
        for connection in connections:
            connection.try_send(HEALTH)
        statuses = set()
        for connection in connections:
            received = connection.read_to_end()
            if received:
                statuses.add(wire.parse_one(received)[0].status)
        assert statuses <= {200, 503} and 200 in statuses
    admitted(daemon).close()


def test_full_queue(start_daemon):
    daemon = start_daemon("--threads", 1, "--max-queue", 1)
    with ExitStack() as stack:
        data = wire.slow_to_compute()
        connections = [stack.enter_context(Wire(daemon, timeout=60).send(data)) for _ in range(6)]
        replies = [connection.reply() for connection in connections]
        refused = [reply for reply in replies if reply.status == 503]
        assert 1 <= len(refused) < 6
        assert {reply.status for reply in replies} == {200, 503}
        for reply in refused:
            assert reply.code == "overloaded"
            assert reply.header("Retry-After") == "1"
            assert reply.header("Connection") is None
        # The connection is good for another try.
        kept = connections[replies.index(refused[0])]
        assert kept.ask(wire.small()).status == 200


# ---- Listening ----


def test_ipv6(start_daemon):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    daemon = start_daemon("--listen-address", "::1", wait_ready=False)
    with socket.create_connection(("::1", daemon.port), timeout=harness.patience(10)) as connection:
        connection.sendall(request(b"GET /healthz HTTP/1.1", b"Connection: close"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("address, word", [
    ("localhost", "numeric"), ("127.0.0.1.5", "numeric"), ("", "numeric"), ("192.0.2.1", "interface"),
])
def test_addresses_that_fail(address, word):
    result = harness.run_daemon("--listen-address", address, "--listen-port", 0, "--insecure")
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert any(word in line for line in lines), lines


def test_port_in_use(start_daemon):
    daemon = start_daemon()
    result = harness.run_daemon("--listen-port", daemon.port)
    assert result.returncode != 0
    assert f"127.0.0.1 port {daemon.port}" in result.stderr and "in use" in result.stderr
