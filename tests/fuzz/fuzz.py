"""Runs the fuzz targets under libFuzzer, in turn: what `make fuzz` calls after the
build in build-fuzz/.

    fuzz.py [--seconds 60] [--target NAME,NAME...] [--keep] [--max-length 4096]

Each target begins with its stored inputs, tests/fuzz/corpus and regression, and
with those that earlier runs have found, build-fuzz/corpus, where new ones are kept
as well. --keep ends with a selection of these for tests/fuzz/corpus: those that
reach what no stored input reaches; sizes are printed, so that it stays small.

An input that a target objects to is left in build-fuzz/found/NAME, with the
fuzzer's words in build-fuzz/found/NAME.log, and the exit status is 1. It is tried
again by the next run, so it stays found until it is mended; then it belongs
into tests/fuzz/regression/NAME, where `make test` replays it.

tests/fuzz/dictionary/NAME, if there is one, has words that the target's grammar
is made of.

What is not fuzzed here: the file of a store, every row of which has a checksum;
what is in the rows is (base, block, change, tags), and damage to the file is in
tests/unit/server/test_store_damage.c.
"""
import argparse
import glob
import os
import re
import signal
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = "build-fuzz"
SHOWN_LINES = 40  # of what is said of an input that was found
SECONDS_PER_INPUT = 20
OPTIONS = {"ASAN_OPTIONS": "allocator_may_return_null=1:detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}


def count_files(folder):
    return len(os.listdir(folder)) if os.path.isdir(folder) else 0


def bytes_of(folder):
    return sum(os.path.getsize(path) for path in glob.glob(folder + "/*"))


class Target:
    def __init__(self, name):
        self.name = name
        self.program = f"{BUILD}/fuzzers/{name}"
        self.kept = f"{BUILD}/corpus/{name}"
        self.found = f"{BUILD}/found/{name}"
        self.log = f"{BUILD}/found/{name}.log"
        self.stored = f"tests/fuzz/corpus/{name}"
        self.regression = f"tests/fuzz/regression/{name}"
        self.dictionary = f"tests/fuzz/dictionary/{name}"

    def run(self, arguments):
        """libFuzzer's exit status; its words are in the log."""
        with open(self.log, "wb") as log:
            process = subprocess.Popen([self.program, *arguments], stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log, env={**os.environ, **OPTIONS})
            try:
                return process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise

    def words(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def fuzz(self, seconds, max_length):
        for folder in (self.kept, self.found):
            os.makedirs(folder, exist_ok=True)
        before, found_before = count_files(self.kept), count_files(self.found)
        arguments = [f"-max_total_time={seconds}", f"-artifact_prefix={self.found}/",
                     f"-timeout={SECONDS_PER_INPUT}", f"-max_len={max_length}",
                     "-print_final_stats=1", self.kept]
        arguments += [folder for folder in (self.stored, self.regression, self.found)
                      if os.path.isdir(folder)]
        if os.path.exists(self.dictionary):
            arguments.append(f"-dict={self.dictionary}")
        status = self.run(arguments)
        words = self.words()
        runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", words)
        reached = re.findall(r"cov: (\d+)", words)
        print(f"  {self.name:<10} {int(runs.group(1)) if runs else 0:>10} inputs tried,"
              f" {count_files(self.kept) - before:>5} kept,"
              f" {reached[-1] if reached else '?':>6} edges reached"
              f"{'' if status == 0 else ', FAILED'}", flush=True)
        if status != 0 or count_files(self.found) > found_before:
            print("\n".join(words.splitlines()[-SHOWN_LINES:]))
            print(f"---- see {self.found}/ and {self.log}", flush=True)
            return False
        return True

    def keep(self, max_length):
        os.makedirs(self.stored, exist_ok=True)
        status = self.run(["-merge=1", f"-max_len={max_length}", self.stored, self.kept])
        print(f"  {self.name:<10} {count_files(self.stored):>5} stored inputs,"
              f" {bytes_of(self.stored)} bytes{'' if status == 0 else ', FAILED'}", flush=True)
        return status == 0


def main():
    known = sorted(os.path.basename(path) for path in glob.glob(f"{BUILD}/fuzzers/*"))
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--target", default=",".join(known))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--max-length", type=int, default=4096)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    targets = [Target(name) for name in arguments.target.split(",") if name]
    unknown = [target.name for target in targets if target.name not in known]
    if unknown or not targets:
        sys.exit(f"fuzz: no target {', '.join(unknown)}; there are {', '.join(known)}")
    os.makedirs(f"{BUILD}/found", exist_ok=True)
    print(f"fuzzing {len(targets)} targets for {arguments.seconds} s each", flush=True)
    sound = all([target.fuzz(arguments.seconds, arguments.max_length) for target in targets])
    if arguments.keep and sound:
        sound = all([target.keep(arguments.max_length) for target in targets])
        print(f"{bytes_of('tests/fuzz/corpus/*')} bytes of stored inputs")
    return 0 if sound else 1


if __name__ == "__main__":
    os.chdir(ROOT)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
