"""A stop is orderly: what is under way is answered, nothing new is taken, and
nobody who idles or dawdles holds it up. The daemon leaves with 0."""

import json
import signal
import threading
import time
from contextlib import ExitStack

import pytest

import harness
import wire


@pytest.fixture(scope="module")
def slow_request():
    """(memory, request): a batch that takes a good part of a second."""
    rows = [[row % 97 / 97.0, row % 89 / 89.0] for row in range(20_000)]
    hidden = [[0.5, -0.25]] * 64
    memory = {"keys": rows, "values": rows, "score": {
        "type": "additive", "w_q": hidden, "w_k": hidden, "v": [0.1] * 64}}
    return json.dumps(memory), json.dumps({"queries": rows[:200], "weights": "none"})


def begin(daemon, count, body, path="/v1/memories/m/attend"):
    """`count` requests on threads of their own; returns threads and replies.
    Comes back when all are counted as in flight, beside the one that asks for the
    count, or some are answered."""
    replies = []

    def ask():
        try:
            replies.append(daemon.request("POST", path, body, timeout=60))
        except OSError as error:
            replies.append(error)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    harness.wait_until(
        lambda: replies or daemon.metric("attentiond_requests_in_flight") > count, 20, "requests in flight")
    return threads, replies


def seconds_to_stop(daemon):
    start = time.monotonic()
    assert daemon.stop() == 0
    return time.monotonic() - start


def finish(threads):
    for thread in threads:
        thread.join(harness.patience(60))
        assert not thread.is_alive(), "a request was never answered"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_are_answered(start_daemon, slow_request, number):
    memory, request = slow_request
    daemon = start_daemon("--stop-timeout", 3600)
    assert daemon.put("/v1/memories/m", memory).status == 201
    start = time.monotonic()
    alone = daemon.request("POST", "/v1/memories/m/attend", request, timeout=60)
    seconds_alone = time.monotonic() - start
    threads, replies = begin(daemon, 4, request)
    before = len(replies)
    start = time.monotonic()
    daemon.signal(number)
    assert daemon.wait(30) == 0
    assert time.monotonic() - start < max(10 * harness.SLOW, 20 * seconds_alone)
    finish(threads)
    assert before < 4, "all was answered before the signal: the requests are too short to test anything"
    for reply in replies:
        assert not isinstance(reply, OSError), repr(reply)
        assert reply.status == 200 and reply.body == alone.body


def test_no_new_connections(start_daemon, slow_request):
    """While old requests are still worked on, a new client is turned away."""
    memory, request = slow_request
    daemon = start_daemon("--threads", 1)
    assert daemon.put("/v1/memories/m", memory).status == 201
    threads, _ = begin(daemon, 3, request)
    daemon.signal(signal.SIGTERM)

    def refused():
        try:
            with daemon.connect(timeout=2):
                return False
        except OSError:
            return True

    assert harness.wait_until(refused, 5, "connections to be refused")
    assert daemon.wait(10) == 0
    finish(threads)


def test_ready_is_withdrawn(start_daemon, slow_request):
    """An old connection may still ask, and learns that the server is leaving,
    or is closed; it never gets a 200 for being ready."""
    memory, request = slow_request
    daemon = start_daemon("--threads", 1)
    assert daemon.put("/v1/memories/m", memory).status == 201
    client = daemon.client()
    assert client.request("GET", "/readyz").status == 200
    threads, _ = begin(daemon, 3, request)
    daemon.signal(signal.SIGTERM)
    harness.wait_until(lambda: '"stopping"' in daemon.log(), 10, "the stop to begin")
    try:
        reply = client.request("GET", "/readyz")
        assert reply.status == 503 and reply.json["code"] == "not_ready"
        assert reply.headers["Retry-After"]
    except (OSError, harness.http.client.HTTPException):
        pass
    client.close()
    assert daemon.wait(10) == 0
    finish(threads)


def test_idle_connections_do_not_delay(start_daemon):
    def attempt():
        daemon = start_daemon("--stop-timeout", 3600)
        clients = [daemon.client() for _ in range(30)]
        for client in clients:
            assert client.request("GET", "/healthz").status == 200
        silent = [daemon.connect() for _ in range(10)]
        seconds = seconds_to_stop(daemon)
        for connection in silent:
            assert connection.recv(100) == b""
            connection.close()
        for client in clients:
            client.close()
        return seconds

    harness.in_time(2, attempt)


@pytest.mark.parametrize("part", [
    b"POST /v1/attend HT",
    b"POST /v1/attend HTTP/1.1\r\nHost: x\r\n",
    b"POST /v1/attend HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
    b'POST /v1/attend HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"queries":[[1,',
    b"POST /v1/attend HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"qu",
], ids=["line", "head", "no-body", "half-body", "half-chunk"])
def test_half_sent_request_does_not_delay_beyond_the_limit(start_daemon, part):
    begun = 3 * (b"\r\n\r\n" in part)  # a request is one when its head is there

    def attempt():
        daemon = start_daemon("--stop-timeout", 1)
        connections = [daemon.connect() for _ in range(3)]
        for connection in connections:
            connection.sendall(part)
        harness.wait_until(lambda: daemon.metric("attentiond_connections") >= 4, 10, "the connections")
        harness.wait_until(
            lambda: daemon.metric("attentiond_requests_in_flight") > begun, 10, "the requests to begin")
        seconds = seconds_to_stop(daemon)
        for connection in connections:
            connection.close()
        return seconds

    harness.in_time(3, attempt)


def test_reader_that_never_reads(start_daemon):
    """A client that asks for megabytes and takes none of them."""
    rows = [[row / 4096.0] for row in range(4000)]
    body = json.dumps({"queries": rows[:500]}).encode()

    def attempt():
        daemon = start_daemon("--stop-timeout", 1)
        assert daemon.put("/v1/memories/m", {"keys": rows, "values": rows}).status == 201
        with ExitStack() as stack:
            for _ in range(3):
                connection = stack.enter_context(wire.Wire(daemon, timeout=60, receive_buffer=4096))
                connection.send(wire.post("/v1/memories/m/attend", body))
                assert connection.read_some(1)
            return seconds_to_stop(daemon)

    harness.in_time(4, attempt)


def test_clients_that_left(start_daemon, slow_request):
    """Their requests may be computed or dropped; the stop isn't held up."""
    memory, request = slow_request
    daemon = start_daemon()
    assert daemon.put("/v1/memories/m", memory).status == 201
    head = f"POST /v1/memories/m/attend HTTP/1.1\r\nHost: x\r\nContent-Length: {len(request)}\r\n\r\n"
    for _ in range(4):
        with daemon.connect() as connection:
            connection.sendall(head.encode() + request.encode())
            time.sleep(0.05)
    assert daemon.get("/healthz").status == 200
    assert daemon.stop() == 0


def test_signals_repeated(start_daemon):
    """A second signal, of either kind, doesn't make it worse."""
    daemon = start_daemon()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        if daemon.process.poll() is None:
            daemon.signal(number)
    assert daemon.wait(10) == 0


def test_stop_right_after_the_start(start_daemon):
    for _ in range(3):
        daemon = start_daemon(wait_ready=False)
        assert daemon.stop() == 0


def test_broken_pipes_are_survived(start_daemon):
    daemon = start_daemon()
    daemon.signal(signal.SIGPIPE)
    for _ in range(5):
        with daemon.connect() as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    assert daemon.get("/healthz").status == 200


def test_stop_is_logged(start_daemon):
    daemon = start_daemon("--log-level", "info")
    assert daemon.stop() == 0
    events = [line["event"] for line in daemon.log_lines()]
    assert "listening" in events and any("stop" in event for event in events), events
