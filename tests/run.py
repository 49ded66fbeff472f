"""Runs all the tests and counts them: what `make test` calls after the set-up.

    tests/run.py --build build [--sanitizer address,undefined] [--long] -- make -s -j2

Without a sanitizer named, the parts run on the plain build, then again on a
build with AddressSanitizer and UBSan and on one with ThreadSanitizer. With one
named, on that build alone. Left out are the parts that a sanitizer has nothing
to say of: installation, demo, format, and for ThreadSanitizer the unit tests
that start no thread. With --long (`make test-all`) come more random shapes, crashes and
faults on the plain build, every float through its text, and valgrind.

A part is one program with a count of its own: a Check program, the replay of
one fuzz target, a pytest run, the demo. It says nothing but its count when all
is well; when not, its output is shown. A part that crashes, hangs or says nothing
countable is one failure, so that nothing can vanish unseen; a program that
can't test anything under a sanitizer ends with the words "nothing to test". The
last part looks at what the others left behind (leftovers.py), the last line is the sum.

Times are of the clock and, behind the +, of all the CPUs: what a busy machine takes
changes the first alone.

The parts of a build run beside each other, as many at a time as there are cores, the
longest first. The black-box suites wait for time-outs and for disks more than they
compute: each takes one place, with more workers of pytest than that.

ATTN_TEST_KERNELS=avx2 in the environment (or portable, avx512, neon) has all of it
computed as on a CPU that has no better: the unit suites, the daemons of the other
tests and the demo read it themselves, OpenBLAS is told here.
"""
import argparse
import glob
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree
from concurrent.futures import ThreadPoolExecutor

sys.dont_write_bytecode = True  # nothing is left beside this file either

import leftovers  # noqa: E402

CORES = os.cpu_count() or 1
WORKERS = max(2, min(4, CORES))
PYTEST_WORKERS = WORKERS
BASE_FOLDER = "{base folder}"  # in a command: pytest's
TIME_LIMIT = 7200  # seconds for one part; far beyond what any needs on a slow and busy machine
SHOWN_LINES = 150  # of the output of a part that failed
SKIPPED = "nothing to test\n"
# The best ones of this CPU are what every suite runs on; these run on the others too.
ON_EVERY_KERNELS = ["unit/lib/attend/test_pairs", "unit/lib/attend/test_precision"]
KERNELS = ["portable", "avx2", "avx512", "neon"]
# What OpenBLAS calls a CPU that has no better.
OPENBLAS_CORES = {"portable": "Nehalem", "avx2": "Haswell", "avx512": "SkylakeX"}
SANITIZERS = ["address,undefined", "thread"]
LONG_SEEDS = [f"unit/lib/{suite}" for suite in ("attend/test_pairs", "attend/test_shapes", "attend/test_numerics",
                                           "attend/test_precision", "memory/test_dtype")]
LONG_ROUNDS = [f"unit/server/test_{suite}" for suite in ("store", "store_crash", "store_damage")]
CLANG_FORMAT_MAJOR = 14  # others format some lines in another way

# What takes long, longest first; the others come in any order behind.
LONGEST = ["http", "crash"]

# How much slower a sanitizer makes what the tests wait for.
SLOWNESS = {"": 1, "thread": 10}
SLOWNESS_OTHERS = 4

RUNNING = set()  # what an interrupt has to end, whichever thread waits for it
INTERRUPTED = threading.Event()  # nothing new is to begin


class Count:
    def __init__(self, passed=0, failed=0):
        self.passed, self.failed = passed, failed

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed


def count_check(output, status):
    """Check's line `100%: Checks: 12, Failures: 0, Errors: 0`, one a suite."""
    if status == 0 and output.endswith(SKIPPED):
        return Count()
    count = Count()
    for checks, failures, errors in re.findall(
            r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)$", output, re.M):
        bad = int(failures) + int(errors)
        count.add(Count(int(checks) - bad, bad))
    return sane(count, status)


def count_inputs(output, status):
    """`40 inputs`: a target that objects to one aborts, and then says no number."""
    match = re.search(r"^(\d+) inputs$", output, re.M)
    return sane(Count(int(match.group(1)) if match and status == 0 else 0), status)


def count_status(_, status):
    return Count(int(status == 0), int(status != 0))


def count_junit(path):
    def count(_, status):
        try:
            suites = xml.etree.ElementTree.parse(path).getroot().iter("testsuite")
            result = Count()
            for suite in suites:
                tests, failures, errors, skipped = (
                    int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
                bad = failures + errors
                result.add(Count(max(0, tests - bad - skipped), bad))
        except (OSError, xml.etree.ElementTree.ParseError):
            result = Count()
        return sane(result, status)
    return count


def sane(count, status):
    """The exit status and the count have to tell the same story."""
    if count.failed == 0 and (status != 0 or count.passed == 0):
        count.failed = 1
    return count


class Part:
    """`scratch` lends it its folders, on the disk or in memory."""

    def __init__(self, name, command, count, environment, scratch, in_memory=False):
        self.name, self.command, self.count = name, command, count
        self.environment, self.scratch, self.in_memory = environment, scratch, in_memory

    def run(self):
        if INTERRUPTED.is_set():
            return Count()
        start = time.monotonic()
        folder = self.scratch.take(self.in_memory)
        command = [word.replace(BASE_FOLDER, leftovers.base_folder(folder)) for word in self.command]
        output, status, group, cpu = run_limited(
            command, {**os.environ, **self.environment, "TMPDIR": folder})
        if group is not None:
            self.scratch.end_group(self.name, group)
        self.scratch.give_back(self.name, folder)
        if INTERRUPTED.is_set():
            return Count()
        count = self.count(output, status)
        self.report(command, output, status, count, f"{time.monotonic() - start:.1f} + {cpu:.1f} s")
        return count

    def report(self, command, output, status, count, times):
        result = f"{count.passed:>5} passed" if count.passed + count.failed else "skipped"
        failed = f", {count.failed} FAILED" if count.failed else ""
        text = f"  {self.name:<44} {result}{failed}  ({times})\n"
        if count.failed:
            lines = output.splitlines()
            if len(lines) > SHOWN_LINES:
                lines = [f"[{len(lines) - SHOWN_LINES} lines left out]"] + lines[-SHOWN_LINES:]
            text += "\n".join([f"---- {' '.join(command)}: exit status {status}", *lines, "----\n"])
        # in one piece, because other parts have something to say too
        sys.stdout.write(text)
        sys.stdout.flush()


def run_limited(command, environment):
    """Output, exit status, process group, seconds of CPU. The command leads the group,
    so that what it started can be ended with it. Its output goes to a file: of a pipe
    the end would not come before the end of whatever it left running."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=subprocess.STDOUT,
                                       start_new_session=True)
        except OSError as error:
            return str(error), -1, None, 0
        RUNNING.add(process)
        if INTERRUPTED.is_set():
            end_group(process)
        timer = threading.Timer(TIME_LIMIT, end_group, [process])
        timer.start()
        start = time.monotonic()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        RUNNING.discard(process)
        process.returncode = os.waitstatus_to_exitcode(status)
        late = time.monotonic() - start >= TIME_LIMIT
        output.seek(0)
        text = output.read().decode("utf-8", "replace") + (f"\nended after {TIME_LIMIT} s" if late else "")
        return text, process.returncode, process.pid, usage.ru_utime + usage.ru_stime


def end_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Build:
    """One build folder and what runs on it."""

    def __init__(self, arguments, folder, sanitizer, scratch):
        self.make, self.folder, self.sanitizer = arguments.make, folder, sanitizer
        self.long = arguments.long and not sanitizer
        self.scratch = scratch
        slow = SLOWNESS.get(sanitizer, SLOWNESS_OTHERS)
        self.environment = {
            "ATTENTIOND": os.path.abspath(os.path.join(folder, "attentiond")),
            "ATTENTIOND_SLOW": str(slow),
            "ATTENTIOND_SANITIZER": sanitizer,
            "CK_TIMEOUT_MULTIPLIER": str(4 * slow),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TSAN_OPTIONS": "exitcode=99:second_deadlock_stack=1:suppressions="
                            + os.path.abspath("tests/thread.supp"),
        }
        forced = os.environ.get("ATTN_TEST_KERNELS")
        if forced in OPENBLAS_CORES and platform.machine() == "x86_64":
            self.environment["OPENBLAS_CORETYPE"] = OPENBLAS_CORES[forced]

    def title(self):
        return self.sanitizer or "plain"

    def compile(self):
        # descriptors are left open for make's job server
        command = [*self.make, f"BUILD={self.folder}", f"SANITIZER={self.sanitizer}", "programs"]
        if self.long:
            command.append(f"{self.folder}/tests/exhaustive/number_text")
        return subprocess.run(command, stdin=subprocess.DEVNULL, close_fds=False).returncode == 0

    def part(self, name, command, count, environment=None, in_memory=False):
        return Part(name, command, count, {**self.environment, **(environment or {})},
                    self.scratch, in_memory)

    def unit_parts(self):
        for source in sorted(glob.glob("tests/unit/**/test_*.c", recursive=True)):
            if self.sanitizer == "thread" and not uses_threads(source):
                continue
            name = source[len("tests/"):-len(".c")]
            command = [f"{self.folder}/tests/{name}"]
            yield self.part(name, command, count_check, in_memory=True)
            if name in ON_EVERY_KERNELS and not self.sanitizer:
                for kernels in KERNELS:
                    yield self.part(f"{name}, {kernels}", command, count_check,
                                    {"ATTN_TEST_KERNELS": kernels}, in_memory=True)

    def fuzz_parts(self):
        for source in sorted(glob.glob("tests/fuzz/fuzz_*.c")):
            target = os.path.basename(source)[len("fuzz_"):-len(".c")]
            inputs = [folder for folder in (f"tests/fuzz/corpus/{target}",
                                            f"tests/fuzz/regression/{target}")
                      if os.path.isdir(folder)]
            yield self.part(f"fuzz/{target}, stored inputs",
                            [f"{self.folder}/tests/fuzz/fuzz_{target}", *inputs], count_inputs)

    def pytest_part(self, path, note="", environment=None):
        name = path[len("tests/"):] + note
        report = os.path.join(self.folder, re.sub(r"\W+", "-", name) + ".xml")
        if os.path.exists(report):
            os.unlink(report)
        return self.part(name,
                         [sys.executable, "-m", "pytest", "-q", "-n", str(PYTEST_WORKERS),
                          "-p", "no:cacheprovider", f"--basetemp={BASE_FOLDER}",
                          f"--junitxml={report}", path],
                         count_junit(report), environment)

    def shared_parts(self):
        """What does not depend on the sanitizer."""
        major = clang_format_major()
        if major == CLANG_FORMAT_MAJOR:
            yield self.part("format", [*self.make, "format-check"], count_status)
        else:
            print(f"  format: not checked, clang-format {CLANG_FORMAT_MAJOR} is not here")
        yield self.pytest_part("tests/install")
        yield self.part("demo", ["tests/demo/demo.sh", self.environment["ATTENTIOND"]], count_status)

    def long_parts(self):
        yield self.part("exhaustive/number_text", [f"{self.folder}/tests/exhaustive/number_text"],
                        count_status)
        for suite in LONG_SEEDS:
            for seed in range(2, 6):
                yield self.part(f"{suite}, seed {seed}", [f"{self.folder}/tests/{suite}"],
                                count_check, {"ATTN_TEST_SEED": str(seed)}, in_memory=True)
        for suite in LONG_ROUNDS:
            yield self.part(f"{suite}, long", [f"{self.folder}/tests/{suite}"], count_check,
                            {"ATTN_TEST_ROUNDS": "5000"}, in_memory=True)
        yield self.pytest_part("tests/crash", ", long", {"ATTENTIOND_LONG": "1"})
        if shutil.which("valgrind"):
            yield self.pytest_part("tests/http/test_leaks.py", ", valgrind", {"ATTENTIOND_VALGRIND": "1"})
        else:
            print("  valgrind is not here: leaks are left to AddressSanitizer")

    def parts(self):
        parts = [self.pytest_part("tests/http"), self.pytest_part("tests/crash"),
                 *self.unit_parts(), *self.fuzz_parts()]
        if not self.sanitizer:
            parts += self.shared_parts()
        if self.long:
            parts += self.long_parts()
        return sorted(parts, key=lambda part: (LONGEST + [part.name]).index(part.name))

    def run(self):
        print(f"{self.title()}: building in {self.folder}/", flush=True)
        start = time.monotonic()
        if not self.compile():
            print(f"{self.title()}: does not build", flush=True)
            return Count(failed=1)
        print(f"{self.title()}: built in {time.monotonic() - start:.0f} s", flush=True)
        total = Count()
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                for count in pool.map(Part.run, self.parts()):
                    total.add(count)
            except KeyboardInterrupt:
                INTERRUPTED.set()
                for process in list(RUNNING):
                    end_group(process)
                raise
        return total


def uses_threads(source):
    """It, or a header beside it."""
    with open(source, encoding="utf-8") as file:
        text = file.read()
    headers = [os.path.join(os.path.dirname(source), name)
               for name in re.findall(r'^#include "(\w+\.h)"', text, re.M)]
    return "pthread" in text or any(uses_threads(name) for name in headers if os.path.exists(name))


def clang_format_major():
    program = shutil.which("clang-format")
    if not program:
        return None
    version = subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True).stdout
    match = re.search(r"version (\d+)", version)
    return int(match.group(1)) if match else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--sanitizer", default="")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("make", nargs="+")
    arguments = parser.parse_args()
    forced = os.environ.get("ATTN_TEST_KERNELS")
    if forced and forced not in KERNELS:
        parser.error(f"ATTN_TEST_KERNELS: {forced} is none of {', '.join(KERNELS)}")

    start = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        with leftovers.Scratch() as scratch:
            total = run_builds(arguments, scratch)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"all of it took {time.monotonic() - start:.0f} s, "
          f"and {usage.ru_utime + usage.ru_stime:.0f} s of the CPUs")
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return int(total.failed > 0 or total.passed == 0)


def run_builds(arguments, scratch):
    sanitizers = [arguments.sanitizer] if arguments.sanitizer else ["", *SANITIZERS]
    folders = [arguments.build]
    folders += [f"{arguments.build}-{sanitizer.split(',')[0]}" for sanitizer in sanitizers[1:]]
    before = leftovers.untracked(".", folders)
    total = Count()
    for folder, sanitizer in zip(folders, sanitizers):
        total.add(Build(arguments, folder, sanitizer, scratch).run())
    total.add(count_leftovers(scratch, before, leftovers.untracked(".", folders)))
    return total


def count_leftovers(scratch, before, after):
    """One for the parts' folders and processes, one for the checkout if git can tell."""
    new = sorted((after or set()) - (before or set()))
    for sentence in scratch.found + ([f"new in the checkout: {leftovers.listed(new)}"] if new else []):
        print(f"  {sentence}")
    looks = [not scratch.found] + ([not new] if after is not None else [])
    count = Count(sum(looks), len(looks) - sum(looks))
    print(f"  {'leaves nothing behind':<44} {count.passed:>5} passed"
          + (f", {count.failed} FAILED" if count.failed else ""), flush=True)
    return count


if __name__ == "__main__":
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    sys.exit(main())
