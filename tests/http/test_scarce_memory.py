"""When memory runs out the daemon says so with 507 and goes on: nothing that
it held is lost, and it serves again as soon as there is room."""

import re
import resource
from pathlib import Path

import numpy as np
import pytest

import harness
from numbers_text import grid, grid_text
from oracle import NORMALIZATIONS, SCORES

MIB = 1 << 20
ROOM = 100 * MIB


def virtual_size(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmPeak:\s+(\d+) kB", status).group(1)) * 1024


def start_scarce(start_daemon, *flags):
    """A daemon with some 100 MiB of address space to grow into."""
    flags = ("--threads", 2, *flags)
    usual = start_daemon(*flags)
    usual.put("/v1/memories/m", {"keys": [[1]], "values": [[1]]})
    usual.post("/v1/memories/m/attend", {"queries": [[1]]})
    limit = virtual_size(usual.pid) + ROOM
    usual.stop()
    if harness.WRAP or limit > 8192 * MIB:
        pytest.skip("a sanitizer or wrapper needs the address space for itself")
    return start_daemon(*flags, preexec=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))


@pytest.fixture
def scarce(start_daemon):
    return start_scarce(start_daemon)


@pytest.mark.parametrize("kernels", harness.KERNEL_VARIANTS)
def test_every_arithmetic_answers(start_daemon, kernels):
    """Whatever a library works in is taken at the start: no combination of score and
    normalization waits for address space in the midst of a request."""
    if harness.kernels_refusal(kernels):
        pytest.skip(f"this CPU can't run {kernels}")
    daemon = start_scarce(start_daemon, "--kernels", kernels)
    generator = np.random.default_rng(52)
    keys, queries = grid(generator, 3000, 48).tolist(), grid(generator, 40, 48).tolist()
    square, tall = grid(generator, 48, 48).tolist(), grid(generator, 130, 48).tolist()
    scores = [*({"type": name} for name in SCORES if name not in ("bilinear", "additive")),
              {"type": "bilinear", "w": square},
              {"type": "additive", "w_q": tall, "w_k": tall, "v": [0.1] * 130}]
    assert daemon.put("/v1/memories/m", {"keys": keys, "values": keys}).status == 201
    for score in scores:
        for normalization in NORMALIZATIONS:
            reply = daemon.post("/v1/memories/m/attend", {
                "queries": queries, "score": score, "normalization": normalization, "weights": "none"})
            assert reply.status == 200, (score["type"], normalization, reply)


def test_out_of_memory(scarce):
    generator = np.random.default_rng(51)
    rows = grid(generator, 20_000, 64)
    text = grid_text(rows)
    body = f'{{"keys":{text},"values":{text}}}'
    statuses = []
    for number in range(30):
        reply = scarce.put(f"/v1/memories/m{number:02}", body)
        statuses.append(reply.status)
        if reply.status != 201:
            assert reply.status == 507 and reply.json["code"] == "out_of_memory", reply
            assert reply.headers["Content-Type"].split(";")[0] == "application/problem+json"
            break
    assert statuses[-1] == 507, "the limit was never met"
    kept = [f"m{number:02}" for number in range(len(statuses) - 1)]
    assert kept == [meta["name"] for meta in scarce.get("/v1/memories").json["memories"]] and kept
    # Weights for 500 queries are some 40 MB of text: that may or may not fit.
    query = {"queries": rows[:500].tolist()}
    for weights in ("full", "none", {"top": 3}):
        reply = scarce.post("/v1/memories/m00/attend", {**query, "weights": weights})
        assert reply.status in ((200, 507) if weights == "full" else (200,)), reply
    few = {"queries": rows[7:8].tolist(), "score": "exact", "normalization": "sum", "weights": {"top": 1}}
    for name in kept:
        reply = scarce.post(f"/v1/memories/{name}/attend", few)
        assert reply.status == 200 and reply.json["weights"] == [[{"row": 7, "weight": 1}]]
    assert scarce.delete("/v1/memories/m00").status == 204
    assert scarce.delete(f"/v1/memories/{kept[-1]}").status in (204, 404)
    # a memory is freed a moment after its delete is answered
    harness.wait_until(lambda: scarce.put("/v1/memories/again", body).status == 201, 10,
                       "what was freed to be used again")
