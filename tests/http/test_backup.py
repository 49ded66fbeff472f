"""Backups that are taken while it is written, what is restored from them, and what
is refused; memories of the configuration beside a store; one daemon per store."""

import json
import os
import stat
import threading

import numpy as np
import pytest

import harness
import tensors
import wire
from kept_rows import Restartable, is_problem
from test_limits import flip

PAIR = {"keys": [[1, 0], [0, 1]], "values": [[1], [2]], "ids": ["a", "b"]}


def restore(folder, file):
    return harness.run_daemon("--data-dir", folder, "--restore", file, timeout=30)


def contents(folder):
    """But for the lock, which says who had it last."""
    return {path: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def refused(folder, file, *words):
    """One clear line, and the folder is as it was."""
    before = contents(folder) if folder.exists() else {}
    done = restore(folder, file)
    assert done.returncode != 0 and not done.stdout, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("attentiond: "), done.stderr
    for word in words:
        assert str(word) in lines[0], lines[0]
    assert not folder.exists() or contents(folder) == before


def backup(daemon, file):
    reply = daemon.get("/v1/backup")
    assert reply.status == 200, reply
    assert int(reply.headers["Content-Length"]) == len(reply.body)
    assert reply.body.startswith(b"SQLite format 3\0")
    file.write_bytes(reply.body)
    return reply


def state(daemon):
    """All that can be seen of all memories."""
    seen = {}
    for meta in daemon.get("/v1/memories").json["memories"]:
        path = f"/v1/memories/{meta['name']}"
        queries = np.random.default_rng(1).standard_normal((3, meta["query_dim"])).round(2).tolist()
        seen[meta["name"]] = (meta, daemon.get(path + "/rows?limit=10000").json,
                              daemon.post(path + "/attend", {"queries": queries}).body)
    return seen


def test_backup_and_restore(start_daemon, tmp_path):
    daemon = start_daemon("--data-dir", tmp_path / "data")
    generator = np.random.default_rng(2)
    for number, dtype in enumerate(("f32", "f16", "bf16", "int8")):
        keys = generator.standard_normal((200, 8)).round(3).tolist()
        body = {"keys": keys, "values": keys, "dtype": dtype, "ids": [f"{row}\u00e4" for row in range(200)]}
        if number == 1:
            body["score"] = {"type": "bilinear", "w": keys[:3]}
        assert daemon.put(f"/v1/memories/{dtype}", body).status == 201
        daemon.post(f"/v1/memories/{dtype}/rows", {"keys": keys[:3], "values": keys[:3]},
                    {"Idempotency-Key": "k"})
    daemon.put("/v1/memories/none", {"key_dim": 3, "value_dim": 2, "ttl_seconds": 60})
    daemon.put("/v1/memories/gone", {"key_dim": 3, "value_dim": 2})
    daemon.delete("/v1/memories/gone")
    seen = state(daemon)
    backup(daemon, tmp_path / "backup")
    daemon.delete("/v1/memories/f32")
    daemon.post("/v1/memories/f16/rows", {"keys": [[1] * 8], "values": [[1] * 8]})
    left = [name for name in os.listdir(tmp_path / "data") if "backup" in name]
    assert not left, "the copy was left behind"

    done = restore(tmp_path / "new", tmp_path / "backup")
    assert done.returncode == 0 and not done.stderr, done
    assert len(done.stdout.splitlines()) == 1
    assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o700
    other = start_daemon("--data-dir", tmp_path / "new")
    assert state(other) == seen
    again = other.post("/v1/memories/f32/rows", {"keys": [[1] * 8], "values": [[1] * 8]},
                       {"Idempotency-Key": "k"})
    is_problem(again, 409, "idempotency_key_reused")
    assert other.put("/v1/memories/gone", PAIR).json["version"] > 1


def test_backups_during_writes(start_daemon, tmp_path):
    """Four threads write; each copy is the state after some version: of each memory
    its first rows, as many as that version had."""
    daemon = start_daemon("--data-dir", tmp_path / "data")
    done, versions = threading.Event(), [{}, {}, {}, {}]

    def write(number):
        path, made = f"/v1/memories/m{number}", 0
        with daemon.client() as client:
            client.request("PUT", path, {"key_dim": 16, "value_dim": 1})
            while not done.is_set() or made == 0:
                rows = [[made]] * (1 + made % 50)
                reply = client.request("POST", path + "/rows", {"keys": [row * 16 for row in rows], "values": rows})
                assert reply.status == 200, reply
                versions[number][reply.json["version"]] = reply.json["rows"]
                made += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        harness.wait_until(lambda: all(len(told) > 3 for told in versions), 20, "writes")
        floors = []
        for copy in range(4):
            floors.append([max(told) for told in versions])
            backup(daemon, tmp_path / f"backup{copy}")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    daemon.stop()
    for copy in (0, 3):
        assert restore(tmp_path / f"new{copy}", tmp_path / f"backup{copy}").returncode == 0
        other = start_daemon("--data-dir", tmp_path / f"new{copy}")
        for number in range(4):
            meta = other.get(f"/v1/memories/m{number}").json
            assert meta["version"] >= floors[copy][number], "what was acknowledged before the copy is in it"
            assert meta["rows"] == versions[number][meta["version"]]
            rows = other.get(f"/v1/memories/m{number}/rows?limit=10000").json["rows"]
            expected = [float(made) for made in range(len(rows)) for _ in range(1 + made % 50)]
            assert [row["value"][0] for row in rows] == expected[:len(rows)]
        other.stop()


def test_killed_during_a_backup(start_daemon, tmp_path):
    """Half a copy in the data folder is removed by the next start."""
    daemon = Restartable(start_daemon, tmp_path / "data")
    rows = np.ones((20_000, 128), "f4")
    body = tensors.dump({"keys": rows, "values": rows})
    assert daemon.put("/v1/memories/m", body, {"Content-Type": tensors.MEDIA_TYPE}).status == 201

    def copies():
        return [name for name in os.listdir(daemon.data_dir) if "backup" in name]

    for _ in range(20):
        asked = wire.Wire(daemon).send(wire.request(b"GET /v1/backup HTTP/1.1"))
        while not copies() and not asked.has_more():
            pass
        daemon.kill()
        asked.close()
        half = copies()
        daemon.start()
        if half:
            break
    assert half, "never killed in time"
    assert not copies(), "the half copy is still there"
    assert daemon.get("/v1/memories/m").json["rows"] == 20_000
    backup(daemon, tmp_path / "backup")


def test_no_store(start_daemon):
    daemon = start_daemon("--data-dir", "")
    daemon.put("/v1/memories/m", PAIR)
    is_problem(daemon.get("/v1/backup"), 409, "no_store")
    assert daemon.post("/v1/memories/m/rows", PAIR, {"Idempotency-Key": "k"}).json["updated"] == 2
    daemon.stop()
    assert not (daemon.folder / "attentiond-data").exists()
    done = harness.run_daemon("--data-dir", "", "--restore", "x")
    assert done.returncode != 0 and len(done.stderr.splitlines()) == 1


def test_what_is_not_restored(start_daemon, tmp_path):
    daemon = start_daemon("--data-dir", tmp_path / "data")
    keys = [[row + 0.5, 0] for row in range(500)]
    daemon.put("/v1/memories/m", {"keys": keys, "values": keys})
    backup(daemon, tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    refused(tmp_path / "data", tmp_path / "good", tmp_path / "data")  # in use
    daemon.stop()
    refused(tmp_path / "data", tmp_path / "good", "store already")
    refused(tmp_path / "new", tmp_path / "nothing", "nothing")
    refused(tmp_path / "new", tmp_path / "data")
    bad = tmp_path / "bad"
    for content in (b"", b"nonsense", good[:100], good[:len(good) // 2], good[:-1], b"\0" * len(good),
                    good[:16] + bytes(byte ^ 255 for byte in good[16:])):
        bad.write_bytes(content)
        refused(tmp_path / "new", bad, bad)
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "copy").write_bytes(good)
    assert flip(folder, np.array(keys[:10], "f4").tobytes()) >= 1
    refused(tmp_path / "new", folder / "copy", folder / "copy", "damaged")
    # And after all that it can be done in that very folder.
    assert restore(tmp_path / "new", tmp_path / "good").returncode == 0
    assert start_daemon("--data-dir", tmp_path / "new").get("/v1/memories/m").json["rows"] == 500


def test_one_daemon_per_store(start_daemon, tmp_path):
    daemon = start_daemon("--data-dir", tmp_path / "data")
    daemon.put("/v1/memories/m", PAIR)
    second = harness.run_daemon("--data-dir", tmp_path / "data", "--listen-port", 0)
    assert second.returncode == 1, second
    said = [line for line in second.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1 and str(tmp_path / "data") in said[0], second.stderr
    assert daemon.post("/v1/memories/m/rows", PAIR).json["updated"] == 2
    daemon.stop()
    third = start_daemon("--data-dir", tmp_path / "data")
    assert third.get("/v1/memories/m").json["rows"] == 2


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "not" / "there", "/proc/none"):
        done = harness.run_daemon("--data-dir", folder, "--listen-port", 0)
        assert done.returncode == 1, done
        said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert len(said) == 1 and str(folder) in said[0], done.stderr


def test_memories_of_the_configuration(start_daemon, tmp_path):
    """What the store has already is kept, with what was changed since; what it
    doesn't, is loaded; what was deleted comes again."""
    file = tmp_path / "m.json"
    file.write_text(json.dumps(PAIR))
    memories = [{"name": name, "file": str(file)} for name in ("one", "two")]
    daemon = Restartable(start_daemon, tmp_path / "data", "--memories", json.dumps(memories))
    first = daemon.get("/v1/memories/one").json
    daemon.post("/v1/memories/one/rows", {"keys": [[3, 3]], "values": [[3]], "ids": ["c"]})
    daemon.delete("/v1/memories/two")
    file.write_text(json.dumps({"keys": [[7, 7]], "values": [[7]]}))
    for kill in (False, True):
        daemon.restart(kill)
        meta = daemon.get("/v1/memories/one").json
        assert (meta["rows"], meta["version"]) == (3, first["version"] + 1), "kept as it was"
        assert daemon.get("/v1/memories/two/rows").json["rows"] == [{"row": 0, "key": [7, 7], "value": [7]}]
        events = [(line.get("event") or line.get("msg"), line.get("memory")) for line in daemon.log_lines()]
        assert ("memory_kept", "one") in events, events
    file.unlink()
    daemon.restart()
    assert daemon.get("/v1/memories/one").json["rows"] == 3, "the file is not even needed"
