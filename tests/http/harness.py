"""The daemon under test, as a subprocess, and a client that hides nothing.

A Daemon owns its process: it is started on a free port, asked to stop with
SIGTERM and held to leave with 0 and without a report of a sanitizer. Nothing
here ends a process that it has not started.

The client is http.client and reads JSON strictly: NaN, Infinity and duplicate
names in a reply are failures of the daemon, not of the test.
"""

import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "tests" / "data"

WRAP = shlex.split(os.environ.get("ATTENTIOND_WRAP", ""))
# How much slower than the plain build; a wrapper is slow by nature.
SLOW = float(os.environ.get("ATTENTIOND_SLOW", "20" if WRAP else "1"))

# Deadlines that no test meets unless it asks for shorter ones: a connection that ends was
# ended for another reason, however slow the machine is.
NO_DEADLINES = (("--head-timeout", "3600"), ("--body-timeout", "3600"), ("--idle-timeout", "3600"),
                ("--request-timeout", "3600"))

# What the daemons are to compute with, where a test does not say otherwise; see tests/run.py.
KERNELS = os.environ.get("ATTN_TEST_KERNELS")

# What a sanitizer, valgrind or glibc write when something is badly wrong.
REPORTS = re.compile(
    r"ERROR: (Address|Leak|Memory|Thread)Sanitizer|WARNING: ThreadSanitizer|runtime error: "
    r"|Segmentation fault|stack smashing|double free|malloc\(\)|free\(\): |corrupted "
    r"|Assertion .* failed|ERROR SUMMARY: [1-9]"
)


# The build's sanitizer, as tests/run.py says it.
THREAD_SANITIZER = os.environ.get("ATTENTIOND_SANITIZER") == "thread"


def patience(seconds):
    """How long to wait for what takes up to so long on an idle machine, before it counts
    as a failure: a machine that is slow or busy with something else is none. Beyond five
    minutes it is only as much longer as the build is slower."""
    return max(SLOW * seconds, min(10 * SLOW * seconds, 300))


def in_time(limit, attempt):
    """attempt() does something and says how many seconds the daemon took for it. That is
    no more than `limit`, but for what a busy machine adds: so one of five tries has to
    do. Its result."""
    for _ in range(5):
        seconds = attempt()
        if seconds <= limit * SLOW:
            return seconds
    raise AssertionError(f"{seconds:.2f} s each time, expected {limit * SLOW} at the most")


def binary():
    """The daemon's program: ATTENTIOND, or the one `make` builds."""
    return os.environ.get("ATTENTIOND", str(REPOSITORY / "build" / "attentiond"))


def clean_environment(extra=None):
    """This process' environment without options of the daemon in it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ATTENTIOND")}
    environment.setdefault("ASAN_OPTIONS", "exitcode=99:detect_leaks=1")
    environment.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1:exitcode=99")
    environment.setdefault("TSAN_OPTIONS", "exitcode=99:second_deadlock_stack=1")
    environment.update(extra or {})
    return environment


def run_daemon(*flags, env=None, cwd=None, timeout=10):
    """Runs the program to its end, for flags that do not serve; without a `cwd` in an
    empty folder, because a store is made in the working directory unless told otherwise."""
    with tempfile.TemporaryDirectory() as empty:
        return subprocess.run(
            WRAP + [binary(), *map(str, flags)],
            env=clean_environment(env), cwd=cwd or empty, timeout=patience(timeout),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )


KERNEL_VARIANTS = ("portable", "avx2", "avx512", "neon")


def kernels_refusal(name):
    """What the daemon says at start if this CPU can't run that variant of the kernels, else None."""
    result = run_daemon("--kernels", name, "--listen-address", "192.0.2.1", "--insecure",
                        "--data-dir", "", "--listen-port", "0")
    assert result.returncode != 0, "an address that is nobody's"
    said = result.stderr.strip()
    lines = [line for line in said.splitlines() if line.startswith("attentiond: kernels: ")]
    return said if lines else None


def wait_until(condition, timeout, what):
    """Polls until condition() is true; its value. Fails after patience(timeout)."""
    end = time.monotonic() + patience(timeout)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience(timeout):.0f} s in vain for {what}")
        time.sleep(0.01)


def strict_json(text):
    """json.loads that takes neither NaN, Infinity nor a name twice."""

    def refuse(word):
        raise AssertionError(f"{word} in a reply")

    def distinct(pairs):
        names = [name for name, _ in pairs]
        assert len(set(names)) == len(names), f"duplicate names in a reply: {names}"
        return dict(pairs)

    return json.loads(text, parse_constant=refuse, object_pairs_hook=distinct)


class Response:
    """status, headers (case-insensitive), body as bytes, text and json."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body
        self._json = None

    @property
    def text(self):
        return self.body.decode("utf-8")

    @property
    def json(self):
        if self._json is None:
            self._json = strict_json(self.text)
        return self._json

    def __repr__(self):
        return f"Response({self.status}, {self.body[:400]!r})"


class Client:
    """One keep-alive connection."""

    def __init__(self, port, timeout=30, host="127.0.0.1"):
        self.connection = http.client.HTTPConnection(host, port, timeout=patience(timeout))

    def request(self, method, path, body=None, headers=None, raw=False):
        """`body`: bytes, text, or anything else, which is sent as JSON. Unless
        `raw`, a body without a Content-Type gets application/json."""
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode("utf-8")
        headers = dict(headers or {})
        if body is not None and not raw:
            headers.setdefault("Content-Type", "application/json")
        self.connection.request(method, path, body=body, headers=headers)
        reply = self.connection.getresponse()
        return Response(reply.status, reply.headers, reply.read())

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Daemon:
    """A running attentiond. `folder` gets its log and port file and is its
    working directory. `wrap` is a command that becomes the daemon in the end, such
    as a tracer that detaches."""

    def __init__(self, folder, flags=(), env=None, config=None, wait_ready=True, preexec=None,
                 wrap=()):
        self.folder = Path(folder)
        self.log_path = self.folder / "log"
        self.port_file = self.folder / "port"
        self.port = None
        self.exit_code = None
        self.expected_exit = 0  # what assert_healthy_end() wants
        flags = [str(flag) for flag in flags]
        given = " ".join(flags)
        env = {**({"ATTENTIOND_KERNELS": KERNELS} if KERNELS else {}), **(env or {})}
        command = [*wrap, *WRAP, binary()]
        if config is not None:
            path = self.folder / "attentiond.json"
            path.write_text(config if isinstance(config, str) else json.dumps(config))
            command += ["--config", str(path)]
        for name, value in (
            ("--listen-port", "0"),
            ("--port-file", str(self.port_file)),
            ("--log-level", "debug"),
            *(() if config is not None or "--config" in given else NO_DEADLINES),
        ):
            if name not in given:
                command += [name, value]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command + flags, env=clean_environment(env), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=preexec,
            )
        try:
            self._wait_for_port()
            if wait_ready:
                wait_until(self._ready, 30, "/readyz")
        except BaseException:
            self.kill()
            raise

    def _wait_for_port(self):
        def port():
            if self.process.poll() is not None:
                self.exit_code = self.process.returncode
                raise AssertionError(f"the daemon left with {self.exit_code}:\n{self.log()[-2000:]}")
            text = self.port_file.read_text() if self.port_file.exists() else ""
            return int(text) if text.strip() else 0

        self.port = wait_until(port, 30, "the port file")

    def _ready(self):
        try:
            return self.request("GET", "/readyz").status == 200
        except OSError:
            assert self.process.poll() is None, f"the daemon died:\n{self.log()[-2000:]}"
            return False

    @property
    def pid(self):
        return self.process.pid

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def log(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def log_lines(self):
        """The log's whole lines, as objects; a sanitizer's lines would fail."""
        text = self.log()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def client(self, timeout=30):
        return Client(self.port, timeout)

    def connect(self, timeout=30):
        """A bare socket."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=patience(timeout))

    def request(self, method, path, body=None, headers=None, raw=False, timeout=30):
        """One request on a connection of its own."""
        with self.client(timeout) as client:
            return client.request(method, path, body, headers, raw)

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def put(self, path, body, headers=None):
        return self.request("PUT", path, body, headers)

    def post(self, path, body, headers=None):
        return self.request("POST", path, body, headers)

    def delete(self, path, headers=None):
        return self.request("DELETE", path, headers=headers)

    def signal(self, number):
        self.process.send_signal(number)

    def _stands_still(self):
        try:
            stats = [stat.read_text() for stat in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        except FileNotFoundError:
            return False
        return all(stat.rsplit(")", 1)[1].split()[0] == "T" for stat in stats)

    @contextmanager
    def held(self):
        """Nothing moves in the daemon meanwhile: what is sent to it piles up, and is
        all there when it goes on."""
        self.signal(signal.SIGSTOP)
        try:
            wait_until(self._stands_still, 30, "the daemon to stand still")
            yield
        finally:
            self.signal(signal.SIGCONT)

    def wait(self, timeout):
        """The exit code; fails (and kills) where it takes longer."""
        try:
            self.exit_code = self.process.wait(patience(timeout))
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {patience(timeout):.0f} s") from None
        return self.exit_code

    def stop(self, timeout=12):
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            if THREAD_SANITIZER:
                self._remind()
        return self.wait(timeout)

    def _remind(self):
        """ThreadSanitizer holds a signal back that meets a thread in instrumented code until
        the thread calls something that it intercepts, which an idle one may never do: of 180
        stops just after a start five were held back, of the plain build's 300 none."""
        try:
            self.process.wait(2 * SLOW)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGTERM)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def assert_healthy_end(self):
        """Stops it where it still runs; it has to have left with the code that is
        expected of it and without a report."""
        code = self.stop()
        log = self.log()
        report = REPORTS.search(log)
        assert not report, f"{report.group()!r} in the log:\n{log[max(0, report.start() - 500):][:4000]}"
        assert code == self.expected_exit, f"exit code {code}, log ends:\n{log[-2000:]}"

    def metric(self, name, labels=""):
        """The number of one sample of /metrics, 0 where it is absent."""
        pattern = re.compile(rf"^{re.escape(name + labels)} (\S+)$", re.M)
        match = pattern.search(self.get("/metrics").text)
        return float(match.group(1)) if match else 0.0
