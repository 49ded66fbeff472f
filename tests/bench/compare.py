"""Another revision's build against this one, with the figures of `make bench`:
what `make bench-compare BASE=REV` calls.

    compare.py --base REV [--base-bench REV] --build build [--make 'make -s -j2']
               [--rounds N] [--part NAME,NAME...] [what the bench takes: --case, --threads, --quick]

BASE is unpacked under build-compare/ and built there by its own Makefile; each
side is measured by its own bench, so that the library's interface may differ.
Both benches run at once and pass a turn to and fro (turns.h): each measurement
of one stands right beside the same measurement of the other, which meets the
same load, clock rate and temperature. What counts of a case is the median of the
ratios of such pairs. Processes are started --rounds times, because where a
process has its memory moves its times by some percent, for as long as it lives;
who comes first changes from round to round.

A bench older than --turns runs whole, in turn with the new one, which is much
less exact. --base-bench names a revision with a newer tests/bench that still
fits BASE's library; it then takes the place of BASE's own.

A pair does not count if one of the two took over 1.3 times as long as that side's
best: a processor was with somebody else. (If that leaves less than a third, the
case is one that varies so much, and all count.)

A ratio above 1 says that this build is ahead of BASE. In brackets is where the
median lies with a confidence of about 95 %, and how many pairs count of how many;
beside a geometric mean are those of the rounds. Figures ending in p99, and what is compared with the two (a
bare server, jansson, copies), are not in the mean. What the processors spent
("cpu") has a mean of its own: it says more than the clock on a busy machine, most of all with
--threads 1, since a worker that waits for another one spends time as well. One case
by itself can differ by 2 % between two builds of the same text, by where the linker
put a loop.
"""
import argparse
import json
import math
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FOLDER = "build-compare"
PARTS = ["library", "dtypes", "number", "http", "store"]
PROGRAMS = ["attentiond", "tests/bench/bench", "tests/bench/bare_server"]

LESS_IS_BETTER = {"ms", "s", "ns", "us/request"}
MORE_IS_BETTER = {"requests/s", "appends/s", "batches/s", "GB/s"}
NOT_OURS = re.compile(r"^ceiling|_read$|_sgemm$|_jansson_|_printf_|^http_bare|_copy_|_library_ms$")
PROCESSORS = re.compile(r"_cpu(_ms)?$")
TAIL = re.compile(r"_p99$")


# ---- The two builds ----

def git(*arguments):
    done = subprocess.run(["git", *arguments], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"bench-compare: git {' '.join(arguments)} failed")
    return done.stdout


def commit_of(revision):
    return git("rev-parse", "--verify", revision + "^{commit}").decode().strip()


def unpack(commit, folder, *paths):
    subprocess.run(["tar", "-x", "-C", folder], input=git("archive", commit, *paths), check=True)


def base_build(arguments):
    """The folder of BASE's programs. Unpacked once, then left to make."""
    commit = commit_of(arguments.base)
    name = commit[:12]
    bench = commit_of(arguments.base_bench) if arguments.base_bench else None
    if bench:
        name += "-bench-" + bench[:12]
    folder = os.path.join(FOLDER, name)
    if not os.path.isdir(folder):
        unfinished = folder + ".unfinished"
        os.makedirs(unfinished, exist_ok=True)
        unpack(commit, unfinished)
        if bench:
            unpack(bench, unfinished, "tests/bench")
        os.rename(unfinished, folder)
    print(f"building {arguments.base} in {folder}/", flush=True)
    command = [*shlex.split(arguments.make), "-C", folder, "BUILD=build", "SANITIZER=",
               *("build/" + program for program in PROGRAMS)]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"bench-compare: {arguments.base} does not build")
    return os.path.join(folder, "build")


class Side:
    def __init__(self, name, build):
        self.name, self.build = name, build
        self.report = os.path.join(FOLDER, name + ".json")

    def program(self, index):
        return os.path.join(self.build, PROGRAMS[index])

    def takes_turns(self):
        usage = subprocess.run([self.program(1)], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, check=False).stdout
        return b"--turns" in usage

    def start(self, part, flags, turns=None):
        command = [self.program(1), self.report, "--part", part, "--daemon", self.program(0),
                   "--bare-server", self.program(2), *flags]
        if turns:
            command += ["--turns", "%d,%d" % turns]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, pass_fds=turns or ())

    def figures(self):
        with open(self.report, encoding="utf-8") as file:
            return {(f["name"], f["inputs"]): f for f in json.load(file)}


def finish(processes):
    try:
        for process in processes:
            if process.wait() != 0:
                sys.exit("bench-compare: a bench failed: " + " ".join(process.args))
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def measure_in_turns(sides, part, flags):
    """Both at once; the first of `sides` has the first turn."""
    to_first, to_second = os.pipe(), os.pipe()
    os.write(to_first[1], b"t")
    processes = [sides[0].start(part, flags, (to_first[0], to_second[1])),
                 sides[1].start(part, flags, (to_second[0], to_first[1]))]
    for descriptor in (*to_first, *to_second):
        os.close(descriptor)
    finish(processes)


def measure_whole(sides, part, flags):
    for side in sides:
        finish([side.start(part, flags)])


# ---- The figures ----

def pairs_of(base, new):
    """What both took, rates as their reciprocals; of the rounds, if both have them."""
    old_rounds, new_rounds = base.get("rounds", []), new.get("rounds", [])
    if not old_rounds or len(old_rounds) != len(new_rounds):
        old_rounds, new_rounds = [base["value"]], [new["value"]]
    pairs = [pair for pair in zip(old_rounds, new_rounds) if min(pair) > 0]
    if new["unit"] in MORE_IS_BETTER:
        return [(1 / old, 1 / new) for old, new in pairs]
    return pairs


def undisturbed(pairs, best):
    return [pair for pair in pairs if all(took <= 1.3 * least for took, least in zip(pair, best))]


def is_compared(figure):
    known = LESS_IS_BETTER | MORE_IS_BETTER
    return figure["unit"] in known and not NOT_OURS.search(figure["name"])


def kind_of(name):
    return ("processors" if PROCESSORS.search(name) else "tail" if TAIL.search(name) else "clock")


class Case:
    def __init__(self, key, unit):
        self.name, self.inputs = key
        self.unit, self.kind = unit, kind_of(key[0])
        self.rounds, self.base, self.new = [], [], []

    def add(self, base, new):
        self.rounds.append(pairs_of(base, new))
        self.base.append(base["value"])
        self.new.append(new["value"])

    def pairs(self):
        return [pair for pairs in self.rounds for pair in pairs]

    def ratios(self, pairs=None):
        """Of all rounds or of one, those that count."""
        every = self.pairs()
        best = [min(took) for took in zip(*every)]
        if 3 * len(undisturbed(every, best)) < len(every):
            best = [math.inf, math.inf]
        pairs = every if pairs is None else pairs
        return sorted(old / new for old, new in undisturbed(pairs, best))

    def line(self):
        ratios = self.ratios()
        low, high = bounds_of_median(ratios)
        return (f"  {self.name:<26} {self.inputs:<36} {statistics.median(self.base):>10.4g}"
                f" {statistics.median(self.new):>10.4g} {self.unit:<10}"
                f" {statistics.median(ratios):6.3f}  [{low:.3f}, {high:.3f}]"
                f"  {len(ratios)} of {len(self.pairs())}")


def bounds_of_median(ordered):
    """The order statistics between which the median lies in about 95 of 100
    cases; the extremes where there are too few for that."""
    count = len(ordered)
    rank = math.floor((count - 1.96 * math.sqrt(count)) / 2)
    rank = max(0, min(rank, (count - 1) // 2))
    return ordered[rank], ordered[count - 1 - rank]


def mean_of(values):
    return math.exp(statistics.fmean(math.log(value) for value in values))


def report_means(part, cases):
    for kind, title in (("clock", part), ("processors", part + ", processors")):
        mine = [case for case in cases if case.kind == kind]
        if not mine:
            continue
        whole = mean_of([statistics.median(case.ratios()) for case in mine])
        rounds = []
        for number in range(max(len(case.rounds) for case in mine)):
            ratios = [case.ratios(case.rounds[number]) for case in mine if number < len(case.rounds)]
            rounds.append(mean_of([statistics.median(some) for some in ratios if some] or [math.nan]))
        print(f"  geometric mean, {title}: {whole:.4f} of {len(mine)} figures"
              f" (rounds: {', '.join(f'{mean:.4f}' for mean in rounds)})", flush=True)


def compare_part(part, arguments, flags, sides, measure):
    cases = {}
    for number in range(arguments.rounds):
        order = sides if number % 2 == 0 else sides[::-1]
        measure(order, part, flags)
        base, new = (side.figures() for side in sides)
        for key in new:
            if key in base and is_compared(new[key]):
                cases.setdefault(key, Case(key, new[key]["unit"])).add(base[key], new[key])
    cases = [case for case in cases.values() if case.pairs()]
    if not cases:
        return []
    print(f"\n-- {part}\n  {'':<63} {'base':>10} {'this':>10} {'':<10} base : this")
    for case in cases:
        print(case.line())
    report_means(part, cases)
    return [{"part": part, "name": case.name, "inputs": case.inputs, "unit": case.unit,
             "base": case.base, "this": case.new, "pairs": case.rounds} for case in cases]


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--base", required=True)
    parser.add_argument("--base-bench", default="")
    parser.add_argument("--build", required=True)
    parser.add_argument("--make", default="make -s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", default=",".join(PARTS))
    arguments, flags = parser.parse_known_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not arguments.base:
        sys.exit("bench-compare: which revision? make bench-compare BASE=REV")
    sides = [Side("base", base_build(arguments)), Side("this", arguments.build)]
    turns = sides[0].takes_turns()
    if not turns:
        print(f"the bench of {arguments.base} does not know --turns: whole runs are compared,"
              " which is less exact; BASE_BENCH=REV gives it another tests/bench")
    results = []
    for part in arguments.part.split(","):
        results += compare_part(part, arguments, flags, sides,
                                measure_in_turns if turns else measure_whole)
    report = os.path.join(FOLDER, "compare.json")
    with open(report, "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    print(f"\nevery pair is in {report}")
    if not results:
        sys.exit("bench-compare: no figure to compare; does --case name one?")
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
