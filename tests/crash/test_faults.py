"""A disk that fails: each system call that writes, failed once and for ever.

strace injects the error (or a SIGKILL) into the N-th call of a thread, of a daemon
that starts with a log left by a kill and goes through every kind of write: small
changes, a large memory in slices, a fold, a replacement, a delete. Whatever N is:

  - a write that was acknowledged is there after a restart, one that was refused as
    507 isn't, and one that met an I/O error is there whole or not at all;
  - a write that failed says so, and after an I/O error nothing is written any more,
    /readyz and the log say it: a failed fsync is not tried again;
  - queries are answered throughout, from what was acknowledged.
"""

import re
import shutil
import subprocess

import numpy
import pytest

import harness
import world

CALLS = ["pwrite64", "fdatasync", "fsync", "ftruncate", "unlink"]
REFUSALS = {507: "storage_full", 503: "store_failed"}
LARGE = 4800  # rows that make more than 4 MiB: stored in slices ahead of their base
HUGE = 70_000  # more than one slice: the second is written without a log


def can_trace():
    if not shutil.which("strace"):
        return False
    tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "true"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return tried.returncode == 0


pytestmark = [
    pytest.mark.skipif(not can_trace(), reason="strace is not here or may not trace"),
    pytest.mark.skipif(harness.SLOW > 1, reason="a sanitizer's build is too slow under a tracer"),
]


def wide(rng, rows):
    return world.matrix(rng, rows, 192), world.matrix(rng, rows, 64)


def small(rng, rows):
    return world.matrix(rng, rows, world.KEY_DIM), world.matrix(rng, rows, world.VALUE_DIM)


def before_the_fault(rng):
    """(name, Change): what the daemon under test finds."""
    yield "control", world.put("control", *small(rng, 20))
    yield "ids", world.put("ids", *small(rng, 3), ["a", "b", "c"])
    yield "ids", world.append("ids", *small(rng, 2), ["a", "d"])
    yield "log", world.put("log", *wide(rng, 8), binary=True)
    for _ in range(6):
        yield "log", world.append("log", *wide(rng, 150), binary=True)


def script(rng, huge):
    yield "ids", world.append("ids", *small(rng, 2), ["b", "e"])
    yield "new", world.put("new", *small(rng, 4), dtype="f16")
    yield "new", world.append("new", *small(rng, 1))
    yield "ids", world.remove("ids", ["a", "nobody"])
    for _ in range(4):  # a fold becomes due
        yield "log", world.append("log", *wide(rng, 100), binary=True)
    yield "large", world.put("large", *wide(rng, HUGE if huge else LARGE), binary=True)
    yield "large", world.append("large", *wide(rng, 3), binary=True)
    yield "ids", world.settle("ids", "gaussian")
    yield "log", world.put("log", *wide(rng, 5), binary=True)
    yield "large", world.drop("large")
    yield "ids", world.append("ids", *small(rng, 1), ["f"])
    yield "control2", world.put("control2", *small(rng, 2))


class State:
    """For each name the Memory that is served, and the Memories that may be there
    after a restart."""

    def __init__(self):
        self.served, self.possible, self.versions = {}, {}, {}

    def acknowledged(self, name, change, reply):
        version = reply.json["version"] if reply.body else None
        after = change.apply(self.served.get(name), version)
        self.served[name], self.possible[name] = after, [after]

    def unknown(self, name, change):
        """The version that a memory under a new name would get isn't known."""
        before = self.served.get(name)
        after = change.apply(before, before.version + 1 if before else None)
        self.possible.setdefault(name, [before]).append(after)

    def copy(self):
        other = State()
        other.served = dict(self.served)
        other.possible = {name: list(some) for name, some in self.possible.items()}
        return other

    def check_served(self, client, names):
        for name in names:
            served, _ = world.read(client, name)
            difference = world.differs(served, self.served.get(name))
            assert not difference, f"{name} while the daemon runs: {difference}"

    def check_restarted(self, client):
        for name, possible in self.possible.items():
            served, reply = world.read(client, name)
            assert served is not None or reply.status == 404, reply
            differences = [world.differs(served, one, one is not None and one.version is None)
                           for one in possible]
            assert None in differences, f"{name} after a restart: {differences}"


def start(folder, data, wrap=(), wait_ready=True):
    folder.mkdir()
    flags = ["--data-dir", str(data), "--log-level", "info", "--threads", "1"]
    return harness.Daemon(folder, flags, wrap=wrap, wait_ready=wait_ready)


@pytest.fixture(scope="module", name="prepared")
def fixture_prepared(tmp_path_factory):
    """A folder of data with a log that a kill has left, and the State it is in."""
    folder = tmp_path_factory.mktemp("prepared")
    state, rng = State(), numpy.random.default_rng(5)
    daemon = start(folder / "daemon", folder / "data")
    try:
        with daemon.client() as client:
            for name, change in before_the_fault(rng):
                reply = change.send(client)
                assert reply.status in (200, 201), reply
                state.acknowledged(name, change, reply)
            answer = world.answer(client, "control", world.KEY_DIM)
    finally:
        daemon.kill()
    return folder / "data", state, answer


class Run:
    """One fault."""

    def __init__(self, prepared, folder, inject, huge=False):
        data, state, self.answer = prepared
        self.folder, self.inject, self.huge = folder, inject, huge
        self.data = folder / "data"
        shutil.copytree(data, self.data)
        self.state = state.copy()
        self.broken = False  # an I/O error has been reported
        self.daemon = None

    def wrap(self):
        command = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", str(self.folder / "trace"),
                   "-e", "trace=" + ",".join(CALLS)]
        return command + (["-e", f"inject={self.inject}"] if self.inject else [])

    def is_dead(self):
        try:
            return self.daemon.process.wait(timeout=harness.patience(5)) != 0
        except subprocess.TimeoutExpired:
            return False

    def start(self):
        """False where the fault meets the start and the daemon says no."""
        try:
            self.daemon = start(self.folder / "faulty", self.data, self.wrap(), wait_ready=False)
            harness.wait_until(lambda: world.is_serving(self.daemon), 30, "the end of loading")
            return True
        except (AssertionError, OSError, harness.http.client.HTTPException):
            if self.daemon:
                self.daemon.kill()
            log = (self.folder / "faulty" / "log").read_text()
            lines = [line for line in log.splitlines() if line.startswith("attentiond: ")]
            killed = "KILL" in self.inject
            assert killed or len(lines) == 1, f"a start without a clear end:\n{log}"
            return False

    def step(self, client, name, change):
        reply = change.send(client)
        if reply.status in (200, 201, 204):
            assert not self.broken, f"{change.kind} was acknowledged after an I/O error"
            self.state.acknowledged(name, change, reply)
        elif reply.status == 404:  # the memory was to be made by a write that failed
            assert self.state.served.get(name) is None
        else:
            assert REFUSALS.get(reply.status) == reply.json["code"], reply
            if reply.status == 503:
                if not self.broken:
                    self.state.unknown(name, change)
                self.broken = True
        names = {name, "control", "ids"} - ({"large"} if self.huge else set())
        self.state.check_served(client, names)
        assert world.answer(client, "control", world.KEY_DIM) == self.answer

    def go(self):
        """Until the script's end or the daemon's."""
        name = change = None
        rng = numpy.random.default_rng(6)
        try:
            with self.daemon.client() as client:
                for name, change in script(rng, self.huge):
                    self.step(client, name, change)
                    change = None
                self.check_words(client)
        except (OSError, harness.http.client.HTTPException):
            assert "KILL" in self.inject and self.is_dead(), "the connection broke"
            if change:
                self.state.unknown(name, change)

    def log_of_failure(self):
        return [line for line in self.daemon.log_lines() if line["event"] == "store_failed"]

    def check_words(self, client):
        ready = client.request("GET", "/readyz")
        failed = self.log_of_failure()
        if ready.status == 503:
            failed = harness.wait_until(self.log_of_failure, 5, "the log's word of the failure")
            assert ready.json["code"] == "store_failed", ready
            assert len(failed) == 1 and failed[0]["reason"] in ready.json["detail"], failed
        else:
            assert not self.broken and not failed, (self.broken, failed, ready)

    def run(self, stop):
        if self.start():
            try:
                self.go()
                if stop and self.daemon.process.poll() is None:
                    self.daemon.assert_healthy_end()
            finally:
                self.daemon.kill()
        after = start(self.folder / "after", self.data)
        try:
            with after.client() as client:
                self.state.check_restarted(client)
                assert world.answer(client, "control", world.KEY_DIM) == self.answer
                change = world.append("ids", *small(numpy.random.default_rng(7), 1), ["later"])
                assert change.send(client).status == 200
            after.assert_healthy_end()
        finally:
            after.kill()
        shutil.rmtree(self.folder)


def count_calls(prepared, folder, huge):
    """How often the busiest thread makes each call."""
    run = Run(prepared, folder, "", huge)
    assert run.start()
    try:
        run.go()
        run.daemon.assert_healthy_end()
    finally:
        run.daemon.kill()
    counts = {}
    for line in (folder / "trace").read_text().splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match:
            counts[match.groups()] = counts.get(match.groups(), 0) + 1
    shutil.rmtree(folder)
    most = {}
    for (_, call), count in counts.items():
        most[call] = max(count, most.get(call, 0))
    return most


def sweep(call, count, fates, share):
    """Some N of 1..count for each fate, all of them where share is 1."""
    for i, fate in enumerate(fates):
        chosen = numpy.linspace(1, count, max(1, min(count, round(count * share)))).round()
        for n in sorted({int(n) for n in chosen}):
            yield f"{call}:{fate}:when={n}{'+' if (n + i) % 2 else ''}"


def fates(call):
    some = ["error=EIO", "signal=SIGKILL"]
    return some + ["error=ENOSPC"] if call == "pwrite64" else some


def run_all(prepared, tmp_path, injects, huge=False):
    failures = []
    for number, inject in enumerate(injects):
        try:
            Run(prepared, tmp_path / str(number), inject, huge).run(stop=number % 2 == 0)
        except AssertionError as failure:
            failures.append(f"{inject}: {failure}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("call", CALLS)
def test_each_call_fails(prepared, tmp_path, call):
    counts = count_calls(prepared, tmp_path / "count", huge=False)
    count = counts.get(call, 0)
    if call == "pwrite64":
        share = 120 / count if world.LONG else 4 / count
    else:
        share = 1 if world.LONG else 2 / max(count, 1)
    injects = list(sweep(call, count, fates(call), share))
    if not injects:
        pytest.skip("a script without such a call")
    run_all(prepared, tmp_path, injects)


@pytest.mark.skipif(not world.LONG, reason="part of make test-all")
@pytest.mark.parametrize("call", CALLS)
def test_large_loads_fail(prepared, tmp_path, call):
    """The second slice of a large memory goes around the log."""
    count = count_calls(prepared, tmp_path / "count", huge=True).get(call, 0)
    injects = list(sweep(call, count, fates(call), min(1, 12 / max(count, 1))))
    run_all(prepared, tmp_path, injects, huge=True)
