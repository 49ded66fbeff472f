"""Queries while much is written see whole versions, and the newest ones: each reply
is held against what its version has to be, bit by bit. The changes are large enough
that folds and slices of new memories are under way meanwhile.

A reply's rows are compared with the model's; its answers with those of a second
daemon that goes through the same changes afterwards, one by one, alone.
"""

import threading
import time

import numpy

import harness
import world

SECONDS = world.rounds(3, 30, 4)
NAMES = ["a", "b"]
READERS = 3
ROWS = 1500


class Writing(threading.Thread):
    """Changes one memory until told to stop; keeps each change and its version."""

    def __init__(self, name, port, seed, stop):
        super().__init__()
        self.name_, self.port, self.stop = name, port, stop
        self.rng = numpy.random.default_rng([seed, ord(name)])
        self.history = []  # (Change, Memory afterwards)
        self.failure = None

    def rows(self, count):
        return world.matrix(self.rng, count, 192), world.matrix(self.rng, count, 64)

    def choose(self, memory):
        chance = self.rng.random()
        if memory is None or chance < 0.02 or memory.rows > 4000:
            count = ROWS if self.rng.random() < 0.7 else 5000  # 5 MB go in slices
            return world.put(self.name_, *self.rows(count), [f"r{n}" for n in range(count)],
                             binary=True)
        if chance < 0.1:
            gone = self.rng.choice(6000, size=50, replace=False)
            return world.remove(self.name_, [f"r{n}" for n in gone])
        if chance < 0.13:
            return world.settle(self.name_, str(self.rng.choice(["dot", "scaled_dot", "cosine"])))
        count = int(self.rng.integers(1, 300))
        ids = [f"r{n}" for n in self.rng.choice(6000, size=count, replace=False)]
        return world.append(self.name_, *self.rows(count), ids, binary=True)

    def change(self, client):
        memory = self.history[-1][1] if self.history else None
        change = self.choose(memory)
        reply = change.send(client)
        assert reply.status in (200, 201), reply
        if memory is None or reply.json["version"] != memory.version:
            self.history.append((change, change.apply(memory, reply.json["version"])))

    def newest(self):
        """The last version that was acknowledged."""
        return self.history[-1][1].version

    def run(self):
        try:
            with harness.Client(self.port) as client:
                while not self.stop.is_set():
                    self.change(client)
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure


class Reading(threading.Thread):
    """Asks for answers, or for rows, and never gets an older version than one that
    was acknowledged before it asked."""

    def __init__(self, port, writings, exports, stop):
        super().__init__()
        self.port, self.writings, self.exports, self.stop = port, writings, exports, stop
        self.answers, self.memories, self.failure = {}, {}, None

    def read(self, client, writing):
        least = writing.newest()
        if self.exports:
            memory, reply = world.read(client, writing.name_)
            assert memory, reply
            version = memory.version
            self.memories[writing.name_, version] = memory
        else:
            reply = ask(client, writing.name_)
            assert reply.status == 200, reply
            version = reply.json["version"]
            seen = self.answers.setdefault((writing.name_, version), reply.json["outputs"])
            assert seen == reply.json["outputs"], f"two answers of version {version}"
        assert version >= least, f"version {version} after {least} was acknowledged"

    def run(self):
        try:
            with harness.Client(self.port) as client:
                while not self.stop.is_set():
                    for writing in self.writings:
                        self.read(client, writing)
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure


def ask(client, name):
    rng = numpy.random.default_rng(8)
    body = {"queries": world.matrix(rng, 4, 192).tolist(), "weights": "none"}
    return client.request("POST", f"/v1/memories/{name}/attend", body)


def check_rows(writings, reading):
    models = {(w.name_, memory.version): memory for w in writings for _, memory in w.history}
    for key, memory in reading.memories.items():
        assert key in models, f"{key} was never there"
        assert not world.differs(memory, models[key]), (key, world.differs(memory, models[key]))


def check_answers(writings, readings, mirror):
    """How many answers were compared."""
    compared = 0
    with mirror.client() as client:
        for writing in writings:
            versions = {v for r in readings for name, v in r.answers if name == writing.name_}
            for change, memory in writing.history:
                assert change.send(client).status in (200, 201)
                if memory.version not in versions:
                    continue
                versions.remove(memory.version)
                alone = ask(client, writing.name_).json["outputs"]
                for reading in readings:
                    seen = reading.answers.get((writing.name_, memory.version), alone)
                    assert seen == alone, f"version {memory.version} of {writing.name_}"
                    compared += 1
            assert not versions, f"versions {versions} of {writing.name_} were never there"
    return compared


def test_queries_during_writes(start_daemon, tmp_path, seed):
    daemon = start_daemon("--data-dir", tmp_path / "data", "--log-level", "info")
    mirror = start_daemon("--data-dir", "", "--log-level", "info")
    stop = threading.Event()
    writings = [Writing(name, daemon.port, seed, stop) for name in NAMES]
    with daemon.client() as client:
        for writing in writings:
            writing.change(client)
    readings = [Reading(daemon.port, writings, False, stop) for _ in range(READERS)]
    exporting = Reading(daemon.port, writings, True, stop)
    threads = [*writings, *readings, exporting]
    for thread in threads:
        thread.start()

    def enough():
        much = sum(len(writing.history) for writing in writings) > 5
        seen = exporting.memories and all(reading.answers for reading in readings)
        return much and seen or any(thread.failure for thread in threads)

    try:
        time.sleep(SECONDS)
        harness.wait_until(enough, 60, "changes and answers")
    finally:
        stop.set()
    for thread in threads:
        thread.join()
        if thread.failure:
            raise AssertionError(str(thread.failure)) from thread.failure
    check_rows(writings, exporting)
    compared = check_answers(writings, readings, mirror)
    assert compared > 0
