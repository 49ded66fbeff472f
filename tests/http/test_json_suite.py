"""JSON is read to the letter of RFC 8259: the cases of JSONTestSuite, as whole
bodies and, so that they meet the scanner of numbers and the decoder of
strings, as rows of a tensor and as ids."""

import json
import random
import re

import pytest

import harness

CASES = [
    (case["name"][: -len(".json")], case["input"])
    for case in json.loads((harness.DATA / "json-test-suite" / "parsing.json").read_text("utf-8"))
]
# The contract is stricter than RFC 8259, which only advises against it.
REFUSED_BY_CONTRACT = {"y_object_duplicated_key", "y_object_duplicated_key_and_value"}


def named(prefix, pattern=r""):
    return [(name, text) for name, text in CASES if name.startswith(prefix) and re.search(pattern, text, re.S)]


def bodies(text):
    """The case's bytes; where the package has lost bytes that were no UTF-8 a
    second version has bytes like them."""
    yield text.encode("utf-8")
    if "\ufffd" in text:
        yield text.encode("utf-8").replace("\ufffd".encode("utf-8"), b"\xff")


def is_invalid_json(reply):
    assert reply.status == 400 and reply.json["code"] == "invalid_json", reply
    return True


def test_all_cases_are_there():
    assert len(CASES) == 318
    assert REFUSED_BY_CONTRACT <= {name for name, _ in CASES}


# One test for each letter: a test for each of 318 requests would cost more in
# pytest than in the daemon. `wrong` names the cases at fault, all of them.

def test_valid_texts_are_taken_as_json(daemon):
    """None of them is a request, so the fault lies elsewhere than in the JSON."""
    wrong = []
    with daemon.client() as client:
        for name, text in named("y_"):
            reply = client.request("POST", "/v1/attend", text)
            refused = reply.json["code"] == "invalid_json"
            if reply.status not in (400, 422) or refused != (name in REFUSED_BY_CONTRACT):
                wrong.append((name, text[:60], reply))
    assert not wrong


def test_invalid_texts_are_refused_as_such(daemon):
    wrong = []
    with daemon.client() as client:
        for name, text in named("n_"):
            for body in bodies(text):
                reply = client.request("POST", "/v1/attend", body)
                if reply.status != 400 or reply.json["code"] != "invalid_json":
                    wrong.append((name, body[:60], reply))
    assert not wrong


def test_texts_of_free_choice_are_survived(daemon):
    wrong = []
    with daemon.client() as client:
        for name, text in named("i_"):
            for body in bodies(text):
                reply = client.request("POST", "/v1/attend", body)
                if reply.status not in (400, 422) or (b"\xff" in body and not is_invalid_json(reply)):
                    wrong.append((name, body[:60], reply))
    assert not wrong
    assert daemon.get("/healthz").status == 200


# ---- as a row of queries

def ask_row(client, row):
    body = b'{"queries":[' + row + b'],"keys":[[0]],"values":[[1]],"score":"euclidean"}'
    return client.request("POST", "/v1/attend", body)


def test_valid_numbers_in_a_row(daemon):
    wrong = []
    with daemon.client() as client:
        for name, text in named("y_number"):
            reply = ask_row(client, text.strip().encode())
            number = json.loads(text)[0]
            too_large = abs(number) >= 3.4028235677973366e38
            if (reply.status, reply.json.get("code")) != ((400, "invalid_number") if too_large else (200, None)):
                wrong.append((name, text, reply))
    assert not wrong


def test_invalid_numbers_in_a_row(daemon):
    wrong = []
    with daemon.client() as client:
        for name, text in named("n_number", r"^\s*\[.*\]\s*$"):
            for body in bodies(text.strip()):
                reply = ask_row(client, body)
                if reply.status != 400 or reply.json["code"] != "invalid_json":
                    wrong.append((name, body[:60], reply))
    assert not wrong


def test_numbers_of_free_choice_in_a_row(daemon):
    """Too small is 0, too large is an error that says where."""
    wrong = []
    with daemon.client() as client:
        for name, text in named("i_number"):
            reply = ask_row(client, text.strip().encode())
            number = abs(float(json.loads(text)[0]))
            if number >= 3.4028235677973366e38:
                good = reply.status == 400 and reply.json["code"] == "invalid_number" and \
                    reply.json["pointer"] == "/queries/0/0"
            else:
                good = reply.status == 200
            if not good:
                wrong.append((name, text[:60], reply))
    assert not wrong


# ---- as ids

def put_ids(client, path, ids):
    return client.request("PUT", path, b'{"keys":[[0]],"values":[[1]],"ids":' + ids + b"}")


def test_valid_strings_come_back(daemon, memory_name):
    """Escapes, surrogate pairs, control characters, whole planes: an id is
    returned as the string that was sent."""
    path = f"/v1/memories/{memory_name}"
    wrong = []
    with daemon.client() as client:
        for name, text in named("y_string", r"^\["):
            value = json.loads(text)
            if len(value) != 1 or not isinstance(value[0], str):
                continue
            reply = put_ids(client, path, text.encode("utf-8"))
            good_id = 1 <= len(value[0].encode("utf-8")) <= 256
            # An id of NUL bytes or with one may be refused, but as an id.
            if reply.status == 400 and reply.json["code"] == "invalid_id":
                if good_id and "\0" not in value[0]:
                    wrong.append((name, text, reply))
                continue
            if reply.status not in (200, 201):
                wrong.append((name, text, reply))
                continue
            top = client.request("POST", path + "/attend", {"queries": [[0]], "weights": {"top": 1}})
            if top.json["weights"][0][0]["id"] != value[0]:
                wrong.append((name, text, top))
    assert not wrong


def test_invalid_strings_in_ids(daemon, memory_name):
    wrong = []
    with daemon.client() as client:
        for name, text in named("n_string", r"^\[.*\]$"):
            for body in bodies(text):
                reply = put_ids(client, f"/v1/memories/{memory_name}", body)
                if reply.status != 400 or reply.json["code"] != "invalid_json":
                    wrong.append((name, body[:60], reply))
    assert not wrong


def test_strings_of_free_choice_in_ids(daemon, memory_name):
    """A lone surrogate has no UTF-8: it can't become an id."""
    wrong = []
    with daemon.client() as client:
        for name, text in named("i_string", r"^\[.*\]$"):
            for body in bodies(text):
                reply = put_ids(client, f"/v1/memories/{memory_name}", body)
                acceptable = (400,) if "\\u" in text.lower() or b"\xff" in body else (200, 201, 400)
                if reply.status not in acceptable:
                    wrong.append((name, body[:60], reply))
    assert not wrong


@pytest.mark.parametrize("raw", [
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xc2\x20", b"\xe0\x80\x80", b"\xe0\x9f\xbf",
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xe2\x82", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80",
    b"\xfe", b"\xff", b"\xf0\x9f\x98",
], ids=lambda raw: raw.hex())
def test_what_is_not_utf8(daemon, memory_name, raw):
    """In a value, in a name, in an unknown member, at the end of the text."""
    path = f"/v1/memories/{memory_name}"
    for body in (
        b'{"keys":[[0]],"values":[[1]],"ids":["a' + raw + b'"]}',
        b'{"keys":[[0]],"values":[[1]],"' + raw + b'":1}',
        b'{"keys":[[0]],"values":[[1]],"x":{"y":["' + raw + b'"]}}',
        b'{"keys":[[0]],"values":[[1]]}' + raw,
    ):
        reply = daemon.put(path, body)
        assert reply.status == 400, reply
        if b'"x"' not in body:
            is_invalid_json(reply)
        reply.text.encode("utf-8")  # what it says is UTF-8 again
    assert daemon.get(path).status == 404


@pytest.mark.parametrize("text", ["\u007f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff",
                                  "\U00010000", "\U0010ffff", "\u2028", "\ufeff"], ids=ascii)
def test_what_is_utf8(daemon, memory_name, text):
    path = f"/v1/memories/{memory_name}"
    for ids in (json.dumps([text]), json.dumps([text], ensure_ascii=False)):
        assert daemon.put(path, f'{{"keys":[[0]],"values":[[1]],"ids":{ids}}}').status in (200, 201)
        reply = daemon.post(path + "/attend", {"queries": [[0]], "weights": {"top": 1}})
        assert reply.json["weights"][0][0]["id"] == text


# ---- mutated requests

def is_json(body):
    """What Python's parser, made strict, thinks; None where the contract leaves
    it open (a lone surrogate has no UTF-8)."""

    def refuse(_):
        raise ValueError

    def distinct(pairs):
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        value = json.loads(body.decode("utf-8"), parse_constant=refuse, object_pairs_hook=distinct)
    except ValueError:
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return None
    return True


SEEDS = [
    b'{"queries":[[1,-2.5e-3],[0.125,4]],"keys":[[1,2],[3,4]],"values":[[5],[6]],"weights":{"top":1}}',
    b'{"queries": [[1E+2, 0]], "keys": [[1,2]], "values": [[5]], "score": {"type":"gaussian","sigma":0.5},'
    b' "normalization": "s\\u0075m"}\n',
    b'{"queries":[[1]],"keys":[[1]],"values":[[5]],"score":"dot","x\\"\xc3\xa9":[true,false,null,{"a":[{}]}]}',
]
PIECES = [
    b"", b" ", b"0", b"1", b"-", b"+", b".", b"e", b"E9", b",", b":", b"[", b"]", b"{", b"}", b'"', b"\\", b"\\u",
    b"\\u00e9", b"\\ud83d\\ude00", b"\\udc00", b"\n", b"\0", b"\x1f", b"\x7f", b"\x80", b"\xff", b"\xc3\xa9",
    b"null", b"true", b"nan", b"NaN", b"Infinity", b"1e999", b"//", b"/**/", b"'", b"[]", b"{}", b'"a":1,', b"\t",
    b"\x0c",
]


@pytest.mark.parametrize("seed", range(4))
def test_mutated_requests(daemon, seed):
    """Pieces put in, cut out, doubled: the daemon and Python agree on what is
    JSON, and nothing but 200, 400 and 422 comes of it."""
    generator = random.Random(seed)
    wrong = []
    with daemon.client() as client:
        for _ in range(500):
            body = generator.choice(SEEDS)
            for _ in range(generator.choice((1, 1, 1, 2, 3))):
                place = generator.randrange(len(body) + 1)
                cut = generator.choice((0, 0, 1, 1, 2, 5))
                piece = generator.choice(PIECES)
                if generator.random() < 0.2:
                    piece = body[place : place + generator.randrange(1, 12)]
                body = body[:place] + piece + body[place + cut :]
            reply = client.request("POST", "/v1/attend", body)
            verdict = is_json(body)
            refused = reply.status != 200 and reply.json["code"] == "invalid_json"
            if reply.status not in (200, 400, 422) or (verdict is not None and refused == verdict):
                wrong.append((body, verdict, reply))
    assert not wrong, wrong[:5]
