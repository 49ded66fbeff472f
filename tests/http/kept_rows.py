"""What a memory's rows have to be after any sequence of changes: a plain list, as
the contract describes it, and the checks that hold a daemon to it.

Rows stand in the order in which they were inserted, an upsert leaves a row where
it is, a removal closes the gap. Numbers are those that the dtype keeps
(kept), so rows are compared exactly and answers within the bound.
"""

import json

import numpy as np

import harness
import oracle
import tensors
from test_dtype import kept as kept_halves


def kept(matrix, dtype):
    """The float32 numbers that a memory of that dtype holds for these, to the bit:
    of an int8 row's scale only 17 bits are kept, so that products are exact."""
    if dtype != "int8":
        return kept_halves(matrix, dtype)
    exact = np.abs(matrix).max(axis=1, keepdims=True).astype(np.float64) / 127
    scale = (exact.view(np.uint64) & ~np.uint64((1 << 36) - 1)).view(np.float64)
    scale = np.where(exact == 0, 1, np.maximum(scale, 2.0**-126))
    return (np.rint(matrix.astype(np.float64) / scale) * scale).astype(np.float32)


class Model:
    """keys [n, dk] and values [n, dv] as float32, ids (None: a row has none)."""

    def __init__(self, key_dim, value_dim, dtype="f32", score="scaled_dot"):
        self.dtype, self.score, self.version = dtype, score, 0
        self.keys = np.zeros((0, key_dim), np.float32)
        self.values = np.zeros((0, value_dim), np.float32)
        self.ids = []

    def __len__(self):
        return len(self.ids)

    def numbers(self, generator, rows):
        """Keys and values that are short as text."""
        return tuple(generator.standard_normal((rows, kind.shape[1])).round(3).astype(np.float32)
                     for kind in (self.keys, self.values))

    def put(self, keys, values, ids=None):
        self.keys, self.values = kept(keys, self.dtype), kept(values, self.dtype)
        self.ids = list(ids) if ids else [None] * len(keys)

    def post(self, keys, values, ids=None):
        """(inserted, updated)"""
        keys, values = kept(keys, self.dtype), kept(values, self.dtype)
        places = {id: row for row, id in enumerate(self.ids) if id is not None}
        new = [i for i in range(len(keys)) if not ids or ids[i] not in places]
        old = [i for i in range(len(keys)) if ids and ids[i] in places]
        if old:
            rows = [places[ids[i]] for i in old]
            self.keys, self.values = self.keys.copy(), self.values.copy()
            self.keys[rows], self.values[rows] = keys[old], values[old]
        self.keys = np.concatenate([self.keys, keys[new]])
        self.values = np.concatenate([self.values, values[new]])
        self.ids = self.ids + [ids[i] if ids else None for i in new]
        return len(new), len(old)

    def delete(self, ids):
        """How many rows that were."""
        gone = set(ids)
        left = [row for row, id in enumerate(self.ids) if id is None or id not in gone]
        count = len(self.ids) - len(left)
        self.keys, self.values = self.keys[left], self.values[left]
        self.ids = [self.ids[row] for row in left]
        return count


def json_rows(keys, values, ids=None, **more):
    body = {"keys": keys.tolist(), "values": values.tolist(), **more}
    return {**body, "ids": ids} if ids else body


def post_tensors(daemon, path, keys, values, ids=None, headers=None, **more):
    if ids:
        more["ids"] = ids
    body = tensors.dump({"keys": keys, "values": values}, {"request": json.dumps(more)})
    return daemon.post(path + "/rows", body, {"Content-Type": tensors.MEDIA_TYPE, **(headers or {})})


def pages(daemon, path, limit=10_000):
    """All rows as GET tells them: (ids, keys, values, version)."""
    ids, keys, values, at, version = [], [], [], 0, None
    while True:
        reply = daemon.get(f"{path}/rows?offset={at}&limit={limit}")
        assert reply.status == 200, reply
        page = reply.json
        assert set(page) == {"rows", "total", "version"}
        assert reply.headers["ETag"] == f'"{page["version"]}"'
        assert version in (None, page["version"])
        version = page["version"]
        assert len(page["rows"]) == max(0, min(limit, page["total"] - at))
        for number, row in enumerate(page["rows"]):
            assert set(row) <= {"row", "id", "key", "value"} and row["row"] == at + number
            ids.append(row.get("id"))
            keys.append(row["key"])
            values.append(row["value"])
        at += limit
        if at >= page["total"]:
            return ids, np.array(keys, np.float32), np.array(values, np.float32), version


def check_rows(daemon, path, model, limit=10_000):
    ids, keys, values, version = pages(daemon, path, limit)
    assert version == model.version
    assert ids == model.ids
    if len(model):
        assert np.array_equal(keys, model.keys) and np.array_equal(values, model.values)


def check_meta(daemon, path, model):
    reply = daemon.get(path)
    meta = reply.json
    assert (meta["rows"], meta["version"]) == (len(model), model.version), meta
    assert (meta["key_dim"], meta["value_dim"]) == (model.keys.shape[1], model.values.shape[1])
    assert meta["dtype"] == model.dtype
    assert reply.headers["ETag"] == f'"{model.version}"'


def check_answers(daemon, path, model, generator, queries=3):
    """By NumPy; the bytes of the reply, for a later comparison."""
    queries = generator.standard_normal((queries, model.keys.shape[1])).round(3)
    reply = daemon.post(path + "/attend", {"queries": queries.tolist()})
    if len(model) == 0:
        assert reply.status == 422 and reply.json["code"] == "empty_memory"
        return None
    assert reply.status == 200, reply
    normalization = oracle.default_normalization(
        model.score if isinstance(model.score, str) else model.score["type"])
    expected = oracle.attend(queries, model.keys, model.values, model.score, normalization)
    assert reply.json["version"] == model.version
    assert np.abs(np.array(reply.json["weights"]) - expected.weights).max() <= 1e-5
    bounds = expected.output_bounds(normalization, model.values)
    assert (np.abs(np.array(reply.json["outputs"]) - expected.outputs) <= bounds).all()
    return queries, reply.body


def check_all(daemon, path, model, generator, limit=10_000):
    check_meta(daemon, path, model)
    check_rows(daemon, path, model, limit)
    return check_answers(daemon, path, model, generator)


def check_same(daemon, path, answer):
    """After a restart the answer is the same one, to the last bit."""
    if answer is not None:
        queries, body = answer
        assert daemon.post(path + "/attend", {"queries": queries.tolist()}).body == body


class Restartable:
    """A daemon on a folder of its own that can be stopped or killed, and started
    again on the same data."""

    def __init__(self, start_daemon, folder, *flags):
        self._start, self._flags = start_daemon, ("--data-dir", folder, *flags)
        self.data_dir = folder
        self.daemon = start_daemon(*self._flags)

    def stop(self):
        assert self.daemon.stop() == 0, self.daemon.log()[-2000:]

    def kill(self):
        self.daemon.kill()
        self.daemon.expected_exit = -9

    def start(self):
        self.daemon = self._start(*self._flags)
        return self.daemon

    def restart(self, kill=False):
        self.kill() if kill else self.stop()
        return self.start()

    def __getattr__(self, name):
        return getattr(self.daemon, name)


def is_problem(reply, status, code, pointer=None):
    assert reply.status == status, reply
    assert reply.headers["Content-Type"].split(";")[0] == "application/problem+json"
    assert reply.json["code"] == code and reply.json["status"] == status, reply
    if pointer is not None:
        assert reply.json.get("pointer", "") == pointer, reply
    return True


def can_time():
    """Sanitizers and wrappers make times and sizes say nothing."""
    return harness.SLOW == 1
