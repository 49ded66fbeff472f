"""The operator's limits, by every way in: RAM of all memories, how many of them,
their rows and dimensions; disks that are full or fail; data that is damaged."""

import os
import re
import resource
import shutil
import subprocess
import threading

import numpy as np
import pytest

import harness
import tensors
from kept_rows import Restartable, is_problem, post_tensors

BINARY = {"Content-Type": tensors.MEDIA_TYPE}
PAIR = {"keys": [[1, 0], [0, 1]], "values": [[1], [2]], "ids": ["a", "b"]}


def numbers(rows, dim=64):
    """dim numbers a key, as many a value."""
    return {name: np.arange(rows * dim, dtype="f4").reshape(rows, dim) % 97 for name in ("keys", "values")}


def body_of(rows, form, dim=64, **more):
    """(body, headers) of so many rows."""
    arrays = numbers(rows, dim)
    if form == "tensors":
        return tensors.dump(arrays), BINARY
    return {**{name: array.tolist() for name, array in arrays.items()}, **more}, {}


def put(daemon, name, rows, form="tensors", dim=64):
    body, headers = body_of(rows, form, dim)
    return daemon.put(f"/v1/memories/{name}", body, headers)


# ---- RAM

MIB = 1 << 20
ROWS_OF_A_MIB = 2048  # of 2 x 64 numbers


@pytest.fixture
def narrow(start_daemon):
    return start_daemon("--max-ram-bytes", 4 * MIB)


def is_full(reply):
    """It says what is needed and what is left; the numbers of both."""
    is_problem(reply, 507, "ram_full")
    needed, left = map(int, re.findall(r"\d{2,}|\b0\b", reply.json["detail"])[:2])
    assert left < needed, reply
    return needed, left


@pytest.mark.parametrize("form", ["json", "tensors"])
def test_ram(narrow, form):
    """Refused when it is used up, and there again after a delete, a replacement by
    less, or a removal of rows."""
    for name in ("a", "b", "c"):
        assert put(narrow, name, ROWS_OF_A_MIB, form).status == 201
    needed, left = is_full(put(narrow, "d", ROWS_OF_A_MIB, form))
    assert needed >= MIB and left < MIB
    assert narrow.get("/v1/memories/d").status == 404
    body, headers = body_of(ROWS_OF_A_MIB, form)
    is_full(narrow.post("/v1/memories/a/rows", body, headers))
    assert narrow.get("/v1/memories/a").json["rows"] == ROWS_OF_A_MIB
    assert narrow.post("/v1/memories/a/attend", {"queries": [[1] * 64], "weights": "none"}).status == 200

    assert narrow.delete("/v1/memories/b").status == 204
    assert put(narrow, "d", ROWS_OF_A_MIB, form).status == 201
    is_full(put(narrow, "b", ROWS_OF_A_MIB, form))
    assert put(narrow, "d", 10, form).status == 200
    assert put(narrow, "b", ROWS_OF_A_MIB, form).status == 201

    assert put(narrow, "d", 10, form).status == 200
    ids = [str(row) for row in range(1000)]
    reply = post_tensors(narrow, "/v1/memories/d", *numbers(1000).values(), ids)
    assert reply.status == 200, reply
    is_full(post_tensors(narrow, "/v1/memories/d", *numbers(1500).values()))
    assert narrow.request("DELETE", "/v1/memories/d/rows", {"ids": ids}).json["deleted"] == 1000
    assert post_tensors(narrow, "/v1/memories/d", *numbers(1000).values()).status == 200


def test_a_body_larger_than_all_ram(narrow):
    """The binary one by its header."""
    is_full(put(narrow, "m", 3 * 4 * ROWS_OF_A_MIB))
    is_full(put(narrow, "m", 5 * ROWS_OF_A_MIB, "json"))
    assert put(narrow, "m", ROWS_OF_A_MIB).status == 201


def test_ram_does_not_leak(narrow):
    """What a refused, failed or broken request took is given back."""
    for turn in range(12):
        assert put(narrow, "m", 2 * ROWS_OF_A_MIB).status == 201, turn
        is_problem(narrow.put("/v1/memories/m", tensors.dump(numbers(ROWS_OF_A_MIB))[:-5], BINARY), 400,
                   "invalid_tensors")
        is_problem(narrow.put("/v1/memories/m", *body_of(ROWS_OF_A_MIB, "tensors")[:1],
                              {**BINARY, "If-Match": '"0"'}), 412, "precondition_failed")
        is_problem(narrow.post("/v1/memories/none/rows", *body_of(100, "tensors")), 404, "memory_not_found")
        narrow.delete("/v1/memories/m")
    assert put(narrow, "m", 3 * ROWS_OF_A_MIB).status == 201


def test_ram_over_a_restart(start_daemon, tmp_path):
    """What is stored counts; where it is more than the limit, all is loaded and
    nothing can be added until something is deleted."""
    daemon = start_daemon("--data-dir", tmp_path / "data")
    for name in ("a", "b", "c"):
        assert put(daemon, name, ROWS_OF_A_MIB).status == 201
    daemon.stop()
    daemon = start_daemon("--data-dir", tmp_path / "data", "--max-ram-bytes", 2 * MIB)
    assert len(daemon.get("/v1/memories").json["memories"]) == 3
    is_full(put(daemon, "d", 10))
    daemon.delete("/v1/memories/a")
    daemon.delete("/v1/memories/b")
    assert put(daemon, "d", 10).status == 201


# ---- Counts

def test_memories(start_daemon):
    daemon = start_daemon("--max-memories", 3)
    assert [put(daemon, name, 1).status for name in "abc"] == [201] * 3
    for form in ("json", "tensors"):
        reply = put(daemon, "d", 1, form)
        is_problem(reply, 507, "too_many_memories")
        assert "3" in reply.json["detail"]
    is_problem(daemon.put("/v1/memories/d", {"key_dim": 1, "value_dim": 1}), 507, "too_many_memories")
    assert put(daemon, "a", 2).status == 200
    assert daemon.delete("/v1/memories/b").status == 204
    assert put(daemon, "d", 1).status == 201

    statuses = []
    daemon.delete("/v1/memories/d")
    threads = [threading.Thread(target=lambda i=i: statuses.append(put(daemon, f"t{i}", 1).status))
               for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [507] * 7


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    daemon = harness.Daemon(tmp_path_factory.mktemp("small"), ["--max-rows", 5, "--max-dim", 4])
    yield daemon
    daemon.assert_healthy_end()


@pytest.mark.parametrize("form", ["json", "tensors"])
def test_rows(small, form):
    path = f"/v1/memories/{form}"
    assert put(small, form, 5, form, 4).status == 201
    reply = put(small, form, 6, form, 4)
    is_problem(reply, 422, "limit_exceeded", "/keys")
    assert "6" in reply.json["detail"] and "5" in reply.json["detail"]
    assert put(small, form, 4, form, 4).status == 200
    reply = small.post(path + "/rows", *body_of(2, form, 4))
    is_problem(reply, 422, "limit_exceeded")
    assert small.post(path + "/rows", *body_of(1, form, 4)).json["rows"] == 5
    is_problem(small.post(path + "/rows", *body_of(1, form, 4)), 422, "limit_exceeded")
    assert small.get(path).json["rows"] == 5


def test_upserts_at_the_limit(small):
    """Rows that are replaced are no more than before."""
    body = {"keys": [[1]] * 5, "values": [[1]] * 5, "ids": list("abcde")}
    assert small.put("/v1/memories/u", body).status in (200, 201)
    reply = small.post("/v1/memories/u/rows", {**body, "values": [[2]] * 5})
    assert reply.status == 200 and (reply.json["updated"], reply.json["rows"]) == (5, 5), reply
    is_problem(small.post("/v1/memories/u/rows", {**body, "ids": list("abcdf")}), 422, "limit_exceeded")
    assert small.request("DELETE", "/v1/memories/u/rows", {"ids": ["a"]}).json["rows"] == 4
    assert small.post("/v1/memories/u/rows", {**body, "ids": list("bcdef")}).json["rows"] == 5


def test_dimensions(small):
    for form in ("json", "tensors"):
        reply = put(small, "m", 1, form, 5)
        is_problem(reply, 422, "limit_exceeded", "/keys")
        assert "5" in reply.json["detail"] and "4" in reply.json["detail"]
    values = {"keys": np.ones((1, 1), "f4"), "values": np.ones((1, 5), "f4")}
    is_problem(small.put("/v1/memories/m", tensors.dump(values), BINARY), 422, "limit_exceeded", "/values")
    as_json = {name: array.tolist() for name, array in values.items()}
    is_problem(small.put("/v1/memories/m", as_json), 422, "limit_exceeded", "/values")
    for empty in ({"key_dim": 5, "value_dim": 1}, {"key_dim": 1, "value_dim": 5}):
        is_problem(small.put("/v1/memories/m", empty), 422, "limit_exceeded")
        none = {"keys": np.ones((0, empty["key_dim"]), "f4"), "values": np.ones((0, empty["value_dim"]), "f4")}
        is_problem(small.put("/v1/memories/m", tensors.dump(none), BINARY), 422, "limit_exceeded")
    assert small.get("/v1/memories/m").status == 404


# ---- Disks

def can_be_read(daemon, path):
    """Whatever the disk does."""
    assert daemon.get("/healthz").status == 200
    assert daemon.get(path + "/rows").json["total"] == daemon.get(path).json["rows"]
    assert daemon.post(path + "/attend", {"queries": [[1] * 64], "weights": "none"}).status == 200


@pytest.fixture
def little_disk(tmp_path):
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or not mount or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=8m", "none", folder], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("only root can mount a small file system, and not everywhere")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk(start_daemon, little_disk):
    """507, nothing of it happened, reading goes on; with room, writing does too."""
    daemon = Restartable(start_daemon, little_disk / "data")
    path = "/v1/memories/m"
    assert put(daemon, "m", 100).status == 201
    ballast = little_disk / "ballast"
    free = os.statvfs(little_disk)
    ballast.write_bytes(b"x" * (free.f_bavail * free.f_bsize - 300_000))
    before = daemon.get(path).json
    refused = [put(daemon, "other", 20_000), daemon.post(path + "/rows", *body_of(5_000, "tensors"))]
    for reply in refused:
        is_problem(reply, 507, "storage_full")
    for _ in range(200):  # small ones fit for a while
        reply = daemon.post(path + "/rows", *body_of(20, "tensors"))
        if reply.status != 200:
            break
        before = daemon.get(path).json
    is_problem(reply, 507, "storage_full")
    assert daemon.get(path).json == before and daemon.get("/v1/memories/other").status == 404
    is_problem(daemon.get("/v1/backup"), 507, "storage_full")
    can_be_read(daemon, path)
    ballast.unlink()
    reply = daemon.post(path + "/rows", *body_of(20, "tensors"))
    assert reply.status == 200 and reply.json["rows"] == before["rows"] + 20, reply
    rows = daemon.get(path + "/rows?limit=10000").json
    daemon.restart(kill=True)
    assert daemon.get(path + "/rows?limit=10000").json == rows


def test_failing_disk(start_daemon, tmp_path):
    """A file that may not grow any more is an error of the disk: 503 from then on,
    reading goes on, and what was acknowledged is there after a restart."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))

    path = "/v1/memories/m"
    daemon = start_daemon("--data-dir", tmp_path / "data", "--log-level", "warning", preexec=limit)
    assert put(daemon, "m", 100).status == 201
    for _ in range(400):
        total = daemon.get(path).json["rows"]
        reply = daemon.post(path + "/rows", *body_of(200, "tensors"))
        if reply.status != 200:
            break
    is_problem(reply, 503, "store_failed")
    assert "Retry-After" in reply.headers
    is_problem(daemon.get("/readyz"), 503, "store_failed")
    assert daemon.get(path).json["rows"] == total
    for method, where, body in (("PUT", path, PAIR), ("PATCH", path, {"score": "dot"}), ("DELETE", path, None),
                                ("DELETE", path + "/rows", {"ids": ["a"]})):
        reply = daemon.request(method, where, body)
        assert reply.status == 503 or (method, where) == ("DELETE", path + "/rows"), (method, where, reply)
    can_be_read(daemon, path)
    daemon.stop()
    daemon = start_daemon("--data-dir", tmp_path / "data")
    assert daemon.get(path).json["rows"] == total
    assert daemon.post(path + "/rows", *body_of(200, "tensors")).json["rows"] == total + 200


# ---- Damage

def flip(data_dir, pattern):
    """Changes a bit within each place of the pattern in the stopped store."""
    places = 0
    for file in data_dir.iterdir():
        data = bytearray(file.read_bytes())
        at = data.find(pattern)
        while at >= 0:
            data[at + len(pattern) // 2] ^= 1
            places += 1
            at = data.find(pattern, at + len(pattern))
        file.write_bytes(data)
    return places


def test_damage(start_daemon, tmp_path):
    """A flipped bit of one memory is found at the start and said; the others are
    served, and the damaged one can be replaced or deleted."""
    daemon = Restartable(start_daemon, tmp_path / "data")
    for number, name in enumerate(("one", "two", "three")):
        body = {"keys": [[row, 0.125 * number] for row in range(100)],
                "values": [[1000 * number + row + 0.5] for row in range(100)]}
        assert daemon.put(f"/v1/memories/{name}", body).status == 201
    versions = {meta["name"]: meta["version"] for meta in daemon.get("/v1/memories").json["memories"]}
    told = daemon.post("/v1/memories/one/attend", {"queries": [[1, 2]]}).body
    daemon.stop()
    for number in (1, 2):
        pattern = np.arange(1000 * number + 0.5, 1000 * number + 20, dtype="f4").tobytes()
        assert flip(tmp_path / "data", pattern) >= 1
    daemon.start()
    assert daemon.post("/v1/memories/one/attend", {"queries": [[1, 2]]}).body == told
    for name in ("two", "three"):
        path = f"/v1/memories/{name}"
        for method, where, body in (("GET", "", None), ("GET", "/rows", None),
                                    ("POST", "/attend", {"queries": [[1, 2]]}),
                                    ("POST", "/rows", {"keys": [[1, 2]], "values": [[1]]}),
                                    ("DELETE", "/rows", {"ids": ["a"]}), ("PATCH", "", {"score": "dot"})):
            is_problem(daemon.request(method, path + where, body), 500, "memory_damaged")
    listed = {meta["name"]: meta for meta in daemon.get("/v1/memories").json["memories"]}
    assert [name for name in listed if "damaged" in listed[name]] == ["three", "two"]
    assert any(line.get("event") == "memory_damaged" or "memory_damaged" in line.values()
               for line in daemon.log_lines())
    reply = daemon.put("/v1/memories/two", PAIR)
    assert reply.status == 200 and reply.json["version"] > versions["two"], reply
    assert daemon.delete("/v1/memories/three").status == 204
    daemon.restart()
    assert [meta["name"] for meta in daemon.get("/v1/memories").json["memories"]] == ["one", "two"]
    assert daemon.get("/v1/memories/two").json["rows"] == 2
