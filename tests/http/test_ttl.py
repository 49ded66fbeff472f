"""Rows that expire: no answer counts them from that moment on, and they are removed
by a change of their own, over restarts too."""

import json
import threading
import time

import numpy as np
import pytest

import harness
import tensors
from kept_rows import Restartable, is_problem, post_tensors

KEYS, VALUES = [[1, 0], [0, 1]], [[1], [2]]
PAIR = {"keys": KEYS, "values": VALUES}
# What has to be seen before that time is only asked for where it has not come.
SOON = 0.4
# Longer than a restart.
LATER = 2 * min(harness.SLOW, 3)


@pytest.fixture
def path(memory_name):
    return f"/v1/memories/{memory_name}"


def sleep_until(moment):
    time.sleep(max(0, moment - time.monotonic()))


def is_gone(daemon, path, version):
    """Removed by a change of its own."""
    return harness.wait_until(lambda: daemon.get(path).json["version"] > version, 10, "the removal")


def ids_of(daemon, path):
    return [row.get("id") for row in daemon.get(path + "/rows?limit=10000").json["rows"]]


def test_no_answer_counts_them(daemon, path):
    """In each kind of answer, in the very first request after their time."""
    daemon.put(path, {**PAIR, "ids": ["a", "b"], "score": "constant", "normalization": "none"})
    before = time.monotonic()
    reply = daemon.post(path + "/rows", {"keys": [[5, 5]], "values": [[40]], "ids": ["c"], "ttl_seconds": SOON})
    after = time.monotonic()
    told = daemon.post(path + "/attend", {"queries": [[1, 1]]}).json
    if time.monotonic() < before + SOON:
        assert (told["outputs"], len(told["weights"][0])) == ([[43]], 3)
    sleep_until(after + SOON)
    with daemon.client() as client:
        told = client.request("POST", path + "/attend", {"queries": [[1, 1]]}).json
        assert (told["outputs"], told["weights"]) == ([[3]], [[1, 1]])
        assert client.request("GET", path).json["rows"] == 2
        assert client.request("GET", path + "/rows").json["total"] == 2
        (listed,) = [meta for meta in client.request("GET", "/v1/memories").json["memories"]
                     if path.endswith(meta["name"])]
        assert listed["rows"] == 2
        arrays, _ = tensors.load(client.request("GET", path, headers={"Accept": tensors.MEDIA_TYPE}).body)
        assert arrays["keys"].tolist() == KEYS
    is_gone(daemon, path, reply.json["version"])
    assert ids_of(daemon, path) == ["a", "b"]


def test_the_list_does_not_wait_for_the_removal(daemon, memory_names):
    """Many memories expire at once: whoever is removed later is not listed longer."""
    names = [memory_names() for _ in range(20)]
    for name in names:
        daemon.put(f"/v1/memories/{name}", {"key_dim": 2, "value_dim": 1})
    for name in names:
        daemon.post(f"/v1/memories/{name}/rows", {**PAIR, "ttl_seconds": SOON})
    after = time.monotonic()
    sleep_until(after + SOON)
    listed = {meta["name"]: meta["rows"] for meta in daemon.get("/v1/memories").json["memories"]}
    assert [listed[name] for name in names] == [0] * 20


def test_default_of_the_memory(daemon, path):
    """ttl_seconds of a PUT is its rows' and that of appends which say nothing."""
    meta = daemon.put(path, {**PAIR, "ids": ["a", "b"], "ttl_seconds": SOON}).json
    assert meta["ttl_seconds"] == pytest.approx(SOON, abs=1e-9)
    daemon.post(path + "/rows", {"keys": [[1, 1]], "values": [[1]], "ids": ["stays"], "ttl_seconds": 3600})
    daemon.post(path + "/rows", {"keys": [[1, 1]], "values": [[1]], "ids": ["goes"]})
    after = time.monotonic()
    sleep_until(after + SOON)
    assert ids_of(daemon, path) == ["stays"]
    # null ends it for rows to come; those that are there keep their time.
    daemon.post(path + "/rows", {"keys": [[1, 1]], "values": [[1]], "ids": ["late"]})
    after = time.monotonic()
    reply = daemon.request("PATCH", path, {"ttl_seconds": None})
    assert reply.status == 200 and "ttl_seconds" not in reply.json, reply
    daemon.post(path + "/rows", {"keys": [[1, 1]], "values": [[1]], "ids": ["ever"]})
    sleep_until(after + SOON)
    assert ids_of(daemon, path) == ["stays", "ever"]
    reply = daemon.request("PATCH", path, {"ttl_seconds": 0.001})
    assert reply.json["ttl_seconds"] == 0.001 and reply.json["rows"] == 2
    daemon.post(path + "/rows", {"keys": [[1, 1]], "values": [[1]], "ids": ["short"]})
    time.sleep(0.01)
    assert ids_of(daemon, path) == ["stays", "ever"]


def test_an_upsert_sets_the_time_anew(daemon, path):
    daemon.put(path, {"key_dim": 2, "value_dim": 1})
    body = {"keys": [[1, 1], [2, 2], [3, 3]], "values": [[1], [2], [3]], "ids": ["a", "b", "c"]}
    before = time.monotonic()
    daemon.post(path + "/rows", {**body, "ttl_seconds": SOON})
    after = time.monotonic()
    two = {"keys": [[1, 1], [2, 2]], "values": [[1], [2]], "ids": ["a", "b"]}
    reply = daemon.post(path + "/rows", {**two, "ttl_seconds": 3600})
    assert reply.json["rows"] == 3 or (reply.json["rows"] == 2 and time.monotonic() >= before + SOON)
    sleep_until(after + SOON)
    assert ids_of(daemon, path) == ["a", "b"]


def test_null_is_for_ever(daemon, path):
    """Also where the memory has a time of its own."""
    daemon.put(path, {"key_dim": 2, "value_dim": 1, "ttl_seconds": SOON})
    rows = {"keys": KEYS[:1], "values": VALUES[:1]}
    daemon.post(path + "/rows", {**rows, "ids": ["goes"]})
    daemon.post(path + "/rows", {**rows, "ids": ["stays"], "ttl_seconds": None})
    after = time.monotonic()
    sleep_until(after + SOON)
    assert ids_of(daemon, path) == ["stays"]


def test_less_than_a_millisecond(daemon, path):
    """Is not for ever."""
    daemon.put(path, PAIR)
    daemon.post(path + "/rows", {**PAIR, "ttl_seconds": 0.0001})
    time.sleep(0.01)
    assert daemon.get(path).json["rows"] == 2
    meta = daemon.put(path, {**PAIR, "ttl_seconds": 1e-9}).json
    assert 0 < meta["ttl_seconds"] <= 0.001
    time.sleep(0.01)
    assert daemon.get(path).json["rows"] == 0
    is_problem(daemon.post(path + "/attend", {"queries": [[1, 1]]}), 422, "empty_memory")


@pytest.mark.parametrize("seconds", [0, -1, 1e300, "1", [1]], ids=str)
def test_bad_times(daemon, path, seconds):
    daemon.put(path, PAIR)
    meta = daemon.get(path).json
    code = "invalid_parameter" if isinstance(seconds, (int, float)) else "invalid_type"
    body = {"ttl_seconds": seconds}
    for method, where, more in (("PUT", path, PAIR), ("PATCH", path, {}), ("POST", path + "/rows", PAIR)):
        is_problem(daemon.request(method, where, {**more, **body}), 400, code, "/ttl_seconds")
    assert daemon.get(path).json == meta


def test_binary_bodies(daemon, path):
    keys, values = np.array(KEYS, "f4"), np.array(VALUES, "f4")
    body = tensors.dump({"keys": keys, "values": values}, {"request": json.dumps({"ttl_seconds": SOON})})
    daemon.put(path, body, {"Content-Type": tensors.MEDIA_TYPE})
    after = time.monotonic()
    assert post_tensors(daemon, path, keys, values, ttl_seconds=3600).status == 200
    sleep_until(after + SOON)
    assert daemon.get(path).json["rows"] == 2


def test_many_that_expire_while_it_is_written(daemon, path):
    """Waves of rows with times among rows that stay: none is lost, none is left,
    and no answer is wrong in between."""
    daemon.put(path, {"keys": [[1]], "values": [[1]], "score": "constant", "normalization": "none"})
    stop, faults = threading.Event(), []

    def watch():
        with daemon.client() as client:
            while not stop.is_set():
                told = client.request("POST", path + "/attend", {"queries": [[1]]}).json
                if told["outputs"][0][0] != len(told["weights"][0]):
                    faults.append(told)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for wave in range(30):
            rows = [[1]] * 50
            daemon.post(path + "/rows", {"keys": rows, "values": rows, "ttl_seconds": 0.05})
            daemon.post(path + "/rows", {"keys": [[1]], "values": [[1]], "ids": [f"stays-{wave}"]})
        time.sleep(0.06)
        assert daemon.get(path).json["rows"] == 31
    finally:
        stop.set()
        watcher.join()
    assert not faults
    assert ids_of(daemon, path) == [None] + [f"stays-{wave}" for wave in range(30)]


def expire_over_restarts(daemon, kill, later):
    """False if the start took longer than `later`: then nothing can be seen."""
    path = "/v1/memories/m"
    version = daemon.put(path, {"key_dim": 1, "value_dim": 1, "ttl_seconds": 1000}).json["version"]
    before = time.monotonic()
    for id, seconds in (("down", 0.1), ("up", later), ("ever", 3600)):
        daemon.post(path + "/rows", {"keys": [[1]], "values": [[1]], "ids": [id], "ttl_seconds": seconds})
    after = time.monotonic()
    daemon.kill() if kill else daemon.stop()
    time.sleep(0.1)
    daemon.start()
    seen = ids_of(daemon, path)
    harness.wait_until(lambda: daemon.get(path).json["version"] > version + 3, 10, "the removal of the first one")
    if time.monotonic() > before + later:
        return False
    assert seen == ["up", "ever"]
    assert daemon.get(path).json["ttl_seconds"] == 1000
    sleep_until(after + later)
    assert ids_of(daemon, path) == ["ever"]
    harness.wait_until(lambda: daemon.get(path).json["version"] == version + 5, 10, "the other removal")
    daemon.restart(kill)
    assert daemon.get(path).json["version"] == version + 5, "what was removed is removed for good"
    assert ids_of(daemon, path) == ["ever"]
    return True


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_over_restarts(start_daemon, tmp_path, kill):
    """Times are the wall's: what expires while it is down is gone when it is up,
    and what has not, goes at its time."""
    daemon = Restartable(start_daemon, tmp_path / "data")
    assert any(expire_over_restarts(daemon, kill, LATER * longer) for longer in (1, 4, 16)), \
        "a start takes longer than anything that expires"
