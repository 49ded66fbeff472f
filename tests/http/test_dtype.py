"""Smaller memories: what a dtype keeps is what NumPy's rounding keeps, within the
bound that the library documents, everything is computed from that, and META's
`bytes` and the daemon's resident size tell the truth."""

import numpy as np
import pytest

import harness
import oracle

BYTES = {"f32": 4, "f16": 2, "bf16": 2, "int8": 1}


def kept(matrix, dtype):
    """The float32 numbers that a memory of that dtype holds for these."""
    if dtype == "f16":
        return matrix.astype(np.float16).astype(np.float32)
    if dtype == "bf16":
        bits = matrix.view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        return bits.astype(np.uint32).view(np.float32)
    if dtype == "int8":
        scale = (np.abs(matrix).max(axis=1, keepdims=True) / np.float32(127)).astype(np.float32)
        steps = np.rint(matrix.astype(np.float64) / np.where(scale == 0, 1, scale))
        return (steps * scale).astype(np.float32)
    return matrix


def example(rows, key_dim, value_dim, seed):
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((rows, key_dim)).astype(np.float32),
            generator.standard_normal((rows, value_dim)).astype(np.float32),
            generator.standard_normal((6, key_dim)).astype(np.float32))


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("score", ["scaled_dot", "cosine", "euclidean", "gaussian", "triangular"])
def test_answers_are_those_of_the_kept_numbers(daemon, memory_name, dtype, score):
    keys, values, queries = example(300, 24, 5, seed=len(dtype) * 31 + len(score))
    spec = {"type": score, **({"sigma": 2} if score == "gaussian" else {}),
            **({"radius": 8} if score == "triangular" else {})}
    path = f"/v1/memories/{memory_name}"
    meta = daemon.put(path, {"keys": keys.tolist(), "values": values.tolist(), "score": spec,
                             "dtype": dtype})
    assert meta.status == 201 and meta.json["dtype"] == dtype
    reply = daemon.request("POST", path + "/attend", {"queries": queries.tolist()}).json
    normalization = {"type": oracle.default_normalization(score)}
    expected = oracle.attend(queries, kept(keys, dtype), kept(values, dtype), spec, normalization)
    # Whole steps of int8 may fall the other way where a quotient is next to a half.
    slack = 30 if dtype == "int8" else 1
    assert np.abs(np.array(reply["weights"]) - expected.weights).max() <= slack * 1e-5
    assert np.abs(np.array(reply["outputs"]) - expected.outputs).max() <= slack * 4e-5


@pytest.mark.parametrize("dtype", BYTES)
def test_bytes_tell_the_truth(daemon, memory_name, dtype):
    rows, dim = 4096, 128
    keys, values, _ = example(rows, dim, dim, seed=5)
    meta = daemon.put(f"/v1/memories/{memory_name}",
                      {"keys": keys.round(3).tolist(), "values": values.round(3).tolist(),
                       "dtype": dtype}).json
    tensors = 2 * rows * dim * BYTES[dtype]
    assert tensors <= meta["bytes"] <= 1.15 * tensors


@pytest.mark.parametrize("number", [65520.0, -1e6])
def test_beyond_the_dtype(daemon, memory_name, number):
    path = f"/v1/memories/{memory_name}"
    body = {"keys": [[1, 2]], "values": [[number]], "dtype": "f16"}
    reply = daemon.put(path, body)
    assert reply.status == 400 and reply.json["code"] == "invalid_number"
    assert daemon.request("GET", path).status == 404
    assert daemon.put(path, {**body, "dtype": "bf16"}).status == 201


def test_resident_size(start_daemon):
    if harness.SLOW > 1:
        pytest.skip("sanitizers and valgrind keep memory of their own")
    daemon = start_daemon()
    tensors = 0
    for dtype, size in BYTES.items():
        keys, values, _ = example(8_000, 128, 128, seed=6)
        body = {"keys": keys.round(2).tolist(), "values": values.round(2).tolist(), "dtype": dtype}
        assert daemon.put(f"/v1/memories/{dtype}", body).status == 201
        tensors += 2 * 8_000 * 128 * size
    resident = daemon.metric("process_resident_memory_bytes")
    assert resident <= 1.15 * tensors + 50e6, f"{resident / 1e6:.1f} MB for {tensors / 1e6:.1f} MB"
