"""What a memory has to be after each change, and the requests that change it.

A Memory is immutable: its rows as NumPy arrays, its ids, its version. A Change is
a request and a function of Memory to Memory. So "what the daemon may know after a
crash" is a short list of Memories: the one after the last acknowledged change, and
that one with the change under way applied.

Nothing here is approximate. Numbers are exact in every dtype that is used, rows
are compared bit by bit (an export), and answers are compared as bytes with those
of a second daemon that keeps all in RAM, was never killed, and was told the same
changes one by one.
"""

import contextlib
import json
import os
import re
import time
from dataclasses import dataclass, replace

import numpy

import harness
import tensors

LONG = os.environ.get("ATTENTIOND_LONG") == "1"
KEY_DIM, VALUE_DIM = 8, 5


def rounds(short, long, sanitized):
    """How often: a sanitizer's build (ATTENTIOND_SLOW) does less."""
    if LONG:
        return long
    return sanitized if harness.SLOW > 1 else short


@dataclass(frozen=True)
class Memory:
    version: int
    keys: numpy.ndarray
    values: numpy.ndarray
    ids: tuple = None  # None: the rows have none
    dtype: str = "f32"
    score: str = "scaled_dot"

    @property
    def rows(self):
        return len(self.keys)


class Change:
    """`apply` takes the Memory there is (or None) and the version that the reply
    named; its result is the Memory (or None) afterwards."""

    def __init__(self, method, path, body, apply, kind, binary=False, headers=None):
        self.method, self.path, self.kind = method, path, kind
        self.apply = apply
        self.body = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self.headers = dict(headers or {})
        if binary:
            self.headers["Content-Type"] = tensors.MEDIA_TYPE

    def send(self, client):
        return client.request(self.method, self.path, self.body, self.headers)


def matrix(rng, rows, dim):
    """Numbers that every dtype but int8 holds exactly."""
    return (rng.integers(-512, 512, (rows, dim)) / 64).astype("<f4")


def body_of(keys, values, ids=None, **members):
    body = {"keys": keys.tolist(), "values": values.tolist(), **members}
    if ids is not None:
        body["ids"] = list(ids)
    return body


def put(name, keys, values, ids=None, dtype="f32", score="scaled_dot", binary=False):
    members = {"dtype": dtype, "score": score}
    if binary:
        if ids is not None:
            members["ids"] = list(ids)
        body = tensors.dump({"keys": keys, "values": values}, {"request": json.dumps(members)})
    else:
        body = body_of(keys, values, ids, **members)
    made = Memory(0, keys, values, None if ids is None else tuple(ids), dtype, score)
    return Change("PUT", f"/v1/memories/{name}", body,
                  lambda before, version: replace(made, version=version), "put", binary)


def append(name, keys, values, ids=None, binary=False, headers=None):
    """With ids, those that are there are replaced where they stand."""

    def apply(before, version):
        if ids is None:
            return replace(before, version=version, keys=numpy.vstack([before.keys, keys]),
                           values=numpy.vstack([before.values, values]))
        place = {name: row for row, name in enumerate(before.ids)}
        new_keys, new_values = before.keys.copy(), before.values.copy()
        added = []
        for i, name in enumerate(ids):
            if name in place:
                new_keys[place[name]], new_values[place[name]] = keys[i], values[i]
            else:
                added.append(i)
        return replace(before, version=version,
                       keys=numpy.vstack([new_keys, keys[added]]),
                       values=numpy.vstack([new_values, values[added]]),
                       ids=before.ids + tuple(ids[i] for i in added))

    if binary:
        body = tensors.dump({"keys": keys, "values": values},
                            {"request": json.dumps({} if ids is None else {"ids": list(ids)})})
    else:
        body = body_of(keys, values, ids)
    return Change("POST", f"/v1/memories/{name}/rows", body, apply,
                  "append" if ids is None else "upsert", binary, headers)


def remove(name, ids):
    gone = set(ids)

    def apply(before, version):
        kept = [row for row, name in enumerate(before.ids) if name not in gone]
        return replace(before, version=version, keys=before.keys[kept], values=before.values[kept],
                       ids=tuple(before.ids[row] for row in kept))

    return Change("DELETE", f"/v1/memories/{name}/rows", {"ids": list(ids)}, apply, "remove")


def settle(name, score):
    return Change("PATCH", f"/v1/memories/{name}", {"score": score},
                  lambda before, version: replace(before, version=version, score=score), "settle")


def drop(name):
    return Change("DELETE", f"/v1/memories/{name}", None, lambda before, version: None, "drop")


# ---- What the daemon says ----

def wait_for_chores(folder):
    """Until nothing has been written to the store for a while: the daemon has done what
    it does when nobody writes, or has given it up."""
    seen, since = None, 0

    def rests():
        nonlocal seen, since
        now = {}
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a log may go while one looks
                now[path.name] = path.stat().st_mtime_ns
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > harness.SLOW

    harness.wait_until(rests, 60, "the store to come to rest")


def is_serving(daemon):
    """It has loaded; /readyz says 503 all the same where its store has failed."""
    assert daemon.process.poll() is None, f"the daemon left with {daemon.process.returncode}"
    return any(line["event"] == "ready" for line in daemon.log_lines())

def read(client, name):
    """The memory as it is served, or None; and the reply."""
    reply = client.request("GET", f"/v1/memories/{name}", headers={"Accept": tensors.MEDIA_TYPE})
    if reply.status != 200:
        return None, reply
    arrays, notes = tensors.load(reply.body)
    request, meta = json.loads(notes["request"]), json.loads(notes["reply"])
    ids = tuple(request["ids"]) if "ids" in request else None
    assert meta["rows"] == len(arrays["keys"]) == len(arrays["values"])
    return Memory(meta["version"], arrays["keys"], arrays["values"], ids, request["dtype"],
                  request["score"]["type"]), reply


def differs(served, expected, any_version=False):
    """What is different, or None."""
    if served is None or expected is None:
        return None if served is expected is None else \
            f"there is {'none' if served is None else 'one'}"
    if not any_version and served.version != expected.version:
        return f"version {served.version}, not {expected.version}"
    if served.rows != expected.rows:
        return f"{served.rows} rows, not {expected.rows}"
    if expected.rows and served.ids != expected.ids:
        return "other ids"
    if (served.dtype, served.score) != (expected.dtype, expected.score):
        return f"{served.dtype} {served.score}, not {expected.dtype} {expected.score}"
    for what in ("keys", "values"):
        ours, theirs = getattr(served, what), getattr(expected, what)
        if ours.tobytes() != numpy.ascontiguousarray(theirs, "<f4").tobytes():
            rows = numpy.flatnonzero((ours != theirs).any(axis=1))
            return f"other {what} in the rows {rows[:10]} and {len(rows)} in all"
    return None


_VERSION = re.compile(rb'"version":\d+')


def answer(client, name, key_dim, queries=3):
    """The reply to a batch of queries, without its version."""
    rng = numpy.random.default_rng(key_dim)
    body = {"queries": matrix(rng, queries, key_dim).tolist()}
    reply = client.request("POST", f"/v1/memories/{name}/attend", body)
    return reply.status, _VERSION.sub(b'"version":0', reply.body)
