"""A representative life of the daemon under valgrind: no leak, no invalid
access, no use of what was never set. Minutes long, so it is asked for with
ATTENTIOND_VALGRIND=1."""

import json
import os
import re
import shutil

import numpy as np
import pytest

import harness
import oracle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("ATTENTIOND_VALGRIND") != "1", reason="set ATTENTIOND_VALGRIND=1"),
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind isn't installed"),
]

VALGRIND = ["valgrind", "--leak-check=full", "--show-leak-kinds=definite,indirect",
            "--errors-for-leak-kinds=definite,indirect", "--error-exitcode=99"]


@pytest.fixture
def watched(start_daemon, monkeypatch):
    monkeypatch.setattr(harness, "WRAP", VALGRIND)
    monkeypatch.setattr(harness, "SLOW", max(harness.SLOW, 30))
    return start_daemon


def no_leaks(daemon):
    assert daemon.stop() == 0, daemon.log()[-6000:]
    log = daemon.log()
    lost = re.findall(r"(?:definitely|indirectly) lost: ([\d,]+) bytes", log)
    assert all(count == "0" for count in lost), log[-6000:]
    assert re.search(r"ERROR SUMMARY: 0 errors", log), log[-6000:]


def test_every_computation(watched):
    daemon = watched("--threads", 2)
    generator = np.random.default_rng(31)
    keys = generator.normal(size=(140, 5)).astype(np.float32).tolist()
    path = "/v1/memories/m"
    ids = [f"row {row}" for row in range(140)]
    tensors = {"bilinear": {"w": [[0.5] * 5] * 3},
               "additive": {"w_q": [[0.5] * 3] * 4, "w_k": [[0.25] * 5] * 4, "v": [1] * 4}}
    with daemon.client(60) as client:
        assert client.request("PUT", path, {"keys": keys, "values": keys, "ids": ids}).status == 201
        for score in oracle.SCORES:
            queries = generator.normal(size=(3, 3 if score in tensors else 5)).tolist()
            for normalization in oracle.NORMALIZATIONS:
                for mode in ("full", {"top": 3}):
                    body = {"queries": queries, "score": {"type": score, **tensors.get(score, {})},
                            "normalization": normalization, "weights": mode}
                    assert client.request("POST", path + "/attend", body).status == 200
            body = {**body, "keys": keys, "values": keys}
            assert client.request("POST", "/v1/attend", body).status == 200
        assert client.request("PUT", path, {"keys": keys, "values": keys, "score": "cosine"}).status == 200
        assert client.request("DELETE", path).status == 204
    no_leaks(daemon)


def test_every_error(watched):
    import test_errors

    daemon = watched("--max-body-bytes", 100_000, "--max-reply-bytes", 4096)
    path = "/v1/memories/m"
    with daemon.client(60) as client:
        assert client.request("PUT", path, test_errors.MEMORY).status == 201
        for table, where, method in ((test_errors.ATTEND, path + "/attend", "POST"),
                                     (test_errors.AD_HOC, "/v1/attend", "POST"), (test_errors.PUT, path, "PUT")):
            for case in table:
                body = case[1] if isinstance(case[1], (str, bytes)) else json.dumps(case[1])
                reply = client.request(method, where, body)
                assert 400 <= reply.status < 500, (case[0], reply)
        assert client.request("POST", path + "/attend", {"queries": [[1, 2, 3, 4]] * 500}).status == 422
        for target in ("/nothing", "/v1/memories/%00", "/v1/memories/none"):
            assert client.request("GET", target).status in (400, 404)
        for target in ("/metrics", "/openapi.json", "/v1/memories", path):
            assert client.request("GET", target).status == 200
    too_large = daemon.request("POST", path + "/attend", b" " * 100_001, timeout=60)
    assert too_large.status == 413
    for part in (b"POST /v1/attend HTTP/1.1\r\nContent-Length: 50\r\n\r\n{", b"GET /metr", b"\0\0\0\r\n\r\n"):
        with daemon.connect() as connection:
            connection.sendall(part)
    no_leaks(daemon)


def test_start_and_stop_with_memories(watched, tmp_path):
    (tmp_path / "t.csv").write_text("1,2,0\n3,4,1\n")
    (tmp_path / "t.json").write_text('{"keys":[[1],[2]],"values":[[1],[2]],"ids":["a","b"]}')
    memories = [{"name": "csv", "file": "t.csv", "keys": {"columns": [0, 2]},
                 "values": {"columns": [2, 3], "one_hot": 2}, "score": {"type": "gaussian", "sigma": 2}},
                {"name": "json", "file": "t.json"}]
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"memories": memories}))
    daemon = watched("--config", path)
    assert len(daemon.get("/v1/memories").json["memories"]) == 2
    no_leaks(daemon)
    for flags in (["--help"], ["--version"], ["--config", path, "--print-config"], ["--config", path, "--check-config"],
                  ["--nonsense"], ["--threads", "-1"]):
        result = harness.run_daemon(*flags, timeout=5)
        assert result.returncode != 99, result.stderr[-4000:]
