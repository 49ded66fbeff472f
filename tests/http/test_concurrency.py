"""Many clients at once get what each alone would get: equal answers, whole
versions, and nothing but the documented statuses."""

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import oracle

THREADS = 32


def run_all(count, work):
    """work(i) on `count` threads; what failed first is raised."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


@pytest.mark.parametrize("score, normalization", [
    ("scaled_dot", "softmax"), ({"type": "gaussian", "sigma": 4}, "sum"),
    ("cosine", "sparsemax"), ("euclidean", {"type": "softmax", "top_k": 5}),
])
def test_equal_answers_under_load(daemon, memory_name, score, normalization):
    """The very same bytes: a batch of others' queries changes nothing."""
    generator = np.random.default_rng(21)
    keys = generator.normal(size=(3000, 24)).astype(np.float32)
    values = generator.normal(size=(3000, 4)).astype(np.float32)
    path = f"/v1/memories/{memory_name}"
    body = {"keys": keys.tolist(), "values": values.tolist(), "score": score,
            "normalization": normalization}
    assert daemon.put(path, body).status == 201
    sizes = [1 + number % 5 for number in range(THREADS)]
    queries = [generator.normal(size=(size, 24)).astype(np.float32) for size in sizes]
    requests = [json.dumps({"queries": q.tolist(), "weights": {"top": 5}}) for q in queries]
    alone = [daemon.post(path + "/attend", request) for request in requests]
    for reply, query in zip(alone, queries):
        assert reply.status == 200
        expected = oracle.attend(query, keys, values, score, normalization)
        error = np.abs(np.array(reply.json["outputs"]) - expected.outputs)
        assert (error <= expected.output_bounds("softmax", values)).all()

    def ask(number):
        with daemon.client() as client:
            for _ in range(6):
                reply = client.request("POST", path + "/attend", requests[number])
                assert reply.status == 200, reply
                assert reply.body == alone[number].body
        return number

    assert run_all(THREADS, ask) == list(range(THREADS))


def test_full_weights_under_load(daemon, memory_name):
    generator = np.random.default_rng(22)
    keys = generator.normal(size=(700, 8)).astype(np.float32)
    path = f"/v1/memories/{memory_name}"
    assert daemon.put(path, {"keys": keys.tolist(), "values": keys.tolist()}).status == 201
    queries = generator.normal(size=(THREADS, 3, 8)).astype(np.float32)

    def ask(number):
        reply = daemon.post(path + "/attend", {"queries": queries[number].tolist()})
        expected = oracle.attend(queries[number], keys, keys, "scaled_dot", "softmax")
        assert np.abs(np.array(reply.json["weights"]) - expected.weights).max() <= 1e-5
        assert (np.abs(np.array(reply.json["outputs"]) - expected.outputs)
                <= expected.output_bounds("softmax", keys)).all()
        return reply.status

    assert set(run_all(THREADS, ask)) == {200}


def test_replace_is_atomic(daemon, memory_name):
    """Two kinds of version, told apart by the constant that is their values,
    their rows and their value_dim: a reply is of one version alone."""
    path = f"/v1/memories/{memory_name}"
    kinds = [
        {"rows": 400, "dim": 3, "constant": 1.0, "score": "gaussian"},
        {"rows": 150, "dim": 5, "constant": -2.0, "score": "dot"},
    ]
    bodies = []
    for kind in kinds:
        rows = [[row % 7 / 7.0, row % 5 / 5.0] for row in range(kind["rows"])]
        values = [[kind["constant"]] * kind["dim"]] * kind["rows"]
        bodies.append(json.dumps({"keys": rows, "values": values, "score": kind["score"]}))
    first = daemon.put(path, bodies[0])
    assert first.status == 201
    kind_of = {first.json["version"]: 0}
    seen, stop = [], threading.Event()

    def replace(_):
        with daemon.client() as client:
            for number in itertools.count(1):
                reply = client.request("PUT", path, bodies[number % 2])
                assert reply.status == 200, reply
                kind_of[reply.json["version"]] = number % 2
                if stop.is_set() or number >= 80 and len({version for version, _ in seen}) > 3:
                    break
        stop.set()

    def read(_):
        body = {"queries": [[0.2, 0.4], [1, 1]]}
        try:
            with daemon.client() as client:
                last = 0
                while not stop.is_set():
                    reply = client.request("POST", path + "/attend", body)
                    assert reply.status == 200, reply
                    assert reply.json["version"] >= last, "a version went back"
                    last = reply.json["version"]
                    seen.append((last, reply.json))
        finally:
            stop.set()

    with ThreadPoolExecutor(7) as pool:
        jobs = [pool.submit(replace, 0)] + [pool.submit(read, i) for i in range(6)]
        try:
            for job in jobs:
                job.result()
        finally:
            stop.set()
    for version, reply in seen:
        kind = kinds[kind_of[version]]
        assert [len(weights) for weights in reply["weights"]] == [kind["rows"]] * 2
        for output in reply["outputs"]:
            assert len(output) == kind["dim"]
            assert all(abs(number - kind["constant"]) < 1e-4 for number in output)


def test_delete_under_load(daemon, memory_name):
    path = f"/v1/memories/{memory_name}"
    body = {"keys": [[row] for row in range(500)], "values": [[7]] * 500}
    stop, statuses = threading.Event(), set()

    def churn():
        with daemon.client() as client:
            for _ in range(60):
                assert client.request("PUT", path, body).status == 201
                assert client.request("DELETE", path).status == 204
        stop.set()

    def read():
        with daemon.client() as client:
            while not stop.is_set():
                reply = client.request("POST", path + "/attend", {"queries": [[3], [4]], "weights": "none"})
                statuses.add(reply.status)
                if reply.status == 200:
                    assert all(abs(output[0] - 7) < 1e-3 for output in reply.json["outputs"])
                else:
                    assert reply.status == 404 and reply.json["code"] == "memory_not_found", reply

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(churn)] + [pool.submit(read) for _ in range(5)]
        try:
            for job in jobs:
                job.result()
        finally:
            stop.set()
    assert statuses <= {200, 404} and statuses


def test_many_memories_at_once(daemon, memory_names):
    """Clients that each work on their own memory don't meet."""
    names = [memory_names() for _ in range(THREADS)]

    def live(number):
        path = f"/v1/memories/{names[number]}"
        with daemon.client() as client:
            for turn in range(5):
                value = number + turn / 8
                assert client.request("PUT", path, {"keys": [[1]], "values": [[value]]}).status in (200, 201)
                reply = client.request("POST", path + "/attend", {"queries": [[1]]})
                assert reply.json["outputs"] == [[value]]
                assert client.request("GET", path).json["name"] == names[number]
        return True

    assert all(run_all(THREADS, live))


def test_mix_of_good_and_bad(daemon, memory_name):
    """Bad requests of one client leave the others' answers alone."""
    path = f"/v1/memories/{memory_name}"
    assert daemon.put(path, {"keys": [[1, 2]], "values": [[3]]}).status == 201
    bad = ["{", '{"queries":[[1]]}', '{"queries":[["x",1]]}', '{"queries":[[1,2]],"score":"?"}', "[" * 3000]

    def ask(number):
        with daemon.client() as client:
            for turn in range(15):
                if number % 2:
                    reply = client.request("POST", path + "/attend", bad[turn % len(bad)])
                    assert reply.status in (400, 422), reply
                else:
                    reply = client.request("POST", path + "/attend", {"queries": [[turn, 1]]})
                    assert reply.json["outputs"] == [[3]], reply
        return True

    assert all(run_all(16, ask))
