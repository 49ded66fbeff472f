"""Requests that wait for the same memory are computed together. Nobody can
tell from the answers: each is, byte for byte, what it is alone, and one
request's fault or impatience is not its neighbours'."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

import harness
import wire

ROWS = 12_000
BATCHED = "attentiond_batched_requests_total"


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """One worker, so that there is a queue, and what keeps it busy."""
    daemon = harness.Daemon(tmp_path_factory.mktemp("single"), ["--threads", 1])
    generator = np.random.default_rng(61)
    rows = (generator.integers(-256, 256, (ROWS, 8)) / 128).tolist()
    assert daemon.put("/v1/memories/m", {"keys": rows, "values": rows, "score": "dot"}).status == 201
    hidden = [[0.5] * 8] * 64
    daemon.blocker = json.dumps({
        "queries": rows[:100], "weights": "none", "normalization": "softmax",
        "score": {"type": "additive", "w_q": hidden, "w_k": hidden, "v": [0.1] * 64}})
    yield daemon
    daemon.assert_healthy_end()


def ask(daemon, body):
    return daemon.request("POST", "/v1/memories/m/attend", body, timeout=60)


def post(body):
    return wire.post("/v1/memories/m/attend", body.encode())


def idles(daemon):
    """But for the request that asks."""
    return daemon.metric("attentiond_requests_in_flight") <= 1


def together_once(daemon, bodies):
    """The replies, and how many requests were computed in company; or None where the
    worker was done with what should have kept it busy before all had come."""
    harness.wait_until(lambda: idles(daemon), 10, "the end of what was before")
    before = daemon.metric(BATCHED)
    with ExitStack() as stack:
        blocker, *wires = (stack.enter_context(wire.Wire(daemon, timeout=60)) for _ in [None, *bodies])
        blocker.send(post(daemon.blocker))
        harness.wait_until(lambda: blocker.has_more() or not idles(daemon), 10, "the blocker")
        with daemon.held():
            for each, body in zip(wires, bodies):
                each.send(post(body))
            held_up = not blocker.has_more()
        replies = [each.reply() for each in wires]
        assert blocker.reply().status == 200
    harness.wait_until(lambda: idles(daemon), 10, "the end of all")
    return (replies, daemon.metric(BATCHED) - before) if held_up else None


def together(daemon, bodies):
    """All of them while the worker is busy with something else."""
    for _ in range(20):
        done = together_once(daemon, bodies)
        if done:
            return done
    raise AssertionError("the worker is never busy for long enough")


MANY = 50  # queries enough that the request is neither computed where it was read nor let in between


def queries(seed, count=MANY):
    generator = np.random.default_rng(seed)
    return (generator.integers(-256, 256, (count, 8)) / 128).tolist()


def test_batches_are_made_and_answer_alike(single):
    modes = ("none", {"top": 3}, {"top": 7}, "full", "none")
    bodies = [json.dumps({"queries": queries(i, MANY + i % 4), "weights": modes[i % 5]}) for i in range(30)]
    alone = [ask(single, body) for body in bodies]
    for _ in range(20):  # the worker may be done with the blocker just after all have come
        replies, batched = together(single, bodies)
        for reply, single_reply in zip(replies, alone):
            assert reply.status == 200 and reply.body == single_reply.body
        if batched >= 12:
            break
    assert batched >= 12, "full weights stay alone, and so do the first and the last of a kind"


@pytest.mark.parametrize("score, normalization", [
    ("scaled_dot", "softmax"), ("cosine", "hardmax"), ({"type": "gaussian", "sigma": 2}, "sum"),
    ("euclidean", "entmax15"), ("dot", {"type": "softmax", "top_k": 3}), ("exact", "sum"),
    ("dot", "none"), ("laplacian", "sigmoid"),
])
def test_every_kind_alike(single, score, normalization):
    bodies = [json.dumps({"queries": queries(100 + i, MANY + i % 2), "score": score, "normalization": normalization,
                          "weights": {"top": 2}}) for i in range(8)]
    alone = [ask(single, body) for body in bodies]
    replies, _ = together(single, bodies)
    assert [reply.status for reply in alone] == [200] * 8
    assert [reply.body for reply in replies] == [reply.body for reply in alone]


def test_different_requests_are_kept_apart(single):
    """Other parameters, other normalizations, another memory."""
    assert single.put("/v1/memories/other", {"keys": [[1] * 8], "values": [[5]]}).status in (200, 201)
    bodies = []
    for i in range(24):
        score = ({"type": "gaussian", "sigma": 1 + i % 3}, "dot",
                 {"type": "scaled_dot", "scale": 0.1 * (1 + i % 2)})[i % 3]
        normalization = ("softmax", {"type": "softmax", "temperature": 2}, {"type": "sum", "top_k": 4})[i // 3 % 3]
        bodies.append(json.dumps({"queries": queries(7), "score": score, "normalization": normalization,
                                  "weights": {"top": 2}}))
    alone = [ask(single, body) for body in bodies]
    replies, _ = together(single, bodies)
    assert [reply.body for reply in replies] == [reply.body for reply in alone]
    assert len({reply.body for reply in alone}) > 8


def test_a_fault_stays_with_its_request(single):
    """Outputs beyond float32, and queries of the wrong length, in the midst."""
    good = [json.dumps({"queries": queries(200 + i), "normalization": "none", "weights": "none"}) for i in range(10)]
    overflow = json.dumps({"queries": [[3e38] * 8], "normalization": "none", "weights": "none"})
    short = json.dumps({"queries": [[1, 2]], "normalization": "none", "weights": "none"})
    bodies = [*good[:5], overflow, short, *good[5:], overflow]
    alone = [ask(single, body) for body in bodies]
    assert [reply.status for reply in alone] == [200] * 5 + [422, 422] + [200] * 5 + [422]
    replies, _ = together(single, bodies)
    assert [(reply.status, reply.body) for reply in replies] == [(reply.status, reply.body) for reply in alone]


def test_impatience_stays_with_its_request(single):
    """One client gives its answer a millisecond, one hangs up; the rest are
    served."""
    bodies = [json.dumps({"queries": queries(300 + i), "weights": "none", **({"timeout_ms": 1} if i == 3 else {})})
              for i in range(10)]
    alone = [ask(single, body) for i, body in enumerate(bodies) if i != 3]
    with single.connect() as gone:
        gone.sendall(f"POST /v1/memories/m/attend HTTP/1.1\r\nHost: x\r\nContent-Length: {len(bodies[0])}\r\n\r\n"
                     .encode() + bodies[0].encode())
    replies, _ = together(single, bodies)
    assert replies[3].status == 504 and replies[3].json["code"] == "timeout", replies[3]
    assert [reply.body for i, reply in enumerate(replies) if i != 3] == [reply.body for reply in alone]


def test_replace_and_delete_while_waiting(single):
    """A waiting request is answered from the version it names, whatever became
    of the memory meanwhile."""
    path = "/v1/memories/short-lived"
    assert single.put(path, {"keys": [[1]] * 50, "values": [[4]] * 50}).status == 201
    versions = [single.get(path).json["version"]]
    with ThreadPoolExecutor(12) as pool:
        blocker = pool.submit(ask, single, single.blocker)
        waiting = [pool.submit(single.post, path + "/attend", {"queries": [[1]], "weights": "none"}) for _ in range(8)]
        replaced = single.put(path, {"keys": [[1]] * 50, "values": [[9]] * 50})
        versions.append(replaced.json["version"])
        single.delete(path)
        assert blocker.result().status == 200
    for job in waiting:
        reply = job.result()
        if reply.status == 404:
            continue
        assert reply.status == 200
        assert reply.json["outputs"] == [[{versions[0]: 4, versions[1]: 9}[reply.json["version"]]]]


# ---- Small requests, answered where they are read ----

@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Memories whose queries take microseconds; one thread that reads them all."""
    daemon = harness.Daemon(tmp_path_factory.mktemp("small"), ["--io-threads", 1])
    generator = np.random.default_rng(62)
    rows = (generator.integers(-256, 256, (300, 8)) / 128).tolist()
    assert daemon.put("/v1/memories/m", {"keys": rows, "values": rows, "score": "dot"}).status == 201
    assert daemon.put("/v1/memories/n", {"keys": rows[:20], "values": rows[:20]}).status == 201
    yield daemon
    daemon.assert_healthy_end()


def attend(body, name="m"):
    return wire.post(f"/v1/memories/{name}/attend", body)


def test_a_crowd_of_small_requests_is_answered_alike(small):
    """Of all kinds and on connections of their own, all of them there when the thread
    comes to read, again and again; each gets what it gets alone, and all that can be
    are computed in company."""
    requests = [attend({"queries": queries(400 + i, 1 + i % 2), "weights": "none"}) for i in range(12)]
    requests += [attend({"queries": queries(420 + i, 1), "weights": "none"}, "n") for i in range(4)]
    requests += [attend({"queries": queries(430 + i, 1), "weights": {"top": 3}}) for i in range(4)]
    requests += [attend({"queries": queries(440, 1), "weights": "none", "score": {"type": "gaussian", "sigma": 2}}),
                 attend({"queries": queries(441, 1), "weights": "full"}),
                 attend({"queries": [[3e38] * 8], "weights": "none", "normalization": "none"}),
                 attend({"queries": [[1, 2]], "weights": "none"}),
                 attend({"queries": [[1]]}, "absent"),
                 wire.request(b"GET /healthz HTTP/1.1")]
    wires = [wire.Wire(small) for _ in requests]
    wanted = [each.ask(request) for each, request in zip(wires, requests)]
    assert [reply.status for reply in wanted] == [200] * 22 + [422, 422, 404, 200]
    before = small.metric(BATCHED)
    for _ in range(10):
        with small.held():
            for each, request in zip(wires, requests):
                each.send(request)
        for each, alone in zip(wires, wanted):
            reply = each.reply()
            assert (reply.status, reply.body) == (alone.status, alone.body)
    # 20 of a crowd are like others. The first ones of a run are not put off.
    assert small.metric(BATCHED) - before >= 100
    for each in wires:
        each.close()


def test_clients_that_leave_a_crowd(small):
    """Those that stay are served, and nothing is left under way."""
    request = attend({"queries": queries(500, 1), "weights": "none"})
    with wire.Wire(small) as alone:
        wanted = alone.ask(request).body
    for number in range(50):
        wires = [wire.Wire(small) for _ in range(12)]
        with ExitStack() as stack:
            if number % 2:
                stack.enter_context(small.held())
            for i, each in enumerate(wires):
                each.send(request)
                if i % 3 == 0:
                    each.reset()
        for i, each in enumerate(wires):
            if i % 3:
                reply = each.reply()
                assert (reply.status, reply.body) == (200, wanted)
                each.close()
    harness.wait_until(lambda: idles(small), 10, "the end of all")
