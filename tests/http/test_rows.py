"""Rows: appended, upserted, deleted and listed, in random order, against a plain
list (kept_rows.py), over stops and kills, for every dtype."""

import time

import numpy as np
import pytest

import harness
import kept_rows
from kept_rows import Model, Restartable, check_all, check_same, is_problem, json_rows, post_tensors
from test_dtype import BYTES

PAIR = {"keys": [[1, 0], [0, 1]], "values": [[1], [2]], "ids": ["a", "b"]}


@pytest.fixture
def path(memory_name):
    return f"/v1/memories/{memory_name}"


def rows_of(daemon, path, query=""):
    return daemon.get(f"{path}/rows{query}").json


# ---- The contract, step by step

def test_append_upsert_delete(daemon, path):
    first = daemon.put(path, PAIR).json["version"]
    reply = daemon.post(path + "/rows", {"keys": [[2, 2]], "values": [[3]], "ids": ["c"]})
    assert reply.status == 200, reply
    assert reply.json == {"version": first + 1, "rows": 3, "inserted": 1, "updated": 0}
    assert reply.headers["ETag"] == f'"{first + 1}"'

    body = {"keys": [[7, 7], [8, 8], [9, 9]], "values": [[7], [8], [9]], "ids": ["d", "b", "a"]}
    reply = daemon.post(path + "/rows", body)
    assert reply.json == {"version": first + 2, "rows": 4, "inserted": 1, "updated": 2}
    assert rows_of(daemon, path) == {"rows": [
        {"row": 0, "id": "a", "key": [9, 9], "value": [9]},
        {"row": 1, "id": "b", "key": [8, 8], "value": [8]},
        {"row": 2, "id": "c", "key": [2, 2], "value": [3]},
        {"row": 3, "id": "d", "key": [7, 7], "value": [7]}], "total": 4, "version": first + 2}

    reply = daemon.request("DELETE", path + "/rows", {"ids": ["b", "nobody"]})
    assert reply.status == 200, reply
    assert reply.json == {"version": first + 3, "rows": 3, "deleted": 1}
    assert reply.headers["ETag"] == f'"{first + 3}"'
    assert [row["id"] for row in rows_of(daemon, path)["rows"]] == ["a", "c", "d"]
    top = daemon.post(path + "/attend", {"queries": [[7, 7]], "weights": {"top": 1},
                                           "score": "exact", "normalization": "sum"})
    assert top.json["weights"] == [[{"row": 2, "id": "d", "weight": 1}]]
    # What was deleted can come again, at the end.
    reply = daemon.post(path + "/rows", {"keys": [[1, 1]], "values": [[1]], "ids": ["b"]})
    assert (reply.json["inserted"], reply.json["updated"]) == (1, 0)
    assert [row["id"] for row in rows_of(daemon, path)["rows"]] == ["a", "c", "d", "b"]


def test_deleting_nothing(daemon, path):
    daemon.put(path, PAIR)
    before = daemon.get(path).json
    reply = daemon.request("DELETE", path + "/rows", {"ids": ["x", "y"]})
    assert (reply.status, reply.json["deleted"], reply.json["rows"]) == (200, 0, 2)
    assert reply.json["version"] == daemon.get(path).json["version"] >= before["version"]


def test_rows_without_ids(daemon, path):
    """They can be appended to a memory that has ids, and have none."""
    daemon.put(path, PAIR)
    for number in range(3):
        reply = daemon.post(path + "/rows", {"keys": [[number, 5]], "values": [[number]]})
        assert (reply.json["inserted"], reply.json["rows"]) == (1, 3 + number)
    reply = daemon.post(path + "/rows", {"keys": [[4, 4]], "values": [[4]], "ids": ["z"]})
    assert reply.json["inserted"] == 1
    assert [row.get("id") for row in rows_of(daemon, path)["rows"]] == ["a", "b", None, None, None, "z"]
    assert all(("id" in row) == (row["row"] in (0, 1, 5)) for row in rows_of(daemon, path)["rows"])
    top = daemon.post(path + "/attend", {"queries": [[2, 5]], "weights": {"top": 9},
                                           "score": "exact", "normalization": "sum"})
    assert top.json["weights"] == [[{"row": 4, "weight": 1}]]
    daemon.request("DELETE", path + "/rows", {"ids": ["a", "b", "z"]})
    assert [row["value"] for row in rows_of(daemon, path)["rows"]] == [[0], [1], [2]]


def test_empty_grows_and_shrinks_to_nothing(daemon, path):
    daemon.put(path, {"key_dim": 2, "value_dim": 1})
    assert rows_of(daemon, path)["rows"] == [] and rows_of(daemon, path)["total"] == 0
    for turn in range(3):
        daemon.post(path + "/rows", PAIR)
        assert daemon.post(path + "/attend", {"queries": [[1, 0]]}).status == 200
        assert daemon.request("DELETE", path + "/rows", {"ids": ["a", "b"]}).json["rows"] == 0
        is_problem(daemon.post(path + "/attend", {"queries": [[1, 0]]}), 422, "empty_memory")
        assert rows_of(daemon, path)["rows"] == [], turn


def test_paging(daemon, path):
    keys = [[row, 0] for row in range(250)]
    daemon.put(path, {"keys": keys, "values": [[row] for row in range(250)]})

    def page(query):
        return [row["row"] for row in rows_of(daemon, path, query)["rows"]]

    assert page("") == list(range(100))
    assert page("?offset=240") == list(range(240, 250))
    assert page("?limit=3") == [0, 1, 2]
    assert page("?limit=3&offset=4") == [4, 5, 6]
    assert page("?offset=250") == page("?offset=9007199254740992") == []
    assert page("?limit=10000") == list(range(250))
    for query in ("?limit=0", "?limit=10001", "?limit=-1", "?limit=", "?limit", "?offset=x", "?offset=1.5",
                  "?offset=-1", "?limit=1&limit=2", "?page=1", "?offset=99999999999999999999999"):
        is_problem(daemon.get(path + "/rows" + query), 400, "invalid_parameter")


BAD_POSTS = [
    ("duplicate", {**PAIR, "ids": ["x", "x"]}, 400, "duplicate_id", "/ids/1"),
    ("ids_short", {**PAIR, "ids": ["x"]}, 422, "shape_mismatch", None),
    ("id_empty", {**PAIR, "ids": ["x", ""]}, 400, "invalid_id", "/ids/1"),
    ("id_number", {**PAIR, "ids": ["x", 7]}, 400, "invalid_type", "/ids/1"),
    ("key_dim", {"keys": [[1, 2, 3]], "values": [[1]]}, 422, "shape_mismatch", None),
    ("value_dim", {"keys": [[1, 2]], "values": [[1, 2]]}, 422, "shape_mismatch", None),
    ("ragged", {"keys": [[1, 2], [3]], "values": [[1], [2]]}, 422, "shape_mismatch", "/keys/1"),
    ("counts", {"keys": [[1, 2]], "values": [[1], [2]]}, 422, "shape_mismatch", None),
    ("number", {"keys": [[1, "2"]], "values": [[1]]}, 400, "invalid_type", "/keys/0/1"),
    ("overflow", '{"keys":[[1,2]],"values":[[1e39]]}', 400, "invalid_number", "/values/0/0"),
    ("missing", {"keys": [[1, 2]]}, 400, "missing_member", None),
    ("unknown", {**PAIR, "dtype": "f32"}, 400, "unknown_member", "/dtype"),
    ("none", {"keys": [], "values": []}, None, None, None),
    ("ttl_0", {**PAIR, "ttl_seconds": 0}, 400, "invalid_parameter", "/ttl_seconds"),
    ("ttl_negative", {**PAIR, "ttl_seconds": -1}, 400, "invalid_parameter", "/ttl_seconds"),
    ("ttl_text", {**PAIR, "ttl_seconds": "1"}, 400, "invalid_type", "/ttl_seconds"),
    ("ttl_huge", {**PAIR, "ttl_seconds": 1e300}, 400, "invalid_parameter", "/ttl_seconds"),
]


@pytest.mark.parametrize("body,status,code,pointer", [case[1:] for case in BAD_POSTS],
                         ids=[case[0] for case in BAD_POSTS])
def test_bad_posts(daemon, path, body, status, code, pointer):
    daemon.put(path, PAIR)
    before = daemon.get(path).json
    reply = daemon.post(path + "/rows", body)
    if status:
        is_problem(reply, status, code, pointer)
    else:
        assert reply.status in (400, 422), reply
    assert daemon.get(path).json == before


BAD_DELETES = [
    ("duplicate", {"ids": ["x", "x"]}, "duplicate_id", "/ids/1"),
    ("empty", {"ids": []}, "invalid_parameter", "/ids"),
    ("missing", {}, "missing_member", None),
    ("unknown", {"ids": ["a"], "rows": [1]}, "unknown_member", "/rows"),
    ("type", {"ids": "a"}, "invalid_type", "/ids"),
    ("no_body", None, "invalid_json", None),
]


@pytest.mark.parametrize("body,code,pointer", [case[1:] for case in BAD_DELETES],
                         ids=[case[0] for case in BAD_DELETES])
def test_bad_deletes(daemon, path, body, code, pointer):
    daemon.put(path, PAIR)
    is_problem(daemon.request("DELETE", path + "/rows", body), 400, code, pointer)
    assert rows_of(daemon, path)["total"] == 2


def test_no_such_memory(daemon, path):
    for reply in (daemon.get(path + "/rows"), daemon.post(path + "/rows", PAIR),
                  daemon.request("DELETE", path + "/rows", {"ids": ["a"]}),
                  daemon.request("PATCH", path, {"score": "dot"})):
        is_problem(reply, 404, "memory_not_found")


@pytest.mark.parametrize("dtype,number", [("f16", 65520.0), ("f16", -1e6)])
def test_beyond_the_dtype(daemon, path, dtype, number):
    daemon.put(path, {**PAIR, "dtype": dtype})
    reply = daemon.post(path + "/rows", {"keys": [[1, 2], [1, number]], "values": [[1], [2]]})
    is_problem(reply, 400, "invalid_number", "/keys/1/1")
    assert rows_of(daemon, path)["total"] == 2


def test_patch(daemon, path):
    meta = daemon.put(path, PAIR).json
    reply = daemon.request("PATCH", path, {"score": {"type": "gaussian", "sigma": 2}})
    assert reply.status == 200, reply
    assert reply.json["version"] == meta["version"] + 1
    assert reply.json["score"] == {"type": "gaussian", "sigma": 2}
    assert reply.json["normalization"] == meta["normalization"], "PATCH changes what it names"
    assert reply.headers["ETag"] == f'"{reply.json["version"]}"'
    reply = daemon.request("PATCH", path, {"normalization": {"type": "softmax", "top_k": 1}})
    assert reply.json["score"] == {"type": "gaussian", "sigma": 2}
    assert reply.json["normalization"]["top_k"] == 1
    assert daemon.get(path).json == reply.json
    bilinear = {"type": "bilinear", "w": [[1, 0], [0, 1], [1, 1]]}
    assert daemon.request("PATCH", path, {"score": bilinear}).json["query_dim"] == 3
    assert daemon.post(path + "/attend", {"queries": [[1, 2, 3]]}).status == 200
    before = daemon.get(path).json
    for body, status, code in (
            ({"score": {"type": "bilinear", "w": [[1, 2, 3]]}}, 422, "shape_mismatch"),
            ({"score": "nothing"}, 400, "unknown_score"),
            ({"normalization": 7}, 400, "invalid_type"),
            ({"dtype": "f16"}, 400, "unknown_member"),
            ({"keys": [[1, 2]]}, 400, "unknown_member")):
        is_problem(daemon.request("PATCH", path, body), status, code)
    assert daemon.get(path).json == before


# ---- Random sequences

class Trial:
    """A memory and its model, changed together."""

    def __init__(self, daemon, path, model, seed, most):
        self.daemon, self.path, self.model, self.most = daemon, path, model, most
        self.generator = np.random.default_rng(seed)
        self.fresh = 0

    def new_ids(self, count):
        self.fresh += count
        return [f"id-{self.fresh - i}\u00e9\"" for i in range(count)]

    def known_ids(self, most):
        known = [id for id in self.model.ids if id is not None]
        count = int(self.generator.integers(1, most + 1))
        return [str(id) for id in self.generator.permutation(known)[:count]] if known else []

    def post(self, count, ids):
        keys, values = self.model.numbers(self.generator, count)
        if self.generator.random() < 0.5:
            reply = post_tensors(self.daemon, self.path, keys, values, ids)
        else:
            reply = self.daemon.post(self.path + "/rows", json_rows(keys, values, ids))
        inserted, updated = self.model.post(keys, values, ids)
        self.took(reply, inserted=inserted, updated=updated)

    def took(self, reply, **counts):
        assert reply.status == 200, reply
        answer = reply.json
        assert answer["rows"] == len(self.model)
        assert {name: answer[name] for name in counts} == counts
        changed = any(counts.values())
        assert answer["version"] == self.model.version + changed or not changed
        self.model.version = answer["version"]

    def append(self):
        self.post(int(self.generator.integers(1, 1 + self.most // 8)), None)

    def append_with_ids(self):
        count = int(self.generator.integers(1, 1 + self.most // 8))
        self.post(count, self.new_ids(count))

    def upsert(self):
        ids = self.known_ids(self.most // 16) + self.new_ids(int(self.generator.integers(1, 5)))
        self.post(len(ids), [str(id) for id in self.generator.permutation(ids)])

    def delete(self):
        ids = self.known_ids(self.most // 8) + ["never there"]
        deleted = self.model.delete(ids)
        self.took(self.daemon.request("DELETE", self.path + "/rows", {"ids": ids}), deleted=deleted)

    def delete_all(self):
        ids = [id for id in self.model.ids if id is not None] + ["never there"]
        deleted = self.model.delete(ids)
        self.took(self.daemon.request("DELETE", self.path + "/rows", {"ids": ids}), deleted=deleted)

    def put(self):
        count = int(self.generator.integers(1, self.most // 2))
        keys, values = self.model.numbers(self.generator, count)
        ids = self.new_ids(count) if self.generator.random() < 0.7 else None
        body = json_rows(keys, values, ids, dtype=self.model.dtype, score=self.model.score)
        reply = self.daemon.put(self.path, body)
        assert reply.json["version"] > self.model.version
        self.model.put(keys, values, ids)
        self.model.version = reply.json["version"]

    def settle(self):
        self.model.score = ["scaled_dot", "euclidean", "cosine"][self.generator.integers(3)]
        reply = self.daemon.request("PATCH", self.path,
                                    {"score": self.model.score, "normalization": "softmax"})
        assert reply.json["version"] == self.model.version + 1, reply
        self.model.version += 1

    def step(self, mixed):
        room = len(self.model) < self.most
        choices = [(self.append_with_ids, 4 * room), (self.upsert, 4), (self.delete, 4 if room else 20),
                   (self.append, 2 * room * mixed), (self.settle, 0.5), (self.put, 0.3),
                   (self.delete_all, 0.3)]
        weights = np.array([weight for _, weight in choices], float)
        choices[self.generator.choice(len(choices), p=weights / weights.sum())][0]()

    def check(self):
        return check_all(self.daemon, self.path, self.model, self.generator)


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("shape", [(3, 2, 2500, 60), (700, 12, 700, 25)], ids=["narrow", "wide"])
def test_random_changes(start_daemon, tmp_path, dtype, shape):
    """Narrow rows make many runs of ids, wide ones many blocks. Two memories: one
    of which all rows have ids, and one where only some have."""
    key_dim, value_dim, most, steps = shape
    daemon = Restartable(start_daemon, tmp_path / "data")
    trials = []
    for mixed in (0, 1):
        model = Model(key_dim, value_dim, dtype)
        path = f"/v1/memories/mixed-{mixed}"
        model.version = daemon.put(path, {"key_dim": key_dim, "value_dim": value_dim,
                                          "dtype": dtype}).json["version"]
        trials.append(Trial(daemon, path, model, seed=key_dim + mixed, most=most))
    for phase in range(3):
        for _ in range(steps // 3):
            for mixed, trial in enumerate(trials):
                trial.step(mixed)
        answers = [trial.check() for trial in trials]
        daemon.restart(kill=phase != 1)
        for trial, answer in zip(trials, answers):
            check_same(daemon, trial.path, answer)
            trial.check()


def test_large(start_daemon, tmp_path):
    """10^5 rows, and changes of one row here and there."""
    rows, generator = 100_000, np.random.default_rng(7)
    daemon = Restartable(start_daemon, tmp_path / "data")
    model, path = Model(4, 2), "/v1/memories/large"
    keys, values = model.numbers(generator, rows)
    ids = [f"{row:x}" for row in range(rows)]
    daemon.put(path, {"key_dim": 4, "value_dim": 2})
    reply = post_tensors(daemon, path, keys, values, ids)
    assert reply.json["inserted"] == rows, reply
    model.post(keys, values, ids)
    for _ in range(12):
        some = [str(id) for id in generator.choice(model.ids, 3, replace=False)]
        keys, values = model.numbers(generator, 4)
        reply = daemon.post(path + "/rows", json_rows(keys, values, some + [f"new{len(model)}-{_}"]))
        assert (reply.json["inserted"], reply.json["updated"]) == model.post(
            keys, values, some + [f"new{len(model)}-{_}"]) == (1, 3)
        gone = [str(id) for id in generator.choice(model.ids, 2, replace=False)]
        reply = daemon.request("DELETE", path + "/rows", {"ids": gone})
        assert reply.json["deleted"] == model.delete(gone) == 2
    model.version = reply.json["version"]
    kept_rows.check_meta(daemon, path, model)
    kept_rows.check_rows(daemon, path, model)
    answer = kept_rows.check_answers(daemon, path, model, generator)
    daemon.restart(kill=True)
    check_same(daemon, path, answer)
    kept_rows.check_meta(daemon, path, model)
    last = daemon.get(f"{path}/rows?offset={len(model) - 3}").json["rows"]
    assert [row["id"] for row in last] == model.ids[-3:]


def test_small_changes_of_large_memories_are_quick(start_daemon, tmp_path):
    """As quick as those of a small one, or nearly."""
    rows = 1_000_000
    daemon = Restartable(start_daemon, tmp_path / "data")
    path, small = "/v1/memories/large", "/v1/memories/small"
    daemon.put(path, {"key_dim": 8, "value_dim": 8})
    daemon.put(small, {"key_dim": 8, "value_dim": 8})
    numbers = np.tile(np.arange(8, dtype=np.float32), (rows, 1))
    assert post_tensors(daemon, path, numbers, numbers).json["rows"] == rows
    harness.wait_until(lambda: daemon.get("/readyz").status == 200, 10, "/readyz")
    with daemon.client() as client:
        for what, body in (("append", {}), ("append with an id", {"ids": ["x"]}), ("upsert", {"ids": ["x"]})):
            times = {path: [], small: []}
            for _ in range(5):
                body = {**body, "keys": [[1] * 8], "values": [[2] * 8]}
                if what == "append with an id":
                    body["ids"] = [f"x{_}"]
                for where in times:
                    began = time.monotonic()
                    assert client.request("POST", where + "/rows", body).status == 200
                    times[where].append(time.monotonic() - began)
            best = min(times[path])
            print(f"{what} to {rows} rows: best {1e3 * best:.1f} ms, to few {1e3 * min(times[small]):.1f} ms")
            assert best < max(0.1 * harness.SLOW, 20 * min(times[small]))
    assert daemon.get(path).json["rows"] == rows + 11
