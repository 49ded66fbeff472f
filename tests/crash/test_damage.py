"""Bits that rot: a flipped byte or a cut in any of the files. The daemon refuses to
start with one clear line, or says which memory is damaged and serves the others; it
never gives a wrong answer, and never an old one.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest

import harness
import world

FLIPS = world.rounds(60, 1200, 12)
CUTS = world.rounds(24, 400, 6)
FLAGS = ["--log-level", "info", "--threads", "1", "--io-threads", "1"]


class Example:
    """A folder of data, what it holds, and the answers it gave. A daemon has left it
    by a kill (with a log) or by a clean stop (without)."""

    def __init__(self, folder, clean):
        self.data, self.memories, self.answers = folder / "data", {}, {}
        rng = numpy.random.default_rng(3)
        daemon = start(folder / "daemon", self.data)
        try:
            with daemon.client() as client:
                for name, change in self.changes(rng):
                    reply = change.send(client)
                    assert reply.status in (200, 201, 204), reply
                    version = reply.json["version"] if reply.body else None
                    self.memories[name] = change.apply(self.memories.get(name), version)
                for name, memory in self.memories.items():
                    if memory:
                        self.answers[name] = world.answer(client, name, memory.keys.shape[1])
            if clean:
                daemon.assert_healthy_end()
        finally:
            daemon.kill()

    @staticmethod
    def changes(rng):
        def rows(count, key_dim=world.KEY_DIM, value_dim=world.VALUE_DIM):
            return world.matrix(rng, count, key_dim), world.matrix(rng, count, value_dim)

        yield "folded", world.put("folded", *rows(100, 192, 64), binary=True)
        for _ in range(6):  # past the fold at 1 MiB
            yield "folded", world.append("folded", *rows(200, 192, 64), binary=True)
        yield "gone", world.put("gone", *rows(60, 192, 64))
        yield "gone", world.drop("gone")
        yield "ids", world.put("ids", *rows(30), [f"i{n}" for n in range(30)])
        for n in range(12):
            yield "ids", world.append("ids", *rows(2), [f"i{n * 3}", f"j{n}"])
        yield "ids", world.remove("ids", ["i1", "i2"])
        yield "half", world.put("half", *rows(40), dtype="f16")
        yield "half", world.settle("half", "gaussian")
        yield "changes", world.put("changes", *rows(2, 64, 64))
        for _ in range(15):
            yield "changes", world.append("changes", *rows(4, 64, 64))


def start(folder, data):
    """Serving, perhaps with a store that can't be written to any more."""
    folder.mkdir()
    daemon = harness.Daemon(folder, ["--data-dir", str(data), *FLAGS], wait_ready=False)
    try:
        harness.wait_until(lambda: world.is_serving(daemon), 30, "the end of loading")
    except AssertionError:
        daemon.kill()
        raise
    return daemon


def check_served(daemon, example):
    """Names of damaged memories. All others have to be as they were."""
    damaged = set()
    with daemon.client() as client:
        listing = client.request("GET", "/v1/memories").json["memories"]
        listed = {meta["name"]: "damaged" in meta for meta in listing}
        assert set(listed) == {name for name, memory in example.memories.items() if memory}
        for name, memory in example.memories.items():
            served, reply = world.read(client, name)
            if memory and served is None:
                assert reply.status == 500 and reply.json["code"] == "memory_damaged", reply
                status, body = world.answer(client, name, memory.keys.shape[1])
                assert status == 500 and b"memory_damaged" in body
                assert listed[name], f"{name} is damaged and the listing does not say so"
                damaged.add(name)
                continue
            assert not world.differs(served, memory), f"{name}: {world.differs(served, memory)}"
            if memory:
                assert not listed[name]
                assert world.answer(client, name, memory.keys.shape[1]) == example.answers[name]
    return damaged


def try_damage(example, folder, damage):
    """What came of it: "refused", "damaged", "read-only" or "unharmed"."""
    folder.mkdir()
    data = folder / "data"
    shutil.copytree(example.data, data)
    damage(data)
    try:
        daemon = start(folder / "daemon", data)
    except AssertionError as failure:
        log = (folder / "daemon" / "log").read_text()
        lines = [line for line in log.splitlines() if line.startswith("attentiond: ")]
        assert "the daemon left with 1" in str(failure), failure
        assert not harness.REPORTS.search(log), log
        assert len(lines) == 1, f"refused without one clear line:\n{log}"
        assert "damaged" in lines[0] or str(data) in lines[0], lines[0]
        return "refused"
    try:
        damaged = check_served(daemon, example)
        ready = daemon.get("/readyz")
        failed = '"event":"store_failed"' in daemon.log()
        daemon.assert_healthy_end()
    finally:
        daemon.kill()
    assert ready.status == (503 if failed else 200), ready
    shutil.rmtree(folder)
    return "damaged" if damaged else "read-only" if failed else "unharmed"


def places(rng, path, count):
    """Half of them anywhere; the other half where structure is dense: the heads of
    pages and of a log's frames, and the file's own head."""
    size = path.stat().st_size
    for n in range(count):
        if n % 2 == 0:
            yield int(rng.integers(size))
            continue
        unit = 16384 + (24 if path.name.endswith("-wal") else 0)
        page = int(rng.integers(max(1, size // unit)))
        yield min(size - 1, (32 if unit > 16384 else 0) + page * unit + int(rng.integers(160)))


def flip(name, place, bit):
    def damage(data):
        with open(data / name, "r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1 << bit]))
    return damage


def cut(name, size):
    def damage(data):
        with open(data / name, "r+b") as file:
            file.truncate(size)
    return damage


def run_all(example, tmp_path, cases):
    """(words, damage) one after the other, two at a time."""
    def attempt(numbered):
        number, (words, damage) = numbered
        try:
            return try_damage(example, tmp_path / str(number), damage), None
        except AssertionError as failure:
            return "failed", f"{words}: {failure}"

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(attempt, enumerate(cases)))
    failures = [words for _, words in results if words]
    assert not failures, f"{len(failures)} of {len(results)}:\n" + "\n".join(failures[:20])
    return {kind: sum(1 for k, _ in results if k == kind) for kind, _ in results}


@pytest.fixture(scope="module", name="examples")
def fixture_examples(tmp_path_factory):
    return {kind: Example(tmp_path_factory.mktemp(kind), kind == "clean")
            for kind in ("killed", "clean")}


FILES = [("clean", "store.db", 0.4), ("killed", "store.db-wal", 0.4), ("killed", "store.db", 0.1),
         ("killed", "witness", 0.1)]


@pytest.mark.parametrize("kind, name, share", FILES)
def test_flipped_bit(examples, tmp_path, seed, kind, name, share):
    example, rng = examples[kind], numpy.random.default_rng([seed, len(name)])
    cases = [(f"bit {bit} of byte {place} of {name}", flip(name, place, bit))
             for place in places(rng, example.data / name, max(1, round(FLIPS * share)))
             for bit in [int(rng.integers(8))]]
    outcome = run_all(example, tmp_path, cases)
    if name == "witness":
        assert outcome == {"unharmed": len(cases)}


@pytest.mark.parametrize("kind, name, share", FILES)
def test_cut(examples, tmp_path, seed, kind, name, share):
    example, rng = examples[kind], numpy.random.default_rng([seed, len(name), 1])
    size = (example.data / name).stat().st_size
    sizes = {0, size - 1, *(int(at) for at in rng.integers(size, size=round(CUTS * share)))}
    cases = [(f"{name} cut to {size} bytes", cut(name, size)) for size in sorted(sizes)]
    outcome = run_all(example, tmp_path, cases)
    if name == "witness":
        assert outcome == {"unharmed": len(cases)}
    elif name == "store.db-wal":
        assert outcome == {"refused": len(cases)}, outcome


@pytest.mark.parametrize("kind, name", [("clean", "store.db"), ("killed", "store.db-wal"),
                                        ("killed", "store.db")])
def test_missing(examples, tmp_path, kind, name):
    outcome = run_all(examples[kind], tmp_path,
                      [(f"no {name}", lambda data: (data / name).unlink())])
    assert outcome == {"refused": 1}


def test_missing_witness(examples, tmp_path):
    """It knows less then; all that is in the store is served."""
    outcome = run_all(examples["killed"], tmp_path,
                      [("no witness", lambda data: (data / "witness").unlink())])
    assert outcome == {"unharmed": 1}
