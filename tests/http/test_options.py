"""Options: file, environment and flags, what is refused at start and with what
words, memories that are loaded at start, and the flags that don't serve."""

import json
import re
import socket
import time

import pytest

import harness
from harness import run_daemon

REPOSITORY = harness.REPOSITORY
OPTIONS = {
    name: (kind, default, least, most)
    for name, kind, default, least, most in re.findall(
        r'X\((\w+),\s*(TEXT|INTEGER|BOOLEAN|CHOICE|JSON),\s*"([^"]*)",\s*(\d+),\s*("[^"]*"|\d+),',
        (REPOSITORY / "server/options.h").read_text().replace("\\\n", ""),
    )
}
INTEGERS = [name for name, option in OPTIONS.items() if option[0] == "INTEGER"]
CHOICES = [name for name, option in OPTIONS.items() if option[0] == "CHOICE"]


def flag(name):
    return "--" + name.replace("_", "-")


def variable(name):
    return "ATTENTIOND_" + name.upper()


def refused(result, *words):
    """It didn't start and said why in one line."""
    assert result.returncode not in (0, None) and result.returncode > 0, result
    said = (result.stderr + result.stdout).strip()
    assert said and "\n" not in said, f"not one line: {said}"
    for word in words:
        assert str(word) in said, said
    return True


def printed(*flags, env=None, cwd=None):
    result = run_daemon(*flags, "--print-config", env=env, cwd=cwd)
    assert result.returncode == 0, result
    return json.loads(result.stdout)


def write(folder, name, text):
    path = folder / name
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


# ---- flags that don't serve

def test_help_lists_every_option():
    assert len(OPTIONS) >= 18
    result = run_daemon("--help")
    assert result.returncode == 0 and result.stderr == ""
    for name, (kind, default, _, most) in OPTIONS.items():
        lines = [line for line in result.stdout.splitlines() if re.search(rf"(?<!\S){flag(name)}\b(?!-)", line)]
        assert lines, f"{flag(name)} is not in --help"
        start = result.stdout.index(lines[0])
        entry = re.split(r"\n\s*--", result.stdout[start:].lstrip(" -"))[0]
        if kind in ("INTEGER", "CHOICE") or (kind == "TEXT" and default):
            assert default in entry, f"the default of {name} is not in {entry!r}"
        if kind == "CHOICE":
            assert all(choice in entry for choice in most.strip('"').split("|")), entry
    for word in ("--config", "--check-config", "--print-config", "--version", "--healthcheck", "--help",
                 "ATTENTIOND_"):
        assert word in result.stdout
    assert run_daemon("-h").stdout == result.stdout


def test_version():
    header = (REPOSITORY / "lib/attention.h").read_text()
    version = re.search(r'ATTN_VERSION_STRING "([^"]+)"', header).group(1)
    result = run_daemon("--version")
    assert result.returncode == 0 and version in result.stdout and len(result.stdout.splitlines()) == 1


def test_print_config_has_defaults_and_can_be_given_back(tmp_path):
    config = printed()
    assert set(OPTIONS) <= set(config)
    for name, (kind, default, _, _) in OPTIONS.items():
        if kind == "INTEGER":
            assert config[name] == int(default) and type(config[name]) is int
        elif kind == "BOOLEAN":
            assert config[name] is (default == "true")
        elif kind == "JSON":
            assert config[name] == json.loads(default)
        else:
            assert config[name] == default
    changed = printed("--threads", 3, "--log-format=text", "--insecure", "--port-file", 'a "b"\\c\u00fc',
                      "--memories", '[{"name":"m","file":"m.json"}]')
    assert changed["threads"] == 3 and changed["insecure"] is True
    assert changed["memories"] == [{"name": "m", "file": "m.json"}]
    path = write(tmp_path, "c.json", changed)
    assert printed("--config", path) == changed


def test_check_config(tmp_path):
    good = write(tmp_path, "good.json", {"listen_port": 0, "threads": 2, "log_level": "warning"})
    result = run_daemon("--config", good, "--check-config")
    assert result.returncode == 0, result
    bad = write(tmp_path, "bad.json", {"listen_port": 0, "threads": -2})
    assert refused(run_daemon("--config", bad, "--check-config"), "threads", "-2")


# ---- precedence

def test_file_then_environment_then_flags(tmp_path):
    path = write(tmp_path, "c.json", {"threads": 2, "max_queue": 22, "idle_timeout": 222, "log_level": "error",
                                      "insecure": True})
    env = {"ATTENTIOND_MAX_QUEUE": "33", "ATTENTIOND_IDLE_TIMEOUT": "333", "ATTENTIOND_LOG_LEVEL": "debug"}
    config = printed("--config", path, "--idle-timeout", 444, env=env)
    assert (config["threads"], config["max_queue"], config["idle_timeout"]) == (2, 33, 444)
    assert (config["log_level"], config["insecure"]) == ("debug", True)
    assert printed("--idle-timeout", 5, "--config", path)["idle_timeout"] == 5, "wherever --config stands"


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_from_every_source(tmp_path, name):
    kind, default, least, most = OPTIONS[name]
    if kind == "INTEGER":
        value = str(int(least) + (2000 if int(most) > 4000 else 3))
    elif kind == "CHOICE":
        value = next(choice for choice in most.strip('"').split("|") if choice != default)
    else:
        value = {"BOOLEAN": "true", "TEXT": "127.0.0.3", "JSON": '[{"name":"x","file":"x.json"}]'}[kind]
    want = json.loads(value) if kind in ("INTEGER", "BOOLEAN", "JSON") else value
    assert printed(flag(name), value)[name] == want
    assert printed(f"{flag(name)}={value}")[name] == want
    assert printed(env={variable(name): value})[name] == want
    assert printed("--config", write(tmp_path, "c.json", {name: want}))[name] == want


def test_boolean_flag_alone_and_said():
    assert printed("--insecure")["insecure"] is True
    assert printed("--insecure", "--threads", 4)["threads"] == 4
    assert printed("--insecure=false")["insecure"] is False
    assert printed("--insecure=false", env={"ATTENTIOND_INSECURE": "true"})["insecure"] is False


# ---- refusals

def test_unknown_options(tmp_path):
    assert refused(run_daemon("--listen-prot", 1), "listen-prot")
    assert refused(run_daemon("--listen_port_", 1))
    assert refused(run_daemon("-x"), "-x")
    assert refused(run_daemon("serve"), "serve")
    path = write(tmp_path, "c.json", {"listen_port": 0, "treads": 1})
    assert refused(run_daemon("--config", path), "treads")


@pytest.mark.parametrize("name", INTEGERS)
def test_out_of_range(name, tmp_path):
    _, _, least, most = OPTIONS[name]
    for value in (int(least) - 1, int(most) + 1, 2**63, -(2**63), 10**30):
        assert refused(run_daemon(f"{flag(name)}={value}", "--check-config")), value
    beyond = int(most) + 1
    said = run_daemon(flag(name), beyond, "--check-config")
    assert re.search(name.replace("_", "[-_]"), said.stderr + said.stdout) and refused(said, beyond, most)
    for word in ("", "1x", "x", "1.5", "0x10", "1e3", " 5", "--threads"):
        assert refused(run_daemon(f"{flag(name)}={word}", "--check-config")), word
    assert refused(run_daemon("--check-config", env={variable(name): str(beyond)}), beyond)
    for value in (beyond, 1.5, None, [], "x", True):
        path = write(tmp_path, "c.json", {name: value})
        assert refused(run_daemon("--config", path, "--check-config"), name), value


@pytest.mark.parametrize("name", CHOICES)
def test_bad_choice(name):
    for word in ("", "loud", OPTIONS[name][1].upper()):
        result = run_daemon(f"{flag(name)}={word}", "--check-config")
        assert refused(result, *OPTIONS[name][3].strip('"').split("|")), word


def test_bad_boolean_and_missing_value(tmp_path):
    assert refused(run_daemon("--insecure=perhaps", "--check-config"), "perhaps")
    assert refused(run_daemon("--check-config", env={"ATTENTIOND_INSECURE": "2"}))
    assert refused(run_daemon("--listen-port"), "listen")
    assert refused(run_daemon("--config"), "config")
    assert refused(run_daemon("--memories", "{", "--check-config"), "memories")
    assert refused(run_daemon("--memories", "{}", "--check-config"), "memories")


@pytest.mark.parametrize("text, words", [
    ("", ()), ("[]", ()), ("{", ()), ('{"threads":1,}', ()), ('{"threads":1,"threads":2}', ("threads",)),
    ('{\n "threads": 1,\n "log_level" "info"\n}', ("3",)), ("\xff", ()),
])
def test_bad_config_file(tmp_path, text, words):
    path = tmp_path / "broken.json"
    path.write_bytes(text.encode("latin-1"))
    assert refused(run_daemon("--config", path, "--check-config"), "broken.json", *words)


def test_config_file_that_is_not_there(tmp_path):
    assert refused(run_daemon("--config", tmp_path / "none.json"), "none.json")
    assert refused(run_daemon("--config", tmp_path), str(tmp_path))


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.1.2.3", "169.254.1.1", "::ffff:10.0.0.1"])
def test_beyond_loopback_is_refused(address):
    assert refused(run_daemon("--listen-address", address, "--listen-port", 0), "insecure", address)


@pytest.mark.parametrize("address", ["localhost", "", "127.0.0", "1.2.3.4.5", "nowhere.example", "127.0.0.1:80"])
def test_address_has_to_be_numeric(address):
    assert refused(run_daemon("--listen-address", address, "--listen-port", 0))


def test_beyond_loopback_with_insecure(start_daemon):
    daemon = start_daemon("--listen-address", "0.0.0.0", "--insecure")
    assert daemon.get("/readyz").status == 200


def test_other_loopback_address(start_daemon):
    daemon = start_daemon("--listen-address", "127.0.0.2", wait_ready=False)

    def ready():
        try:
            with harness.Client(daemon.port, host="127.0.0.2") as client:
                return client.request("GET", "/readyz").status == 200
        except OSError:
            return False

    assert harness.wait_until(ready, 20, "127.0.0.2")
    with pytest.raises(OSError):
        daemon.get("/readyz")


def test_ipv6_loopback(start_daemon):
    try:
        socket.socket(socket.AF_INET6).bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    daemon = start_daemon("--listen-address", "::1", wait_ready=False)

    def ready():
        try:
            with harness.Client(daemon.port, host="::1") as client:
                return client.request("GET", "/readyz").status == 200
        except OSError:
            return False

    assert harness.wait_until(ready, 20, "::1")


def test_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run_daemon("--listen-port", port, "--log-level", "error")
        assert refused(result, port)


def test_port_file_has_the_port(start_daemon):
    daemon = start_daemon()
    assert daemon.port_file.read_text().strip() == str(daemon.port)
    listening = [line for line in daemon.log_lines() if line["event"] == "listening"]
    assert len(listening) == 1 and listening[0]["port"] == daemon.port


def test_port_file_that_can_not_be_written(tmp_path):
    result = run_daemon("--listen-port", 0, "--port-file", tmp_path / "no" / "port", "--log-level", "error")
    assert refused(result, "port")


def test_text_log(start_daemon):
    daemon = start_daemon("--log-format", "text")
    assert "listening" in daemon.log() and not daemon.log().startswith("{")


# ---- healthcheck

def test_healthcheck(start_daemon):
    daemon = start_daemon()
    assert run_daemon("--healthcheck", "--listen-port", daemon.port).returncode == 0
    assert run_daemon("--healthcheck", env={"ATTENTIOND_LISTEN_PORT": str(daemon.port)}).returncode == 0
    assert daemon.stop() == 0
    assert run_daemon("--healthcheck", "--listen-port", daemon.port).returncode == 1


def test_healthcheck_of_something_else():
    """A listener that never answers is not healthy, and is not waited for long."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        def attempt():
            start = time.monotonic()
            assert run_daemon("--healthcheck", "--listen-port", silent.getsockname()[1]).returncode == 1
            return time.monotonic() - start

        harness.in_time(20, attempt)


# ---- memories at start

CSV = "a,b,label,name\n0,16,1,x\n16,0,0,y\n8,8,2,z\n4,4,2,w\n"
SPEC = {"name": "csv", "file": "table.csv", "rows": [0, 3], "keys": {"columns": [0, 2], "scale": 0.0625},
        "values": {"columns": [2, 3], "one_hot": 3}, "ids": {"column": 3}, "score": {"type": "gaussian", "sigma": 0.5},
        "normalization": "softmax"}
NUMBERS = CSV.replace(",x", ",10").replace(",y", ",11").replace(",z", ",12").replace(",w", ",13")


def test_memories_from_csv_and_json(start_daemon, tmp_path):
    """Relative paths start at the configuration file's folder."""
    write(tmp_path, "table.csv", NUMBERS)
    body = {"keys": [[1, 2], [3, 4]], "values": [[5], [6]], "ids": ["p", "q"], "score": "dot"}
    write(tmp_path, "whole.json", body)
    memories = [SPEC, {"name": "json", "file": "whole.json", "normalization": "hardmax"},
                {"name": "plain", "file": str(tmp_path / "table.csv"), "keys": {"columns": [0, 2]},
                 "values": {"columns": [0, 3]}}]
    path = write(tmp_path, "c.json", {"memories": memories})
    assert run_daemon("--config", path, "--check-config").returncode == 0
    daemon = start_daemon("--config", path)
    metas = {meta["name"]: meta for meta in daemon.get("/v1/memories").json["memories"]}
    assert set(metas) == {"csv", "json", "plain"}
    assert (metas["csv"]["rows"], metas["csv"]["key_dim"], metas["csv"]["value_dim"]) == (3, 2, 3)
    assert metas["csv"]["score"] == {"type": "gaussian", "sigma": 0.5}
    assert metas["csv"]["normalization"]["type"] == "softmax"
    assert metas["json"]["score"] == {"type": "dot"}
    assert metas["json"]["normalization"] == {"type": "hardmax"}
    assert (metas["plain"]["rows"], metas["plain"]["value_dim"]) == (4, 3)
    ask = {"queries": [[0, 1], [1, 0], [0.5, 0.5]], "score": "exact", "normalization": "sum", "weights": {"top": 1}}
    reply = daemon.post("/v1/memories/csv/attend", ask).json
    assert reply["outputs"] == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert [entry[0]["id"] for entry in reply["weights"]] == ["10", "11", "12"]
    reply = daemon.post("/v1/memories/json/attend", {"queries": [[1, 1]], "weights": {"top": 1}}).json
    assert reply["outputs"] == [[6]] and reply["weights"][0][0]["id"] == "q"
    ask = {"queries": [[16, 0]], "score": "exact", "normalization": "sum"}
    assert daemon.post("/v1/memories/plain/attend", ask).json["outputs"] == [[16, 0, 0]]


def test_ids_of_any_text(start_daemon, tmp_path):
    """Ids in a CSV need not be numbers."""
    write(tmp_path, "table.csv", CSV)
    daemon = start_daemon("--config", write(tmp_path, "c.json", {"memories": [SPEC]}))
    ask = {"queries": [[0, 1]], "score": "exact", "weights": {"top": 1}}
    assert daemon.post("/v1/memories/csv/attend", ask).json["weights"][0][0]["id"] == "x"


def test_csv_without_header_and_last_newline(start_daemon, tmp_path):
    write(tmp_path, "n.csv", "1,2\r\n3,4\r\n-5.5e0,6")
    memory = {"name": "m", "file": "n.csv", "keys": {"columns": [0, 1]}, "values": {"columns": [1, 2]}}
    daemon = start_daemon("--config", write(tmp_path, "c.json", {"memories": [memory]}))
    ask = {"queries": [[-5.5], [1]], "score": "exact", "normalization": "sum", "weights": "none"}
    reply = daemon.post("/v1/memories/m/attend", ask)
    assert reply.json["outputs"] == [[6], [2]]


PLAIN = {"name": "m", "file": "t.csv", "keys": {"columns": [0, 1]}, "values": {"columns": [1, 2]}}


@pytest.mark.parametrize("memory, text, words", [
    (PLAIN, "1,2\n3,x\n", ("t.csv", "2")),
    (PLAIN, "1,2\n3\n", ("t.csv", "2")),
    (PLAIN, "1,2\n3,1e39\n", ("t.csv", "2")),
    (PLAIN, "1,2\n3,nan\n", ("t.csv", "2")),
    (PLAIN, "1,2\n3,inf\n", ("t.csv", "2")),
    (PLAIN, "", ("t.csv",)),
    (PLAIN, "a,b\n", ("t.csv",)),
    (PLAIN, None, ("t.csv",)),
    ({**PLAIN, "rows": [0, 5]}, "1,2\n3,4\n", ("t.csv",)),
    ({**PLAIN, "values": {"columns": [1, 3]}}, "1,2\n3,4\n", ("t.csv",)),
    ({**PLAIN, "values": {"columns": [1, 2], "one_hot": 3}}, "1,2\n1,3\n", ("t.csv", "2")),
    ({**PLAIN, "values": {"columns": [1, 2], "one_hot": 3}}, "1,2\n1,0.5\n", ("t.csv", "2")),
    ({**PLAIN, "ids": {"column": 0}}, "1,2\n1,3\n", ("t.csv",)),
    ({"name": "m", "file": "t.json"}, '{"keys":[[1],[2]],"values":[[1],["x"]]}', ("t.json", "/values/1/0")),
    ({"name": "m", "file": "t.json"}, '{"keys":[[1],[2]],', ("t.json",)),
    ({"name": "m", "file": "t.json"}, '{"keys":[[1],[2]],"values":[[1],[2]],"colour":1}', ("t.json", "colour")),
    ({"name": "m", "file": "t.json", "score": {"type": "bilinear", "w": [[1, 2]]}},
     '{"keys":[[1],[2]],"values":[[1],[2]]}', ("m",)),
])
def test_faulty_memory_file_stops_the_start(tmp_path, memory, text, words):
    if text is not None:
        write(tmp_path, memory["file"], text)
    path = write(tmp_path, "c.json", {"listen_port": 0, "log_level": "error", "memories": [memory]})
    assert refused(run_daemon("--config", path), *words)


@pytest.mark.parametrize("memory, words", [
    ({"file": "t.csv"}, ("name",)),
    ({"name": "m"}, ("file",)),
    ({**PLAIN, "name": "../m"}, ("name",)),
    ({**PLAIN, "name": ".m"}, ()),
    ({**PLAIN, "kyes": {}}, ("kyes",)),
    ({**PLAIN, "file": "t.parquet"}, ("file", ".csv")),
    ({**PLAIN, "keys": {"columns": [1, 1]}}, ("columns",)),
    ({**PLAIN, "keys": {"columns": [2, 1]}}, ("columns",)),
    ({**PLAIN, "keys": {"columns": [-1, 1]}}, ("columns",)),
    ({**PLAIN, "keys": {"colums": [0, 1]}}, ("colums",)),
    ({**PLAIN, "score": "gausian"}, ("gausian",)),
    ({**PLAIN, "score": {"type": "gaussian", "sigma": 0}}, ("sigma",)),
    ({**PLAIN, "normalization": "sun"}, ("sun",)),
    ({"name": "m", "file": "t.json", "rows": [0, 1]}, ("rows",)),
    (3, ()),
])
def test_faulty_memories_are_found_without_the_files(tmp_path, memory, words):
    path = write(tmp_path, "c.json", {"memories": [memory]})
    assert refused(run_daemon("--config", path, "--check-config"), *words)


def test_two_memories_of_one_name(tmp_path):
    write(tmp_path, "t.csv", "1,2\n")
    path = write(tmp_path, "c.json", {"listen_port": 0, "memories": [PLAIN, PLAIN]})
    assert refused(run_daemon("--config", path, "--log-level", "error"), "m")
