"""Binary bodies against JSON ones: the same memories, rows, queries and answers in
either form; exports that can be put back; what is malformed; imports that take
the RAM of the memory and little more."""

import http.client
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

import harness
import tensors
import wire
from kept_rows import can_time, is_problem, pages, post_tensors
from test_dtype import BYTES

BINARY = {"Content-Type": tensors.MEDIA_TYPE}
ACCEPT = {"Accept": tensors.MEDIA_TYPE}
ROWS, KEY_DIM, VALUE_DIM = 40, 6, 3


@pytest.fixture
def path(memory_name):
    return f"/v1/memories/{memory_name}"


def example(seed=1, rows=ROWS):
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((rows, KEY_DIM)).astype("f4"),
            generator.standard_normal((rows, VALUE_DIM)).astype("f4"),
            generator.standard_normal((5, KEY_DIM)).astype("f4"))


def binary(arrays, **request):
    return tensors.dump(arrays, {"request": json.dumps(request)} if request else None)


def load(reply):
    """(arrays, the JSON beside them) of a binary reply."""
    assert reply.status == 200, reply
    assert reply.headers["Content-Type"] == tensors.MEDIA_TYPE
    arrays, metadata = tensors.load(reply.body)
    return arrays, {name: harness.strict_json(text) for name, text in metadata.items()}


# ---- In

AS = {"F64": lambda array: array.astype("f8"), "F32": lambda array: array,
      "F16": lambda array: array.astype("f2"), "BF16": tensors.bfloat16}
SEEN = {"F64": lambda array: array, "F32": lambda array: array,
        "F16": lambda array: array.astype("f2").astype("f4"),
        "BF16": lambda array: tensors.bfloat16(array).numbers()}


@pytest.mark.parametrize("kind", AS)
def test_every_way_in(daemon, path, kind):
    """A memory, rows and queries in each type, with all that JSON can say."""
    keys, values, queries = example()
    ids = [f"\u00e4{row}" for row in range(ROWS)]
    reply = daemon.put(path, binary({"values": AS[kind](values), "keys": AS[kind](keys)}, ids=ids,
                                    score={"type": "gaussian", "sigma": 2}, normalization="softmax"), BINARY)
    assert reply.status == 201, reply
    assert reply.json["score"] == {"type": "gaussian", "sigma": 2}
    assert reply.json["normalization"]["type"] == "softmax"
    reply = post_tensors(daemon, path, AS[kind](keys), AS[kind](-values), ["new"] + ids[1:])
    assert (reply.json["inserted"], reply.json["updated"]) == (1, ROWS - 1), reply
    got_ids, got_keys, got_values, _ = pages(daemon, path)
    assert got_ids == ids + ["new"]
    assert np.array_equal(got_keys, SEEN[kind](np.vstack([keys, keys[:1]])))
    assert np.array_equal(got_values, SEEN[kind](np.vstack([values[:1], -values[1:], -values[:1]])))
    told = daemon.post(path + "/attend", {"queries": SEEN[kind](queries).tolist()})
    assert told.status == 200, told
    reply = daemon.post(path + "/attend", binary({"queries": AS[kind](queries)}), BINARY)
    assert reply.headers["Content-Type"] == "application/json" and reply.json == told.json


@pytest.mark.parametrize("weights", ["full", "none", {"top": 3}], ids=str)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "ad_hoc"])
def test_answers(daemon, memory_name, path, weights, stored):
    """Both forms in, both forms out: the same numbers."""
    keys, values, queries = example(2)
    ids = [f"id {row}" for row in range(ROWS)]
    meta = daemon.put(path, binary({"keys": keys, "values": values}, ids=ids), BINARY).json
    where = path + "/attend" if stored else "/v1/attend"
    arrays = {"queries": queries, **({} if stored else {"keys": keys, "values": values})}
    rest = {"weights": weights, "score": "euclidean", "normalization": {"type": "softmax", "top_k": 9}}
    as_json = {**rest, **{name: array.tolist() for name, array in arrays.items()}}
    told = daemon.post(where, as_json).json
    assert daemon.post(where, binary(arrays, **rest), BINARY).json == told
    for body, headers in ((json.dumps(as_json), {}), (binary(arrays, **rest), BINARY)):
        out, notes = load(daemon.post(where, body, {**headers, **ACCEPT}))
        assert set(out) == {"outputs"} | ({"weights"} if weights == "full" else set())
        assert {array.dtype for array in out.values()} == {np.dtype("<f4")}
        assert np.array_equal(out["outputs"], np.array(told["outputs"], "f4"))
        note = notes["reply"]
        if weights == "full":
            assert np.array_equal(out["weights"], np.array(told["weights"], "f4"))
        if isinstance(weights, dict):
            assert note["weights"] == told["weights"]
        if stored:
            assert (note["memory"], note["version"]) == (memory_name, meta["version"])


def test_accept_is_weighed(daemon):
    body = {"queries": [[1]], "keys": [[1]], "values": [[1]]}
    for accept, wanted in (("application/json", "application/json"), ("*/*", "application/json"),
                           ("application/x-safetensors;q=0.1, application/json", "application/json"),
                           ("application/json;q=0.5, application/x-safetensors", tensors.MEDIA_TYPE)):
        reply = daemon.post("/v1/attend", body, {"Accept": accept})
        assert (reply.status, reply.headers["Content-Type"]) == (200, wanted), accept
    reply = daemon.post("/v1/attend", {**body, "queries": [[1, 2]]}, ACCEPT)
    is_problem(reply, 422, "shape_mismatch")


def test_score_tensors(daemon, path):
    """score.w and the others, in each request that takes a score."""
    keys, values, _ = example(3)
    generator = np.random.default_rng(3)
    queries, w = generator.standard_normal((4, 2)).astype("f4"), generator.standard_normal((2, KEY_DIM)).astype("f4")
    asked = {"queries": queries.tolist(), "score": {"type": "bilinear", "w": w.tolist()}}
    daemon.put(path, binary({"keys": keys, "values": values}), BINARY)
    told = daemon.post(path + "/attend", asked).json
    reply = daemon.post(path + "/attend", binary({"queries": queries, "score.w": w}, score="bilinear"), BINARY)
    assert reply.json == told
    reply = daemon.put(path, binary({"score.w": w, "keys": keys, "values": values}, score="bilinear"), BINARY)
    assert reply.json["query_dim"] == 2, reply
    assert daemon.post(path + "/attend", {"queries": queries.tolist()}).json["outputs"] == told["outputs"]


# ---- Exports

def scores():
    generator = np.random.default_rng(4)

    def matrix(*shape):
        return generator.standard_normal(shape).round(3).tolist()

    return [{"type": "dot"}, {"type": "scaled_dot"}, {"type": "scaled_dot", "scale": 0.3},
            {"type": "cosine", "scale": 3}, {"type": "bilinear", "w": matrix(4, KEY_DIM)},
            {"type": "additive", "w_q": matrix(7, 2), "w_k": matrix(7, KEY_DIM), "v": matrix(1, 7)[0]},
            {"type": "euclidean", "scale": 0.1}, {"type": "gaussian", "sigma": 1.7},
            {"type": "laplacian", "sigma": 0.9}, {"type": "boxcar", "radius": 3},
            {"type": "triangular", "radius": 4}, {"type": "epanechnikov", "radius": 4},
            {"type": "inverse_distance", "power": 1.5, "epsilon": 0.01}, {"type": "constant"}, {"type": "exact"}]


@pytest.mark.parametrize("dtype", BYTES)
def test_exports_can_be_put_back(daemon, memory_names, dtype):
    keys, values, _ = example(5)
    for number, score in enumerate(scores()):
        source, target = (f"/v1/memories/{memory_names()}" for _ in range(2))
        body = {"keys": keys.tolist(), "values": values.tolist(), "score": score, "dtype": dtype,
                "normalization": {"type": ["softmax", "sum", "none", "sparsemax"][number % 4]}}
        if number % 2:
            body.update(ids=[f"{row}\"\n\u4e2d" for row in range(ROWS)], ttl_seconds=1000.5)
        meta = daemon.put(source, body).json
        reply = daemon.get(source, ACCEPT)
        arrays, notes = load(reply)
        assert reply.headers["ETag"] == f'"{meta["version"]}"'
        _, kept_keys, kept_values, _ = pages(daemon, source)
        assert np.array_equal(arrays["keys"], kept_keys) and np.array_equal(arrays["values"], kept_values)
        assert set(arrays) == {"keys", "values"} | {
            f"score.{name}" for name in score if isinstance(score[name], list)}
        assert notes["reply"] == meta
        back = daemon.put(target, reply.body, BINARY)
        assert back.status == 201, back
        same = ("rows", "query_dim", "key_dim", "value_dim", "dtype", "score", "normalization", "ttl_seconds")
        assert [back.json.get(name) for name in same] == [meta.get(name) for name in same]
        assert pages(daemon, target)[0] == pages(daemon, source)[0]
        queries = np.random.default_rng(6).standard_normal((3, meta["query_dim"])).round(2).tolist()
        one, two = (daemon.post(f"{place}/attend", {"queries": queries}).json for place in (source, target))
        assert (one["outputs"], one["weights"]) == (two["outputs"], two["weights"]), score
        again, _ = load(daemon.get(target, ACCEPT))
        assert all(np.array_equal(again[name], arrays[name]) for name in arrays)


def test_export_of_an_empty_memory(daemon, memory_names):
    source, target = (f"/v1/memories/{memory_names()}" for _ in range(2))
    daemon.put(source, {"key_dim": 3, "value_dim": 2, "score": "dot", "dtype": "bf16"})
    reply = daemon.get(source, ACCEPT)
    arrays, _ = load(reply)
    assert (arrays["keys"].shape, arrays["values"].shape) == ((0, 3), (0, 2))
    back = daemon.put(target, reply.body, BINARY)
    assert (back.status, back.json["rows"], back.json["key_dim"]) == (201, 0, 3), back
    assert (back.json["score"]["type"], back.json["dtype"]) == ("dot", "bf16")


def test_export_of_some_ids(daemon, path):
    """Ids of some rows only have no place in a body of ids for all."""
    daemon.put(path, {"keys": [[1]], "values": [[2]], "ids": ["a"]})
    daemon.post(path + "/rows", {"keys": [[3]], "values": [[4]]})
    reply = daemon.get(path, ACCEPT)
    arrays, _ = load(reply)
    assert arrays["keys"].tolist() == [[1], [3]]
    assert daemon.put(path, reply.body, BINARY).json["rows"] == 2


# ---- Faults

def good(**changes):
    return {"keys": np.ones((2, 3), "f4"), "values": np.ones((2, 1), "f4"), **changes}


def entry(**changes):
    """A header whose entry of `keys` is changed."""
    def header(table):
        table["keys"].update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del table["keys"][name]
        return table
    return tensors.dump(good(), header=header)


def text(text):
    return tensors.dump(good(), header=lambda table: text)


def lengths(length):
    return struct.pack("<Q", length) + tensors.dump(good())[8:]


GOOD = tensors.dump(good())
MALFORMED = {
    "empty": b"", "seven_bytes": GOOD[:7], "eight_bytes": GOOD[:8], "half_a_header": GOOD[:40],
    "no_data": GOOD[:8 + struct.unpack("<Q", GOOD[:8])[0]], "cut": GOOD[:-1], "more": GOOD + b"\0",
    "header_0": lengths(0), "header_2^63": lengths(1 << 63), "header_2^64-1": lengths((1 << 64) - 1),
    "header_too_long": lengths(len(GOOD)), "no_json": text(b"nonsense"), "array": text(b"[]      "),
    "comma": text(b'{"keys":{},}    '), "utf8": text(b'{"\xff\xfe":{}}'), "json_body": b'{"keys":[[1]],"values":[[1]]}',
    "no_dtype": entry(dtype=None), "no_shape": entry(shape=None), "no_offsets": entry(data_offsets=None),
    "dtype_unknown": entry(dtype="F8_E4M3"), "dtype_number": entry(dtype=7), "dtype_I32": entry(dtype="I32"),
    "dtype_BOOL": entry(dtype="BOOL"), "member_unknown": entry(extra=1),
    "shape_text": entry(shape="2x3"), "shape_negative": entry(shape=[-2, -3]),
    "shape_fraction": entry(shape=[2.5, 3]), "shape_overflow": entry(shape=[1 << 62, 1 << 62]),
    "shape_beyond": entry(shape=[2, 4]), "shape_short": entry(shape=[1, 3]),
    "offsets_one": entry(data_offsets=[0]), "offsets_backwards": entry(data_offsets=[24, 0]),
    "offsets_negative": entry(data_offsets=[-24, 0]), "offsets_beyond": entry(data_offsets=[8, 1 << 40]),
    "offsets_overlap": entry(data_offsets=[8, 32]), "offsets_fraction": entry(data_offsets=[0, 24.5]),
    "twice": text(b'{"keys":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},'
                  b'"keys":{"dtype":"F32","shape":[7,1],"data_offsets":[4,32]}}'),
    "metadata_number": tensors.dump(good(), {"request": 7}),
    "metadata_array": tensors.dump(good(), []),
    "request_no_json": tensors.dump(good(), {"request": "{"}),
    "json_beside_a_tensor": tensors.dump(good(), {"request": '{"keys":[[1,1,1],[1,1,1]]}'}),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed(daemon, path, body):
    """The same fault in each place: 400, and nothing happens."""
    meta = daemon.put(path, {"keys": [[1, 2, 3]], "values": [[1]]}).json
    for method, where in (("PUT", path), ("POST", path + "/rows"), ("POST", path + "/attend"),
                          ("POST", "/v1/attend")):
        reply = daemon.request(method, where, body, BINARY)
        code = reply.json["code"]
        is_problem(reply, 400, code)
        # Tensors of keys, which queries of a stored memory don't come with, and
        # types that the format has but not we: told after the format's faults.
        told_later = {"unknown_member"} if where.endswith("/attend") else set()
        if body in (MALFORMED["dtype_I32"], MALFORMED["dtype_BOOL"]):
            told_later.add("invalid_type")
        assert code in {"invalid_tensors"} | told_later, (where, reply)
    assert daemon.get(path).json == meta


NOT_FITTING = [
    ("keys_1d", good(keys=np.ones(6, "f4")), {}, 422, "shape_mismatch"),
    ("keys_3d", good(keys=np.ones((2, 3, 1), "f4")), {}, 422, "shape_mismatch"),
    ("counts", good(values=np.ones((3, 1), "f4")), {}, 422, "shape_mismatch"),
    ("no_columns", good(keys=np.ones((2, 0), "f4")), {}, 422, "shape_mismatch"),
    ("ids_short", good(), {"ids": ["a"]}, 422, "shape_mismatch"),
    ("ids_twice", good(), {"ids": ["a", "a"]}, 400, "duplicate_id"),
    ("tensor_unknown", good(extra=np.ones(2, "f4")), {}, 400, "unknown_member"),
    ("member_unknown", good(), {"keyz": 1}, 400, "unknown_member"),
    ("no_values", {"keys": np.ones((2, 3), "f4")}, {}, 400, "missing_member"),
]


@pytest.mark.parametrize("arrays,request_,status,code", [case[1:] for case in NOT_FITTING],
                         ids=[case[0] for case in NOT_FITTING])
def test_not_fitting(daemon, path, arrays, request_, status, code):
    for method, where in (("PUT", path), ("POST", path + "-other/rows")):
        if method == "POST":
            daemon.put(path + "-other", {"key_dim": 3, "value_dim": 1})
        is_problem(daemon.request(method, where, binary(arrays, **request_), BINARY), status, code)
    daemon.delete(path + "-other")
    assert daemon.get(path).status == 404


def test_rows_and_queries_of_none(daemon, path):
    daemon.put(path, {"key_dim": 3, "value_dim": 1})
    none = {"keys": np.ones((0, 3), "f4"), "values": np.ones((0, 1), "f4")}
    is_problem(daemon.post(path + "/rows", binary(none), BINARY), 422, "shape_mismatch")
    daemon.put(path, binary(good()), BINARY)
    reply = daemon.post(path + "/attend", binary({"queries": np.ones((0, 3), "f4")}), BINARY)
    is_problem(reply, 422, "shape_mismatch")
    is_problem(daemon.post("/v1/attend", binary({**none, "queries": np.ones((1, 3), "f4")}), BINARY),
               422, "shape_mismatch")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", AS)
def test_not_finite(daemon, path, number, kind):
    daemon.put(path, {"keys": [[1, 2, 3]], "values": [[1]]})
    before = daemon.get(path).json
    for name, shape in (("keys", (2, 3)), ("values", (2, 1))):
        array = np.ones(shape, "f4")
        array[1, -1] = number
        arrays = {tensor: AS[kind](matrix) for tensor, matrix in good(**{name: array}).items()}
        for method, where in (("PUT", path), ("POST", path + "/rows")):
            is_problem(daemon.request(method, where, binary(arrays), BINARY), 400, "invalid_number",
                       f"/{name}/1/{shape[1] - 1}")
    queries = np.array([[1, 1, 1], [1, number, 1]], "f4")
    reply = daemon.post(path + "/attend", binary({"queries": AS[kind](queries)}), BINARY)
    is_problem(reply, 400, "invalid_number", "/queries/1/1")
    assert daemon.get(path).json == before


def test_beyond_float32(daemon, path):
    keys = np.array([[1, 2, 3], [1, 1e39, 3]], "f8")
    is_problem(daemon.put(path, binary(good(keys=keys)), BINARY), 400, "invalid_number", "/keys/1/1")
    half = np.array([[1, 2, 3], [1, 70000, 3]], "f4")
    is_problem(daemon.put(path, binary(good(keys=half), dtype="f16"), BINARY), 400, "invalid_number")
    assert daemon.get(path).status == 404


def test_where_none_belongs(daemon, path):
    daemon.put(path, {"keys": [[1]], "values": [[1]], "ids": ["a"]})
    for method, where in (("PATCH", path), ("DELETE", path + "/rows")):
        is_problem(daemon.request(method, where, GOOD, BINARY), 415, "unsupported_media_type")


# ---- Uploads

def chunked(daemon, path, body, sizes):
    """A PUT with Transfer-Encoding: chunked, in pieces of those sizes over and over."""
    head = (f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {tensors.MEDIA_TYPE}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n").encode()
    pieces, at, turn = [], 0, 0
    while at < len(body):
        piece = body[at:at + sizes[turn % len(sizes)]]
        pieces.append(b"%x\r\n%s\r\n" % (len(piece), piece))
        at, turn = at + len(piece), turn + 1
    with wire.Wire(daemon) as connection:
        return connection.ask(head + b"".join(pieces) + b"0\r\n\r\n")


def test_chunked(daemon, path):
    keys, values, _ = example(8, 3000)
    body = binary({"keys": keys, "values": values}, ids=[str(row) for row in range(3000)])
    for sizes in ((1, 7, 4096), (65536,), (len(body),)):
        assert chunked(daemon, path, body, sizes).status in (200, 201)
        ids, got_keys, got_values, _ = pages(daemon, path)
        assert ids == [str(row) for row in range(3000)]
        assert np.array_equal(got_keys, keys) and np.array_equal(got_values, values)
    for faulty in (body[:-3], body + b"0"):
        reply = chunked(daemon, path, faulty, (1000,))
        assert (reply.status, reply.code) == (400, "invalid_tensors")


def test_an_upload_that_is_not_finished(daemon, path):
    """Changes nothing, and what it took is given back."""
    daemon.put(path, {"keys": [[1]], "values": [[1]]})
    meta = daemon.get(path).json
    keys, values, _ = example(8, 3000)
    body = binary({"keys": keys, "values": values})
    head = (f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {tensors.MEDIA_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()
    for count in (4, 100, len(body) // 2, len(body) - 1):
        with wire.Wire(daemon) as connection:
            connection.send(head + body[:count])
            connection.reset()
    assert daemon.get(path).json == meta
    assert daemon.put(path, body, BINARY).status == 200


def resident(daemon, name="VmRSS"):
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.M).group(1)) * 1024


def test_import_of_200_megabytes(start_daemon, tmp_path):
    """Sent in pieces, so that neither side needs a second copy; the daemon's size
    never goes beyond the tensors', 15 % and 50 MB, nor does META's `bytes`."""
    if not can_time():
        pytest.skip("sanitizers and wrappers keep memory of their own")
    daemon = start_daemon("--data-dir", tmp_path / "data")
    rows, key_dim, value_dim = 100_000, 480, 20
    size = rows * (key_dim + value_dim) * 4
    piece = np.random.default_rng(9).standard_normal(500_000).astype("f4").tobytes()
    header = json.dumps({"keys": {"dtype": "F32", "shape": [rows, key_dim],
                                  "data_offsets": [0, rows * key_dim * 4]},
                         "values": {"dtype": "F32", "shape": [rows, value_dim],
                                    "data_offsets": [rows * key_dim * 4, size]}}).encode()
    head = struct.pack("<Q", len(header)) + header
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    connection.putrequest("PUT", "/v1/memories/large")
    connection.putheader("Content-Type", tensors.MEDIA_TYPE)
    connection.putheader("Content-Length", str(len(head) + size))
    connection.endheaders(head)
    for _ in range(size // len(piece)):
        connection.send(piece)
    reply = connection.getresponse()
    meta = json.loads(reply.read())
    connection.close()
    assert reply.status == 201, meta
    peak = resident(daemon, "VmHWM")
    print(f"{size / 1e6:.0f} MB: bytes {meta['bytes'] / 1e6:.1f}, resident {resident(daemon) / 1e6:.1f}, "
          f"peak {peak / 1e6:.1f} MB")
    assert size <= meta["bytes"] <= 1.15 * size
    assert resident(daemon) <= 1.15 * size + 50e6
    assert peak <= 1.15 * size + 50e6
    got = daemon.get("/v1/memories/large/rows?offset=99999").json["rows"][0]["value"]
    assert np.array_equal(np.array(got, "f4"), np.frombuffer(piece, "f4")[-20:])
