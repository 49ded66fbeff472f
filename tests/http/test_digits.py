"""A real check without a model: handwritten digits, told apart by Gaussian
attention pooling (Nadaraya-Watson) over the first 1,297 of them."""

import numpy as np
import pytest

import harness
import oracle


@pytest.fixture(scope="module")
def digits():
    table = np.loadtxt(harness.DATA / "digits.csv", delimiter=",", dtype=int)
    assert table.shape == (1797, 65)
    pixels, labels = table[:, :64] / 16.0, table[:, 64]
    return pixels[:1297], np.eye(10)[labels[:1297]], pixels[1297:], labels[1297:]


@pytest.mark.parametrize("sigma, right", [(0.3, 483), (0.5, 482), (0.7, 479)])
def test_digits(daemon, memory_name, digits, sigma, right):
    keys, values, queries, labels = digits
    path = f"/v1/memories/{memory_name}"
    score = {"type": "gaussian", "sigma": sigma}
    body = {"keys": keys.tolist(), "values": values.tolist(), "score": score, "normalization": "sum"}
    assert daemon.put(path, body).status == 201
    expected = oracle.attend(queries, keys, values, score, "sum")
    reply = daemon.post(path + "/attend", {"queries": queries.tolist()})
    assert reply.status == 200
    outputs, weights = np.array(reply.json["outputs"]), np.array(reply.json["weights"])
    assert np.abs(weights - expected.weights).max() <= 1e-5
    assert np.abs(outputs - expected.outputs).max() <= 1.1e-5
    assert (outputs.argmax(axis=1) == labels).sum() == right
    assert (expected.outputs.argmax(axis=1) == labels).sum() == right


def test_weights_explain_the_answer(daemon, memory_name, digits):
    """The rows that a query leans on, with ids, are its nearest keys."""
    keys, values, queries, _ = digits
    path = f"/v1/memories/{memory_name}"
    ids = [f"digit {row}" for row in range(len(keys))]
    body = {"keys": keys.tolist(), "values": values.tolist(), "ids": ids,
            "score": {"type": "gaussian", "sigma": 0.3}}
    assert daemon.put(path, body).status == 201
    reply = daemon.post(path + "/attend", {"queries": queries[:50].tolist(), "weights": {"top": 1}})
    nearest = oracle.squared_distances(queries[:50], keys).argmin(axis=1)
    assert [largest[0]["row"] for largest in reply.json["weights"]] == nearest.tolist()
    assert [largest[0]["id"] for largest in reply.json["weights"]] == [ids[row] for row in nearest]
