"""What the unit tests, the stored fuzz inputs and the black-box tests run through, by
folder: what `make coverage` calls after the build in build-coverage/.

Prints lines and functions of lib/ and server/, writes the lines themselves to
build-coverage/html/, and ends with 1 if a test failed: a figure of tests that fail
would mean nothing. Crash tests are left out: a process that is killed writes no
counts. Not measured are branches, of which each check for want of memory is one.
"""
import glob
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import run

BUILD = "build-coverage"
INFO = f"{BUILD}/coverage.info"
SOURCES = ("lib", "server")


def run_tests():
    """How many failed."""
    build = run.Build([], BUILD, "coverage")
    with ThreadPoolExecutor(run.WORKERS) as pool:
        counts = list(pool.map(run.Part.run, [*build.unit_parts(), *build.fuzz_parts()]))
    counts.append(build.pytest_part("tests/http").run())
    return sum(count.failed for count in counts)


def forget_earlier_runs():
    for path in glob.glob(f"{BUILD}/**/*.gcda", recursive=True):
        os.unlink(path)


def capture():
    quiet = ["--quiet", "--rc", "geninfo_adjust_src_path="]
    patterns = [os.path.abspath(folder) + "/*" for folder in SOURCES]
    subprocess.run(["lcov", *quiet, "--capture", "--directory", BUILD, "--base-directory", ".",
                    "--output-file", INFO + ".all"], check=True)
    subprocess.run(["lcov", *quiet, "--extract", INFO + ".all", *patterns, "--output-file", INFO],
                   check=True)
    subprocess.run(["genhtml", "--quiet", "--output-directory", f"{BUILD}/html", INFO], check=True)


def read_folders():
    """Of each folder: [lines, of them run, functions, of them run]."""
    folders = defaultdict(lambda: [0, 0, 0, 0])
    places = {"LF": 0, "LH": 1, "FNF": 2, "FNH": 3}
    folder = ""
    with open(INFO, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.strip().partition(":")
            if key == "SF":
                folder = os.path.dirname(os.path.relpath(value))
            elif key in places:
                folders[folder][places[key]] += int(value)
    return folders


def print_row(name, counts):
    lines, lines_run, functions, functions_run = counts
    print(f"  {name:<22} {lines:>7} {100 * lines_run / max(1, lines):>7.1f} %"
          f" {functions:>10} {100 * functions_run / max(1, functions):>7.1f} %")


def main():
    forget_earlier_runs()
    failed = run_tests()
    capture()
    folders = read_folders()
    print(f"\n  {'':<22} {'lines':>7} {'run':>9} {'functions':>10} {'run':>9}")
    for name in sorted(folders):
        print_row(name, folders[name])
    print_row("all", [sum(column) for column in zip(*folders.values())])
    print(f"line by line: {BUILD}/html/index.html", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    sys.exit(main())
