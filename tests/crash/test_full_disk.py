"""A disk that is full: writes get 507, queries go on, and writes work again when
there is room.

The disk is a small tmpfs in a mount namespace that lives as long as a process of
the test's; the daemons enter it. That takes root or user namespaces.
"""

import os
import shutil
import subprocess
import time

import numpy
import pytest

import harness
import world

MEGABYTES = 24


class Disk:
    """A tmpfs at `path`, seen by those who enter."""

    def __init__(self, path, megabytes):
        path.mkdir()
        self.path = path
        user = [] if os.geteuid() == 0 else ["-r"]
        self.holder = subprocess.Popen(
            ["unshare", "-m", *user, "sh", "-c",
             f"mount -t tmpfs -o size={megabytes}m tmpfs '{path}' && echo mounted && exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.mounted = self.holder.stdout.readline() == b"mounted\n"
        enter_user = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        self.enter = ["nsenter", "-t", str(self.holder.pid), "-m", *enter_user]

    def run(self, *command):
        subprocess.run([*self.enter, *map(str, command)], check=False, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def fill(self, leave=0):
        """Puts a file there that takes all the room but `leave` bytes."""
        self.run("sh", "-c", f"cat /dev/zero >>'{self.path}/filler'; "
                             f"truncate -s -{leave} '{self.path}/filler'")

    def make_room(self):
        self.run("rm", "-f", self.path / "filler")

    def close(self):
        self.holder.stdin.close()
        self.holder.wait()


@pytest.fixture(name="disk")
def fixture_disk(tmp_path, request):
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("unshare and nsenter are not here")
    disk = Disk(tmp_path / "disk", getattr(request, "param", MEGABYTES))
    if not disk.mounted:
        disk.close()
        pytest.skip("mounting takes root or user namespaces, and neither works here")
    yield disk
    disk.close()


@pytest.fixture(name="start")
def fixture_start(disk, tmp_path):
    started = []

    def start():
        folder = tmp_path / f"daemon-{len(started)}"
        folder.mkdir()
        started.append(harness.Daemon(
            folder, ["--data-dir", str(disk.path / "data"), "--log-level", "info"],
            wrap=disk.enter))
        return started[-1]

    yield start
    for daemon in started:
        daemon.kill()


class Book:
    """Writes and what came of them."""

    def __init__(self, seed):
        self.rng = numpy.random.default_rng(seed)
        self.memories = {}

    def send(self, client, name, change):
        reply = change.send(client)
        if reply.status in (200, 201, 204):
            version = reply.json["version"] if reply.body else None
            self.memories[name] = change.apply(self.memories.get(name), version)
        else:
            assert reply.status == 507 and reply.json["code"] == "storage_full", reply
        return reply.status

    def wide(self, rows):
        return world.matrix(self.rng, rows, 192), world.matrix(self.rng, rows, 64)

    def put(self, client, name, rows):
        return self.send(client, name, world.put(name, *self.wide(rows), binary=True))

    def append(self, client, name, rows):
        return self.send(client, name, world.append(name, *self.wide(rows), binary=True))

    def drop(self, client, name):
        return self.send(client, name, world.drop(name))

    def check(self, client):
        for name, memory in self.memories.items():
            served, reply = world.read(client, name)
            assert served is not None or reply.status == 404, reply
            assert not world.differs(served, memory), (name, world.differs(served, memory))
            if memory is not None:
                assert world.answer(client, name, 192)[0] == 200

    def append_until_full(self, client, name, rows):
        for _ in range(10_000):
            if self.append(client, name, rows) == 507:
                return
        raise AssertionError("the disk is never full")


def check_after_start(start, book):
    daemon = start()
    with daemon.client() as client:
        book.check(client)
    daemon.assert_healthy_end()


def events(daemon, name):
    return [line for line in daemon.log_lines() if line["event"] == name]


def test_full_and_room_again(disk, start, seed):
    """The room is somebody else's doing."""
    book = Book(seed)
    daemon = start()
    with daemon.client() as client:
        assert book.put(client, "a", 200) == 201
        assert book.put(client, "b", 200) == 201
        disk.fill()
        book.append_until_full(client, "a", 40)
        for _ in range(5):
            book.append(client, "b", 100)
            assert book.put(client, "large", 4800) == 507
            book.check(client)
        assert client.request("GET", "/readyz").status == 200
        disk.make_room()
        assert book.append(client, "a", 40) == 200
        assert book.put(client, "large", 4800) == 201
        assert book.append(client, "b", 1000) == 200
        book.check(client)
    daemon.kill()
    daemon = start()
    with daemon.client() as client:
        book.check(client)
        assert book.append(client, "large", 3) == 200
        book.check(client)
    daemon.assert_healthy_end()


def test_room_by_deleting(start, seed):
    """Where memories fill the disk, deleting one makes room."""
    book = Book(seed)
    daemon = start()
    with daemon.client() as client:
        for i in range(100):
            if book.put(client, f"m{i}", 1500) == 507:  # 1.5 MB
                break
        assert 9 < i < 99, "a log must not take the room of the memories"
        book.check(client)
        book.append_until_full(client, "m0", 3)
        for k in range(3):
            assert book.drop(client, f"m{k + 1}") == 204
        assert harness.wait_until(lambda: book.put(client, "again", 1000) == 201, 15, "room for a memory")
        book.check(client)
    daemon.assert_healthy_end()
    check_after_start(start, book)


def fill_to_the_brim(book, disk, client):
    """With appends to two memories, down to those of a row; then somebody else takes
    the crumbs."""
    for rows in (40, 3, 1):
        book.append_until_full(client, "a", rows)
        book.append_until_full(client, "b", rows)
    disk.fill()


@pytest.mark.parametrize("how", ["by appends", "by another", "stopped since", "killed since"])
def test_deleting_without_a_byte_left(disk, start, seed, how):
    """A memory can be deleted, and others take appends at once: with no other room
    than what the deleted one had."""
    book = Book(seed)
    daemon = start()
    with daemon.client() as client:
        for name in "ab":
            assert book.put(client, name, 200) == 201
            assert book.append(client, name, 100) == 200
        if how == "by another":
            disk.fill()
        fill_to_the_brim(book, disk, client)
    if how in ("stopped since", "killed since"):
        if how == "stopped since":
            daemon.assert_healthy_end()
        else:
            daemon.kill()
        disk.fill()
        daemon = start()
    with daemon.client() as client:
        book.check(client)
        assert book.drop(client, "b") == 204
        for _ in range(10):
            assert book.append(client, "a", 3) == 200
        assert book.put(client, "c", 20) == 201
        book.append_until_full(client, "c", 3)
        assert book.drop(client, "c") == 204
        assert book.append(client, "a", 3) == 200
        book.check(client)
        if how == "by another":
            disk.make_room()
        else:
            assert book.drop(client, "a") == 204
        assert harness.wait_until(lambda: book.put(client, "b", 1000) == 201, 10, "room")
    daemon.kill()
    check_after_start(start, book)


def test_deleted_memories_leave_no_trace(start, seed):
    """Ten times what the disk holds, one after the other."""
    book = Book(seed)
    daemon = start()
    with daemon.client() as client:
        for i in range(60):
            name = f"m{i % 4}"
            assert harness.wait_until(lambda: book.put(client, name, 3500) != 507, 15, "room")
            if i % 4 != 0:
                assert book.drop(client, name) == 204
        book.check(client)
    daemon.assert_healthy_end()


def test_fold_on_a_full_disk(disk, start, seed):
    """A fold that finds no room neither keeps the daemon busy nor fills the log; it
    is done later."""
    book = Book(seed)
    daemon = start()
    with daemon.client() as client:
        assert book.put(client, "a", 100) == 201
        for rows in [50] * 20 + [10, 5, 3]:  # 1.043 MB: a fold is due at 1.049
            assert book.append(client, "a", rows) == 200
        disk.fill(leave=400_000)
        for _ in range(40):
            book.append(client, "a", 3)
        before, since = daemon.metric("process_cpu_seconds_total"), time.monotonic()
        time.sleep(2 * min(harness.SLOW, 3))
        spent = daemon.metric("process_cpu_seconds_total") - before
        passed = time.monotonic() - since
        assert len(events(daemon, "fold_failed")) < 10
        assert spent < passed / 2, f"{spent} s of CPU in {passed} s without a request"
        book.check(client)
        disk.make_room()
        assert book.append(client, "a", 50) == 200
        book.check(client)
    daemon.kill()
    check_after_start(start, book)


def test_start_on_a_full_disk(disk, start, seed):
    """What is stored is served; what a kill left unnamed doesn't stand in the way
    of later writes."""
    book = Book(seed)
    daemon = start()
    with daemon.client() as client:
        assert book.put(client, "a", 100) == 201
        for _ in range(12):
            assert book.append(client, "a", 100) == 200
        assert book.drop(client, "a") == 204
        assert book.put(client, "a", 50) == 201
        for _ in range(20):
            assert book.append(client, "a", 100) == 200
    daemon.kill()
    disk.fill()
    daemon = start()
    with daemon.client() as client:
        book.check(client)
        book.append_until_full(client, "a", 400)
        book.check(client)
        disk.make_room()
        for _ in range(20):
            assert book.append(client, "a", 100) == 200
        assert book.append(client, "a", 5000) == 200  # as chunks, not as a change
        book.check(client)
    daemon.kill()
    check_after_start(start, book)


@pytest.mark.parametrize("disk", [130], indirect=True)
@pytest.mark.skipif(harness.SLOW > 1, reason="says nothing else under a sanitizer")
def test_slices_of_what_did_not_fit(start, seed):
    """A memory that is too large for the disk fails after its first slices; these
    give their room back without a restart."""
    book = Book(seed)
    daemon = start()
    with daemon.client() as client:
        too_large = world.put("too-large", *book.wide(140_000), binary=True)
        fits = world.put("fits", *book.wide(30_000), binary=True)
        for _ in range(4):
            assert book.send(client, "too-large", too_large) == 507
        assert harness.wait_until(lambda: book.send(client, "fits", fits) == 201, 20, "room")
        book.check(client)
    daemon.kill()
    check_after_start(start, book)
