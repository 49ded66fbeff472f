"""Every fault of a request gets its own clear problem: status, code, title,
detail and pointer as the contract says, and the memory that the request was
meant for is as it was. Every code of server/base/problem.h that can be brought
about from outside is brought about here or in another file of this folder."""

import json
import re
import threading
import time
from pathlib import Path

import pytest

import harness

KEYS = [[1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 1, 4]]
VALUES = [[1, 2], [3, 4], [5, 6]]
MEMORY = {"keys": KEYS, "values": VALUES, "ids": ["a", "b", "c"], "score": "euclidean"}
QUERIES = [[1, 2, 3, 4]] * 4

PROBLEMS = {
    code: (int(status), title)
    for status, code, title in re.findall(
        r'X\([A-Z_]+,\s*(\d+),\s*"([a-z_]+)",\s*"([^"]+)"\)',
        re.sub(r"\\\n", "", (harness.REPOSITORY / "server/base/problem.h").read_text()),
    )
}
# What nobody can bring about from outside: a fault of the server.
BEYOND_US = {"internal"}


def check_problem(reply, code, pointer=None, *words):
    """`pointer`: None for any, a string, or a set of acceptable ones, in which
    "" stands for none. `code`: a string or a set. `words` are in the detail."""
    assert reply.headers["Content-Type"].split(";")[0] == "application/problem+json", reply
    body = reply.json
    codes = {code} if isinstance(code, str) else code
    assert body["code"] in codes, reply
    status, title = PROBLEMS[body["code"]]
    assert reply.status == body["status"] == status, reply
    assert body["title"] == title
    assert set(body) <= {"type", "title", "status", "detail", "code", "pointer"}, reply
    assert body["type"].endswith(body["code"]) and ":" in body["type"], reply
    detail = body["detail"]
    assert 10 < len(detail) < 600 and "\n" not in detail and "  " not in detail, reply
    if pointer is not None:
        pointers = {pointer} if isinstance(pointer, str) else pointer
        assert body.get("pointer", "") in pointers, reply
    if "pointer" in body and body["pointer"]:
        assert body["pointer"].startswith("/"), reply
    for word in words:
        assert str(word) in detail, reply


def with_number(text, row=3, column=17):
    """Four queries of 20 numbers, one of which is `text`."""
    rows = [["0.5"] * 20 for _ in range(4)]
    rows[row][column] = text
    return "[" + ",".join("[" + ",".join(cells) + "]" for cells in rows) + "]"


def attend(**members):
    return {"queries": QUERIES, **members}


def score(**members):
    return {"queries": QUERIES, "score": members}


def normalization(**members):
    return {"queries": QUERIES, "normalization": members}


def without(body, *names):
    return {name: value for name, value in body.items() if name not in names}


TYPE_OR_PARAMETER = {"invalid_type", "invalid_parameter"}
MISSING = {"missing_member", "invalid_parameter"}
EMPTY = {"shape_mismatch", "invalid_parameter", "missing_member", "empty_memory"}

# (name, body, code, pointer, words that the detail has)
ATTEND = [
    # ---- numbers
    ("number_text", '{"queries":%s}' % with_number('"7"'), "invalid_type", "/queries/3/17", "number"),
    ("number_null", '{"queries":%s}' % with_number("null"), "invalid_type", "/queries/3/17", "null"),
    ("number_true", '{"queries":%s}' % with_number("true"), "invalid_type", "/queries/3/17"),
    ("number_object", '{"queries":%s}' % with_number("{}"), "invalid_type", "/queries/3/17"),
    ("number_array", '{"queries":%s}' % with_number("[1]"), "invalid_type", "/queries/3/17"),
    ("number_1e39", '{"queries":%s}' % with_number("1e39"), "invalid_number", "/queries/3/17"),
    ("number_-1e39", '{"queries":%s}' % with_number("-1e39"), "invalid_number", "/queries/3/17"),
    ("number_just_too_large", '{"queries":%s}' % with_number("3.4028236e38"), "invalid_number", "/queries/3/17"),
    ("number_1e400", '{"queries":%s}' % with_number("1e400"), "invalid_number", "/queries/3/17"),
    ("number_40_digits", '{"queries":%s}' % with_number("9" * 40), "invalid_number", "/queries/3/17"),
    ("number_1e99999999999", '{"queries":%s}' % with_number("1e99999999999"), "invalid_number", "/queries/3/17"),
    ("number_NaN", '{"queries":%s}' % with_number("NaN"), "invalid_json", {"", "/queries/3/17"}),
    ("number_Infinity", '{"queries":%s}' % with_number("Infinity"), "invalid_json", {"", "/queries/3/17"}),
    ("number_-Infinity", '{"queries":%s}' % with_number("-Infinity"), "invalid_json", {"", "/queries/3/17"}),
    ("number_leading_zero", '{"queries":%s}' % with_number("01"), "invalid_json", None),
    ("number_plus", '{"queries":%s}' % with_number("+1"), "invalid_json", None),
    ("number_point", '{"queries":%s}' % with_number("1."), "invalid_json", None),
    ("number_no_digits", '{"queries":%s}' % with_number(".5"), "invalid_json", None),
    ("number_hex", '{"queries":%s}' % with_number("0x10"), "invalid_json", None),
    ("number_comma", '{"queries":%s}' % with_number(""), "invalid_json", None),
    # ---- shapes
    ("queries_ragged", {"queries": [[1, 2, 3, 4], [1, 2, 3]]}, "shape_mismatch", "/queries/1", 3, 4),
    ("queries_63", {"queries": [[1] * 63]}, "shape_mismatch", {"/queries", "/queries/0"}, 63, 4),
    ("queries_empty", {"queries": []}, EMPTY, "/queries"),
    ("query_empty", {"queries": [[]]}, EMPTY, {"/queries", "/queries/0"}),
    ("queries_flat", {"queries": [1, 2, 3, 4]}, "invalid_type", {"/queries", "/queries/0"}, "array"),
    ("queries_deep", {"queries": [[[1]]]}, "invalid_type", "/queries/0/0", "number"),
    ("queries_object", {"queries": {}}, "invalid_type", "/queries", "array"),
    ("queries_null", {"queries": None}, "invalid_type", "/queries"),
    ("queries_string", {"queries": "all"}, "invalid_type", "/queries"),
    ("queries_missing", {}, "missing_member", {"", "/queries"}, "queries"),
    ("bilinear_w_does_not_fit_keys", score(type="bilinear", w=[[1, 2], [3, 4]]), "shape_mismatch",
     {"/score", "/score/w"}, 2, 4),
    ("bilinear_queries_do_not_fit_w", score(type="bilinear", w=[[1] * 4] * 7), "shape_mismatch",
     {"/queries", "/queries/0"}, 7, 4),
    ("bilinear_w_ragged", score(type="bilinear", w=[[1, 2, 3, 4], [1]]),
     {"shape_mismatch"}, {"/score/w", "/score/w/1"}),
    ("bilinear_w_bad_number", score(type="bilinear", w=[[1, 2, 3, 4], [1, 2, "x", 4]]),
     "invalid_type", "/score/w/1/2"),
    ("bilinear_w_1e39", '{"queries":[[1,2,3,4]],"score":{"type":"bilinear","w":[[1,2,3,1e39]]}}',
     "invalid_number", "/score/w/0/3"),
    ("additive_hidden_sizes_differ",
     score(type="additive", w_q=[[1] * 4] * 3, w_k=[[1] * 4] * 2, v=[1] * 3),
     {"shape_mismatch", "invalid_parameter"}, {"/score", "/score/w_k", "/score/w_q", "/score/v"}),
    ("additive_v_too_long",
     score(type="additive", w_q=[[1] * 4] * 3, w_k=[[1] * 4] * 3, v=[1] * 9),
     {"shape_mismatch", "invalid_parameter"}, {"/score", "/score/v"}),
    ("additive_v_is_a_matrix",
     score(type="additive", w_q=[[1] * 4] * 3, w_k=[[1] * 4] * 3, v=[[1], [1], [1]]),
     {"invalid_type", "invalid_parameter", "shape_mismatch"}, {"/score/v", "/score/v/0"}),
    # ---- members
    ("unknown_member", attend(weigths="none"), "unknown_member", "/weigths", "weigths"),
    ("unknown_member_escaped", attend(**{"a/b~c": 1}), "unknown_member", "/a~1b~0c", "a/b~c"),
    ("unknown_member_of_score", score(type="gaussian", sgima=1), "unknown_member", "/score/sgima", "sgima"),
    ("unknown_member_of_normalization", normalization(type="softmax", temprature=1),
     "unknown_member", "/normalization/temprature", "temprature"),
    ("parameter_of_another_score", score(type="dot", sigma=1), "unknown_member", "/score/sigma", "sigma"),
    ("top_k_of_hardmax", normalization(type="hardmax", top_k=2), "unknown_member", "/normalization/top_k", "top_k"),
    ("top_k_of_none", normalization(type="none", top_k=2), "unknown_member", "/normalization/top_k"),
    ("top_k_of_sigmoid", normalization(type="sigmoid", top_k=2), "unknown_member", "/normalization/top_k"),
    ("keys_where_stored", attend(keys=KEYS), "unknown_member", "/keys", "keys"),
    ("unknown_member_of_weights", attend(weights={"bottom": 1}), {"unknown_member", "missing_member"},
     {"/weights/bottom", "/weights", "/weights/top"}),
    ("duplicate_member", '{"queries":[[1,2,3,4]],"queries":[[1,2,3,4]]}', "invalid_json", "/queries"),
    ("duplicate_member_escaped", '{"queries":[[1,2,3,4]],"quer\\u0069es":[[1,2,3,4]]}', "invalid_json", None),
    ("duplicate_member_of_score", '{"queries":[[1,2,3,4]],"score":{"type":"dot","type":"dot"}}',
     "invalid_json", None),
    ("duplicate_member_deep_in_unknown", '{"queries":[[1,2,3,4]],"x":[{"a":1,"a":2}]}',
     {"invalid_json", "unknown_member"}, None),
    # ---- scores and normalizations
    ("unknown_score", attend(score="gausian"), "unknown_score", {"/score", "/score/type"}, "gausian"),
    ("unknown_score_object", score(type="gausian"), "unknown_score", "/score/type", "gausian"),
    ("unknown_score_empty", attend(score=""), "unknown_score", {"/score", "/score/type"}),
    ("unknown_score_case", attend(score="Dot"), "unknown_score", {"/score", "/score/type"}, "Dot"),
    ("unknown_score_nul", attend(score="dot\0"), {"unknown_score", "invalid_parameter"}, None),
    ("score_number", attend(score=3), "invalid_type", "/score"),
    ("score_null", attend(score=None), "invalid_type", "/score"),
    ("score_list", attend(score=["dot"]), "invalid_type", "/score"),
    ("score_without_type", score(sigma=1), "missing_member", {"/score", "/score/type"}, "type"),
    ("score_type_number", score(type=1), "invalid_type", "/score/type"),
    ("unknown_normalization", attend(normalization="softmin"), "unknown_normalization",
     {"/normalization", "/normalization/type"}, "softmin"),
    ("unknown_normalization_object", normalization(type="softmin"), "unknown_normalization",
     "/normalization/type", "softmin"),
    ("normalization_without_type", normalization(temperature=1), "missing_member",
     {"/normalization", "/normalization/type"}),
    ("normalization_number", attend(normalization=1.5), "invalid_type", "/normalization"),
    ("bilinear_without_w", attend(score="bilinear"), MISSING, {"/score", "/score/w"}, "w"),
    ("additive_without_v", score(type="additive", w_q=[[1] * 4], w_k=[[1] * 4]), MISSING,
     {"/score", "/score/v"}, "v"),
    # ---- parameters
    ("sigma_0", score(type="gaussian", sigma=0), "invalid_parameter", "/score/sigma", "sigma", 0),
    ("sigma_-0.5", score(type="laplacian", sigma=-0.5), "invalid_parameter", "/score/sigma", "-0.5"),
    ("radius_-1", score(type="boxcar", radius=-1), "invalid_parameter", "/score/radius", "radius", -1),
    ("triangular_radius_0", score(type="triangular", radius=0), "invalid_parameter", "/score/radius"),
    ("epanechnikov_radius_0", score(type="epanechnikov", radius=0), "invalid_parameter", "/score/radius"),
    ("epsilon_-1", score(type="inverse_distance", epsilon=-1), "invalid_parameter", "/score/epsilon"),
    ("sigma_text", score(type="gaussian", sigma="1"), "invalid_type", "/score/sigma", "number"),
    ("sigma_null", score(type="gaussian", sigma=None), "invalid_type", "/score/sigma"),
    ("sigma_list", score(type="gaussian", sigma=[1]), "invalid_type", "/score/sigma"),
    ("w_number", score(type="bilinear", w=1), "invalid_type", "/score/w"),
    ("sigma_1e400", '{"queries":[[1,2,3,4]],"score":{"type":"gaussian","sigma":1e400}}',
     {"invalid_number", "invalid_parameter"}, "/score/sigma"),
    ("temperature_0", normalization(type="softmax", temperature=0), "invalid_parameter",
     "/normalization/temperature", "temperature"),
    ("temperature_-1", normalization(type="softmax", temperature=-1), "invalid_parameter",
     "/normalization/temperature"),
    ("top_k_0", normalization(type="softmax", top_k=0), "invalid_parameter", "/normalization/top_k", "top_k"),
    ("top_k_-3", normalization(type="sum", top_k=-3), "invalid_parameter", "/normalization/top_k"),
    ("top_k_1.5", normalization(type="sparsemax", top_k=1.5), TYPE_OR_PARAMETER, "/normalization/top_k", "1.5"),
    ("top_k_text", normalization(type="entmax15", top_k="2"), "invalid_type", "/normalization/top_k"),
    ("top_k_1e400", '{"queries":[[1,2,3,4]],"normalization":{"type":"sum","top_k":1e400}}',
     {"invalid_number", "invalid_parameter"}, "/normalization/top_k"),
    ("top_0", attend(weights={"top": 0}), "invalid_parameter", "/weights/top"),
    ("top_-1", attend(weights={"top": -1}), "invalid_parameter", "/weights/top"),
    ("top_1.5", attend(weights={"top": 1.5}), TYPE_OR_PARAMETER, "/weights/top"),
    ("top_text", attend(weights={"top": "3"}), "invalid_type", "/weights/top"),
    ("top_true", attend(weights={"top": True}), "invalid_type", "/weights/top"),
    ("top_1e400", '{"queries":[[1,2,3,4]],"weights":{"top":1e400}}',
     {"invalid_number", "invalid_parameter"}, "/weights/top"),
    ("weights_some", attend(weights="some"), "invalid_parameter", "/weights", "some"),
    ("weights_number", attend(weights=3), "invalid_type", "/weights"),
    ("weights_null", attend(weights=None), "invalid_type", "/weights"),
    ("weights_empty", attend(weights={}), MISSING, {"/weights", "/weights/top"}),
    ("timeout_ms_0", attend(timeout_ms=0), "invalid_parameter", "/timeout_ms"),
    ("timeout_ms_-1", attend(timeout_ms=-1), "invalid_parameter", "/timeout_ms"),
    ("timeout_ms_huge", attend(timeout_ms=10**15), "invalid_parameter", "/timeout_ms"),
    ("timeout_ms_text", attend(timeout_ms="100"), "invalid_type", "/timeout_ms"),
    # ---- what a float32 can't hold
    ("output_beyond_float32",
     {"queries": [[0] * 4, [3e38] * 4], "score": "dot", "normalization": "none", "weights": "none"},
     "not_representable", {"/queries/1", "/queries", ""}),
    # ---- the text itself
    ("body_empty", "", "invalid_json", None),
    ("body_space", "  \n", "invalid_json", None),
    ("body_array", "[]", "invalid_type", ""),
    ("body_string", '"queries"', "invalid_type", ""),
    ("body_number", "1", "invalid_type", ""),
    ("body_null", "null", "invalid_type", ""),
    ("body_cut", '{"queries":[[1,2,3,4],[1,2', "invalid_json", None),
    ("body_twice", '{"queries":[[1,2,3,4]]}{"queries":[[1,2,3,4]]}', "invalid_json", None),
    ("trailing_bytes", '{"queries":[[1,2,3,4]]} x', "invalid_json", None),
    ("trailing_nul", '{"queries":[[1,2,3,4]]}\0', "invalid_json", None),
    ("trailing_comma", '{"queries":[[1,2,3,4]],}', "invalid_json", None),
    ("trailing_comma_row", '{"queries":[[1,2,3,4,]]}', "invalid_json", None),
    ("comment", '{"queries":[[1,2,3,4]]/* all */}', "invalid_json", None),
    ("single_quotes", "{'queries':[[1,2,3,4]]}", "invalid_json", None),
    ("byte_order_mark", b'\xef\xbb\xbf{"queries":[[1,2,3,4]]}', "invalid_json", None),
    ("utf_16", '{"queries":[[1,2,3,4]]}'.encode("utf-16"), "invalid_json", None),
    ("not_utf8", b'{"queries":[[1,2,3,4]],"score":"d\xff"}', "invalid_json", None, "UTF-8"),
    ("not_utf8_name", b'{"queries":[[1,2,3,4]],"\xc3":1}', "invalid_json", None),
    ("not_utf8_overlong", b'{"queries":[[1,2,3,4]],"score":"\xc0\xaf"}', "invalid_json", None),
    ("not_utf8_surrogate", b'{"queries":[[1,2,3,4]],"score":"\xed\xa0\x80"}', "invalid_json", None),
    ("control_character", b'{"queries":[[1,2,3,4]],"score":"a\nb"}', "invalid_json", None),
    ("lone_surrogate", '{"queries":[[1,2,3,4]],"score":"\\ud800"}',
     {"invalid_json", "unknown_score"}, None),
    ("nesting_10000", '{"queries":' + "[" * 10_000 + "]" * 10_000 + "}", {"invalid_json", "invalid_type"}, None),
    ("nesting_10000_unclosed", "[" * 10_000, "invalid_json", None),
    ("nesting_10000_unknown", '{"queries":[[1,2,3,4]],"x":' + '{"x":' * 10_000 + "1" + "}" * 10_001,
     {"invalid_json", "unknown_member"}, None),
    ("nesting_10000_score", '{"queries":[[1,2,3,4]],"score":' + "[" * 10_000 + "]" * 10_000 + "}",
     {"invalid_json", "invalid_type"}, None),
]

AD_HOC_BODY = {"queries": QUERIES, "keys": KEYS, "values": VALUES}
AD_HOC = [
    ("keys_missing", without(AD_HOC_BODY, "keys"), "missing_member", {"", "/keys"}, "keys"),
    ("values_missing", without(AD_HOC_BODY, "values"), "missing_member", {"", "/values"}, "values"),
    ("keys_ragged", {**AD_HOC_BODY, "keys": [[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4]]},
     "shape_mismatch", "/keys/1", 3, 4),
    ("values_ragged", {**AD_HOC_BODY, "values": [[1, 2], [1, 2], [3]]}, "shape_mismatch", "/values/2", 1, 2),
    ("fewer_values", {**AD_HOC_BODY, "values": [[1, 2], [1, 2]]}, "shape_mismatch", {"/values", "/keys", ""}, 2, 3),
    ("query_of_3", {**AD_HOC_BODY, "queries": [[1, 2, 3]]}, "shape_mismatch", {"/queries", "/queries/0"}, 3, 4),
    ("keys_empty", {**AD_HOC_BODY, "keys": []}, EMPTY, {"/keys", "/values", ""}),
    ("all_empty", {**AD_HOC_BODY, "keys": [], "values": []}, EMPTY, {"/keys", "/values", ""}),
    ("key_empty", {**AD_HOC_BODY, "keys": [[], [], []]}, EMPTY, {"/keys", "/keys/0"}),
    ("value_empty", {**AD_HOC_BODY, "values": [[], [], []]}, EMPTY, {"/values", "/values/0"}),
    ("key_bad", {**AD_HOC_BODY, "keys": [[1, 0, 0, 2], [0, 1, "x", 3], [0, 0, 1, 4]]}, "invalid_type", "/keys/1/2"),
    ("key_dim", {**AD_HOC_BODY, "key_dim": 4}, "unknown_member", "/key_dim", "key_dim"),
    ("ids_not_there", {**AD_HOC_BODY, "id": 4}, "unknown_member", "/id"),
]

PUT = [
    ("keys_missing", {"values": VALUES}, "missing_member", {"", "/keys"}, "keys"),
    ("values_missing", {"keys": KEYS}, "missing_member", {"", "/values"}, "values"),
    ("nothing", {}, "missing_member", None),
    ("key_dim_alone", {"key_dim": 3}, "missing_member", {"", "/value_dim"}, "value_dim"),
    ("key_dim_0", {"key_dim": 0, "value_dim": 1}, "invalid_parameter", "/key_dim", 0),
    ("value_dim_-1", {"key_dim": 1, "value_dim": -1}, "invalid_parameter", "/value_dim"),
    ("key_dim_1.5", {"key_dim": 1.5, "value_dim": 1}, TYPE_OR_PARAMETER, "/key_dim"),
    ("key_dim_text", {"key_dim": "3", "value_dim": 1}, "invalid_type", "/key_dim"),
    ("key_dim_huge", {"key_dim": 2**62, "value_dim": 1}, "invalid_parameter", "/key_dim"),
    ("key_dim_1e400", '{"key_dim":1e400,"value_dim":1}', {"invalid_parameter", "invalid_number"}, "/key_dim"),
    ("rows_and_dims", {**MEMORY, "key_dim": 4, "value_dim": 2},
     {"unknown_member", "invalid_parameter", "shape_mismatch"}, {"/key_dim", "/value_dim", "/keys", ""}),
    ("ids_too_few", {**MEMORY, "ids": ["a", "b"]}, "shape_mismatch", {"/ids", ""}, 2, 3),
    ("ids_too_many", {**MEMORY, "ids": ["a", "b", "c", "d"]}, "shape_mismatch", {"/ids", ""}, 4, 3),
    ("ids_twice", {**MEMORY, "ids": ["a", "b", "a"]}, "duplicate_id", "/ids/2", "a"),
    ("ids_number", {**MEMORY, "ids": ["a", 2, "c"]}, "invalid_type", "/ids/1", "string"),
    ("ids_null", {**MEMORY, "ids": None}, "invalid_type", "/ids"),
    ("ids_empty_string", {**MEMORY, "ids": ["a", "b", ""]}, "invalid_id", "/ids/2"),
    ("ids_257_bytes", {**MEMORY, "ids": ["a", "x" * 257, "c"]}, "invalid_id", "/ids/1", 256),
    ("ids_for_no_rows", {"key_dim": 1, "value_dim": 1, "ids": ["a"]},
     {"shape_mismatch", "unknown_member", "invalid_parameter"}, {"/ids", ""}),
    ("queries", {**MEMORY, "queries": QUERIES}, "unknown_member", "/queries", "queries"),
    ("dtype", {**MEMORY, "dtype": "complex128"}, "invalid_parameter", "/dtype", "complex128"),
    ("dtype_number", {**MEMORY, "dtype": 32}, "invalid_type", "/dtype"),
    ("keys_ragged", {**MEMORY, "keys": [[1, 2, 3, 4], [1, 2, 3], [1]]}, "shape_mismatch", "/keys/1", 3, 4),
    ("keys_empty", {"keys": [], "values": []}, EMPTY, {"/keys", "/values", ""}),
    ("keys_1e39", '{"keys":[[1],[1e39]],"values":[[1],[2]]}', "invalid_number", "/keys/1/0"),
    ("values_NaN", '{"keys":[[1],[2]],"values":[[1],[NaN]]}', "invalid_json", None),
    ("score_unfit", {**MEMORY, "score": {"type": "bilinear", "w": [[1, 2]]}}, "shape_mismatch",
     {"/score", "/score/w"}, 2, 4),
    ("unknown_score", {**MEMORY, "score": "nearest"}, "unknown_score", {"/score", "/score/type"}, "nearest"),
    ("body_cut", '{"keys":[[1,2],[3', "invalid_json", None),
]


def cases(table):
    return pytest.mark.parametrize("case", table, ids=lambda case: case[0])


@pytest.fixture(scope="module")
def victim(daemon):
    """A memory that every bad request is aimed at, and how it answers."""
    path = "/v1/memories/victim-of-errors"
    assert daemon.put(path, MEMORY).status in (200, 201)
    etag = daemon.get(path).headers["ETag"]
    answer = daemon.post(path + "/attend", {"queries": QUERIES}).body

    def is_unchanged():
        assert daemon.get(path).headers["ETag"] == etag, "its version has changed"
        assert daemon.post(path + "/attend", {"queries": QUERIES}).body == answer
        return True

    is_unchanged.path = path
    yield is_unchanged
    daemon.delete(path)


@cases(ATTEND)
def test_attend(daemon, victim, case):
    _, body, code, pointer, *words = case
    check_problem(daemon.post(victim.path + "/attend", body), code, pointer, *words)
    assert victim()


@cases(AD_HOC + [case for case in ATTEND if case[0] not in ("keys_where_stored", "body_empty")
                 and not (isinstance(case[1], dict) and "queries" not in case[1])])
def test_attend_ad_hoc(daemon, case):
    """The same faults beside keys and values."""
    _, body, code, pointer, *words = case
    if isinstance(body, dict) and "keys" not in body and "values" not in body:
        body = {**body, "keys": KEYS, "values": VALUES}
    elif isinstance(body, str) and body.startswith('{"queries"'):
        # 20 numbers a row in the bodies of with_number().
        keys = json.dumps([[1] * 20] if "0.5,0.5" in body else KEYS)
        values = json.dumps([[1]] if "0.5,0.5" in body else VALUES)
        body = f'{{"keys":{keys},"values":{values},' + body[1:]
    check_problem(daemon.post("/v1/attend", body), code, pointer, *words)


@cases(PUT)
def test_put(daemon, victim, memory_name, case):
    _, body, code, pointer, *words = case
    check_problem(daemon.put(victim.path, body), code, pointer, *words)
    assert victim()
    path = f"/v1/memories/{memory_name}"
    check_problem(daemon.put(path, body), code, pointer, *words)
    assert daemon.get(path).status == 404, "a refused PUT left a memory behind"


# ---- names and paths

@pytest.mark.parametrize("name", [
    ".hidden", "..", ".", "%2e%2e", "a%2Fb", "a%2fb", "a%00b", "%00", "a%20b", "%C3%A9", "%ff", "%61bc", "a%0Ab",
    "a+b", "a:b", "a@b", "a,b", "a*b", "a~b", "x" * 129, "%2F", "a%5Cb", "a%25", "x" * 4000,
])
def test_bad_name(daemon, name):
    body = {"keys": [[1]], "values": [[1]]}
    before = daemon.get("/v1/memories").json
    check_problem(daemon.put(f"/v1/memories/{name}", body), "invalid_name")
    for method, path in (("GET", f"/v1/memories/{name}"), ("DELETE", f"/v1/memories/{name}")):
        reply = daemon.request(method, path)
        check_problem(reply, {"invalid_name", "memory_not_found"})
    reply = daemon.post(f"/v1/memories/{name}/attend", {"queries": [[1]]})
    check_problem(reply, {"invalid_name", "memory_not_found"})
    assert daemon.get("/v1/memories").json == before


@pytest.mark.parametrize("name", ["a/b", "a/../b", "../v1/memories", "a/attend/b"])
def test_path_with_slashes(daemon, name):
    check_problem(daemon.put(f"/v1/memories/{name}", {"keys": [[1]], "values": [[1]]}), "not_found")


@pytest.mark.parametrize("name", ["a%", "a%2", "a%zz", "%%%"])
def test_broken_percent_encoding(daemon, name):
    reply = daemon.put(f"/v1/memories/{name}", {"keys": [[1]], "values": [[1]]})
    check_problem(reply, {"invalid_name", "invalid_request", "not_found"})


def test_memory_not_found_names_it(daemon):
    check_problem(daemon.get("/v1/memories/no-such-thing"), "memory_not_found", None, "no-such-thing")
    reply = daemon.post("/v1/memories/no-such-thing/attend", {"queries": [[1]]})
    check_problem(reply, "memory_not_found", None, "no-such-thing")


# ---- methods

METHODS = {
    "/healthz": {"GET"}, "/readyz": {"GET"}, "/metrics": {"GET"}, "/openapi.json": {"GET"},
    "/v1/memories": {"GET"}, "/v1/memories/victim": {"GET", "PUT", "PATCH", "DELETE"},
    "/v1/memories/victim/rows": {"GET", "POST", "DELETE"}, "/v1/backup": {"GET"},
    "/v1/memories/victim/attend": {"POST"}, "/v1/attend": {"POST"},
}


@pytest.mark.parametrize("path", METHODS)
def test_method_not_allowed(daemon, path):
    for method in {"GET", "PUT", "POST", "DELETE", "PATCH", "BREW"} - METHODS[path]:
        reply = daemon.request(method, path)
        check_problem(reply, "method_not_allowed", None, method)
        allowed = {word.strip() for word in reply.headers["Allow"].split(",")}
        assert allowed - {"HEAD", "OPTIONS"} == METHODS[path]
        assert "HEAD" not in allowed or "GET" in allowed


# ---- preconditions

@pytest.mark.parametrize("headers", [{"If-Match": '"0"'}, {"If-None-Match": "*"}])
def test_precondition_failed(daemon, victim, headers):
    check_problem(daemon.put(victim.path, MEMORY, headers), "precondition_failed")
    assert victim()


# ---- media types

@pytest.mark.parametrize("given", [
    "application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x",
    "application/xml", "application/jsonp", "json", "application/octet-stream",
])
def test_unsupported_media_type(daemon, victim, given):
    reply = daemon.post(victim.path + "/attend", {"queries": QUERIES}, {"Content-Type": given})
    check_problem(reply, "unsupported_media_type", None, *(["--json"] if "form-url" in given else []))
    reply = daemon.put(victim.path, MEMORY, {"Content-Type": given})
    check_problem(reply, "unsupported_media_type")
    assert victim()


@pytest.mark.parametrize("given", [
    "application/json", "APPLICATION/JSON", "application/json; charset=utf-8",
    'application/json;charset="UTF-8"', "application/json ; charset=utf-8",
])
def test_supported_media_type(daemon, victim, given):
    reply = daemon.post(victim.path + "/attend", {"queries": QUERIES}, {"Content-Type": given})
    assert reply.status == 200, reply


def test_missing_media_type_is_json(daemon, victim):
    body = json.dumps({"queries": QUERIES})
    reply = daemon.request("POST", victim.path + "/attend", body, raw=True)
    assert reply.status == 200, reply


# ---- the head

def raw_exchange(daemon, head, body=b""):
    """Sends bytes, returns (status, body) of the first reply."""
    with daemon.connect() as connection:
        connection.sendall(head + body)
        received = b""
        while b"\r\n\r\n" not in received:
            piece = connection.recv(65536)
            assert piece, f"closed without a reply to {head!r}: {received!r}"
            received += piece
        top, rest = received.split(b"\r\n\r\n", 1)
        length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", top).group(1))
        while len(rest) < length:
            piece = connection.recv(65536)
            assert piece, "a reply was cut"
            rest += piece
        headers = dict(line.split(": ", 1) for line in top.decode().split("\r\n")[1:])
        return harness.Response(int(top.split()[1]), headers, rest[:length])


HEAD = b"POST /v1/attend HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize("lines, code", [
    (b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", "invalid_request"),
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "invalid_request"),
    (b"Transfer-Encoding: gzip\r\n\r\n", "unsupported_transfer_coding"),
    (b"Content-Length: 2\r\nExpect: 200-maybe\r\n\r\n{}", "expectation_failed"),
])
def test_head(daemon, lines, code):
    check_problem(raw_exchange(daemon, HEAD + lines), code)
    assert daemon.get("/healthz").status == 200


def test_body_where_none_belongs(daemon):
    reply = daemon.request("GET", "/healthz", b"{}")
    check_problem(reply, "invalid_request")


# ---- limits

@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A daemon with narrow limits: 2 KiB of body, 4 KiB of reply."""
    daemon = harness.Daemon(tmp_path_factory.mktemp("small"),
                            ["--max-body-bytes", 2048, "--max-reply-bytes", 4096])
    rows = 120
    body = {"keys": [[row] for row in range(rows)], "values": [[row] for row in range(rows)]}
    assert daemon.put("/v1/memories/m", body).status == 201
    yield daemon
    daemon.assert_healthy_end()


def test_body_too_large(small):
    fits = json.dumps({"queries": [[1]]}).ljust(2048)
    assert small.post("/v1/memories/m/attend", fits).status == 200
    etag = small.get("/v1/memories/m").headers["ETag"]
    for size in (2049, 5000, 3_000_000):
        reply = small.post("/v1/memories/m/attend", fits.ljust(size))
        check_problem(reply, "body_too_large", None, 2048)
    check_problem(raw_exchange(small, HEAD + b"Content-Length: 999999999999\r\n\r\n"), "body_too_large")
    assert small.get("/v1/memories/m").headers["ETag"] == etag


def test_chunked_body_too_large(small):
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    reply = raw_exchange(small, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + 3 * chunk + b"0\r\n\r\n")
    check_problem(reply, "body_too_large")
    body = json.dumps({"queries": [[1]], "keys": [[1]], "values": [[2]]}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    reply = raw_exchange(small, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert (reply.status, reply.json["outputs"]) == (200, [[2]])


def test_reply_too_large(small):
    queries = [[float(row)] for row in range(40)]
    etag = small.get("/v1/memories/m").headers["ETag"]
    reply = small.post("/v1/memories/m/attend", {"queries": queries})
    check_problem(reply, "reply_too_large", None, 4096)
    for weights in ("none", {"top": 2}):
        reply = small.post("/v1/memories/m/attend", {"queries": queries, "weights": weights})
        assert reply.status == 200 and len(reply.body) <= 4096, reply
    assert small.post("/v1/memories/m/attend", {"queries": queries[:1]}).status == 200
    assert small.get("/v1/memories/m").headers["ETag"] == etag


def test_reply_limit_leaves_the_rest_alone(small):
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/memories"):
        assert small.get(path).status == 200, path


def test_overloaded(start_daemon):
    """One worker, room for one to wait: of many at once some are refused with
    503 and Retry-After, the others are answered."""
    daemon = start_daemon("--threads", 1, "--max-queue", 1)
    rows = [[row % 97 / 97.0, row % 89 / 89.0] for row in range(20_000)]
    hidden = [[0.5, -0.25]] * 64
    body = {"keys": rows, "values": rows, "score": {
        "type": "additive", "w_q": hidden, "w_k": hidden, "v": [0.1] * 64}}
    assert daemon.put("/v1/memories/m", body).status == 201
    replies = []

    def ask():
        request = {"queries": rows[:60], "weights": "none"}
        replies.append(daemon.post("/v1/memories/m/attend", request))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [reply for reply in replies if reply.status != 200]
    assert len(replies) == 12 and 0 < len(refused) < 12, [reply.status for reply in replies]
    for reply in refused:
        check_problem(reply, "overloaded")
        assert int(reply.headers["Retry-After"]) >= 1
    assert daemon.get("/healthz").status == 200


def test_timeout(start_daemon):
    """A batch that would take too long is given up; the next one isn't hurt."""
    daemon = start_daemon("--request-timeout", 1)
    rows = [[row % 97 / 97.0, row % 89 / 89.0] for row in range(20_000)]
    hidden = [[0.5, -0.25]] * 256
    body = {"keys": rows, "values": rows, "score": {
        "type": "additive", "w_q": hidden, "w_k": hidden, "v": [0.1] * 256}}
    assert daemon.put("/v1/memories/m", body).status == 201
    body = json.dumps({"queries": rows[:4000], "weights": "none"})

    def attempt():
        start = time.monotonic()
        check_problem(daemon.post("/v1/memories/m/attend", body), "timeout")
        assert time.monotonic() - start >= 1
        return time.monotonic() - start

    harness.in_time(4, attempt)
    assert daemon.post("/v1/memories/m/attend", {"queries": rows[:1], "weights": "none"}).status == 200


def test_every_code_is_reached():
    """The tests of this folder name every code that can be met."""
    sources = [file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py")]
    named = {code for code in PROBLEMS if any(f'"{code}"' in source for source in sources)}
    missing = set(PROBLEMS) - named - BEYOND_US
    assert len(PROBLEMS) >= 25
    assert not missing, f"no test here reaches {missing}"
    expected = {case[2] for table in (ATTEND, AD_HOC, PUT) for case in table if isinstance(case[2], str)}
    assert expected <= set(PROBLEMS)
