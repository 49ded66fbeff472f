"""The demo's other half: makes the request bodies, reads the replies.

demo.sh sends them with curl, as a person would; what curl can't do stands
here. Python's standard library alone, so that the demo needs no NumPy. That is
also why whole batches are held against known counts (computed once in float64
with NumPy) and only the few queries that are shown are computed anew, by the
textbook formula.

    digits.py bodies DATA        writes the request bodies to the working folder
    digits.py STEP DATA          judges the replies of a step, prints what they say

A step that finds anything wrong says so and exits 1.
"""
import json
import math
import os
import shutil
import sys

MEMORY_ROWS, BATCH, SIGMA = 1297, 50, 0.3
QUERIES = 500
RIGHT = 483  # of the 500, with gaussian attention at this sigma

# The same batch under other attentions: what it is called, score, normalization,
# how many of the 500 it gets right.
ATTENTIONS = [
    ("average pooling", {"type": "constant"}, "sum", 51),
    ("exact look-up", {"type": "exact"}, "sum", 0),
    ("nearest neighbour", {"type": "euclidean"}, "hardmax", 480),
    ("soft look-up by angle", {"type": "cosine", "scale": 50}, "softmax", 482),
    ("kernel regression", {"type": "laplacian", "sigma": 0.1}, "sum", 483),
]

# Queries worth a look: an easy one, the one with the most divided answer that
# is still right, one that is wrong.
SHOWN = [0, 112, 285]
STORED = 42  # the row whose own key is asked for


class Wrong(Exception):
    pass


def expect(condition, message):
    if not condition:
        raise Wrong(message)


class Digits:
    def __init__(self, path):
        with open(path, encoding="ascii") as file:
            rows = [[int(field) for field in line.split(",")] for line in file]
        self.pixels = [row[:64] for row in rows]
        self.labels = [row[64] for row in rows]

    def key(self, row):
        return [pixel / 16 for pixel in self.pixels[row]]

    def value(self, row):
        return [float(self.labels[row] == digit) for digit in range(10)]


def write(name, body):
    with open(name, "w", encoding="ascii") as file:
        json.dump(body, file, separators=(",", ":"))


def read(name):
    with open(name, encoding="utf-8") as file:
        return json.load(file)


def name_of(row):
    return f"#{row}"


def argmax(numbers):
    return max(range(len(numbers)), key=numbers.__getitem__)


def close(a, b):
    return abs(a - b) <= 1e-5


def bodies(digits):
    memory = range(MEMORY_ROWS)
    write("digits.json", {
        "keys": [digits.key(row) for row in memory],
        "values": [digits.value(row) for row in memory],
        "ids": [name_of(row) for row in memory],
        "score": {"type": "gaussian", "sigma": SIGMA},
        "normalization": "sum",
    })
    queries = [digits.key(MEMORY_ROWS + query) for query in range(QUERIES)]
    for start in range(0, QUERIES, BATCH):
        write(f"batch-{start // BATCH}.json",
              {"queries": queries[start:start + BATCH], "weights": "none"})
    write("look.json", {"queries": [queries[query] for query in SHOWN], "weights": {"top": 5}})
    write("average.json", {"queries": [queries[0]], "score": "constant"})
    write("exact.json", {"queries": [digits.key(STORED)], "score": "exact"})
    for number, (_, score, normalization, _) in enumerate(ATTENTIONS):
        write(f"all-{number}.json", {"queries": queries, "weights": "none", "score": score,
                                     "normalization": normalization})


def stored(digits):
    meta = read("stored.json")
    expect((meta["rows"], meta["key_dim"], meta["value_dim"]) == (MEMORY_ROWS, 64, 10),
           f"the memory has another shape: {meta}")
    print(f"   version {meta['version']}: {meta['rows']:,} rows, keys of {meta['key_dim']}, values of"
          f" {meta['value_dim']}, {meta['score']['type']} score, sigma {meta['score']['sigma']}")


def count_right(digits, outputs, first=0):
    """A row without mass has the output 0 and is no answer."""
    return sum(any(output) and argmax(output) == digits.labels[MEMORY_ROWS + first + index]
               for index, output in enumerate(outputs))


def accuracy(digits):
    right = 0
    for start in range(0, QUERIES, BATCH):
        outputs = read(f"reply-{start // BATCH}.json")["outputs"]
        expect(len(outputs) == BATCH, f"{len(outputs)} outputs for {BATCH} queries")
        right += count_right(digits, outputs, start)
    print(f"   {right} of {QUERIES} right ({100 * right / QUERIES:.1f} %)")
    expect(right == RIGHT, f"{RIGHT} were expected")


def attend(digits, query):
    """Gaussian attention as the textbook has it: the weights of all rows."""
    key = digits.key(query)
    scores = [-sum((a - b) ** 2 for a, b in zip(key, digits.key(row))) / (2 * SIGMA ** 2)
              for row in range(MEMORY_ROWS)]
    top = max(scores)
    kernel = [math.exp(score - top) for score in scores]
    total = sum(kernel)
    return [weight / total for weight in kernel]


def check_shown(digits, query, output, top):
    weights = attend(digits, query)
    nearest = sorted(range(MEMORY_ROWS), key=lambda row: (-weights[row], row))[:5]
    expect([item["row"] for item in top] == nearest, f"the top 5 should be the rows {nearest}")
    for item in top:
        expect(close(item["weight"], weights[item["row"]]), f"a weight is wrong: {item}")
        expect(item["id"] == name_of(item["row"]), f"an id is wrong: {item}")
    for digit in range(10):
        mass = sum(weight for row, weight in enumerate(weights) if digits.labels[row] == digit)
        expect(close(output[digit], mass), f"the output for {digit} should be {mass}")


class Painter:
    """Draws 8x8 pictures side by side, in 256 greys where there is a terminal
    that can, in shades where not, at half the width where the room is short."""

    def __init__(self):
        self.colour = (sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
                       and not os.environ.get("NO_COLOR"))
        columns = shutil.get_terminal_size(fallback=(112, 40)).columns
        self.thumb = 2 if columns >= 112 else 1

    def cell(self, pixel, width):
        if self.colour:
            return f"\033[48;5;{232 + pixel * 23 // 16}m{' ' * width}"
        return " ░▒▓█"[(pixel + 2) // 4] * width

    def line(self, pixels, row, width):
        line = "".join(self.cell(pixel, width) for pixel in pixels[8 * row:8 * row + 8])
        return line + "\033[0m" if self.colour else line

    def show(self, query, keys, captions):
        """captions: for each picture, the lines below it."""
        for row in range(8):
            print("   " + self.line(query, row, 2) + "     "
                  + "  ".join(self.line(key, row, self.thumb) for key in keys))
        for line in zip(*captions):
            texts = [text.ljust(8 * self.thumb) for text in line[1:]]
            print("   " + line[0].ljust(16) + "     " + "  ".join(texts).rstrip())


def look(digits):
    reply = read("looked.json")
    painter = Painter()
    for query, output, top in zip(SHOWN, reply["outputs"], reply["weights"]):
        if query != SHOWN[0]:
            print()
        row = MEMORY_ROWS + query
        check_shown(digits, row, output, top)
        answer, label = argmax(output), digits.labels[row]
        verdict = "right" if answer == label else f"wrong: a {label}"
        captions = [(f"says {answer} ({output[answer]:.2f})", verdict)]
        captions += [(f"{digits.labels[item['row']]}: {item['weight']:.3f}", item["id"])
                     for item in top]
        painter.show(digits.pixels[row], [digits.pixels[item["row"]] for item in top], captions)


def average(digits):
    reply = read("averaged.json")
    weights, output = reply["weights"][0], reply["outputs"][0]
    expect(len(weights) == MEMORY_ROWS, "the weights are not one per row")
    expect(all(close(weight * MEMORY_ROWS, 1) for weight in weights),
           f"not every weight is 1/{MEMORY_ROWS}")
    for digit in range(10):
        share = digits.labels[:MEMORY_ROWS].count(digit) / MEMORY_ROWS
        expect(close(output[digit], share), f"the share of {digit} should be {share}")
    print(f"   every weight is 1/{MEMORY_ROWS:,} = {weights[0]:.6f},"
          " the output the share of each digit:")
    print("   " + "  ".join(f"{share:.3f}" for share in output))


def exact(digits):
    reply = read("exactly.json")
    weights, output = reply["weights"][0], reply["outputs"][0]
    expect(output == digits.value(STORED), f"the value of row {STORED} was expected, not {output}")
    expect(weights == [float(row == STORED) for row in range(MEMORY_ROWS)],
           f"the weight 1 on row {STORED} and 0 elsewhere was expected")
    print(f"   the weight of row {STORED} is 1, all others are 0, the output is its value:")
    print("   " + "      ".join(f"{number:.0f}" for number in output))


def compare(digits):
    for number, (title, score, normalization, known) in enumerate(ATTENTIONS):
        right = count_right(digits, read(f"compared-{number}.json")["outputs"])
        score = " ".join(str(word) for name, value in score.items()
                         for word in ([value] if name == "type" else [name, value]))
        print(f"   {title:<24} {score:<22} {normalization:<10} {right:>3} of {QUERIES}")
        expect(right == known, f"{known} were expected")


STEPS = {step.__name__: step
         for step in (bodies, stored, accuracy, look, average, exact, compare)}


def main():
    sys.stdout.reconfigure(encoding="utf-8")
    if len(sys.argv) != 3 or sys.argv[1] not in STEPS:
        sys.exit(__doc__)
    try:
        STEPS[sys.argv[1]](Digits(sys.argv[2]))
    except Wrong as wrong:
        sys.exit(f"   WRONG: {wrong}")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        sys.exit(f"   WRONG: the reply has another form: {error!r}")


if __name__ == "__main__":
    main()
