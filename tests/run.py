"""Runs all the tests and counts them: what `make test` calls after the set-up.

    tests/run.py --build build [--sanitizer address,undefined] -- make -s -j2

Without a sanitizer named, the parts run on the plain build, then again on a
build with AddressSanitizer and UBSan and on one with ThreadSanitizer. With one
named, on that build alone. Left out are the parts that a sanitizer has nothing
to say of: installation, demo, format, and for ThreadSanitizer the unit tests
that start no thread.

A part is one program with a count of its own: a Check program, the replay of
one fuzz target, a pytest run, the demo. It says nothing but its count when all
is well; when not, its output is shown. A part that crashes, hangs or says nothing
countable is one failure, so that nothing can vanish unseen; a program that
can't test anything under a sanitizer ends with the words "nothing to test". The
last line is the sum.

ATTN_TEST_KERNELS=avx2 in the environment (or portable, avx512, neon) has all of it
computed as on a CPU that has no better: the unit suites, the daemons of the other
tests and the demo read it themselves, OpenBLAS is told here.
"""
import argparse
import glob
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from concurrent.futures import ThreadPoolExecutor

CORES = os.cpu_count() or 1
WORKERS = max(2, min(4, CORES))
TIME_LIMIT = 7200  # seconds for one part; far beyond what any needs on a slow and busy machine
SHOWN_LINES = 150  # of the output of a part that failed
SKIPPED = "nothing to test\n"
# The best ones of this CPU are what every suite runs on; these run on the others too.
ON_EVERY_KERNELS = ["unit/lib/test_pairs", "unit/lib/test_precision"]
KERNELS = ["portable", "avx2", "avx512", "neon"]
# What OpenBLAS calls a CPU that has no better.
OPENBLAS_CORES = {"portable": "Nehalem", "avx2": "Haswell", "avx512": "SkylakeX"}
SANITIZERS = ["address,undefined", "thread"]
CLANG_FORMAT_MAJOR = 14  # others format some lines in another way

# How much slower a sanitizer makes what the tests wait for.
SLOWNESS = {"": 1, "thread": 10}
SLOWNESS_OTHERS = 4

RUNNING = set()  # what an interrupt has to end, whichever thread waits for it


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
    def __init__(self, name, command, count, environment=None):
        self.name, self.command, self.count = name, command, count
        self.environment = {**os.environ, **(environment or {})}

    def run(self):
        start = time.monotonic()
        output, status = run_limited(self.command, self.environment)
        count = self.count(output, status)
        result = f"{count.passed:>5} passed" if count.passed + count.failed else "skipped"
        failed = f", {count.failed} FAILED" if count.failed else ""
        print(f"  {self.name:<44} {result}{failed}  ({time.monotonic() - start:.1f} s)", flush=True)
        if count.failed:
            lines = output.splitlines()
            if len(lines) > SHOWN_LINES:
                lines = [f"[{len(lines) - SHOWN_LINES} lines left out]"] + lines[-SHOWN_LINES:]
            print(f"---- {' '.join(self.command)}: exit status {status}")
            print("\n".join(lines))
            print("----", flush=True)
        return count


def run_limited(command, environment):
    """Output and exit status. The command leads a process group of its own, so
    that what it started can be ended with it."""
    try:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True)
    except OSError as error:
        return str(error), -1
    RUNNING.add(process)
    try:
        output, _ = process.communicate(timeout=TIME_LIMIT)
        note = ""
    except subprocess.TimeoutExpired:
        end_group(process)
        output, _ = process.communicate()
        note = f"\nended after {TIME_LIMIT} s"
    finally:
        RUNNING.discard(process)
    return output.decode("utf-8", "replace") + note, process.returncode


def end_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Build:
    """One build folder and what runs on it."""

    def __init__(self, make, folder, sanitizer):
        self.make, self.folder, self.sanitizer = make, folder, sanitizer
        slow = SLOWNESS.get(sanitizer, SLOWNESS_OTHERS)
        self.environment = {
            "ATTENTIOND": os.path.abspath(os.path.join(folder, "attentiond")),
            "ATTENTIOND_SLOW": str(slow),
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
        return subprocess.run(command, stdin=subprocess.DEVNULL, close_fds=False).returncode == 0

    def part(self, name, command, count, environment=None):
        return Part(name, command, count, {**self.environment, **(environment or {})})

    def unit_parts(self):
        for source in sorted(glob.glob("tests/unit/*/test_*.c")):
            if self.sanitizer == "thread" and not uses_threads(source):
                continue
            name = source[len("tests/"):-len(".c")]
            command = [f"{self.folder}/tests/{name}"]
            yield self.part(name, command, count_check)
            if name in ON_EVERY_KERNELS and not self.sanitizer:
                for kernels in KERNELS:
                    yield self.part(f"{name}, {kernels}", command, count_check,
                                    {"ATTN_TEST_KERNELS": kernels})

    def fuzz_parts(self):
        for source in sorted(glob.glob("tests/fuzz/fuzz_*.c")):
            target = os.path.basename(source)[len("fuzz_"):-len(".c")]
            inputs = [folder for folder in (f"tests/fuzz/corpus/{target}",
                                            f"tests/fuzz/regression/{target}")
                      if os.path.isdir(folder)]
            yield self.part(f"fuzz/{target}, stored inputs",
                            [f"{self.folder}/tests/fuzz/fuzz_{target}", *inputs], count_inputs)

    def pytest_part(self, folder):
        report = os.path.join(self.folder, f"{os.path.basename(folder)}.xml")
        if os.path.exists(report):
            os.unlink(report)
        return self.part(folder[len("tests/"):],
                         [sys.executable, "-m", "pytest", "-q", "-n", str(WORKERS),
                          "-p", "no:cacheprovider", f"--junitxml={report}", folder],
                         count_junit(report))

    def shared_parts(self):
        """What does not depend on the sanitizer."""
        major = clang_format_major()
        if major == CLANG_FORMAT_MAJOR:
            yield self.part("format", [*self.make, "format-check"], count_status)
        else:
            print(f"  format: not checked, clang-format {CLANG_FORMAT_MAJOR} is not here")
        yield self.pytest_part("tests/install")
        yield self.part("demo", ["tests/demo/demo.sh", self.environment["ATTENTIOND"]], count_status)

    def run(self):
        print(f"{self.title()}: building in {self.folder}/", flush=True)
        if not self.compile():
            print(f"{self.title()}: does not build", flush=True)
            return Count(failed=1)
        total = Count()
        with ThreadPoolExecutor(WORKERS) as pool:
            for count in pool.map(Part.run, [*self.unit_parts(), *self.fuzz_parts()]):
                total.add(count)
        total.add(self.pytest_part("tests/http").run())
        total.add(self.pytest_part("tests/crash").run())
        if not self.sanitizer:
            for part in self.shared_parts():
                total.add(part.run())
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
    parser.add_argument("make", nargs="+")
    arguments = parser.parse_args()
    forced = os.environ.get("ATTN_TEST_KERNELS")
    if forced and forced not in KERNELS:
        parser.error(f"ATTN_TEST_KERNELS: {forced} is none of {', '.join(KERNELS)}")

    builds = [Build(arguments.make, arguments.build, arguments.sanitizer)]
    if not arguments.sanitizer:
        builds += [Build(arguments.make, f"{arguments.build}-{sanitizer.split(',')[0]}", sanitizer)
                   for sanitizer in SANITIZERS]
    start = time.monotonic()
    total = Count()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for build in builds:
            total.add(build.run())
    except KeyboardInterrupt:
        for process in list(RUNNING):
            end_group(process)
        sys.exit("interrupted")
    print(f"all of it took {time.monotonic() - start:.0f} s")
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return int(total.failed > 0 or total.passed == 0)


if __name__ == "__main__":
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    sys.exit(main())
