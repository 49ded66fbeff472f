"""Numbers at the edges of float32: whatever a client sends that JSON and
float32 can hold, the answer is finite and right, or a 422 that says that it
can't be. Never NaN, never a 5xx."""

import numpy as np
import pytest

import oracle

HUGE, TINY = 3.4028234e38, 1e-45
SIMPLEX = ("softmax", "hardmax", "sparsemax", "entmax15")


def score_object(score, key_dim=3):
    square = np.eye(key_dim).tolist()
    extra = {"bilinear": {"w": square}, "additive": {"w_q": square, "w_k": square, "v": [1.0] * key_dim}}
    return {"type": score, **extra.get(score, {})}


def attend(daemon, queries, keys, values, score, normalization, weights="full"):
    body = {"queries": queries, "keys": keys, "values": values, "score": score,
            "normalization": normalization, "weights": weights}
    return daemon.post("/v1/attend", body)


def sane(reply, queries, keys, values, score, normalization):
    """422, or finite numbers that are what the normalization promises."""
    name = normalization if isinstance(normalization, str) else normalization["type"]
    convex = name in SIMPLEX or (name == "sum" and score in oracle.KERNELS)
    if reply.status != 200:
        assert not convex, f"a mean of the values is always float32: {reply}"
        assert reply.status == 422 and reply.json["code"] == "not_representable", reply
        return
    weights, outputs = np.array(reply.json["weights"]), np.array(reply.json["outputs"])
    assert weights.shape == (len(queries), len(keys)) and outputs.shape == (len(queries), len(values[0]))
    assert np.isfinite(weights).all() and np.isfinite(outputs).all()
    if name in SIMPLEX:
        assert (weights >= 0).all() and np.allclose(weights.sum(axis=1), 1, atol=1e-4), (score, name, weights)
        largest = np.abs(values).max()
        assert (np.abs(outputs) <= largest * (1 + 1e-4)).all()
    if name == "sigmoid":
        assert ((weights >= 0) & (weights <= 1)).all()
    if name == "sum" and score in oracle.KERNELS:
        total = weights.sum(axis=1)
        assert (weights >= 0).all() and np.logical_or(np.isclose(total, 1, atol=1e-4), total == 0).all(), weights


KEYS = {
    "huge": [[HUGE, 0, 0], [-HUGE, HUGE, 1], [HUGE, HUGE, HUGE], [0, 0, 0]],
    "tiny": [[TINY, 0, 0], [-TINY, TINY, 0], [1e-38, 1e-40, 1e-42], [0, 0, 0]],
    "mixed": [[HUGE, TINY, 1], [1, 1e20, -1e20], [1e-20, -HUGE, 0], [1e19, 1e19, 1e19]],
    "zero": [[0, 0, 0], [-0.0, 0, 0], [0, 0, 0]],
}


@pytest.mark.parametrize("normalization", oracle.NORMALIZATIONS)
@pytest.mark.parametrize("score", oracle.SCORES)
def test_edges_of_float32(daemon, score, normalization):
    for keys in KEYS.values():
        values = [[HUGE, row, -TINY] for row in range(len(keys))]
        small = [[1.5, row] for row in range(len(keys))]
        for queries in (keys, [[1, 2, 3]], [[HUGE, -HUGE, HUGE], [TINY, 0, -TINY]]):
            for given in (small, values):
                reply = attend(daemon, queries, keys, given, score_object(score), normalization)
                sane(reply, queries, keys, given, score, normalization)
            if normalization in oracle.TAKES_TOP_K:
                top = {"type": normalization, "top_k": 2}
                reply = attend(daemon, queries, keys, small, score_object(score), top)
                sane(reply, queries, keys, small, score, top)


@pytest.mark.parametrize("score, parameters", [
    ("gaussian", ({"sigma": 1e-30}, {"sigma": 1e30}, {"sigma": 1e-300}, {"sigma": 1e300})),
    ("laplacian", ({"sigma": 1e-30}, {"sigma": 1e300}, {"sigma": 5e-324})),
    ("boxcar", ({"radius": 1e-30}, {"radius": 1e300})),
    ("triangular", ({"radius": 1e-300}, {"radius": 1e300})),
    ("epanechnikov", ({"radius": 1e-300}, {"radius": 1e300})),
    ("inverse_distance", ({"power": 300}, {"power": 1e-9}, {"epsilon": 1e-300}, {"epsilon": 1e300},
                          {"power": 1e300})),
    ("scaled_dot", ({"scale": 1e300}, {"scale": -1}, {"scale": 0}, {"scale": 1e-300})),
    ("cosine", ({"scale": 1e300}, {"scale": 0})),
    ("euclidean", ({"scale": 1e300}, {"scale": 0})),
])
def test_edges_of_parameters(daemon, score, parameters):
    """A parameter is refused (400, and named) or the result makes sense."""
    generator = np.random.default_rng(41)
    keys, values = generator.normal(size=(9, 3)).tolist(), generator.normal(size=(9, 2)).tolist()
    queries = [*keys[:2], [0.1, 0.2, 0.3], [100, 100, 100]]
    for given in parameters:
        for normalization in ("softmax", "sum", "none", "sparsemax", "hardmax",
                              {"type": "softmax", "temperature": 1e-300},
                              {"type": "softmax", "temperature": 1e300}):
            reply = attend(daemon, queries, keys, values, {"type": score, **given}, normalization)
            if reply.status == 400:
                assert reply.json["pointer"] in ("/score/" + next(iter(given)), "/normalization/temperature"), reply
            else:
                sane(reply, queries, keys, values, score, normalization)


@pytest.mark.parametrize("shift", [1e4, -1e4, 1e6])
def test_softmax_is_shift_safe(daemon, shift):
    """Scores far from 0 that lie close together: only differences count. They
    are whole numbers, so that float32 holds them exactly."""
    keys, values = [[shift], [shift + 1], [shift + 3]], np.eye(3).tolist()
    for normalization in ("softmax", "sparsemax", "entmax15", {"type": "softmax", "top_k": 2}):
        reply = attend(daemon, [[1]], keys, values, "dot", normalization)
        expected = oracle.attend([[1]], keys, values, "dot", normalization)
        assert np.abs(np.array(reply.json["weights"]) - expected.weights).max() <= 1e-5


@pytest.mark.parametrize("key_dim, value_dim, rows", [(4096, 1, 40), (1, 3000, 40), (2, 2, 20_000)])
def test_long_and_wide(daemon, key_dim, value_dim, rows):
    """Up to 4,096 components, and more rows than any tile has."""
    generator = np.random.default_rng(42)
    keys = generator.integers(-64, 64, (rows, key_dim)) / 64
    values = generator.integers(-64, 64, (rows, value_dim)) / 64
    queries = generator.integers(-64, 64, (3, key_dim)) / 64
    path = f"/v1/memories/wide-{key_dim}-{value_dim}-{rows}"
    body = {"keys": keys.tolist(), "values": values.tolist()}
    assert daemon.put(path, body).status == 201
    try:
        for score, normalization in (("scaled_dot", "softmax"), ({"type": "gaussian", "sigma": 20}, "sum"),
                                     ("cosine", "sigmoid"), ("euclidean", "entmax15"), ("constant", "sum"),
                                     ("dot", {"type": "softmax", "top_k": 100}), ("exact", "softmax")):
            expected = oracle.attend(queries, keys, values, score, normalization)
            name = normalization if isinstance(normalization, str) else normalization["type"]
            reply = daemon.post(path + "/attend", {"queries": queries.tolist(), "score": score,
                                                   "normalization": normalization})
            assert reply.status == 200, reply
            seen = expected.decided
            weights, outputs = np.array(reply.json["weights"]), np.array(reply.json["outputs"])
            assert (np.abs(weights - expected.weights) <= expected.weight_bounds(name))[seen].all(), score
            assert (np.abs(outputs - expected.outputs) <= expected.output_bounds(name, values))[seen].all(), score
            if name == "sigmoid" or score == "constant":
                assert seen.all()
    finally:
        daemon.delete(path)


def test_sum_of_signed_scores(daemon):
    """Weights beyond 1 and below 0 that nearly cancel: relative to their size
    they are still right."""
    generator = np.random.default_rng(43)
    keys = generator.normal(size=(400, 6)).astype(np.float32)
    keys = np.concatenate([keys, -keys, [[0.02] * 6]]).astype(np.float32)
    values = generator.normal(size=(len(keys), 2)).astype(np.float32)
    queries = generator.normal(size=(20, 6)).astype(np.float32)
    reply = attend(daemon, queries.tolist(), keys.tolist(), values.tolist(), "dot", "sum")
    expected = oracle.attend(queries, keys, values, "dot", "sum")
    error = np.abs(np.array(reply.json["weights"]) - expected.weights)
    assert (error <= 1e-5 * np.abs(expected.weights).max(axis=1, keepdims=True)).all()


@pytest.mark.parametrize("key_dim", [64, 4096])
def test_scores_that_cancel(daemon, key_dim):
    """Small scores as the difference of sums in the ten thousands: adding up in
    float32 would be off by far more than the bound."""
    generator = np.random.default_rng(44)
    halves = np.where(np.arange(key_dim) < key_dim // 2, 3.0, -3.0)
    keys = halves + 0.3 * generator.normal(size=(60, key_dim))
    keys -= keys.sum(axis=1, keepdims=True) / key_dim
    queries = 3 + 0.4 / np.sqrt(key_dim) * generator.normal(size=(8, key_dim))
    values = generator.normal(size=(60, 3))
    keys, queries = keys.astype(np.float32).tolist(), queries.astype(np.float32).tolist()
    for normalization in ("softmax", "sparsemax", "sigmoid"):
        reply = attend(daemon, queries, keys, values.tolist(), "dot", normalization)
        expected = oracle.attend(queries, keys, values, "dot", normalization)
        assert expected.decided.all()
        error = np.abs(np.array(reply.json["weights"]) - expected.weights)
        assert (error <= expected.weight_bounds(normalization)).all(), error.max()
