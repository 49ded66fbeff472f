"""Every score with every normalization and every form of weights, over HTTP,
meets the error bounds of the contract against an oracle in float64; and the
numbers of the replies are written as short as can be."""

import functools

import numpy as np
import pytest

import oracle
from numbers_text import grid, grid_text, longer_than_needed

# rows, key_dim, value_dim, queries, query_dim where the score allows another
SHAPES = {
    "tiny": (1, 1, 1, 1, 2),
    "small": (7, 5, 2, 3, 4),
    "ragged": (33, 64, 9, 17, 48),
    "tiles": (1100, 19, 3, 5, 23),
}
OTHER_QUERY_DIM = ("bilinear", "additive")
TOP = 4


@functools.lru_cache(maxsize=None)
def problem(shape, other_query_dim):
    """Random float32 matrices; a third of the queries are keys."""
    rows, key_dim, value_dim, count, query_dim = SHAPES[shape]
    generator = np.random.default_rng([rows, key_dim, count])
    keys = generator.normal(size=(rows, key_dim)).astype(np.float32)
    values = generator.normal(size=(rows, value_dim)).astype(np.float32)
    if other_query_dim:
        queries = generator.normal(size=(count, query_dim)).astype(np.float32)
    else:
        near = keys[generator.integers(0, rows, count)]
        queries = (near + 0.7 * generator.normal(size=near.shape)).astype(np.float32)
        queries[::3] = near[::3]
    return queries, keys, values


def parameters(score, shape, chosen):
    """The score as an object: its defaults, or parameters that suit the data."""
    rows, key_dim, _, _, query_dim = SHAPES[shape]
    generator = np.random.default_rng([3, key_dim])
    tensor = lambda *size: (generator.normal(size=size) / np.sqrt(size[-1])).astype(np.float32).tolist()
    if score == "bilinear":
        return {"type": score, "w": tensor(query_dim, key_dim)}
    if score == "additive":
        hidden = 11
        return {"type": score, "w_q": tensor(hidden, query_dim), "w_k": tensor(hidden, key_dim),
                "v": (2 * generator.normal(size=hidden)).astype(np.float32).tolist()}
    if not chosen:
        return {"type": score}
    span = float(np.sqrt(key_dim))
    extra = {
        "scaled_dot": {"scale": 0.31}, "cosine": {"scale": 7.5}, "euclidean": {"scale": 1.3},
        "gaussian": {"sigma": 0.4 * span}, "laplacian": {"sigma": 0.3 * span},
        "boxcar": {"radius": 1.1 * span}, "triangular": {"radius": 1.7 * span},
        "epanechnikov": {"radius": 1.6 * span},
        "inverse_distance": {"power": 1.5, "epsilon": 0.05},
    }
    return {"type": score, **extra.get(score, {})}


def forms(normalization):
    """The normalization as it can be asked for."""
    yield normalization
    if normalization == "softmax":
        yield {"type": normalization, "temperature": 0.6}
        yield {"type": normalization, "temperature": 2.5, "top_k": 3}
    elif normalization in oracle.TAKES_TOP_K:
        yield {"type": normalization, "top_k": 3}


def check_outputs(reply, expected, normalization, values):
    outputs = np.array(reply["outputs"])
    assert outputs.shape == expected.outputs.shape
    error = np.abs(outputs - expected.outputs) - expected.output_bounds(normalization, values)
    worst = error[expected.decided].max(initial=-1)
    assert worst <= 0, f"an output is {worst:g} beyond its bound"


def check_full(reply, expected, normalization):
    weights = np.array(reply["weights"])
    assert weights.shape == expected.weights.shape
    error = np.abs(weights - expected.weights) - expected.weight_bounds(normalization)
    worst = error[expected.decided].max(initial=-1)
    assert worst <= 0, f"a weight is {worst:g} beyond its bound"


def check_top(reply, expected, normalization, top):
    """The K largest, largest first, none of weight 0; the set may differ from
    the oracle's only where weights agree within the bound."""
    assert len(reply["weights"]) == len(expected.weights)
    bounds = expected.weight_bounds(normalization)
    for query, largest in enumerate(reply["weights"]):
        rows = [entry["row"] for entry in largest]
        weights = [entry["weight"] for entry in largest]
        assert all(set(entry) == {"row", "weight"} for entry in largest)
        assert len(set(rows)) == len(rows) <= top
        assert all(0 <= row < expected.weights.shape[1] for row in rows)
        assert 0 not in weights
        order = list(zip(weights, (-row for row in rows)))
        assert order == sorted(order, reverse=True), "not largest first, lower row first"
        if not expected.decided[query]:
            continue
        reference, bound = expected.weights[query], bounds[query]
        assert (np.abs(np.array(weights) - reference[rows]) <= bound[rows]).all()
        others = np.delete(np.arange(len(reference)), rows)
        sure = others[np.abs(reference[others]) > bound[others]]
        if len(rows) == top:
            least = min(weights)
            assert (reference[sure] - bound[sure] <= least + 1e-5 * max(1, abs(least))).all()
        else:
            # Rows of weight 0 are larger than negative ones and may have had their places.
            zeros = (np.abs(reference) <= bound).any()
            out = sure[reference[sure] > 0] if zeros else sure
            assert len(out) == 0, f"rows {out[:5]} have weight and were left out"


def check(reply, expected, normalization, values, mode):
    check_outputs(reply, expected, normalization, values)
    if mode == "none":
        assert "weights" not in reply
    elif mode == "full":
        check_full(reply, expected, normalization)
    else:
        check_top(reply, expected, normalization, mode["top"])


@pytest.fixture(scope="module")
def stored(daemon):
    """One memory for each shape; score and normalization come with requests."""
    names = {}
    for shape in SHAPES:
        _, keys, values = problem(shape, False)
        names[shape] = f"matrix-{shape}"
        body = {"keys": keys.tolist(), "values": values.tolist()}
        assert daemon.put(f"/v1/memories/{names[shape]}", body).status in (200, 201)
    yield names
    for name in names.values():
        daemon.delete(f"/v1/memories/{name}")


@pytest.mark.parametrize("normalization", oracle.NORMALIZATIONS)
@pytest.mark.parametrize("score", oracle.SCORES)
def test_score_and_normalization(daemon, stored, score, normalization):
    decided = total = 0
    with daemon.client() as client:
        for shape in SHAPES:
            queries, keys, values = problem(shape, score in OTHER_QUERY_DIM)
            tensors = {"keys": keys.tolist(), "values": values.tolist()}
            for chosen in (False, True):
                given = parameters(score, shape, chosen)
                for form in forms(normalization):
                    expected = oracle.attend(queries, keys, values, given, form)
                    decided += expected.decided.sum()
                    total += len(queries)
                    body = {"queries": queries.tolist(), "score": given, "normalization": form}
                    path = f"/v1/memories/{stored[shape]}/attend"
                    for mode in ("full", "none", {"top": TOP}):
                        reply = client.request("POST", path, {**body, "weights": mode})
                        assert reply.status == 200, (shape, form, mode, reply)
                        assert reply.json["memory"] == stored[shape]
                        check(reply.json, expected, normalization, values, mode)
                        assert not longer_than_needed(reply.text)
                    if shape == "tiles":
                        continue
                    reply = client.request("POST", "/v1/attend", {**body, **tensors})
                    assert reply.status == 200, (shape, form, reply)
                    check(reply.json, expected, normalization, values, "full")
    assert decided > total / 2, "the data decide too little"


@pytest.mark.parametrize("score", oracle.SCORES)
def test_memory_of_that_score(daemon, memory_name, score):
    """Score and normalization kept with the memory, the default one first."""
    queries, keys, values = problem("ragged", score in OTHER_QUERY_DIM)
    given = parameters(score, "ragged", True)
    path = f"/v1/memories/{memory_name}"
    for normalization in (None, "softmax", {"type": "sum"}):
        body = {"keys": keys.tolist(), "values": values.tolist(), "score": given}
        if normalization is not None:
            body["normalization"] = normalization
        assert daemon.put(path, body).status in (200, 201)
        reply = daemon.post(path + "/attend", {"queries": queries.tolist()})
        assert reply.status == 200, reply
        used = normalization or oracle.default_normalization(score)
        name = used if isinstance(used, str) else used["type"]
        expected = oracle.attend(queries, keys, values, given, used)
        check(reply.json, expected, name, values, "full")


def attend(daemon, queries, keys, values, score, normalization, weights="full"):
    body = {"queries": np.asarray(queries).tolist(), "keys": np.asarray(keys).tolist(),
            "values": np.asarray(values).tolist(), "score": score,
            "normalization": normalization, "weights": weights}
    reply = daemon.post("/v1/attend", body)
    assert reply.status == 200, reply
    return reply.json


def compare(daemon, queries, keys, values, score, normalization):
    reply = attend(daemon, queries, keys, values, score, normalization)
    expected = oracle.attend(queries, keys, values, score, normalization)
    assert expected.decided.any()
    name = normalization if isinstance(normalization, str) else normalization["type"]
    check(reply, expected, name, values, "full")
    return reply


@pytest.mark.parametrize("score", [
    {"type": "gaussian", "sigma": 0.5}, {"type": "laplacian", "sigma": 0.05},
])
@pytest.mark.parametrize("far", [3.0, 30.0])
def test_far_query_gets_the_nearest_keys(daemon, score, far):
    """exp() of these is 0 even in float64, the quotient is not."""
    generator = np.random.default_rng(8)
    keys = generator.normal(size=(50, 6)).astype(np.float32)
    values = generator.normal(size=(50, 3)).astype(np.float32)
    queries = (keys[:4] + far * np.ones(6)).astype(np.float32)
    reply = compare(daemon, queries, keys, values, score, "sum")
    assert np.allclose(np.sum(reply["weights"], axis=1), 1, atol=1e-5)
    compare(daemon, queries, keys, values, score, {"type": "sum", "top_k": 2})


@pytest.mark.parametrize("score", [
    {"type": "gaussian", "sigma": 0.02}, {"type": "laplacian", "sigma": 0.02},
    {"type": "euclidean", "scale": 20}, {"type": "triangular", "radius": 0.1},
    {"type": "epanechnikov", "radius": 0.1}, {"type": "boxcar", "radius": 0.06},
    {"type": "inverse_distance", "epsilon": 0.05},
])
def test_distances_far_from_the_origin(daemon, score):
    """Keys that differ in the last digits of numbers near 1,000: expanding
    |q-k|^2 in float32 would leave nothing of the distances."""
    generator = np.random.default_rng(9)
    keys = (1000 + 0.02 * generator.normal(size=(80, 8))).astype(np.float32)
    values = generator.normal(size=(80, 3)).astype(np.float32)
    queries = (keys[:12] + 0.01 * generator.normal(size=(12, 8))).astype(np.float32)
    for normalization in ("softmax", "sum"):
        compare(daemon, queries, keys, values, score, normalization)


def test_near_duplicates(daemon):
    """Two keys a few float32 steps apart, at a kernel as narrow as that."""
    base = np.full((1, 16), 0.7, np.float32)
    keys = np.concatenate([base, base + np.float32(1e-6), base - np.float32(2e-6)])
    values = np.eye(3)
    for score in ({"type": "gaussian", "sigma": 4e-6}, {"type": "laplacian", "sigma": 4e-6}):
        compare(daemon, base, keys, values, score, "sum")


@pytest.mark.parametrize("score, queries", [
    ({"type": "boxcar", "radius": 0.5}, [[9, 9]]),
    ({"type": "triangular", "radius": 0.5}, [[9, 9]]),
    ({"type": "epanechnikov", "radius": 0.5}, [[9, 9]]),
    ("exact", [[9, 9]]),
    ("dot", [[0, 0]]),
    ("cosine", [[0, 0]]),
    ("dot", [[1, -1]]),  # two scores of 1 and -1 that add up to exactly 0
])
def test_no_mass(daemon, score, queries):
    keys, values = [[1, 0], [0, 1]], [[1, 2, 3], [4, 5, 6]]
    for normalization in ("sum", {"type": "sum", "top_k": 2}):
        reply = attend(daemon, queries, keys, values, score, normalization)
        assert reply["weights"] == [[0, 0]] and reply["outputs"] == [[0, 0, 0]]
        reply = attend(daemon, queries, keys, values, score, normalization, {"top": 2})
        assert reply["weights"] == [[]]


def test_ties_go_to_the_lower_row(daemon):
    """Equal keys, near and far apart in the table, tie exactly."""
    generator = np.random.default_rng(10)
    distinct = generator.normal(size=(150, 21)).astype(np.float32)
    keys = np.concatenate([distinct, distinct, distinct])
    values = generator.normal(size=(450, 1)).astype(np.float32)
    queries = (distinct[::10] * 1.5).astype(np.float32)
    for score in ("dot", "scaled_dot", "cosine", "euclidean", "gaussian", "laplacian"):
        reply = attend(daemon, queries, keys, values, score, "hardmax")
        rows = [weights.index(1) for weights in reply["weights"]]
        assert all(row < 150 for row in rows), (score, rows)
        reply = attend(daemon, queries, keys, values, score, {"type": "softmax", "top_k": 2},
                       {"top": 3})
        for largest in reply["weights"]:
            first, second = (entry["row"] for entry in largest)
            assert (first < 150, second) == (True, first + 150), (score, largest)


def test_top_k_of_all_ties(daemon):
    keys, values = np.zeros((40, 3)), np.arange(40)[:, None]
    reply = attend(daemon, [[1, 2, 3]], keys, values, "dot", {"type": "softmax", "top_k": 4})
    assert np.flatnonzero(reply["weights"][0]).tolist() == [0, 1, 2, 3]
    assert abs(reply["outputs"][0][0] - 1.5) < 1e-5


def test_top_k_and_top_beyond_the_rows(daemon):
    keys, values = [[1, 0], [0, 1]], [[1], [2]]
    a = attend(daemon, [[1, 2]], keys, values, "dot", {"type": "softmax", "top_k": 100})
    b = attend(daemon, [[1, 2]], keys, values, "dot", "softmax", {"top": 100})
    assert [entry["row"] for entry in b["weights"][0]] == [1, 0]
    assert a["weights"][0] == [entry["weight"] for entry in reversed(b["weights"][0])]


def test_exact_takes_zero_for_minus_zero(daemon):
    reply = attend(daemon, [[0.0, 1], [-0.0, 1]], [[-0.0, 1], [0.0, 2]], [[5], [6]], "exact", "sum")
    assert reply["outputs"] == [[5], [5]]


def test_hardmax_and_exact_look_up(daemon):
    """A look-up is exact: the value comes back bit by bit."""
    generator = np.random.default_rng(11)
    keys = generator.normal(size=(300, 4)).astype(np.float32)
    values = (generator.normal(size=(300, 5)) * 10.0 ** generator.integers(-20, 20, (300, 5)))
    values = values.astype(np.float32)
    for score, normalization in (("exact", "sum"), ("exact", "none"), ("euclidean", "hardmax")):
        reply = attend(daemon, keys[::7], keys, values, score, normalization, "none")
        assert (np.array(reply["outputs"]).astype(np.float32) == values[::7]).all()


def test_numbers_of_all_sizes_are_short(daemon):
    """Values that come back as they went in, from the whole range of float32."""
    generator = np.random.default_rng(12)
    bits = generator.integers(0, 2**32, 3000, dtype=np.uint32)
    edges = [0.1, 1e-45, 1.17549435e-38, 3.4028235e38, 16777216, 1e10, 123456.7, 0.001, 100, 5e-324]
    numbers = np.concatenate([bits.view(np.float32), np.array(edges, np.float32)])
    numbers = numbers[np.isfinite(numbers)]
    values = numbers[: len(numbers) // 10 * 10].reshape(-1, 10)
    keys = np.arange(len(values), dtype=np.float32)[:, None]
    body = {"queries": keys.tolist(), "keys": keys.tolist(), "values": values.astype(float).tolist(),
            "score": "exact", "weights": "none"}
    reply = daemon.post("/v1/attend", body)
    assert reply.status == 200, reply
    got = np.array(reply.json["outputs"])
    assert (got.astype(np.float32) == values).all()
    assert (got.astype(np.float32).astype(float) - got == 0).mean() < 1, "doubles, not float32"
    assert not longer_than_needed(reply.text, limit=100_000)


def test_large_batch(daemon, memory_name):
    """64 x 768 queries against 10,000 x 768 keys."""
    generator = np.random.default_rng(13)
    keys, values = grid(generator, 10_000, 768), grid(generator, 10_000, 8)
    queries = grid(generator, 64, 768)
    path = f"/v1/memories/{memory_name}"
    body = f'{{"keys":{grid_text(keys)},"values":{grid_text(values)}}}'
    assert daemon.request("PUT", path, body, timeout=60).status == 201
    for score, normalization in (({"type": "scaled_dot", "scale": 0.15}, "softmax"),
                                 ({"type": "gaussian", "sigma": 6}, "sum")):
        expected = oracle.attend(queries, keys, values, score, normalization)
        for mode in ("none", {"top": 5}, "full"):
            body = {"queries": queries.tolist(), "score": score, "normalization": normalization,
                    "weights": mode}
            reply = daemon.request("POST", path + "/attend", body, timeout=60)
            assert reply.status == 200, reply
            check(reply.json, expected, normalization, values, mode)
