"""What operators look at: health, HEAD, metrics in Prometheus' strict form, and
the log."""

import json
import re

import pytest

import harness

PAIR = {"keys": [[1, 0], [0, 1]], "values": [[1], [2]]}


def test_health(daemon):
    for path in ("/healthz", "/readyz"):
        reply = daemon.get(path)
        assert reply.status == 200, reply
        assert reply.headers["Content-Type"].split(";")[0] in ("application/json", "text/plain")


def test_headers_of_every_reply(daemon):
    for path in ("/healthz", "/v1/memories", "/nothing"):
        reply = daemon.get(path)
        assert int(reply.headers["Content-Length"]) == len(reply.body)
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", reply.headers["Date"])
        assert not reply.headers.get("Server") or "microhttpd" not in reply.headers["Server"].lower()


def test_head(daemon, memory_name):
    path = f"/v1/memories/{memory_name}"
    daemon.put(path, PAIR)
    for where in ("/healthz", "/readyz", "/openapi.json", "/v1/memories", path):
        got, head = daemon.get(where), daemon.request("HEAD", where)
        assert (head.status, head.body) == (got.status, b"")
        assert head.headers["Content-Length"] == got.headers["Content-Length"]
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
        assert head.headers.get("ETag") == got.headers.get("ETag")
    assert daemon.request("HEAD", "/metrics").status == 200
    missing = daemon.request("HEAD", "/v1/memories/not-there")
    assert (missing.status, missing.body) == (404, b"")
    with daemon.client() as client:  # the connection is still in step afterwards
        assert client.request("HEAD", path).body == b""
        assert client.request("GET", path).json["name"] == memory_name


# ---- metrics

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)?\}})? (\S+)")


def parse_metrics(text):
    """{family: (kind, {(name, labels): value})}, or an AssertionError where
    the exposition format 0.0.4 is broken."""
    assert text.endswith("\n") and "\r" not in text and "\n\n" not in text
    families, current, helped = {}, None, set()
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in helped, f"two HELP lines of {name}"
            assert len(line.split(" ", 3)) == 4 and line.split(" ", 3)[3]
            helped.add(name)
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("counter", "gauge", "histogram", "summary", "untyped")
            assert name not in families, f"two TYPE lines of {name}"
            assert name in helped, f"no HELP of {name}"
            families[name], current = (kind, {}), name
            continue
        match = SAMPLE.fullmatch(line)
        assert match, f"not a sample: {line!r}"
        name, labels, value = match.groups()
        kind, samples = families[current]
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        assert name in [current + ending for ending in endings], f"{name} stands among {current}"
        labels = tuple(sorted(re.findall(LABEL, labels or "")))
        assert len({label.split("=")[0] for label in labels}) == len(labels)
        assert (name, labels) not in samples, f"two samples {line!r}"
        samples[name, labels] = float(value.replace("Inf", "inf"))
        if kind == "counter":
            assert name.endswith("_total") and samples[name, labels] >= 0
    for name, (kind, samples) in families.items():
        if kind == "histogram":
            check_histogram(name, samples)
    return families


def check_histogram(name, samples):
    series = {}
    for (sample, labels), value in samples.items():
        if sample == name + "_bucket":
            bound = [label for label in labels if label.startswith("le=")]
            rest = tuple(label for label in labels if not label.startswith("le="))
            series.setdefault(rest, []).append((float(bound[0][4:-1].replace("Inf", "inf")), value))
    assert series
    for rest, buckets in series.items():
        bounds, counts = zip(*buckets)
        assert list(bounds) == sorted(bounds) and bounds[-1] == float("inf")
        assert list(counts) == sorted(counts), "buckets are cumulative"
        assert samples[name + "_count", rest] == counts[-1]
        assert samples[name + "_sum", rest] >= 0


def total(families, name, *labels):
    """The sum of a counter's samples that have all `labels`."""
    kind, samples = families[name]
    return sum(value for (_, have), value in samples.items() if set(labels) <= set(have))


def observed(families, name):
    """How many observations a histogram has, over all its labels."""
    return sum(value for (sample, _), value in families[name][1].items() if sample == name + "_count")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A daemon whose counters nobody else moves."""
    daemon = harness.Daemon(tmp_path_factory.mktemp("own"))
    yield daemon
    daemon.assert_healthy_end()


def scrape(daemon):
    reply = daemon.get("/metrics")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return parse_metrics(reply.text)


def test_metrics_names(own):
    """All that server/observe/metrics.h declares, and what Prometheus expects
    of any process."""
    header = (harness.REPOSITORY / "server/observe/metrics.h").read_text()
    declared = re.findall(r'X\([A-Z_]+,\s*"(attentiond_\w+)",\s*(COUNTER|GAUGE)', header)
    histograms = re.findall(r'X\([A-Z_]+,\s*"(attentiond_\w+)",\s*"', header)
    assert len(declared) >= 12 and len(histograms) >= 2
    families = scrape(own)
    for name, kind in declared:
        assert families[name][0] == kind.lower()
    for name in histograms:
        assert families[name][0] == "histogram"
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds",
                 "process_start_time_seconds"):
        assert total(families, name) > 0, name
    assert families["attentiond_requests_total"][0] == "counter"
    info = families["attentiond_build_info"][1]
    assert list(info.values()) == [1] and any("version=" in label for label in list(info)[0][1])


def test_metrics_move(own):
    own.put("/v1/memories/m", {**PAIR, "ids": ["a", "b"]})
    before = scrape(own)
    body = {"queries": [[1, 1]] * 5}
    for _ in range(3):
        assert own.post("/v1/memories/m/attend", body).status == 200
    assert own.get("/v1/memories/none").status == 404
    assert own.post("/v1/memories/m/attend", "{").status == 400
    assert own.get("/no/such/route").status == 404

    def counted():
        """A request is counted once its reply has gone out, so a little later, and by
        the thread that has its connection."""
        now = scrape(own)
        least = {'operation="attend"': 4, 'status="404"': 2}
        return all(total(now, "attentiond_requests_total", label)
                   - total(before, "attentiond_requests_total", label) >= count
                   for label, count in least.items()) and now

    after = harness.wait_until(counted, 5, "all requests to be counted")

    def grown(name, *labels):
        return total(after, name, *labels) - total(before, name, *labels)

    assert grown("attentiond_queries_total") == 15
    assert grown("attentiond_scores_total") == 30
    assert grown("attentiond_requests_total", 'status="200"') >= 3
    assert grown("attentiond_requests_total", 'status="404"') == 2
    assert grown("attentiond_requests_total", 'status="400"') == 1
    assert grown("attentiond_requests_total", 'operation="none"') == 1
    assert grown("attentiond_received_bytes_total") >= 3 * len(json.dumps(body))
    assert grown("attentiond_sent_bytes_total") > 100
    for name, least in (("attentiond_request_seconds", 6), ("attentiond_attend_seconds", 3)):
        assert observed(after, name) - observed(before, name) >= least, name
    assert total(after, "attentiond_memories") == 1
    assert total(after, "attentiond_memory_rows") == 2
    assert total(after, "attentiond_memory_bytes") >= 4 * 6
    # The scrape itself, and never for long the one before it.
    harness.wait_until(lambda: total(scrape(own), "attentiond_requests_in_flight") <= 1, 5, "requests to end")
    own.delete("/v1/memories/m")
    gone = scrape(own)
    assert total(gone, "attentiond_memories") == total(gone, "attentiond_memory_rows") == 0
    for name, (kind, samples) in after.items():
        if kind in ("counter", "histogram"):
            for key, value in samples.items():
                assert gone[name][1][key] >= value, f"{key} went back"


def test_memories_give_their_ram_back(own):
    """The gauge of bytes is 0 after all is deleted, whatever came between."""
    for meta in own.get("/v1/memories").json["memories"]:
        own.delete("/v1/memories/" + meta["name"])
    for number in range(20):
        own.put(f"/v1/memories/m{number % 3}", {"keys": [[1] * 50] * 200, "values": [[1]] * 200})
    for number in range(3):
        assert own.delete(f"/v1/memories/m{number}").status == 204
    families = scrape(own)
    assert total(families, "attentiond_memory_bytes") == 0
    assert total(families, "attentiond_memories") == 0


# ---- log

def test_log_lines(start_daemon):
    daemon = start_daemon()
    daemon.put("/v1/memories/logged", PAIR)
    daemon.post("/v1/memories/logged/attend", {"queries": [[1, 2]]})
    daemon.get("/v1/memories/logged%0aforged-line")
    daemon.request("GET", "/v1/memories/x", headers={"User-Agent": 'quote" \\ \x7f'})
    assert daemon.stop() == 0
    lines = daemon.log_lines()
    assert daemon.log().endswith("\n")
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]), line
        assert line["level"] in ("debug", "info", "warning", "error")
        assert re.fullmatch(r"[a-z][a-z0-9_]*", line["event"]), line
        assert all(not isinstance(value, (dict, list)) for value in line.values()), line
    requests = [line for line in lines if line["level"] == "debug" and 200 in line.values() or 201 in line.values()]
    assert requests, "no line of a request at debug"
    assert any("attend" in str(line) and 200 in line.values() for line in requests)
    times = [line["time"] for line in lines]
    assert times == sorted(times)


def test_log_level(start_daemon):
    quiet = start_daemon("--log-level", "info")
    quiet.get("/healthz")
    quiet.get("/nothing")
    quiet.post("/v1/attend", "{")
    assert quiet.stop() == 0
    lines = quiet.log_lines()
    assert all(line["level"] != "debug" for line in lines)
    assert len(lines) < 10, "requests are logged at info"
    silent = start_daemon("--log-level", "error")
    silent.get("/healthz")
    assert silent.stop() == 0
    assert silent.log() == ""
