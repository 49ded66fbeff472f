"""`make bench-peers`: how the library and the daemon compare with what people
would use instead. Optional, and needed by nothing else.

    peers.py --build build [--threads N] [--part library,http] [--quick]

Prints tables and writes BUILD/bench-peers.json: a list of figures with name,
inputs, value, unit, and the goal where there is one. --quick is for seeing
that it works: its figures mean nothing.
"""
import argparse
import json
import os
import platform

import in_library
import over_http

BUSY = 0.5  # a load average above this is said
PARTS = {"library": in_library.measure, "http": over_http.measure}


class Report:
    def __init__(self):
        self.figures = []

    def add(self, name, inputs, value, unit, goal=None):
        figure = {"name": name, "inputs": inputs, "value": float(f"{value:.6g}"), "unit": unit}
        self.figures.append({**figure, "goal": goal} if goal else figure)

    def line(self, name, inputs, value, unit, goal):
        self.add(name, inputs, value, unit, goal)
        print(f"{name:<28} {value:10.4g} {unit:<12} {inputs}; goal {goal}", flush=True)

    @staticmethod
    def title(text):
        print(f"\n-- {text}")

    @staticmethod
    def row(first, *cells):
        print(f"{first:<32}" + "".join(f"{str(cell):>24}" for cell in cells), flush=True)

    def write(self, path):
        with open(path, "w", encoding="utf-8") as file:
            file.write("[\n" + ",\n".join("  " + json.dumps(f) for f in self.figures) + "\n]\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--part", default=",".join(PARTS))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    wanted = options.part.split(",")
    if not set(wanted) <= set(PARTS):
        parser.error(f"the parts are {', '.join(PARTS)}")

    report = Report()
    meaning = ", a quick run of no meaning" if options.quick else ""
    load = os.getloadavg()[0]
    report.add("threads", f"{platform.machine()}{meaning}", options.threads, "threads")
    report.add("load_average", "of the minute before", load, "processes")
    print(f"{options.threads} threads, load average {load}")
    if load > BUSY:
        print("the machine is busy with something else: don't trust what follows")
    for name in wanted:
        PARTS[name](report, options)
    report.write(os.path.join(options.build, "bench-peers.json"))


if __name__ == "__main__":
    main()
