"""libattention against NumPy, PyTorch and ONNX Runtime, call against call.

For each memory and batch the contestants are timed in turn, several rounds of
it; a ratio is the median of the rounds' ratios. Where one is close to 1, those two
have more rounds, each going first in half of them, and where it is closer, many more: on
a machine with neighbours a time moves by a twentieth from round to round. It moves by
twice that with where the memory happens to lie, so both make theirs anew every other time.
"""
import json
import math
import os
import statistics
import subprocess
import sys
import time

import numpy

# the grid of tests/bench/library.c
SHAPES = [(1000, 64), (10000, 64), (10000, 768), (100000, 128), (100000, 768), (500000, 64)]
BATCHES = [1, 2, 4, 8, 16, 32, 64, 256]

RIVALS = ["numpy", "torch_sdpa", "torch_matmul", "onnxruntime"]
GOALS = {"numpy": "> 1", "torch_sdpa": ">= 2", "torch_matmul": ">= 2", "onnxruntime": "> 1"}
TOLERANCE = 1e-4  # of outputs about normal in size
ROUNDS = 3
CLOSE = [(1.25, 8), (1.1, 24)]  # within that factor of each other: rounds they have more
ROUNDS_OF_A_MEMORY = 2  # while they are close
SECONDS = 0.2  # of one contestant in one round
REST = 0.05  # until its threads have stopped to spin


class Contestant:
    """A process that computes in one way; see contestant.py."""

    def __init__(self, name, options):
        here = os.path.dirname(os.path.abspath(__file__))
        threads = str(options.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads,
                       "MKL_NUM_THREADS": threads}
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(here, "contestant.py"), name, "--threads", threads,
             "--library", os.path.join(options.build, "tests/bench/peers/flat.so")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended in the middle of {command}")
        return json.loads(line)

    def seconds(self, batch, least):
        seconds = self.ask(batch=batch, seconds=least)
        time.sleep(REST)
        return seconds

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def check(contestants, shape):
    """They all have to compute the same, or their times mean nothing."""
    outputs = {c.name: numpy.array(c.ask(batch=3, check=True)) for c in contestants}
    for name, output in outputs.items():
        error = numpy.abs(output - outputs["numpy"]).max()
        if error > TOLERANCE:
            raise RuntimeError(f"{name} differs from numpy by {error} on {shape}")


def make_memory(contestants, shape):
    for contestant in contestants:
        contestant.ask(rows=shape[0], dim=shape[1])


def compare(ours, rival, ratios, shape, batch, least):
    """The median ratio to ours, from more rounds where it is close."""
    for factor, more in CLOSE:
        if not 1 / factor < statistics.median(ratios) < factor:
            break
        for number in range(more):
            if number % ROUNDS_OF_A_MEMORY == 0:
                make_memory([ours, rival], shape)
            pair = [ours, rival] if number % 2 else [rival, ours]
            seconds = {c.name: c.seconds(batch, least) for c in pair}
            ratios = ratios + [seconds[rival.name] / seconds[ours.name]]
    return statistics.median(ratios)


def measure_case(contestants, shape, batch, options):
    """Median seconds by name, and by name the median ratio to ours."""
    least = SECONDS / 10 if options.quick else SECONDS
    rounds = [{c.name: c.seconds(batch, least) for c in contestants}
              for _ in range(1 if options.quick else ROUNDS)]
    seconds = {c.name: statistics.median(r[c.name] for r in rounds) for c in contestants}
    ours, *rivals = contestants
    ratios = {c.name: compare(ours, c, [r[c.name] / r[ours.name] for r in rounds], shape, batch,
                              least)
              for c in rivals}
    return seconds, ratios


def measure(report, options):
    contestants = [Contestant(name, options) for name in ["attention"] + RIVALS]
    every = {name: [] for name in RIVALS}
    report.title("ms of a call; in brackets how many times ours that is")
    report.row("m x d", "B", "attention", *RIVALS)
    try:
        for shape in SHAPES[:2] if options.quick else SHAPES:
            rows, dim = shape
            make_memory(contestants, shape)
            check(contestants, shape)
            for batch in BATCHES:
                seconds, ratios = measure_case(contestants, shape, batch, options)
                inputs = f"{rows} x {dim}, B = {batch}"
                for name, value in seconds.items():
                    report.add(f"{name}_ms", inputs, value * 1e3, "ms")
                for name, value in ratios.items():
                    report.add(f"{name}_ratio", inputs, value, "theirs/ours", "> 1")
                    every[name].append(value)
                report.row(f"{rows} x {dim}", batch, f"{seconds['attention'] * 1e3:.3f}",
                           *(f"{seconds[n] * 1e3:.3f} ({ratios[n]:.2f})" for n in RIVALS))
    finally:
        for contestant in contestants:
            contestant.close()
    report.title("over all cases, theirs/ours")
    for name, ratios in every.items():
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        report.line(f"{name}_ratio_geomean", "all m x d and B", mean, "theirs/ours", GOALS[name])
        report.line(f"{name}_ratio_worst", "all m x d and B", min(ratios), "theirs/ours", "> 1")
