"""The documents against the program: README's tables name exactly the scores,
normalizations, parameters, options and routes that there are, its requests work
as they stand, and the Grafana dashboard asks for metrics that exist."""

import json
import re
import subprocess

import numpy as np

import harness

ROOT = harness.DATA.parent.parent
README = (ROOT / "README.md").read_text()


def table(heading):
    """The rows of the first table below a heading, as lists of cells."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def words(cell):
    return re.findall(r"`([^`]+)`", cell)


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
    check_kinds(table("Scores"), kinds(daemon, "Score"))


def test_default_normalizations(daemon, memory_name):
    for row in table("Scores"):
        name = words(row[0])[0]
        tensors = {"bilinear": {"w": [[1]]}, "additive": {"w_q": [[1]], "w_k": [[1]], "v": [1]}}
        meta = daemon.put(f"/v1/memories/{memory_name}",
                          {"key_dim": 1, "value_dim": 1,
                           "score": {"type": name, **tensors.get(name, {})}}).json
        assert [meta["normalization"]["type"]] == words(row[3]), name


def test_normalizations(daemon):
    check_kinds(table("Normalizations"), kinds(daemon, "Normalization"))


def test_options():
    config = json.loads(harness.run_daemon("--print-config").stdout)
    rows = table("Configuration")
    assert [words(row[0])[0] for row in rows] == list(config)
    helped = " ".join(harness.run_daemon("--help").stdout.split())
    for row in rows:
        name = words(row[0])[0]
        default = config[name]
        shown = json.dumps(default) if not isinstance(default, str) else default
        assert words(row[1]) == ([shown] if shown else []), name
        assert "--" + name.replace("_", "-") in helped


def test_routes(daemon):
    document = daemon.request("GET", "/openapi.json").json
    actual = {(method.upper(), path.replace("{name}", "NAME"))
              for path, item in document["paths"].items() for method in item}
    named = {tuple(request.split(" ")) for row in table("The API") for request in words(row[0])}
    assert named == actual


def test_requests_work_as_they_stand(start_daemon):
    daemon = start_daemon()
    block = README.split("```sh\n", 1)[1].split("```", 1)[0]
    script = block.replace("http://127.0.0.1:8080", daemon.url).replace("curl ", "curl -sS --fail-with-body ")
    commands = [part for part in re.split(r"\n(?=# \d\.)", script) if "curl" in part]
    assert len(commands) == 5
    replies = []
    for command in commands:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=harness.patience(30))
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        replies.append(done.stdout)
    shown = next(json.loads(line) for line in README.splitlines() if line.startswith('    {"memory":"compass"'))
    got = json.loads(replies[1])  # to the last digit it depends on the processor
    assert list(got) == list(shown) and (got["memory"], got["version"]) == (shown["memory"], shown["version"])
    for member in ("outputs", "weights"):
        np.testing.assert_allclose(got[member], shown[member], rtol=1e-6)
    assert json.loads(replies[3])["outputs"] == [[30], [0]]
    assert json.loads(replies[2])["weights"][0][0]["id"] == "east"


def test_dashboard_asks_for_metrics_that_exist(daemon):
    known = set(re.findall(r"^# TYPE (\S+)", daemon.request("GET", "/metrics").text, re.M))
    asked = set(re.findall(r"\b(?:attentiond|process)_[a-z_]+", (ROOT / "config/grafana.json").read_text()))
    histograms = {name + suffix for name in known for suffix in ("_bucket", "_sum", "_count")}
    assert asked and asked <= known | histograms, asked - known
