"""Memories that stay are moved into huge pages: after a while, after a restart,
while they are asked, and not where the options say no."""

import ctypes
import json
import mmap
import re
import time
from pathlib import Path

import numpy as np
import pytest

import harness
import tensors
from kept_rows import can_time

ROWS, DIM = 100_000, 64
BYTES = ROWS * 2 * DIM * 4
MOST = BYTES * 0.4  # each stretch of blocks side by side has a piece of a page at both ends
MADV_COLLAPSE = 25
WORTH_WAITING = 15  # seconds


def in_huge_pages(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^AnonHugePages:\s+(\d+) kB", text, re.M).group(1)) * 1024


def system_can():
    """Whether the kernel collapses pages when it is asked to."""
    room = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    room[:] = b"x" * len(room)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(room))
    return ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(len(room)), MADV_COLLAPSE) == 0


def system_does_by_itself():
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return path.exists() and "[always]" in path.read_text()


pytestmark = pytest.mark.skipif(not can_time() or not system_can(),
                                reason="needs the plain daemon, and Linux 6.1 or later")


def put(daemon, name="large", rows=ROWS):
    generator = np.random.default_rng(3)
    body = tensors.dump({"keys": generator.standard_normal((rows, DIM)).astype("f4"),
                         "values": generator.standard_normal((rows, DIM)).astype("f4")})
    assert daemon.put(f"/v1/memories/{name}", body, {"Content-Type": tensors.MEDIA_TYPE}).status == 201


def wait_for_huge_pages(daemon, least):
    harness.wait_until(lambda: in_huge_pages(daemon.pid) >= least, WORTH_WAITING, "huge pages")


def answer(daemon):
    reply = daemon.post("/v1/memories/large/attend", {"queries": [[0.25] * DIM], "weights": "none"})
    assert reply.status == 200, reply
    return reply.json["outputs"]


def test_what_stays(start_daemon, tmp_path):
    daemon = start_daemon("--data-dir", tmp_path / "data")
    put(daemon)
    expected = answer(daemon)
    end = time.monotonic() + harness.patience(WORTH_WAITING)
    while in_huge_pages(daemon.pid) < MOST:
        assert answer(daemon) == expected
        assert time.monotonic() < end, f"{in_huge_pages(daemon.pid)} of {BYTES} bytes"
    assert answer(daemon) == expected
    assert daemon.stop() == 0
    again = start_daemon("--data-dir", tmp_path / "data")
    wait_for_huge_pages(again, MOST)
    assert answer(again) == expected
    assert again.delete("/v1/memories/large").status == 204
    harness.wait_until(lambda: in_huge_pages(again.pid) < BYTES / 4, 10, "the room to be given back")


def test_while_others_write(start_daemon):
    """In smaller steps, but it is not put off for ever."""
    daemon = start_daemon("--data-dir", "")
    put(daemon)
    put(daemon, "other", 10)
    row = json.dumps({"keys": [[1] * DIM], "values": [[1] * DIM]})
    end = time.monotonic() + harness.patience(WORTH_WAITING)
    while in_huge_pages(daemon.pid) < MOST:
        assert daemon.post("/v1/memories/other/rows", row).status == 200
        assert time.monotonic() < end, f"{in_huge_pages(daemon.pid)} of {BYTES} bytes"


unasked = pytest.mark.skipif(system_does_by_itself(), reason="every program gets huge pages here")


@unasked
def test_small_memories_stay_where_they_are(start_daemon):
    daemon = start_daemon("--data-dir", "")
    for number in range(20):
        put(daemon, f"small-{number}", 2000)
    time.sleep(3)
    assert in_huge_pages(daemon.pid) == 0
    put(daemon)  # it comes after them
    wait_for_huge_pages(daemon, MOST)
    assert in_huge_pages(daemon.pid) <= BYTES


@unasked
def test_it_can_be_forbidden(start_daemon):
    daemon = start_daemon("--data-dir", "", "--huge-pages=false")
    put(daemon)
    time.sleep(3)
    assert in_huge_pages(daemon.pid) < BYTES / 4
