"""kill -9 at random moments under eight writers: nothing that was acknowledged is
lost, nothing is torn, and the answers are the same bits as those of a daemon that
was never killed.

Each writer has memories of its own, where it does everything there is to do, and
appends to one that all share. Two of them write much: folds and new memories that
are stored in slices are under way when the end comes. Some kills meet the daemon
while it starts. One folder of data goes through all rounds.
"""

import threading
import time

import numpy
import pytest

import harness
import world

WRITERS = 8
HEAVY = (6, 7)
SHARED = "shared"


class Writer:
    def __init__(self, number, seed):
        self.number = number
        self.rng = numpy.random.default_rng([seed, number])
        self.memories = {}  # name -> Memory or None, after the last acknowledged change
        self.versions = {}  # name -> the last version that was named
        self.under_way = None  # (name, Change)
        self.done = []  # (name, Change) of this round, acknowledged
        self.shared = []  # (version, rows afterwards, keys, values) of this round
        self.shared_under_way = None  # (keys, values)
        self.failure = None
        self.serial = 0

    # ---- Choices ----

    def names(self):
        return [f"w{self.number}-{i}" for i in range(1 if self.number in HEAVY else 3)]

    def new_id(self):
        return f"{self.number}.{int(self.rng.integers(40))}"

    def ids(self, count):
        return sorted({self.new_id() for _ in range(count)})

    def rows(self, count, key_dim=world.KEY_DIM, value_dim=world.VALUE_DIM):
        return (world.matrix(self.rng, count, key_dim), world.matrix(self.rng, count, value_dim))

    def choose_heavy(self, name):
        memory = self.memories.get(name)
        if memory is None or memory.rows > 12000 or self.rng.random() < 0.04:
            rows = int(self.rng.choice([500, 7000]))  # 512 KB, or 7 MB that go in slices
            return world.put(name, *self.rows(rows, 192, 64), binary=True)
        return world.append(name, *self.rows(int(self.rng.integers(1, 400)), 192, 64), binary=True)

    def choose(self, name):
        if self.number in HEAVY:
            return self.choose_heavy(name)
        memory, chance = self.memories.get(name), self.rng.random()
        if memory is None or chance < 0.1:
            count = int(self.rng.integers(1, 12))
            ids = self.ids(count) if self.rng.random() < 0.7 else None
            dtype = str(self.rng.choice(["f32", "f16", "bf16"]))
            keys, values = self.rows(count if ids is None else len(ids))
            if dtype == "bf16":  # 8 bits
                keys, values = numpy.round(keys), numpy.round(values)
                keys, values = keys.clip(-8, 8), values.clip(-8, 8)
            return world.put(name, keys, values, ids, dtype)
        if chance < 0.15:
            return world.drop(name)
        if chance < 0.2:
            return world.settle(name, str(self.rng.choice(["dot", "gaussian", "cosine"])))
        if memory.ids is None:
            ids, count = None, int(self.rng.integers(1, 6))
        elif chance < 0.4:
            return world.remove(name, self.ids(4) + ["never"])
        else:
            ids = self.ids(5)
            count = len(ids)
        keys, values = self.rows(count)
        if memory.dtype == "bf16":
            keys, values = numpy.round(keys).clip(-8, 8), numpy.round(values).clip(-8, 8)
        return world.append(name, keys, values, ids)

    # ---- Writing ----

    def write_shared(self, client):
        self.serial += 1
        keys, values = self.rows(int(self.rng.integers(1, 4)))
        keys[:, 0] = self.number
        keys[:, 1] = self.serial
        self.shared_under_way = (keys, values)
        reply = world.append(SHARED, keys, values).send(client)
        assert reply.status == 200, reply
        said = reply.json
        assert said["inserted"] == len(keys) and said["updated"] == 0, said
        self.shared.append((said["version"], said["rows"], keys, values))
        self.shared_under_way = None

    def write(self, client):
        name = str(self.rng.choice(self.names()))
        change = self.choose(name)
        self.under_way = (name, change)
        reply = change.send(client)
        before = self.memories.get(name)
        assert reply.status in (200, 201, 204), (change.kind, reply)
        version = reply.json["version"] if reply.body else None
        after = change.apply(before, version)
        if after is not None:
            changed = not (change.kind == "remove" and reply.json["deleted"] == 0)
            least = self.versions.get(name, 0) + changed
            assert version >= least, f"{change.kind} of {name}: version {version} after {least}"
            assert reply.json["rows"] == after.rows, (change.kind, reply)
            self.versions[name] = version
        self.memories[name] = after
        self.done.append((name, change))
        self.under_way = None

    def run(self, port, stop):
        try:
            with harness.Client(port) as client:
                while not stop.is_set():
                    if self.rng.random() < 0.2:
                        self.write_shared(client)
                    else:
                        self.write(client)
        except (OSError, harness.http.client.HTTPException):
            pass  # the kill
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    # ---- After the restart ----

    def settle(self, client):
        """What is served has to be what was acknowledged, or that and the change
        under way; the writer goes on from there."""
        for name in self.names():
            served, reply = world.read(client, name)
            assert served is not None or reply.status == 404, reply
            expected = self.memories.get(name)
            difference = world.differs(served, expected)
            if difference and self.under_way and self.under_way[0] == name:
                change = self.under_way[1]
                version = served.version if served else None
                expected = change.apply(expected, version)
                assert not world.differs(served, expected), \
                    f"{name}: {difference}; with the {change.kind} under way: " \
                    f"{world.differs(served, expected)}"
                if served:
                    assert served.version > self.versions.get(name, 0)
                    self.versions[name] = served.version
                self.memories[name] = expected
                self.done.append((name, change))
            else:
                assert not difference, f"{name} after its acknowledged changes: {difference}"
        self.under_way = None


def check_shared(client, before, writers):
    """Acknowledged appends stand where their replies said; between them there is
    nothing but appends under way, whole."""
    served, reply = world.read(client, SHARED)
    assert served, reply
    keys = before.keys
    acknowledged = sorted((a for w in writers for a in w.shared), key=lambda a: a[0])
    pending = {w.number: w.shared_under_way for w in writers if w.shared_under_way}
    assert len({a[0] for a in acknowledged}) == len(acknowledged), "a version came twice"
    appended, version, at = [], before.version, len(keys)

    def take_pending(until):
        nonlocal at, version
        while at < until:
            append = pending.pop(int(served.keys[at, 0]), None)
            assert append, f"row {at} of {SHARED} is nobody's"
            appended.append(append)
            at += len(append[0])
            version += 1

    assert served.keys[:at].tobytes() == keys.tobytes(), "old rows are other ones"
    for number, rows, new_keys, new_values in acknowledged:
        take_pending(rows - len(new_keys))
        assert at + len(new_keys) == rows and number == version + 1, \
            f"version {number} with {rows} rows follows version {version} with {at}"
        appended.append((new_keys, new_values))
        at, version = rows, number
    take_pending(served.rows)
    after = before
    for new_keys, new_values in appended:
        after = world.append(SHARED, new_keys, new_values).apply(after, after.version + 1)
    assert not world.differs(served, after), world.differs(served, after)
    for writer in writers:
        writer.shared, writer.shared_under_way = [], None
    return after, appended


class Scene:
    """The folder of data, the writers, and the daemon that is never killed."""

    def __init__(self, folder, seed):
        self.folder, self.starts = folder, 0
        self.writers = [Writer(i, seed) for i in range(WRITERS)]
        self.rng = numpy.random.default_rng([seed, 99])
        self.mirror = self.start(data_dir="")
        self.mirror_client = self.mirror.client()
        self.shared = None

    def start(self, wait_ready=True, data_dir=None):
        self.starts += 1
        folder = self.folder / f"start-{self.starts}"
        folder.mkdir()
        data = str(self.folder / "data") if data_dir is None else data_dir
        return harness.Daemon(folder, ["--data-dir", data, "--log-level", "info"],
                              wait_ready=wait_ready)

    def mirror_changes(self, client, appended):
        """Tells the mirror what has happened; then both have to answer alike."""
        names = set()
        for writer in self.writers:
            for name, change in writer.done:
                reply = change.send(self.mirror_client)
                assert reply.status in (200, 201, 204), reply
                names.add(name)
            writer.done = []
        for keys, values in appended:
            assert world.append(SHARED, keys, values).send(self.mirror_client).status == 200
        for name in [*names, SHARED]:
            dim = 192 if name.startswith(tuple(f"w{i}-" for i in HEAVY)) else world.KEY_DIM
            ours = world.answer(client, name, dim)
            theirs = world.answer(self.mirror_client, name, dim)
            assert ours == theirs, f"{name} answers\n{ours}\nand not\n{theirs}"

    def begin_round(self, client):
        if self.shared is None or self.shared.rows > 2000:
            change = world.put(SHARED, *self.writers[0].rows(3))
            reply = change.send(client)
            assert change.send(self.mirror_client).status == reply.status
            self.shared = change.apply(None, reply.json["version"])

    def write_until_killed(self, daemon, heavy):
        stop = threading.Event()
        threads = [threading.Thread(target=w.run, args=(daemon.port, stop))
                   for w in self.writers if heavy or w.number not in HEAVY]
        for thread in threads:
            thread.start()
        time.sleep(self.rng.uniform(0.01, 0.4 if heavy else 0.25) * min(harness.SLOW, 4))
        daemon.kill()
        stop.set()
        for thread in threads:
            thread.join()
        for writer in self.writers:
            if writer.failure:
                raise AssertionError(f"writer {writer.number} failed") from writer.failure

    def kill_while_starting(self):
        daemon = self.start(wait_ready=False)
        time.sleep(self.rng.uniform(0, 0.03) * harness.SLOW)
        daemon.kill()
        assert not harness.REPORTS.search(daemon.log()), daemon.log()

    def round(self, number):
        if self.rng.random() < 0.2:
            self.kill_while_starting()
        daemon = self.start()
        try:
            with daemon.client() as client:
                self.check(client)
                self.begin_round(client)
            self.write_until_killed(daemon, heavy=number % 3 == 0)
            assert not harness.REPORTS.search(daemon.log()), daemon.log()
        finally:
            daemon.kill()

    def check(self, client):
        if self.shared is None:
            return
        for writer in self.writers:
            writer.settle(client)
        self.shared, appended = check_shared(client, self.shared, self.writers)
        self.mirror_changes(client, appended)
        listed = {m["name"] for m in client.request("GET", "/v1/memories").json["memories"]}
        expected = {n for w in self.writers for n, m in w.memories.items() if m is not None}
        assert listed == expected | {SHARED}

    def end(self):
        """Once more; and a clean stop keeps the same."""
        for _ in range(2):
            daemon = self.start()
            try:
                with daemon.client() as client:
                    self.check(client)
                daemon.assert_healthy_end()
            finally:
                daemon.kill()
        self.mirror_client.close()
        self.mirror.assert_healthy_end()


@pytest.mark.parametrize("part", range(world.rounds(2, 4, 1)))
def test_kill_9(tmp_path, seed, part):
    scene = Scene(tmp_path, seed * 100 + part)
    try:
        for number in range(world.rounds(10, 55, 6)):
            scene.round(number)
        scene.end()
    finally:
        scene.mirror.kill()
