"""The daemon against FastAPI with PyTorch, over HTTP, with one load client.

All hold the same memories and get the same bytes. There are two services
(service.py): one that does the same job, and a stripped one that checks nothing;
each runs with one worker and with two, and the better one counts, case by case.
The goals are for the one that does the same job. A server that does nothing
(tests/bench/bare_server.c) tells how much of small requests is the way there and
back, which bounds every server. All of it shares the cores with the client.
"""
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import numpy
import orjson

from contestant import normal

MEMORIES = {"small": (1000, 64), "wide": (10000, 768), "long": (100000, 128)}

# name, memory, queries, clients, seconds of a round. With one client the way there
# and back bounds all of them. The batches on the wide memory are bound by the
# products alone, which all of them hand to code close to the machine's limit.
CASES = [("small_1", "small", 1, 1, 1.0),
         ("small_32", "small", 1, 32, 1.0),
         ("batch_1", "wide", 64, 1, 1.5),
         ("batch_32", "wide", 64, 32, 3.0),
         ("large_1", "long", 1, 1, 1.0),
         ("large_32", "long", 1, 32, 2.0)]
GOAL = "> 1"
MEANS = [("small requests, 32 clients", ["small_32"], ">= 10"),
         ("large requests, 32 clients", ["batch_32", "large_32"], ">= 3")]
ROUNDS = 4
WORKERS = (1, 2)
SERVICES = {"FastAPI": "app", "stripped": "stripped"}  # of service.py
TOLERANCE = 1e-4
PATIENCE = 120  # seconds for a server to start: importing torch takes some


def attend_body(memory, batch):
    queries = normal(3, batch, MEMORIES[memory][1])
    return orjson.dumps({"queries": queries, "weights": "none"}, option=orjson.OPT_SERIALIZE_NUMPY)


def attend_request(memory, batch):
    body = attend_body(memory, batch)
    head = (f"POST /v1/memories/{memory}/attend HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
    return head.encode() + body


def safetensors(shape):
    """A memory as the body of a PUT: the length of the header, the header, the tensors."""
    tensors = {"keys": normal(1, *shape), "values": normal(2, *shape)}
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(t.tobytes() for t in tensors.values())


class Server:
    """A server in a process group of its own."""

    def __init__(self, name, command, environment=None, folder=None):
        self.name, self.port = name, None
        self.process = subprocess.Popen(command, env={**os.environ, **(environment or {})},
                                        cwd=folder, start_new_session=True)

    def call(self, method, path, body=None, form="json"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body,
                                         method=method,
                                         headers={"Content-Type": f"application/{form}"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return json.loads(reply.read())

    def wait_until(self, ready):
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start")
            time.sleep(0.05)

    def close(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start_daemon(options, folder):
    port_file = os.path.join(folder, "port")
    server = Server("attentiond", [
        os.path.join(options.build, "attentiond"), "--listen-port", "0", "--port-file", port_file,
        "--data-dir", "", "--threads", str(options.threads), "--log-level", "warning"])
    server.wait_until(lambda: os.path.exists(port_file))
    with open(port_file, encoding="ascii") as file:
        server.port = int(file.read())
    for name, shape in MEMORIES.items():
        server.call("PUT", f"/v1/memories/{name}", safetensors(shape), "x-safetensors")
    return server


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_bare(options, folder, reply_bytes):
    port_file = os.path.join(folder, "bare-port")
    server = Server("bare server", [
        os.path.join(options.build, "tests/bench/bare_server"), "--port-file", port_file,
        "--reply-bytes", str(reply_bytes), "--threads", str(options.threads)])
    server.wait_until(lambda: os.path.exists(port_file) and os.path.getsize(port_file))
    with open(port_file, encoding="ascii") as file:
        server.port = int(file.read())
    return server


def start_service(options, name, workers):
    port = free_port()
    memories = ",".join(f"{name}:{m}x{d}" for name, (m, d) in MEMORIES.items())
    server = Server(
        f"{name} x {workers}",
        [sys.executable, "-m", "uvicorn", f"service:{SERVICES[name]}", "--host", "127.0.0.1", "--port", str(port),
         "--workers", str(workers), "--log-level", "warning", "--no-access-log"],
        {"PEER_MEMORIES": memories, "PEER_THREADS": str(max(1, options.threads // workers))},
        os.path.dirname(os.path.abspath(__file__)))
    server.port = port
    seen = set()

    def all_answer():
        try:
            seen.add(server.call("GET", "/healthz")["process"])
        except OSError:
            pass
        return len(seen) == workers

    server.wait_until(all_answer)
    return server


def check(servers):
    """They all have to answer the same, or their rates mean nothing."""
    for memory in MEMORIES:
        outputs = [numpy.array(server.call("POST", f"/v1/memories/{memory}/attend",
                                           attend_body(memory, 3))["outputs"])
                   for server in servers]
        for server, output in zip(servers, outputs):
            error = numpy.abs(output - outputs[0]).max()
            if error > TOLERANCE:
                raise RuntimeError(f"{server.name} differs from {servers[0].name} by {error}")


def check_refusals(server):
    """What the daemon refuses, a server that does the same job refuses too."""
    query = [0.5] * MEMORIES["small"][1]
    bad = [{"queries": [query], "weight": "none"}, {"queries": [query, query[1:]]},
           {"queries": [["1"] + query[1:]]}, {"queries": [[1e39] + query[1:]]},
           {"queries": [[None] + query[1:]]}, {"queries": []}, {"weights": "none"}]
    for body in bad:
        try:
            server.call("POST", "/v1/memories/small/attend", orjson.dumps(body))
        except urllib.error.HTTPError as refusal:
            if refusal.code in (400, 422):
                continue
        raise RuntimeError(f"{server.name} took {body}")


def load(options, server, request_file, clients, seconds):
    command = [os.path.join(options.build, "tests/bench/load"), "--port", str(server.port),
               "--request", request_file, "--connections", str(clients),
               "--warm-up", str(seconds / 4), "--seconds", str(seconds)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def ratio_to(rounds, names):
    """Ours to the better one of them, round by round."""
    return statistics.median(r["attentiond"]["rate"] / max(r[name]["rate"] for name in names)
                             for r in rounds)


def measure_case(report, options, servers, case, folder):
    name, memory, batch, clients, seconds = case
    request_file = os.path.join(folder, name)
    with open(request_file, "wb") as file:
        file.write(attend_request(memory, batch))
    servers = [s for s in servers if memory == "small" or s.name != "bare server"]
    rounds = []
    for _ in range(1 if options.quick else ROUNDS):
        rounds.append({server.name: load(options, server, request_file, clients,
                                         seconds / 10 if options.quick else seconds)
                       for server in servers})
    shape = "{} x {}".format(*MEMORIES[memory])
    inputs = f"B = {batch}, {shape}, {clients} client{'s' if clients > 1 else ''}"
    rates = {}
    for server in servers:
        for what, unit, factor in (("rate", "requests/s", 1), ("p50", "ms", 1e3), ("p99", "ms", 1e3)):
            value = statistics.median(r[server.name][what] for r in rounds) * factor
            report.add(f"http_{name}_{what}", f"{inputs}, {server.name}", value, unit)
            if what == "rate":
                rates[server.name] = f"{value:.1f}"
    ratios = {service: ratio_to(rounds, [f"{service} x {workers}" for workers in WORKERS])
              for service in SERVICES}
    for service, ratio in ratios.items():
        report.add(f"http_{name}_ratio", f"{inputs}, {service}", ratio, "ours/theirs", GOAL)
    if memory == "small":
        report.add(f"http_{name}_bound", inputs, ratio_to(rounds, ["bare server"]), "ours/bare")
    report.row(inputs, *rates.values(), *[""] * (6 - len(rates)),
               *(f"{ratio:.2f}" for ratio in ratios.values()))
    return ratios


def measure(report, options):
    servers = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            servers.append(start_daemon(options, folder))
            for service in SERVICES:
                for workers in WORKERS:
                    servers.append(start_service(options, service, workers))
            check(servers)
            for server in servers:
                if not server.name.startswith("stripped"):
                    check_refusals(server)
            reply = servers[0].call("POST", "/v1/memories/small/attend", attend_body("small", 1))
            servers.append(start_bare(options, folder, len(orjson.dumps(reply))))
            report.title("requests/s over HTTP; client and servers share the cores")
            report.row("", *(server.name for server in servers),
                       *(f"to {service}" for service in SERVICES))
            ratios = {case[0]: measure_case(report, options, servers, case, folder)
                      for case in CASES}
            for service in SERVICES:
                for what, cases, goal in MEANS:
                    mean = statistics.geometric_mean(ratios[case][service] for case in cases)
                    report.line("http_ratio_geomean", f"{what}, {service}", mean, "ours/theirs",
                                goal if service == "FastAPI" else GOAL)
        finally:
            for server in servers:
                server.close()
