"""Large uploads, which are stored while they arrive, that end in some other way than
with a 201: nothing of them is left in RAM or in the store. And those that end well,
with other writes beside them, are there whole after a kill -9.
"""

import contextlib
import sqlite3

import numpy
import pytest

import harness
import tensors
import world

ROWS, DIM = 88000, 256  # 90 MB of keys and as much of values
NAME = "/v1/memories/large"
TYPE = {"Content-Type": tensors.MEDIA_TYPE}


@pytest.fixture(scope="module")
def arrays():
    rng = numpy.random.default_rng(5)
    return {name: rng.standard_normal((ROWS, DIM), dtype="<f4") for name in ("keys", "values")}


@pytest.fixture(scope="module")
def body(arrays):
    return tensors.dump(arrays)


def small(key, value):
    return {"keys": [[key]], "values": [[value]]}


def stored_bytes(folder):
    """The log may go while one looks."""
    stored = 0
    for path in folder.glob("store.db*"):
        with contextlib.suppress(FileNotFoundError):
            stored += path.stat().st_size
    return stored


def send(daemon, body, share, headers=""):
    """The connection, after that share of the body."""
    peer = daemon.connect()
    peer.sendall(f"PUT {NAME} HTTP/1.1\r\nHost: here\r\nContent-Type: {tensors.MEDIA_TYPE}\r\n"
                 f"{headers}Content-Length: {len(body)}\r\n\r\n".encode())
    peer.sendall(memoryview(body)[: int(len(body) * share)])
    return peer


def wait_until_stored(folder):
    """Until a slice is in the store, ahead of the rest."""
    harness.wait_until(lambda: stored_bytes(folder) > 60 << 20, 30, "a stored slice")


def chunks(folder):
    """Of a store that nobody has open; (ids that have chunks, chunks)."""
    with sqlite3.connect(folder / "store.db") as database:
        return database.execute("SELECT count(DISTINCT id), count(*) FROM chunk").fetchone()


def test_a_cut_upload(start_daemon, tmp_path, body):
    """Its RAM is given back, and its chunks are swept while the daemon goes on."""
    folder = tmp_path / "data"
    daemon = start_daemon("--data-dir", folder, "--max-ram-bytes", 300 << 20)
    with send(daemon, body, 0.95):
        wait_until_stored(folder)
        assert daemon.get(NAME).status == 404
        # others are not held up by a client that pauses
        for i in range(20):
            assert daemon.put(f"/v1/memories/small-{i}", small(1, 2)).status == 201

    def again():
        reply = daemon.request("PUT", NAME, body, TYPE)
        assert reply.status in (201, 507), reply
        return reply.status == 201

    harness.wait_until(again, 30, "room for the same again")
    world.wait_for_chores(folder)
    assert daemon.stop() == 0
    ids, _ = chunks(folder)
    assert ids == 21, "the cut upload has left chunks"


def test_killed_in_the_middle(start_daemon, tmp_path, body):
    folder = tmp_path / "data"
    daemon = start_daemon("--data-dir", folder)
    with send(daemon, body, 0.95):
        wait_until_stored(folder)
        assert daemon.put("/v1/memories/small", small(1, 2)).status == 201
        daemon.kill()
    daemon.expected_exit = -9
    daemon = start_daemon("--data-dir", folder)
    assert daemon.get(NAME).status == 404
    assert daemon.get("/v1/memories/small").json["rows"] == 1
    assert daemon.stop() == 0
    assert chunks(folder) == (1, 1)


@pytest.mark.parametrize("headers,status", [("If-Match: \"9\"\r\n", 412),
                                            ("If-None-Match: *\r\n", 412), ("", 400)])
def test_refused_in_the_end(start_daemon, tmp_path, body, headers, status):
    """A precondition that held no longer when all had come, or a body with a fault in
    its last row."""
    folder = tmp_path / "data"
    daemon = start_daemon("--data-dir", folder)
    faulty = body[:-4] + b"\0\0\xc0\x7f" if status == 400 else body
    one_row = small(1, 2)
    expects_none = "None" in headers
    if not expects_none:
        for _ in range(9):
            assert daemon.put(NAME, one_row).status in (200, 201)
    with send(daemon, faulty, 0.95, headers) as peer:
        wait_until_stored(folder)
        assert daemon.put(NAME, one_row).status == (201 if expects_none else 200)
        peer.sendall(memoryview(faulty)[int(len(faulty) * 0.95):])
        assert peer.recv(64).startswith(f"HTTP/1.1 {status} ".encode())
    assert daemon.get(NAME).json["rows"] == 1
    world.wait_for_chores(folder)
    assert daemon.stop() == 0
    assert chunks(folder) == (1, 1)


def test_whole_after_kill_9(start_daemon, tmp_path, arrays, body):
    """With other writes between the slices; and replaced once."""
    folder = tmp_path / "data"
    daemon = start_daemon("--data-dir", folder)
    for turn in range(2):
        with send(daemon, body, 0.6) as peer, daemon.client() as client:
            for i in range(60, 100):
                share = memoryview(body)[len(body) * i // 100: len(body) * (i + 1) // 100]
                peer.sendall(share)
                put = client.request("PUT", f"/v1/memories/small-{i}", small(i, turn))
                assert put.status in (200, 201)
            reply = peer.recv(64)
            assert reply.startswith(b"HTTP/1.1 201 " if turn == 0 else b"HTTP/1.1 200 "), reply
    daemon.kill()
    daemon.expected_exit = -9
    daemon = start_daemon("--data-dir", folder)
    assert daemon.get(NAME).json["version"] == 2
    with daemon.client(120) as client:
        memory, reply = world.read(client, "large")
    assert memory, reply
    assert memory.keys.tobytes() == arrays["keys"].tobytes()
    assert memory.values.tobytes() == arrays["values"].tobytes()
    assert daemon.get("/v1/memories/small-99").json["rows"] == 1
    assert daemon.stop() == 0
    assert chunks(folder)[0] == 41
