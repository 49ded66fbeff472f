"""The documents against the program: their tables repeat those of the code, their
examples run as they stand and are answered as they say, their links lead somewhere.

In README.md and docs/:
    ```sh      is run as it was pasted, but for the daemon's port
    ```json    below it is the reply of its last command
    ```python  is run, with NumPy and nothing else
and what is to be read only (make, docker, systemctl) is indented."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import harness
import oracle

ROOT = harness.REPOSITORY
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]
ADDRESS = "http://127.0.0.1:8080"

# Each command says its status on the standard error, and ends its reply's line.
CURL = """curl() { command curl -sS -w '\\n%{stderr}%{http_code}\\n' "$@"; }\n"""


def page(name):
    return ROOT / "docs" / f"{name}.md"


def section(path, heading):
    """What stands below a heading, up to the next one of its level."""
    return re.split(r"\n## ", path.read_text().split(f"\n## {heading}\n", 1)[1])[0]


def tables(path, heading):
    """The tables of a section, each a list of rows, each a list of cells."""
    found = re.findall(r"(?:^\|.*\n)+", section(path, heading) + "\n", re.M)
    return [[[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
             for row in text.splitlines()[2:]] for text in found]


def table(path, heading):
    return tables(path, heading)[0]


def words(cell):
    return re.findall(r"`([^`]+)`", cell)


def blocks(path):
    """(language, text) of the fenced blocks."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(), re.M | re.S)


def header_list(file, name):
    """The entries of an X-macro, each as the text between its parentheses."""
    text = (ROOT / file).read_text().replace("\\\n", "")
    entries = text.split(f"#define {name}(X)", 1)[1].split("\n", 1)[0]
    return re.findall(r"""X\(((?:[^()"]|"[^"]*"|\([^()]*\))*)\)""", entries)


def arguments(entry):
    return [part.strip() for part in re.findall(r'(?:"[^"]*"|[^,"])+', entry)]


def text_of(argument):
    """A string literal's text, or that of several in a row."""
    return "".join(re.findall(r'"([^"]*)"', argument))


def check_rows(path, actual, expected):
    """Tables are compared as text, so that a failure shows what should stand there."""
    actual, expected = [["| " + " | ".join(row) + " |" for row in rows] for rows in (actual, expected)]
    assert actual == expected, f"{path.name}: the table should be\n" + "\n".join(expected)


# ---- Form

def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


def test_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\(([^)#]+)", README.read_text()))
    assert {str(path.relative_to(ROOT)) for path in DOCUMENTS if path != README} <= linked


def test_figures_of_the_readme_are_those_of_the_page():
    figures = set(re.findall(r"\d[\d,.]*\d|\d", section(README, "Performance")))
    there = set(re.findall(r"\d[\d,.]*\d|\d", page("performance").read_text()))
    assert len(figures) > 10 and figures <= there, figures - there


def anchors(path):
    """As GitHub makes them of headings."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", path.read_text())
    for link in links:
        if re.match(r"https?://|mailto:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{path.name}: {link} names no heading"


def test_make_targets_exist():
    """What the documents say to make is a target, or is made by a pattern of the
    Makefile out of a source that is there."""
    makefile = (ROOT / "Makefile").read_text()
    for path in DOCUMENTS:
        shown = "\n".join(inline or indented for inline, indented in
                          re.findall(r"`([^`]*)`|^    (.*)$", path.read_text(), re.M))
        for goal in re.findall(r"\bmake\s+(?:-\w+\s+|[A-Z_]+=\S*\s+)*([a-z][\w./-]*)", shown):
            source = ROOT / (re.sub(r"^build[\w-]*/", "", goal) + ".c")
            assert re.search(rf"^{re.escape(goal)}( [^=\n]*)?:", makefile, re.M) or \
                ("/" in goal and source.exists()), f"{path.name}: make {goal}"


def test_editors_are_told_what_the_formatter_does():
    formatter = dict(re.findall(r"^(\w+): (\S+)$", (ROOT / ".clang-format").read_text(), re.M))
    rules = {}
    for names, body in re.findall(r"^\[(.*)\]\n((?:\w+ = .*\n)*)", (ROOT / ".editorconfig").read_text(), re.M):
        rules[names] = dict(re.findall(r"^(\w+) = (.*)$", body, re.M))
    assert rules["*.{c,h}"]["max_line_length"] == formatter["ColumnLimit"]
    assert rules["*"]["indent_size"] == formatter["IndentWidth"] and rules["*"]["indent_style"] == "space"
    assert rules["Makefile"]["indent_style"] == "tab" and rules["*.py"]["indent_size"] == "4"


# ---- Tables of scores and normalizations

def kinds(daemon, schema):
    """Of the OpenAPI document: name -> (formula, {parameter: description})."""
    document = daemon.request("GET", "/openapi.json").json
    entries = document["components"]["schemas"][schema]["oneOf"]
    return {entry["title"]: (entry["description"],
                             {name: value["description"] for name, value in entry["properties"].items()
                              if name != "type"})
            for entry in entries if entry["type"] == "object"}


def default_of(description):
    return description.rpartition("default ")[2] if "default " in description else None


def check_kinds(rows, actual):
    assert [words(row[0])[0] for row in rows] == list(actual)
    for row in rows:
        formula, parameters = actual[words(row[0])[0]]
        assert row[1] == formula, row[0]
        assert words(row[2]) == list(parameters), row[0]
        for name, description in parameters.items():
            default = default_of(description)
            assert default is None or f"`{name}` ({default}" in row[2], (row[0], name, default)


def test_scores(daemon):
    check_kinds(table(page("scores"), "Scores"), kinds(daemon, "Score"))


TENSORS = {"bilinear": {"w": [[1]]}, "additive": {"w_q": [[1]], "w_k": [[1]], "v": [1]}}


def test_default_normalizations(daemon, memory_name):
    for row in table(page("scores"), "Scores"):
        name = words(row[0])[0]
        meta = daemon.put(f"/v1/memories/{memory_name}",
                          {"key_dim": 1, "value_dim": 1,
                           "score": {"type": name, **TENSORS.get(name, {})}}).json
        assert [meta["normalization"]["type"]] == words(row[3]), name


def test_normalizations(daemon):
    check_kinds(table(page("scores"), "Normalizations"), kinds(daemon, "Normalization"))


def test_readme_recommends_what_there_is(daemon):
    scores, normalizations = kinds(daemon, "Score"), kinds(daemon, "Normalization")
    for row in table(README, "Which score"):
        given = {name for _, (_, parameters) in [*scores.items(), *normalizations.items()] for name in parameters}
        assert set(words(row[1])) <= set(scores) | given
        assert set(words(row[2])) <= set(normalizations) | given
    said = re.search(r"There are (\d+) scores and (\d+) normalizations", README.read_text())
    assert said.groups() == (str(len(scores)), str(len(normalizations)))


# ---- What is reproduced, by formulas of the papers

def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def share(weights):
    return weights / weights.sum(axis=1, keepdims=True)


def distances(q, k):
    return np.linalg.norm(q[:, None, :] - k[None], axis=2)


def cosines(q, k):
    return q @ k.T / np.outer(np.linalg.norm(q, axis=1), np.linalg.norm(k, axis=1))


def one_hot(indices, count):
    return np.eye(count)[indices]


def nearest(q, k, count):
    return one_hot(np.argsort(distances(q, k), axis=1)[:, :count], len(k)).mean(axis=1)


# Of queries, keys and the score's tensors: the weights, as the paper has them.
PAPERS = {
    "kernel regression of bandwidth h": lambda q, k, t: share(np.exp(-(distances(q, k) / 0.5) ** 2 / 2)),
    "the optimal kernel, in the same regression":
        lambda q, k, t: share(np.maximum(0, 0.75 * (1 - (distances(q, k) / 2) ** 2))),
    "nearest neighbour": lambda q, k, t: one_hot(distances(q, k).argmin(axis=1), len(k)),
    "inverse distance weighting": lambda q, k, t: share(1 / distances(q, k) ** 2),
    "content addressing with key strength beta": lambda q, k, t: softmax(5 * cosines(q, k)),
    "alignment model": lambda q, k, t: softmax(np.array(
        [[t["v"] @ np.tanh(t["w_q"] @ one + t["w_k"] @ other) for other in k] for one in q])),
    'global attention, "dot"': lambda q, k, t: softmax(q @ k.T),
    'global attention, "general"': lambda q, k, t: softmax(q @ t["w"] @ k.T),
    "sparsemax attention": lambda q, k, t: oracle.normalize(q @ k.T, None, {"type": "sparsemax"})[0],
    "matching network": lambda q, k, t: softmax(cosines(q, k)),
    "prototypical network": lambda q, k, t: softmax(-distances(q, k) ** 2),
    "scaled dot-product attention, one head": lambda q, k, t: softmax(q @ k.T / math.sqrt(k.shape[1])),
    "1.5-entmax attention": lambda q, k, t: oracle.normalize(q @ k.T, None, {"type": "entmax15"})[0],
    "one update of a modern Hopfield network": lambda q, k, t: softmax(4 * q @ k.T),
    "the average of the table": lambda q, k, t: np.full((len(q), len(k)), 1 / len(k)),
    "the plain mean of the k nearest rows": lambda q, k, t: nearest(q, k, 3),
}


def test_what_is_reproduced(daemon):
    random = np.random.default_rng(7)
    q, k, v = (random.standard_normal(shape).round(3) for shape in ((5, 3), (20, 3), (20, 2)))
    tensors = {"w": random.standard_normal((3, 3)).round(3), "w_q": random.standard_normal((4, 3)).round(3),
               "w_k": random.standard_normal((4, 3)).round(3), "v": random.standard_normal(4).round(3)}
    rows = [row for rows in tables(page("scores"), "What is reproduced") for row in rows]
    assert len(rows) == len(PAPERS)
    for row in rows:
        (name,) = [name for name in PAPERS if row[1].startswith(name)]
        request = json.loads(words(row[2])[0])
        score = request["score"] if isinstance(request["score"], dict) else {"type": request["score"]}
        request["score"] = {**score, **{name: tensors[name].tolist() for name in TENSORS.get(score["type"], ())}}
        reply = daemon.post("/v1/attend", {"queries": q.tolist(), "keys": k.tolist(), "values": v.tolist(), **request})
        assert reply.status == 200, (row, reply)
        expected = PAPERS[name](q, k, tensors)
        np.testing.assert_allclose(reply.json["weights"], expected, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(reply.json["outputs"], expected @ v, atol=1e-4, err_msg=name)


# ---- The other tables

def range_of(kind, least, most, unit):
    """As the documents print it."""
    if kind == "BOOLEAN":
        return "true, false"
    if kind == "CHOICE":
        return text_of(most).replace("|", ", ")
    return f"{least} to {most} {text_of(unit)}".strip() if kind == "INTEGER" else ""


def test_options():
    rows = []
    for entry in header_list("server/options.h", "OPTION_LIST"):
        name, kind, default, least, most, unit, *meaning = arguments(entry)
        shown = text_of(default)
        rows.append([f"`{name}`", f"`{shown}`" if shown else "", range_of(kind, least, most, unit),
                     text_of(" ".join(meaning))])
    check_rows(page("operating"), table(page("operating"), "Options"), rows)
    config = json.loads(harness.run_daemon("--print-config").stdout)
    assert [words(row[0])[0] for row in rows] == list(config)
    helped = " ".join(harness.run_daemon("--help").stdout.split())
    for row in rows:
        name = words(row[0])[0]
        shown = config[name] if isinstance(config[name], str) else json.dumps(config[name])
        assert words(row[1]) == ([shown] if shown else []), name
        assert "--" + name.replace("_", "-") in helped


def test_routes(daemon):
    document = daemon.request("GET", "/openapi.json").json
    actual = {(method.upper(), path.replace("{name}", "NAME"))
              for path, item in document["paths"].items() for method in item}
    rows = re.findall(r"^\| `([A-Z]+) (/[^`]*)` \|", page("api").read_text(), re.M)
    assert len(rows) == len(set(rows)) and set(rows) == actual


def test_members_of_a_query(daemon):
    document = daemon.request("GET", "/openapi.json").json
    members = document["components"]["schemas"]["AttendRequest"]["properties"]
    assert {words(row[0])[0] for row in table(page("api"), "Attend")} == set(members)


def test_problems():
    rows = []
    for entry in header_list("server/base/problem.h", "PROBLEM_LIST"):
        _, status, code, *title = arguments(entry)
        rows.append([f"`{text_of(code)}`", status, text_of(" ".join(title))])
    check_rows(page("api"), table(page("api"), "Problems"), rows)


LARGEST = {"0x1.fffffep127": "3.4e38", "65504": "65504", "0x1.fep127": "3.39e38"}


def test_dtypes():
    rows = []
    for entry in header_list("lib/attention.h", "ATTN_DTYPE_LIST"):
        _, name, size, largest, *_, bound = arguments(entry)
        rows.append([f"`{text_of(name)}`", size, LARGEST[largest], text_of(bound)])
    check_rows(page("api"), table(page("api"), "Dtypes"), rows)


def test_bytes_of_a_row(daemon, memory_name):
    """By the formula of the page, for shapes that blocks fit in different ways."""
    said = ("(key_dim + value_dim) x bytes of a number, and 8 for the norm of its key; with `int8` 8 more",
            "An id takes its length and 9 more, an expiry 8")
    text = " ".join(section(page("api"), "Dtypes").split())
    for sentence in said:
        assert sentence in text
    sizes = {words(row[0])[0]: int(row[1]) for row in table(page("api"), "Dtypes")}
    path = f"/v1/memories/{memory_name}"
    for rows, key_dim, value_dim in ((4096, 64, 10), (20000, 1, 1), (3000, 100, 20)):
        for dtype, size in sizes.items():
            body = {"keys": [[0.5] * key_dim] * rows, "values": [[1] * value_dim] * rows, "dtype": dtype}
            each = size * (key_dim + value_dim) + 8 + (8 if dtype == "int8" else 0)
            bare = daemon.put(path, body).json["bytes"]
            assert each <= bare / rows <= 1.005 * each, (dtype, rows)
    ids = [f"row-{row:06}" for row in range(rows)]
    assert 10 + 9 <= (daemon.put(path, {**body, "ids": ids}).json["bytes"] - bare) / rows <= 1.05 * (10 + 9)
    assert 8 <= (daemon.put(path, {**body, "ttl_seconds": 1e6}).json["bytes"] - bare) / rows <= 1.05 * 8
    for megabytes, dtype in re.findall(r"(\d+) MB as `(\w+)`", text):
        each = sizes[dtype] * 256 + 8 + (8 if dtype == "int8" else 0)
        assert round(each * 100_000 / 1e6) == int(megabytes)


def test_metrics(daemon):
    text = daemon.request("GET", "/metrics").text
    kind = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    rows = [[f"`{name}`", kind[name], meaning] for name, meaning in re.findall(r"^# HELP (\S+) (.*)$", text, re.M)]
    check_rows(page("operating"), sorted(table(page("operating"), "Metrics")), sorted(rows))
    # and none is left out for having nothing to say yet
    header = (ROOT / "server/observe/metrics.h").read_text()
    declared = set(re.findall(r'X\([A-Z_]+,\s*"(\w+)"', header.replace("\\\n", "")))
    assert declared and declared <= {words(row[0])[0] for row in rows}


def log_calls():
    """(level, event, fields) of each LOG(...) of the server."""
    for source in (ROOT / "server").rglob("*.c"):
        text = source.read_text()
        for call in re.finditer(r'\bLOG\([^,]+,\s*LOG_(\w+),\s*"(\w+)"', text):
            end = re.search(r"\);\n", text[call.end():]).start() + call.end()
            yield call[1].lower(), call[2], re.findall(r'\blog_(?:text|integer|number|boolean)\("(\w+)"',
                                                       text[call.end():end])


def test_log_events():
    logged = {event: (level, fields) for level, event, fields in log_calls()}
    rows = {words(row[0])[0]: (row[1], words(row[2])) for row in table(page("operating"), "Log")}
    assert rows == logged


def test_files_of_the_data_folder(start_daemon):
    daemon = start_daemon()
    daemon.put("/v1/memories/m", {"keys": [[1]], "values": [[1]]})
    there = {path.name for path in (daemon.folder / "attentiond-data").iterdir()}
    rows = {words(row[0])[0] for row in table(page("operating"), "Storage")}
    assert there <= rows and rows - there <= {name + "-journal" for name in there}


def test_dashboard_asks_for_metrics_that_exist(daemon):
    known = set(re.findall(r"^# TYPE (\S+)", daemon.request("GET", "/metrics").text, re.M))
    asked = set(re.findall(r"\b(?:attentiond|process)_[a-z_]+", (ROOT / "config/grafana.json").read_text()))
    histograms = {name + suffix for name in known for suffix in ("_bucket", "_sum", "_count")}
    assert asked and asked <= known | histograms, asked - known


# ---- Examples

def environment():
    """Of a reader who has installed the daemon, and has no proxy for this machine."""
    return {**harness.clean_environment({"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}),
            "PATH": f"{Path(harness.binary()).resolve().parent}:{os.environ['PATH']}"}


def run_shell(daemon, text):
    """(statuses, last reply) of the commands."""
    done = subprocess.run(["sh", "-ec", CURL + text.replace(ADDRESS, daemon.url)], cwd=daemon.folder,
                          env=environment(), capture_output=True, text=True, timeout=harness.patience(60))
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    lines = [line for line in done.stdout.splitlines() if line]
    return [int(status) for status in re.findall(r"^(\d{3})$", done.stderr, re.M)], lines[-1] if lines else ""


def alike(shown, got, name=""):
    """To the last digit an answer depends on the processor, and `bytes` on the machine."""
    if isinstance(shown, dict):
        assert list(shown) == list(got), (shown, got)
        for key, value in shown.items():
            alike(value, got[key], key)
    elif isinstance(shown, list):
        assert len(shown) == len(got), (shown, got)
        for one, other in zip(shown, got):
            alike(one, other)
    elif isinstance(shown, (int, float)) and not isinstance(shown, bool) and name != "version":
        assert name == "bytes" or math.isclose(shown, got, rel_tol=1e-6), (shown, got)
    else:
        assert shown == got


def examples(path):
    return [(language, text) for language, text in blocks(path) if language in ("sh", "json", "python")]


@pytest.mark.parametrize("path", filter(examples, PAGES), ids=lambda path: path.name)
def test_examples_run_as_they_stand(path, start_daemon):
    daemon, statuses, last = start_daemon(), [], None
    for language, text in examples(path):
        if language == "json":
            shown, got = json.loads(text), harness.strict_json(last)
            alike(shown, got)
            if statuses[-1] >= 400:
                assert statuses.pop() == shown["status"]
        elif language == "sh":
            assert all(status < 400 for status in statuses), last
            statuses, last = run_shell(daemon, text)
            assert statuses, f"no request: {text}"
        else:
            subprocess.run([sys.executable, "-c", text.replace(ADDRESS, daemon.url)], cwd=daemon.folder,
                           env=environment(), check=True, timeout=harness.patience(60))
    assert all(status < 400 for status in statuses), last


def test_five_requests(start_daemon):
    daemon = start_daemon()
    requests = next(text for language, text in blocks(README) if language == "sh")
    commands = [part for part in re.split(r"\n(?=# \d\.)", requests) if "curl" in part]
    assert len(commands) == 5
    replies = [json.loads(run_shell(daemon, command)[1]) for command in commands]
    shown = next(json.loads(line) for line in README.read_text().splitlines() if line.startswith('    {"memory"'))
    alike(shown, replies[1])
    assert replies[3]["outputs"] == [[30], [0]]
    assert replies[2]["weights"][0][0]["id"] == "east"
    mistake = daemon.post("/v1/memories/compass/attend", {"queries": [[1, 0, 0]]}).json
    text = " ".join(README.read_text().split())
    for member in ("code", "pointer", "detail"):
        assert f'"{member}":{json.dumps(mistake[member])}' in text


def test_python_of_the_readme(start_daemon):
    daemon = start_daemon()
    program = next(text for language, text in blocks(README) if language == "python")
    done = subprocess.run([sys.executable, "-c", program.replace(ADDRESS, daemon.url)], env=environment(),
                          capture_output=True, text=True, check=True, timeout=harness.patience(60))
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d*", done.stdout)]
    np.testing.assert_allclose(numbers, np.sin([1.5, 3.0]), atol=0.02)


def test_inheritance(daemon, memory_name):
    """What the documents say plainly: of score and normalization each that is left out
    is the memory's; `top` leaves out rows of weight 0."""
    path = f"/v1/memories/{memory_name}"
    body = {"keys": [[0], [1], [2]], "values": [[1], [2], [4]]}
    daemon.put(path, {**body, "score": "euclidean", "normalization": "hardmax"})
    reply = daemon.post(path + "/attend", {"queries": [[2]], "score": "gaussian"}).json
    assert reply["weights"] == [[0, 0, 1]], "not the score's default"
    reply = daemon.post(path + "/attend", {"queries": [[2]], "normalization": "none"}).json
    assert reply["weights"] == [[-2, -1, 0]], "not another score"
    reply = daemon.post(path + "/attend", {"queries": [[2]], "weights": {"top": 3}}).json
    assert reply["weights"] == [[{"row": 2, "weight": 1}]]
    reply = daemon.post("/v1/attend", {**body, "queries": [[0]], "score": "boxcar"}).json
    assert reply["weights"] == [[0.5, 0.5, 0]], "the default of the score, without a memory"


def test_make_run_keeps_nothing_on_disk():
    """As README says of it."""
    assert re.search(r"^run:.*\n(?:\t.*\n)*\t.*--config config/demo\.json", (ROOT / "Makefile").read_text(), re.M)
    assert json.loads((ROOT / "config/demo.json").read_text())["data_dir"] == ""
