"""Versions: what a client can build on them. Preconditions on every change,
appends that are retried with an Idempotency-Key, readers that see whole versions
only, and writes that were acknowledged and are there after a stop or a kill."""

import sqlite3
import threading
from contextlib import closing

import numpy as np
import pytest

import tensors
from kept_rows import Model, Restartable, check_all, check_same, is_problem, post_tensors

PAIR = {"keys": [[1, 0], [0, 1]], "values": [[1], [2]], "ids": ["a", "b"]}
MORE = {"keys": [[5, 5]], "values": [[5]], "ids": ["e"]}
CHANGES = [("PUT", "", PAIR), ("PATCH", "", {"score": "dot"}), ("POST", "/rows", MORE),
           ("DELETE", "/rows", {"ids": ["a"]}), ("DELETE", "", None)]
CHANGE_IDS = ["put", "patch", "append", "remove", "delete"]


@pytest.fixture
def path(memory_name):
    return f"/v1/memories/{memory_name}"


def in_threads(count, work):
    """work(number) in as many threads at once; their results in order."""
    results, faults = [None] * count, []
    gate = threading.Barrier(count)

    def run(number):
        try:
            gate.wait()
            results[number] = work(number)
        except BaseException as fault:  # told by the test's own thread
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return results


# ---- Preconditions

@pytest.mark.parametrize("method,where,body", CHANGES, ids=CHANGE_IDS)
def test_if_match(daemon, path, method, where, body):
    old = daemon.put(path, PAIR).headers["ETag"]
    meta = daemon.put(path, PAIR)
    new = meta.headers["ETag"]
    for stale in (old, "W/" + new, '"0"', f'{old}, "777777"', '"*"', '"a,*"', f'"x,{new[1:]}'):
        is_problem(daemon.request(method, path + where, body, {"If-Match": stale}), 412,
                   "precondition_failed")
        assert daemon.get(path).json == meta.json, "a refused change happened"
    reply = daemon.request(method, path + where, body, {"If-Match": f'{old},{new}'})
    assert reply.status in (200, 204), reply
    if method != "DELETE" or where:
        assert reply.headers["ETag"] == f'"{reply.json["version"]}"' == daemon.get(path).headers["ETag"]
        is_problem(daemon.request(method, path + where, body, {"If-Match": new}), 412,
                   "precondition_failed")
        assert daemon.request(method, path + where, body, {"If-Match": "*"}).status in (200, 204)


@pytest.mark.parametrize("method,where,body", CHANGES, ids=CHANGE_IDS)
def test_if_none_match(daemon, path, method, where, body):
    meta = daemon.put(path, PAIR)
    for tags in ("*", meta.headers["ETag"], "W/" + meta.headers["ETag"], f'"9", {meta.headers["ETag"]}'):
        is_problem(daemon.request(method, path + where, body, {"If-None-Match": tags}), 412,
                   "precondition_failed")
        assert daemon.get(path).json == meta.json
    assert daemon.request(method, path + where, body, {"If-None-Match": '"999999"'}).status in (200, 204)


@pytest.mark.parametrize("method,where,body", CHANGES[1:], ids=CHANGE_IDS[1:])
def test_preconditions_of_what_is_not_there(daemon, path, method, where, body):
    for headers in ({}, {"If-Match": "*"}):
        reply = daemon.request(method, path + where, body, headers)
        assert reply.json["code"] in ({"memory_not_found"} if not headers else
                                      {"memory_not_found", "precondition_failed"}), reply
    assert daemon.get(path).status == 404


def test_not_modified(daemon, path):
    daemon.put(path, PAIR)
    etag = daemon.post(path + "/rows", MORE).headers["ETag"]
    reply = daemon.get(path, {"If-None-Match": etag})
    assert (reply.status, reply.body) == (304, b"") and reply.headers["ETag"] == etag
    tensors_too = {"If-None-Match": etag, "Accept": tensors.MEDIA_TYPE}
    assert daemon.get(path, tensors_too).status == 304
    page = daemon.get(path + "/rows?limit=1", {"If-None-Match": f'"9999", {etag}'})
    assert (page.status, page.body, page.headers["ETag"]) == (304, b"", etag)
    assert daemon.get(path + "/rows?limit=1", {"If-None-Match": '"9999"'}).status == 200
    assert daemon.get(path, {"If-None-Match": '"a,*"'}).status == 200
    daemon.request("DELETE", path + "/rows", {"ids": ["e"]})
    assert daemon.get(path, {"If-None-Match": etag}).status == 200


def test_appends_with_if_match_lose_no_update(daemon, path):
    """Compare and swap from 8 threads: of those that saw a version, one wins it."""
    daemon.put(path, {"key_dim": 1, "value_dim": 1})

    def add(number):
        won = []
        while len(won) < 10:
            etag = daemon.get(path).headers["ETag"]
            reply = daemon.post(path + "/rows", {"keys": [[number]], "values": [[len(won)]]},
                                {"If-Match": etag})
            if reply.status == 200:
                assert reply.json["version"] == int(etag.strip('"')) + 1
                won.append(reply.json["version"])
            else:
                is_problem(reply, 412, "precondition_failed")
        return won

    versions = [version for won in in_threads(8, add) for version in won]
    assert len(set(versions)) == 80 == daemon.get(path).json["rows"]


def test_versions_outlive_everything(start_daemon, tmp_path):
    """They grow over restarts, over deletion and over both."""
    daemon = Restartable(start_daemon, tmp_path / "data")
    versions = []
    for kill in (False, True):
        versions.append(daemon.put("/v1/memories/m", PAIR).json["version"])
        versions.append(daemon.post("/v1/memories/m/rows", MORE).json["version"])
        daemon.restart(kill)
        assert daemon.get("/v1/memories/m").json["version"] == versions[-1]
        versions.append(daemon.put("/v1/memories/m", PAIR).json["version"])
        assert daemon.delete("/v1/memories/m").status == 204
        daemon.restart(kill)
        is_problem(daemon.get("/v1/memories/m"), 404, "memory_not_found")
    versions.append(daemon.put("/v1/memories/m", PAIR).json["version"])
    assert versions == sorted(set(versions))


# ---- Idempotency-Key

def key(text):
    return {"Idempotency-Key": text}


def test_a_retried_append_happens_once(daemon, path):
    daemon.put(path, PAIR)
    first = daemon.post(path + "/rows", MORE, key("k-1"))
    assert first.status == 200, first
    daemon.post(path + "/rows", {"keys": [[6, 6]], "values": [[6]]})
    for _ in range(3):
        again = daemon.post(path + "/rows", MORE, key("k-1"))
        assert (again.status, again.json) == (200, first.json), "answered as it was"
    assert daemon.get(path).json["rows"] == 4
    # The same rows in another form are the same body.
    numbers = {"keys": np.array(MORE["keys"], "f4"), "values": np.array(MORE["values"], "f4")}
    again = post_tensors(daemon, path, **numbers, ids=MORE["ids"], headers=key("k-1"))
    assert (again.status, again.json) == (200, first.json)
    assert daemon.post(path + "/rows", {**MORE, "ids": ["f"]}, key("k-2")).json["inserted"] == 1
    # And an upsert: what it replaced is not replaced again.
    upsert = {"keys": [[8, 8], [9, 9]], "values": [[8], [9]], "ids": ["b", "new"]}
    first = daemon.post(path + "/rows", upsert, key("k-3"))
    daemon.post(path + "/rows", {"keys": [[0, 0]], "values": [[0]], "ids": ["b"]})
    assert daemon.post(path + "/rows", upsert, key("k-3")).json == first.json
    row = [row for row in daemon.get(path + "/rows").json["rows"] if row.get("id") == "b"]
    assert row[0]["key"] == [0, 0]


def test_another_body_under_the_same_key(daemon, path):
    daemon.put(path, PAIR)
    assert daemon.post(path + "/rows", MORE, key("k")).status == 200
    before = daemon.get(path).json
    for other in ({**MORE, "values": [[6]]}, {**MORE, "keys": [[5, 6]]}, {**MORE, "ids": ["f"]},
                  {"keys": [[5, 5]], "values": [[5]]}, {**MORE, "ttl_seconds": 60},
                  {"keys": MORE["keys"] * 2, "values": MORE["values"] * 2}):
        is_problem(daemon.post(path + "/rows", other, key("k")), 409, "idempotency_key_reused")
    assert daemon.get(path).json == before
    assert daemon.post(path + "/rows", MORE, key("K")).status == 200, "keys have capitals"


def test_a_refused_append_does_not_use_its_key_up(daemon, path):
    etag = daemon.put(path, PAIR).headers["ETag"]
    is_problem(daemon.post(path + "/rows", {"keys": [[1]], "values": [[1]]}, key("k")), 422, "shape_mismatch")
    is_problem(daemon.post(path + "/rows", MORE, {**key("k"), "If-Match": '"999999"'}), 412,
               "precondition_failed")
    first = daemon.post(path + "/rows", MORE, {**key("k"), "If-Match": etag})
    assert first.status == 200
    # The retry brings the version that the first attempt has changed.
    again = daemon.post(path + "/rows", MORE, {**key("k"), "If-Match": etag})
    assert (again.status, again.json) == (200, first.json)


def test_keys_belong_to_a_memory(daemon, memory_names):
    for name in (memory_names(), memory_names()):
        daemon.put(f"/v1/memories/{name}", PAIR)
        assert daemon.post(f"/v1/memories/{name}/rows", MORE, key("same")).json["inserted"] == 1
        assert daemon.get(f"/v1/memories/{name}").json["rows"] == 3
    daemon.delete(f"/v1/memories/{name}")
    daemon.put(f"/v1/memories/{name}", PAIR)
    assert daemon.post(f"/v1/memories/{name}/rows", MORE, key("same")).json["rows"] == 3, "a new memory"


@pytest.mark.parametrize("value", ["", " ", "a b", "x" * 4096, "\u00e9"])
def test_bad_keys(daemon, path, value):
    daemon.put(path, PAIR)
    reply = daemon.post(path + "/rows", MORE, {"Idempotency-Key": value.encode("utf-8")})
    is_problem(reply, 400, "invalid_request")
    assert daemon.get(path).json["rows"] == 2


def test_one_key_from_many_threads(daemon, path):
    daemon.put(path, PAIR)
    for turn in range(5):
        replies = in_threads(16, lambda _: daemon.post(path + "/rows", {"keys": [[turn, turn]], "values": [[1]]},
                                                       key(f"turn-{turn}")))
        assert {reply.status for reply in replies} == {200}, replies
        assert len({reply.body for reply in replies}) == 1
        assert daemon.get(path).json["rows"] == 3 + turn
    bodies = [{"keys": [[number, 0]], "values": [[number]]} for number in range(16)]
    replies = in_threads(16, lambda number: daemon.post(path + "/rows", bodies[number], key("contested")))
    assert sorted(reply.status for reply in replies) == [200] + 15 * [409]


def test_keys_outlive_restarts(start_daemon, tmp_path):
    daemon = Restartable(start_daemon, tmp_path / "data")
    path = "/v1/memories/m"
    daemon.put(path, PAIR)
    first = daemon.post(path + "/rows", MORE, key("k"))
    for kill in (True, False, True):
        daemon.restart(kill)
        assert daemon.post(path + "/rows", MORE, key("k")).json == first.json
        is_problem(daemon.post(path + "/rows", {**MORE, "values": [[7]]}, key("k")), 409,
                   "idempotency_key_reused")
        assert daemon.get(path).json["rows"] == 3


def test_the_1025th_key_pushes_out_the_first(start_daemon, tmp_path):
    daemon = Restartable(start_daemon, tmp_path / "data")
    path = "/v1/memories/m"
    daemon.put(path, {"key_dim": 1, "value_dim": 1})

    def append(client, number):
        reply = client.request("POST", path + "/rows", {"keys": [[number]], "values": [[number]]},
                               key(f"key-{number}"))
        assert reply.status == 200, reply
        return reply.json

    with daemon.client() as client:
        answers = [append(client, number) for number in range(1024)]
        assert append(client, 0) == answers[0], "1,024 keys are kept"
        append(client, 1024)
        assert append(client, 1) == answers[1]
        assert daemon.get(path).json["rows"] == 1025
        assert append(client, 0)["rows"] == 1026, "the first was forgotten"
    daemon.restart(kill=True)
    with daemon.client() as client:
        assert append(client, 2)["rows"] == answers[2]["rows"]
        assert append(client, 1)["rows"] == 1027, "pushed out by key-0's second time"


# ---- Folds

def small_appends(daemon, path, model, generator, pieces, rows, prefix):
    """Pieces with ids and keys: (keys, values, ids, the answer) by key."""
    told = {}
    for piece in range(pieces):
        name = f"{prefix}-{piece}"
        ids = [f"{name}-{row}" for row in range(rows)]
        numbers = model.numbers(generator, rows)
        reply = post_tensors(daemon, path, *numbers, ids, key(name))
        assert reply.status == 200, reply
        model.post(*numbers, ids)
        model.version = reply.json["version"]
        told[name] = (*numbers, ids, reply.json)
    return told


def changes_kept(data_dir):
    """How many changes the stopped store has that are not in chunks."""
    (file,) = [file for file in data_dir.iterdir() if file.read_bytes()[:15] == b"SQLite format 3"]
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return database.execute("SELECT count(*) FROM change").fetchone()[0]


def test_folds(start_daemon, tmp_path):
    """Several megabytes in small pieces: the changes are folded into chunks
    meanwhile. Rows, versions, answers and keys are the same after it."""
    daemon = Restartable(start_daemon, tmp_path / "data")
    generator, path = np.random.default_rng(3), "/v1/memories/m"
    model, changes = Model(120, 8), 0
    daemon.put(path, {"key_dim": 120, "value_dim": 8})
    for phase in range(3):
        told = small_appends(daemon, path, model, generator, 80, 64, f"a{phase}")
        # In between, what folds have to keep as well.
        some = [str(id) for id in generator.choice(model.ids, 50, replace=False)]
        assert daemon.request("DELETE", path + "/rows", {"ids": some[:25]}).json["deleted"] == 25
        model.delete(some[:25])
        numbers = model.numbers(generator, 25)
        model.version = post_tensors(daemon, path, *numbers, some[25:]).json["version"]
        model.post(*numbers, some[25:])
        told.update(small_appends(daemon, path, model, generator, 10, 1, f"b{phase}"))
        changes += 92
        answer = check_all(daemon, path, model, generator) if phase == 2 else None
        if phase == 1:
            daemon.stop()
            assert changes_kept(daemon.data_dir) < changes - 40, "nothing was folded"
            daemon.start()
        else:
            daemon.restart(kill=True)
        check_same(daemon, path, answer)
        for name in (f"a{phase}-0", f"a{phase}-79", f"b{phase}-9"):
            *rows, answered = told[name]
            assert post_tensors(daemon, path, *rows, key(name)).json == answered
    check_all(daemon, path, model, generator)


def test_kills_in_the_middle_of_folds(start_daemon, tmp_path):
    """Four threads append while it is killed: what was acknowledged is there, once,
    in whole appends, and a retry of all changes nothing but what was lost."""
    daemon = Restartable(start_daemon, tmp_path / "data")
    path, rows = "/v1/memories/m", 100
    daemon.put(path, {"key_dim": 60, "value_dim": 4})
    sent, told = {}, {}

    def append(number):
        made = 0
        try:
            with daemon.client() as client:
                while True:
                    name = f"{turn}-{number}-{made}"
                    numbers = [[made * 1000.0 + row] * 60 for row in range(rows)]
                    sent[name] = {"keys": numbers, "values": [line[:4] for line in numbers],
                                  "ids": [f"{name}-{row}" for row in range(rows)]}
                    reply = client.request("POST", path + "/rows", sent[name], key(name))
                    assert reply.status == 200, reply
                    told[name] = reply.json
                    made += 1
        except OSError:
            return
        except Exception as fault:
            # http.client's word for a connection that ended within a reply
            assert type(fault).__module__ == "http.client", fault

    for turn in range(2):
        killer = threading.Timer(0.8, daemon.kill)
        killer.start()
        in_threads(4, append)
        killer.join()
        daemon.start()
        there = []
        total = daemon.get(path).json["rows"]
        for at in range(0, total, 10_000):
            reply = daemon.get(f"{path}/rows?offset={at}&limit=10000").json
            there += [row["id"] for row in reply["rows"]]
        assert len(set(there)) == len(there) and len(there) % rows == 0
        names = [id.rsplit("-", 1)[0] for id in there]
        assert all(names[at:at + rows] == [names[at]] * rows for at in range(0, len(names), rows))
        assert set(told) <= set(names) <= set(sent)
    with daemon.client() as client:
        for name in [*list(told)[-40:], *(set(sent) - set(told))]:
            reply = client.request("POST", path + "/rows", sent[name], key(name)).json
            assert told.get(name, reply) == reply
    assert daemon.get(path).json["rows"] == rows * len(sent)


# ---- Reading while it is written

def test_readers_see_whole_versions(start_daemon, tmp_path):
    """Version by version the writer knows what the memory is; every answer has to
    be that of the version that it names."""
    daemon = Restartable(start_daemon, tmp_path / "data")
    path, done = "/v1/memories/m", threading.Event()
    generator = np.random.default_rng(11)
    rows = [(f"r{row}", float(row)) for row in range(40)]  # the writer's
    sums = {}  # version -> (rows, sum of the values)

    def know(version):
        sums[version] = (len(rows), sum(value for _, value in rows))

    body = {"keys": [[1]] * 40, "values": [[value] for _, value in rows], "ids": [id for id, _ in rows],
            "score": "constant", "normalization": "none"}
    version = daemon.put(path, body).json["version"]
    know(version)
    seen = []

    def read(number):
        with daemon.client() as client:
            while not done.is_set():
                if number == 0:
                    reply = client.request("GET", path, headers={"Accept": tensors.MEDIA_TYPE})
                    arrays, _ = tensors.load(reply.body)
                    seen.append((int(reply.headers["ETag"].strip('"')), len(arrays["keys"]),
                                 float(arrays["values"].sum())))
                elif number % 2:
                    reply = client.request("GET", path + "/rows?limit=10000").json
                    seen.append((reply["version"], len(reply["rows"]),
                                 sum(row["value"][0] for row in reply["rows"])))
                else:
                    reply = client.request("POST", path + "/attend", {"queries": [[1]]}).json
                    seen.append((reply["version"], len(reply["weights"][0]), reply["outputs"][0][0]))

    def write():
        with daemon.client() as client:
            for step in range(250):
                kind, new = generator.integers(3), []
                if kind == 0 or len(rows) < 10:
                    new = [(f"s{step}-{i}", float(generator.integers(1000)))
                           for i in range(int(generator.integers(1, 8)))]
                    rows.extend(new)
                elif kind == 1:
                    for place in generator.choice(len(rows), 3, replace=False):
                        rows[place] = (rows[place][0], float(generator.integers(1000)))
                        new.append(rows[place])
                if new:
                    reply = client.request("POST", path + "/rows", {
                        "keys": [[1]] * len(new), "values": [[value] for _, value in new],
                        "ids": [id for id, _ in new]})
                else:
                    gone = {rows[place][0] for place in generator.choice(len(rows), 4, replace=False)}
                    rows[:] = [row for row in rows if row[0] not in gone]
                    reply = client.request("DELETE", path + "/rows", {"ids": sorted(gone)})
                assert reply.status == 200, reply
                know(reply.json["version"])

    def work(number):
        if number < 5:
            return read(number)
        try:
            write()
        finally:
            done.set()

    in_threads(6, work)
    assert len(seen) > 20
    for version, count, total in seen:
        assert (count, total) == sums[version]
    print(f"{len(seen)} answers from {len({version for version, _, _ in seen})} of {len(sums)} versions")


def test_many_writers(start_daemon, tmp_path):
    """Eight threads whose writes meet in the same commits: each finds its own rows
    as its own list has them, in order, every change has a version of its own, and
    an id that all of them insert at once is inserted once."""
    daemon = Restartable(start_daemon, tmp_path / "data")
    path = "/v1/memories/m"
    first = daemon.put(path, {"key_dim": 1, "value_dim": 1}).json["version"]

    def work(number):
        generator, mine, versions, shared = np.random.default_rng(number), {}, [], 0
        with daemon.client() as client:
            for step in range(40):
                kind = generator.integers(4)
                if kind == 0 and mine:
                    gone = [str(id) for id in generator.choice(list(mine), min(3, len(mine)), replace=False)]
                    reply = client.request("DELETE", path + "/rows", {"ids": gone})
                    assert reply.json["deleted"] == len(gone), reply
                    for id in gone:
                        del mine[id]
                elif kind == 1:
                    reply = client.request("POST", path + "/rows", {
                        "keys": [[0]], "values": [[step]], "ids": [f"shared-{step // 4}"]})
                    shared += reply.json["inserted"]
                else:
                    old = [str(id) for id in generator.permutation(list(mine))[:2]] if kind == 2 else []
                    ids = old + [f"w{number}-{step}-{i}" for i in range(3)]
                    values = [float(value) for value in generator.integers(1000, size=len(ids))]
                    reply = client.request("POST", path + "/rows", {
                        "keys": [[number]] * len(ids), "values": [[value] for value in values], "ids": ids})
                    assert (reply.json["inserted"], reply.json["updated"]) == (3, len(old)), reply
                    mine.update(zip(ids, values))
                assert reply.status == 200, reply
                versions.append(reply.json["version"])
        return mine, versions, shared

    results = in_threads(8, work)
    versions = [version for _, told, _ in results for version in told]
    assert sorted(versions) == list(range(first + 1, first + 1 + len(versions)))
    rows = daemon.get(path + "/rows?limit=10000").json
    assert rows["version"] == max(versions)
    for number, (mine, _, _) in enumerate(results):
        there = [(row["id"], row["value"][0]) for row in rows["rows"] if row["id"].startswith(f"w{number}-")]
        assert there == list(mine.items())
    shared = [row["id"] for row in rows["rows"] if row["id"].startswith("shared")]
    assert len(set(shared)) == len(shared) == sum(count for _, _, count in results)
    daemon.restart(kill=True)
    assert daemon.get(path + "/rows?limit=10000").json == rows


def test_stop_during_writes(start_daemon, tmp_path):
    """SIGTERM: every append that was answered is there, and it left with 0."""
    daemon = Restartable(start_daemon, tmp_path / "data")
    path = "/v1/memories/m"
    daemon.put(path, {"key_dim": 2, "value_dim": 1})
    told = []

    def append(number):
        made = 0
        try:
            with daemon.client() as client:
                while True:
                    name = f"{number}-{made}"
                    reply = client.request("POST", path + "/rows",
                                           {"keys": [[1, 2]], "values": [[3]], "ids": [name]})
                    if reply.status != 200:
                        is_problem(reply, 503, "not_ready")
                        return
                    told.append((reply.json["version"], name))
                    made += 1
        except OSError:
            return
        except Exception as fault:
            assert type(fault).__module__ == "http.client", fault

    stopper = threading.Timer(0.5, lambda: daemon.signal(15))
    stopper.start()
    in_threads(8, append)
    stopper.join()
    daemon.restart()
    there = [row["id"] for row in daemon.get(path + "/rows?limit=10000").json["rows"]]
    assert {name for _, name in told} <= set(there) and len(set(there)) == len(there) >= 8
    meta = daemon.get(path).json
    assert meta["rows"] == len(there) or len(there) == 10_000
    assert meta["version"] >= max(version for version, _ in told)
