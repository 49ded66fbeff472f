"""While memories are loaded at start the daemon is alive but not ready, says so
everywhere, and can be stopped. The file is a named pipe, so that loading takes
as long as the test likes."""

import json
import os
import signal
import time
from contextlib import contextmanager

import numpy

import harness
import tensors

PAIR = {"keys": [[1, 0], [0, 1]], "values": [[1], [2]]}


@contextmanager
def loading(start_daemon, tmp_path, env=None):
    """(daemon, pipe): a daemon that waits for the rest of the pipe."""
    path = tmp_path / "slow.json"
    os.mkfifo(path)
    memories = json.dumps([{"name": "slow", "file": str(path)}])
    daemon = start_daemon("--memories", memories, env=env, wait_ready=False)
    with open(path, "w") as pipe:
        yield daemon, pipe


def test_not_ready_until_loaded(start_daemon, tmp_path):
    with loading(start_daemon, tmp_path) as (daemon, pipe):
        assert daemon.get("/healthz").status == 200
        reply = daemon.get("/readyz")
        assert reply.status == 503 and reply.json["code"] == "not_ready", reply
        assert reply.headers["Content-Type"].split(";")[0] == "application/problem+json"
        assert int(reply.headers["Retry-After"]) >= 1
        for method, where, body in (("GET", "/v1/memories", None), ("PUT", "/v1/memories/slow", PAIR),
                                    ("POST", "/v1/memories/slow/attend", {"queries": [[1, 0]]}),
                                    ("DELETE", "/v1/memories/slow", None)):
            reply = daemon.request(method, where, body)
            assert reply.status == 503 and reply.json["code"] == "not_ready", reply
            assert reply.headers["Retry-After"]
        assert daemon.get("/metrics").status == daemon.get("/openapi.json").status == 200
        pipe.write(json.dumps(PAIR))
    harness.wait_until(lambda: daemon.get("/readyz").status == 200, 10, "/readyz")
    assert daemon.get("/v1/memories/slow").json["rows"] == 2
    assert daemon.post("/v1/memories/slow/attend", {"queries": [[1, 0]]}).status == 200


def test_faulty_rest_of_the_file(start_daemon, tmp_path):
    """It listens already and leaves all the same, with the reason."""
    with loading(start_daemon, tmp_path) as (daemon, pipe):
        assert daemon.get("/healthz").status == 200
        pipe.write('{"keys":[[1]],"values":[[1],')
    daemon.expected_exit = 1
    assert daemon.wait(10) == 1
    said = [line for line in daemon.log().splitlines() if not line.startswith("{")]
    assert len(said) == 1 and "slow.json" in said[0]


def test_stop_while_loading(start_daemon, tmp_path):
    # Nothing can wake the thread that reads, so it can't be joined.
    env = {"TSAN_OPTIONS": "exitcode=99:report_thread_leaks=0"}
    with loading(start_daemon, tmp_path, env) as (daemon, pipe):
        pipe.write('{"keys":[[1]],')
        pipe.flush()
        start = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
        assert time.monotonic() - start < 10 * harness.SLOW
        try:
            pipe.write("\n" * 100_000)
        except BrokenPipeError:
            pass


def rows_of(daemon, name):
    """The memory's values, by attending with every key as the query."""
    reply = daemon.post(f"/v1/memories/{name}/attend",
                        {"queries": numpy.eye(4).tolist(), "score": "exact", "normalization": "sum",
                         "weights": "none"})
    assert reply.status == 200, reply
    return reply.json["outputs"]


def test_binary_files(start_daemon, tmp_path):
    """The same rows from each format, in each type that it has."""
    keys, values = numpy.eye(4), numpy.array([[0.5, -1], [2, 3], [4, 5.25], [-6, 7]])
    memories = []
    for number, dtype in enumerate(("f2", "f4", "f8")):
        numpy.save(tmp_path / f"k{number}.npy", numpy.asfortranarray(keys.astype(dtype)))
        numpy.save(tmp_path / f"v{number}.npy", values.astype(dtype))
        memories.append({"name": f"npy{number}", "keys": f"{tmp_path}/k{number}.npy",
                         "values": f"{tmp_path}/v{number}.npy"})
        body = tensors.dump({"values": values.astype(dtype), "keys": tensors.bfloat16(keys)},
                            {"request": json.dumps({"score": "dot", "ids": list("abcd")})})
        (tmp_path / f"m{number}.safetensors").write_bytes(body)
        memories.append({"name": f"tensors{number}", "file": f"{tmp_path}/m{number}.safetensors"})
    numpy.save(tmp_path / "column.npy", values[:, 0])
    memories.append({"name": "column", "keys": f"{tmp_path}/k0.npy",
                     "values": f"{tmp_path}/column.npy"})
    daemon = start_daemon("--memories", json.dumps(memories))
    for memory in memories[:-1]:
        assert rows_of(daemon, memory["name"]) == values.tolist(), memory
    assert rows_of(daemon, "column") == values[:, :1].tolist()
    assert daemon.get("/v1/memories/tensors0").json["score"]["type"] == "dot"
    assert daemon.get("/v1/memories/npy0").json["score"]["type"] == "scaled_dot"
