"""The life of a memory over HTTP: created, replaced, read, queried, deleted,
with versions, ETags and preconditions as the contract has them."""

import threading

import pytest

import oracle

PAIR = {"keys": [[1, 0], [0, 1]], "values": [[1, 2, 3], [4, 5, 6]]}
META = {"name", "version", "rows", "query_dim", "key_dim", "value_dim", "dtype", "score",
        "normalization", "bytes"}


@pytest.fixture
def path(memory_name):
    return f"/v1/memories/{memory_name}"


def is_problem(reply, status, code):
    assert reply.status == status, reply
    assert reply.headers["Content-Type"].split(";")[0] == "application/problem+json"
    assert reply.json["code"] == code and reply.json["status"] == status, reply
    return True


def etag_of(reply):
    """The ETag, which is the version in quotes."""
    assert reply.headers["ETag"] == f'"{reply.json["version"]}"'
    return reply.headers["ETag"]


def test_create_replace_get_delete(daemon, memory_name, path):
    is_problem(daemon.get(path), 404, "memory_not_found")
    is_problem(daemon.post(path + "/attend", {"queries": [[1, 0]]}), 404, "memory_not_found")

    created = daemon.put(path, PAIR)
    assert created.status == 201, created
    assert created.headers["Location"] == path
    assert created.headers["Content-Type"].split(";")[0] == "application/json"
    etag_of(created)
    meta = created.json
    assert set(meta) == META
    assert meta["name"] == memory_name
    assert type(meta["version"]) is int and meta["version"] >= 1
    assert (meta["rows"], meta["query_dim"], meta["key_dim"], meta["value_dim"]) == (2, 2, 2, 3)
    assert type(meta["dtype"]) is str and "32" in meta["dtype"]
    assert type(meta["bytes"]) is int and meta["bytes"] >= 4 * (2 * 2 + 2 * 3)
    assert meta["score"]["type"] == "scaled_dot"
    assert abs(meta["score"]["scale"] - 0.5**0.5) < 1e-7
    assert meta["normalization"]["type"] == "softmax"
    assert meta["normalization"]["temperature"] == 1

    got = daemon.get(path)
    assert (got.status, got.json) == (200, meta)
    assert etag_of(got) == created.headers["ETag"]

    replaced = daemon.put(path, {"keys": [[1, 2, 3]], "values": [[7]], "score": "euclidean"})
    assert replaced.status == 200, replaced
    assert replaced.json["version"] > meta["version"]
    assert etag_of(replaced) != created.headers["ETag"]
    assert (replaced.json["rows"], replaced.json["key_dim"], replaced.json["value_dim"]) == (1, 3, 1)
    assert replaced.json["score"] == {"type": "euclidean", "scale": 1}
    answer = daemon.post(path + "/attend", {"queries": [[0, 0, 0]]}).json
    assert answer == {"memory": memory_name, "version": replaced.json["version"],
                      "outputs": [[7]], "weights": [[1]]}

    deleted = daemon.delete(path)
    assert (deleted.status, deleted.body) == (204, b"")
    is_problem(daemon.get(path), 404, "memory_not_found")
    is_problem(daemon.delete(path), 404, "memory_not_found")
    is_problem(daemon.post(path + "/attend", {"queries": [[0, 0, 0]]}), 404, "memory_not_found")

    again = daemon.put(path, PAIR)
    assert again.status == 201
    assert again.json["version"] > replaced.json["version"], "a version was used twice"


def test_version_grows_with_an_equal_body(daemon, path):
    versions = [daemon.put(path, PAIR).json["version"] for _ in range(4)]
    assert versions == sorted(set(versions))


def test_list_is_sorted(daemon, memory_names):
    names = [memory_names() for _ in range(3)]
    names = [names[2] + "b", names[0] + "-", names[1] + ".", names[0] + "Z", names[0] + "a"]
    for name in names:
        assert daemon.put(f"/v1/memories/{name}", PAIR).status == 201
    reply = daemon.get("/v1/memories")
    assert reply.status == 200 and set(reply.json) == {"memories"}
    listed = [meta["name"] for meta in reply.json["memories"]]
    assert listed == sorted(listed) and set(names) <= set(listed)
    for meta in reply.json["memories"]:
        if meta["name"] in names:
            assert meta == daemon.get("/v1/memories/" + meta["name"]).json
    for name in names:
        assert daemon.delete(f"/v1/memories/{name}").status == 204
    left = {meta["name"] for meta in daemon.get("/v1/memories").json["memories"]}
    assert not left & set(names)


def test_fresh_daemon_has_no_memories(start_daemon):
    assert start_daemon().get("/v1/memories").json == {"memories": []}


def test_empty_memory(daemon, memory_name, path):
    created = daemon.put(path, {"key_dim": 64, "value_dim": 8})
    assert created.status == 201, created
    meta = created.json
    assert (meta["rows"], meta["query_dim"], meta["key_dim"], meta["value_dim"]) == (0, 64, 64, 8)
    assert meta["score"] == {"type": "scaled_dot", "scale": 0.125}
    is_problem(daemon.post(path + "/attend", {"queries": [[0] * 64]}), 422, "empty_memory")
    assert daemon.get(path).json == meta
    assert daemon.put(path, PAIR).status == 200
    assert daemon.post(path + "/attend", {"queries": [[1, 0]]}).status == 200


@pytest.mark.parametrize("score", oracle.KERNELS + ("dot", "scaled_dot", "cosine", "euclidean"))
def test_defaults_follow_the_score(daemon, path, score):
    """The bare string and the object without parameters mean the same, and
    META tells what is in force."""
    defaults = {"cosine": {"scale": 1}, "euclidean": {"scale": 1}, "gaussian": {"sigma": 1},
                "laplacian": {"sigma": 1}, "boxcar": {"radius": 1}, "triangular": {"radius": 1},
                "epanechnikov": {"radius": 1}, "inverse_distance": {"power": 2, "epsilon": 1e-6}}
    metas = []
    for form in (score, {"type": score}):
        reply = daemon.put(path, {**PAIR, "score": form})
        assert reply.status in (200, 201), reply
        assert reply.json["normalization"]["type"] == oracle.default_normalization(score)
        metas.append(reply.json)
    assert metas[0]["score"] == metas[1]["score"]
    assert metas[0]["normalization"] == metas[1]["normalization"]
    if score != "scaled_dot":
        assert metas[0]["score"] == {"type": score, **defaults.get(score, {})}


def test_meta_gives_parameters_back(daemon, path):
    score = {"type": "inverse_distance", "power": 1.25, "epsilon": 0.001}
    normalization = {"type": "softmax", "temperature": 0.1, "top_k": 7}
    meta = daemon.put(path, {**PAIR, "score": score, "normalization": normalization}).json
    assert (meta["score"], meta["normalization"]) == (score, normalization)
    meta = daemon.put(path, {**PAIR, "score": meta["score"], "normalization": meta["normalization"],
                             "dtype": meta["dtype"]}).json
    assert (meta["score"], meta["normalization"]) == (score, normalization)
    meta = daemon.put(path, {**PAIR, "normalization": "sparsemax"}).json
    assert meta["normalization"] == {"type": "sparsemax"}, "a top_k that nobody asked for"


def test_meta_gives_shapes_of_tensors(daemon, path):
    bilinear = {"type": "bilinear", "w": [[1, 2], [3, 4], [5, 6]]}
    meta = daemon.put(path, {**PAIR, "score": bilinear}).json
    assert meta["score"] == {"type": "bilinear", "w": {"shape": [3, 2]}}
    assert (meta["query_dim"], meta["key_dim"]) == (3, 2)
    additive = {"type": "additive", "w_q": [[1, 2, 3]] * 5, "w_k": [[1, 2]] * 5, "v": [1] * 5}
    meta = daemon.put(path, {**PAIR, "score": additive}).json
    assert meta["score"]["w_q"] == {"shape": [5, 3]} and meta["score"]["w_k"] == {"shape": [5, 2]}
    assert meta["score"]["v"]["shape"][0] == 5
    assert meta["query_dim"] == 3
    assert daemon.post(path + "/attend", {"queries": [[1, 2, 3]]}).status == 200
    is_problem(daemon.post(path + "/attend", {"queries": [[1, 2]]}), 422, "shape_mismatch")


def test_score_and_normalization_of_a_request(daemon, path):
    """They win over the memory's own, for that request alone."""
    daemon.put(path, {**PAIR, "score": {"type": "gaussian", "sigma": 0.5}})
    meta = daemon.get(path).json
    queries = [[0.3, 0.9]]

    def weights(**extra):
        reply = daemon.post(path + "/attend", {"queries": queries, **extra})
        assert reply.status == 200, reply
        return reply.json["weights"]

    def expect(got, score, normalization):
        want = oracle.attend(queries, PAIR["keys"], PAIR["values"], score, normalization).weights
        assert abs(got[0][0] - want[0][0]) < 1e-5 and abs(got[0][1] - want[0][1]) < 1e-5

    own = {"type": "gaussian", "sigma": 0.5}
    expect(weights(), own, "sum")
    expect(weights(normalization="softmax"), own, "softmax")
    expect(weights(normalization={"type": "softmax", "temperature": 0.25}), own,
           {"type": "softmax", "temperature": 0.25})
    expect(weights(score={"type": "gaussian", "sigma": 2}), {"type": "gaussian", "sigma": 2}, "sum")
    expect(weights(score="dot"), "dot", "sum")  # the memory's own, not the score's default
    expect(weights(score="dot", normalization="sigmoid"), "dot", "sigmoid")
    expect(weights(score="exact", normalization="none"), "exact", "none")
    assert daemon.get(path).json == meta


def test_ids(daemon, path):
    ids = ["cat", "a \"quoted\"\n\u0001 id", "\u00fc\u4e2d\U0001f600"]
    body = {"keys": [[1, 0], [0, 1], [1, 1]], "values": [[1], [2], [3]], "ids": ids}
    assert daemon.put(path, body).status == 201
    reply = daemon.post(path + "/attend", {"queries": [[2, 1], [0, 1]], "weights": {"top": 3}})
    assert reply.status == 200, reply
    for largest in reply.json["weights"]:
        assert len(largest) == 3
        for entry in largest:
            assert set(entry) == {"row", "id", "weight"} and entry["id"] == ids[entry["row"]]
    assert [entry["row"] for entry in reply.json["weights"][0]] == [2, 0, 1]
    full = daemon.post(path + "/attend", {"queries": [[2, 1]]}).json
    assert len(full["weights"][0]) == 3


def test_rows_of_weight_zero_are_left_out(daemon, path):
    body = {"keys": [[0], [1], [5]], "values": [[1], [2], [3]], "score": "exact"}
    daemon.put(path, body)
    reply = daemon.post(path + "/attend", {"queries": [[1], [7]], "weights": {"top": 3}})
    assert reply.json["weights"] == [[{"row": 1, "weight": 1}], []]
    assert reply.json["outputs"] == [[2], [0]]


def test_if_match(daemon, path):
    is_problem(daemon.put(path, PAIR, {"If-Match": "*"}), 412, "precondition_failed")
    is_problem(daemon.put(path, PAIR, {"If-Match": '"1"'}), 412, "precondition_failed")
    assert daemon.get(path).status == 404

    first = etag_of(daemon.put(path, PAIR))
    second = daemon.put(path, {**PAIR, "score": "dot"}, {"If-Match": first})
    assert second.status == 200
    other = {"keys": [[9, 9]], "values": [[9]]}
    for stale in (first, '"999999999"', 'W/' + etag_of(second), f'{first}, "7777777"'):
        is_problem(daemon.put(path, other, {"If-Match": stale}), 412, "precondition_failed")
        assert daemon.get(path).json == second.json, "a refused PUT changed the memory"
    listed = daemon.put(path, PAIR, {"If-Match": f'{first}, {etag_of(second)}'})
    assert listed.status == 200, "one of the listed tags is the memory's"
    assert daemon.put(path, PAIR, {"If-Match": "*"}).status == 200


def test_if_none_match(daemon, path):
    created = daemon.put(path, PAIR, {"If-None-Match": "*"})
    assert created.status == 201
    other = {"keys": [[9, 9]], "values": [[9]]}
    is_problem(daemon.put(path, other, {"If-None-Match": "*"}), 412, "precondition_failed")
    assert daemon.get(path).json == created.json


def test_delete_with_if_match(daemon, path):
    first = etag_of(daemon.put(path, PAIR))
    second = etag_of(daemon.put(path, PAIR))
    is_problem(daemon.delete(path, {"If-Match": first}), 412, "precondition_failed")
    assert daemon.get(path).status == 200
    assert daemon.delete(path, {"If-Match": second}).status == 204


def test_get_not_modified(daemon, path):
    etag = etag_of(daemon.put(path, PAIR))
    for value in (etag, "W/" + etag, f'"99999999", {etag}', "*"):
        reply = daemon.get(path, {"If-None-Match": value})
        assert (reply.status, reply.body) == (304, b""), value
        assert reply.headers["ETag"] == etag
    assert daemon.get(path, {"If-None-Match": '"99999999"'}).status == 200
    daemon.put(path, PAIR)
    assert daemon.get(path, {"If-None-Match": etag}).status == 200


def test_only_one_of_many_creates(daemon, path):
    """If-None-Match: * from many clients at once: one 201, else 412."""
    statuses = []

    def create():
        statuses.append(daemon.put(path, PAIR, {"If-None-Match": "*"}).status)

    threads = [threading.Thread(target=create) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [412] * 11


def test_no_update_is_lost(daemon, path):
    """Compare and swap through If-Match: as many versions as successes."""
    value = daemon.put(path, {"keys": [[1]], "values": [[0]]})
    lost = []

    def add():
        for _ in range(200):
            got = daemon.get(path)
            number = daemon.post(path + "/attend", {"queries": [[1]]}).json
            if number["version"] != got.json["version"]:
                continue
            body = {"keys": [[1]], "values": [[number["outputs"][0][0] + 1]]}
            if daemon.put(path, body, {"If-Match": etag_of(got)}).status == 200:
                return
        lost.append(1)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value.status == 201 and not lost
    assert daemon.post(path + "/attend", {"queries": [[1]]}).json["outputs"] == [[8]]


def test_names(daemon):
    for name in ("a", "A-b_c.9", "0", "-", "_", "a..b", "x" * 128):
        path = f"/v1/memories/{name}"
        created = daemon.put(path, PAIR)
        assert created.status == 201 and created.json["name"] == name, created
        assert created.headers["Location"] == path
        assert daemon.delete(path).status == 204


def test_values_need_not_be_short(daemon, path):
    """Numbers in every form of JSON, and as float32 sees them."""
    body = '{"keys":[[1E0,-0,0.0e+5,1.00000000000000000000000001]],"values":[[12.5e-1,1e-60,16777217]]}'
    assert daemon.put(path, body).status == 201
    reply = daemon.post(path + "/attend", {"queries": [[0, 0, 0, 0]]})
    assert reply.json["outputs"] == [[1.25, 0, 16777216]]


def test_members_in_any_order_with_any_space(daemon, path):
    body = ' \r\n\t{ "values" : [ [ 1 ] ] ,\n"normalization":"sum" , "keys":[[2]],"ids":["\\u0061"] }\n '
    created = daemon.put(path, body)
    assert created.status == 201 and created.json["normalization"] == {"type": "sum"}
    reply = daemon.post(path + "/attend", '{"weights":{"top":1},"queries":[[1]]}')
    assert reply.json["weights"] == [[{"row": 0, "id": "a", "weight": 1}]]


@pytest.mark.parametrize("where", ["/v2", "/v2/health/live", "/v2/models/x", "/", "/v1", "/nothing"])
def test_nothing_there(daemon, where):
    is_problem(daemon.get(where), 404, "not_found")
