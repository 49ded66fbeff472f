"""A stop is orderly: what is under way is answered, nothing new is taken, and
nobody who idles or dawdles holds it up. The daemon leaves with 0."""

import json
import signal
import socket
import threading
import time

import pytest

import harness

SLOW = harness.SLOW


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


def finish(threads):
    for thread in threads:
        thread.join(60 * SLOW)
        assert not thread.is_alive(), "a request was never answered"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_are_answered(start_daemon, slow_request, number):
    memory, request = slow_request
    daemon = start_daemon("--stop-timeout", int(8 * SLOW))
    assert daemon.put("/v1/memories/m", memory).status == 201
    alone = daemon.request("POST", "/v1/memories/m/attend", request, timeout=60)
    threads, replies = begin(daemon, 4, request)
    before = len(replies)
    start = time.monotonic()
    daemon.signal(number)
    assert daemon.wait(10) == 0
    assert time.monotonic() - start < 10 * SLOW
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
    time.sleep(0.2)
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
    daemon = start_daemon()
    clients = [daemon.client() for _ in range(30)]
    for client in clients:
        assert client.request("GET", "/healthz").status == 200
    silent = [daemon.connect() for _ in range(10)]
    start = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - start < 2 * SLOW
    for connection in silent:
        connection.settimeout(5)
        assert connection.recv(100) == b""
        connection.close()
    for client in clients:
        client.close()


@pytest.mark.parametrize("part", [
    b"POST /v1/attend HT",
    b"POST /v1/attend HTTP/1.1\r\nHost: x\r\n",
    b"POST /v1/attend HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
    b'POST /v1/attend HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"queries":[[1,',
    b"POST /v1/attend HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"qu",
], ids=["line", "head", "no-body", "half-body", "half-chunk"])
def test_half_sent_request_does_not_delay_beyond_the_limit(start_daemon, part):
    daemon = start_daemon("--stop-timeout", 1)
    connections = [daemon.connect() for _ in range(3)]
    for connection in connections:
        connection.sendall(part)
    time.sleep(0.1)
    start = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - start < 1 + 2 * SLOW
    for connection in connections:
        connection.close()


def test_reader_that_never_reads(start_daemon):
    """A client that asks for megabytes and takes none of them."""
    daemon = start_daemon("--stop-timeout", 1)
    rows = [[row / 4096.0] for row in range(4000)]
    assert daemon.put("/v1/memories/m", {"keys": rows, "values": rows}).status == 201
    body = json.dumps({"queries": rows[:500]}).encode()
    connections = []
    for _ in range(3):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", daemon.port))
        head = f"POST /v1/memories/m/attend HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        connections.append(connection)
    time.sleep(0.5)
    start = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - start < 1 + 3 * SLOW
    for connection in connections:
        connection.close()


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
