"""What `make install` puts where, and that a stranger can use it: a program
built outside of the tree through pkg-config, the daemon under its own name,
the files that describe it held against the daemon itself."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "http"))

import harness  # noqa: E402

BUILD = Path(harness.binary()).parent
PREFIX = "/opt/attention"
VERSION = re.search(r'ATTN_VERSION_STRING "(.*)"',
                    (REPOSITORY / "lib" / "attention.h").read_text()).group(1)

FILES = {
    "bin/attentiond",
    "include/attention.h",
    "lib/libattention.a",
    "lib/libattention.so",
    "lib/libattention.so.0",
    f"lib/libattention.so.{VERSION}",
    "lib/pkgconfig/libattention.pc",
    "lib/systemd/system/attentiond.service",
    "share/doc/attentiond/LICENSE",
    "share/doc/attentiond/README.md",
    "share/doc/attentiond/attentiond.json",
    "share/doc/attentiond/grafana.json",
    "share/doc/attentiond/prometheus.yml",
    "share/man/man8/attentiond.8",
}

# Keys 0 and 1, values 10 and 20; a query in the middle gets their mean.
PROGRAM = """
#include <attention.h>
#include <stdio.h>

int main(void) {
  const float keys[] = {0, 1}, values[] = {10, 20}, query = 0.5f;
  float output = 0, weights[2] = {0};
  attn_snapshot *empty = NULL, *memory = NULL;
  attn_score *score = NULL;
  attn_normalization *norm = NULL;
  attn_init();
  attn_status status = attn_snapshot_create(&empty, 1, 1);
  if (status == ATTN_OK) status = attn_snapshot_append(&memory, empty, keys, values, 2);
  if (status == ATTN_OK) status = attn_score_create(&score, "gaussian", NULL, 0, NULL);
  if (status == ATTN_OK) status = attn_normalization_create(&norm, "sum", NULL, 0, NULL);
  if (status == ATTN_OK) {
    attn_request request = {.queries = &query, .query_count = 1, .query_dim = 1,
                            .score = score, .normalization = norm,
                            .weights_mode = ATTN_WEIGHTS_FULL};
    attn_result result = attn_result_for(memory, &request);
    result.outputs = &output;
    result.weights = weights;
    status = attn_attend(memory, &request, &result, NULL);
  }
  printf("%s %d %.4f %.4f %.4f\\n", attn_version(), (int)status, output, weights[0], weights[1]);
  attn_normalization_free(norm);
  attn_score_free(score);
  attn_snapshot_free(memory);
  attn_snapshot_free(empty);
  return 0;
}
"""


def run(*command, env=None, cwd=None):
    result = subprocess.run([str(word) for word in command], env=env, cwd=cwd, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)
    assert result.returncode == 0, f"{command}: {result.returncode}\n{result.stdout}"
    return result.stdout


def make(target, destination):
    # not the flags of a make that runs this test: its job server is not ours
    env = {name: value for name, value in os.environ.items()
           if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "DESTDIR", "PREFIX")}
    run("make", "-s", target, f"BUILD={os.path.relpath(BUILD, REPOSITORY)}",
        f"DESTDIR={destination}", f"PREFIX={PREFIX}", env=env, cwd=REPOSITORY)


def files_under(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")
            if path.is_symlink() or path.is_file()}


@pytest.fixture(scope="module")
def destination(tmp_path_factory):
    folder = tmp_path_factory.mktemp("destination")
    make("install", folder)
    return folder


@pytest.fixture(scope="module")
def installed(destination):
    return destination / PREFIX.lstrip("/")


@pytest.fixture(scope="module")
def pkg_config(destination, installed):
    def ask(*arguments):
        env = {**os.environ, "PKG_CONFIG_PATH": str(installed / "lib" / "pkgconfig"),
               "PKG_CONFIG_SYSROOT_DIR": str(destination)}
        return run("pkg-config", *arguments, "libattention", env=env).split()
    return ask


def test_the_files(destination, installed):
    assert files_under(installed) == FILES
    assert os.readlink(installed / "lib/libattention.so") == "libattention.so.0"
    assert os.readlink(installed / "lib/libattention.so.0") == f"libattention.so.{VERSION}"
    for path in destination.rglob("*"):
        assert path.is_symlink() or path.stat().st_mode & 0o022 == 0, f"{path} is for all to write"


@pytest.mark.parametrize("kind", ["shared", "static"])
def test_a_program_built_through_pkg_config(tmp_path, installed, pkg_config, kind):
    (tmp_path / "program.c").write_text(PROGRAM)
    libraries = pkg_config("--libs", *(["--static"] if kind == "static" else []))
    if kind == "static":
        libraries = ["-l:libattention.a" if word == "-lattention" else word for word in libraries]
    run(os.environ.get("CC", "cc"), "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
        *pkg_config("--cflags"), "program.c", "-o", "program", *libraries, cwd=tmp_path)
    env = dict(os.environ)
    if kind == "shared":
        env["LD_LIBRARY_PATH"] = str(installed / "lib")
    assert run(tmp_path / "program", env=env) == f"{VERSION} 0 15.0000 0.5000 0.5000\n"


def test_the_library_exports_its_header_and_nothing_else(installed):
    table = run("nm", "-D", "--defined-only", installed / "lib/libattention.so")
    header = (installed / "include/attention.h").read_text()
    declared = set(re.findall(r"ATTN_PUBLIC[^;(]*?\b(attn_\w+)\(", header))
    assert {line.split()[-1] for line in table.splitlines()} == declared


def test_the_version_is_one(installed, pkg_config):
    assert pkg_config("--modversion") == [VERSION]
    assert VERSION in run(installed / "bin/attentiond", "--version")


def test_the_manual_has_every_option(installed):
    shown = set(re.findall(r"--([a-z][a-z-]+)", run(installed / "bin/attentiond", "--help")))
    manual = set(re.findall(r"Fl -([a-z][a-z-]+)", (installed / "share/man/man8/attentiond.8").read_text()))
    assert len(shown) > 10
    assert shown - manual == set()
    assert manual - shown - {"option", "name"} == set()


@pytest.mark.parametrize("file", ["attentiond.json", "demo.json"])
def test_the_configurations_are_valid(file):
    run(harness.binary(), "--check-config", "--config", REPOSITORY / "config" / file,
        env=harness.clean_environment())


def test_the_demo_configuration_loads_the_digits(tmp_path):
    daemon = harness.Daemon(tmp_path, ["--config", REPOSITORY / "config/demo.json"])
    try:
        meta = daemon.get("/v1/memories/digits").json
        assert (meta["rows"], meta["key_dim"], meta["value_dim"]) == (1297, 64, 10)
        line = (REPOSITORY / "tests/data/digits.csv").read_text().splitlines()[1296].split(",")
        key = [int(pixel) / 16 for pixel in line[:64]]
        reply = daemon.post("/v1/memories/digits/attend",
                            {"queries": [key], "score": "exact", "weights": {"top": 2}}).json
        assert reply["weights"] == [[{"row": 1296, "weight": 1}]]
        assert reply["outputs"] == [[float(str(digit) == line[64]) for digit in range(10)]]
    finally:
        daemon.assert_healthy_end()


def test_the_dashboard_asks_for_metrics_that_exist(tmp_path):
    daemon = harness.Daemon(tmp_path)
    try:
        text = daemon.get("/metrics").text
    finally:
        daemon.assert_healthy_end()
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    exposed = {name + suffix for name, kind in kinds.items()
               for suffix in (["_bucket", "_sum", "_count"] if kind == "histogram" else [""])}
    dashboard = json.loads((REPOSITORY / "config/grafana.json").read_text())
    asked = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked |= set(re.findall(r"\b(?:attentiond|process)_\w+", target["expr"]))
    assert asked and asked - exposed == set()
    # and leaves out none of the daemon's own
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} | {"attentiond_build_info"}
    assert {name for name in kinds if name.startswith("attentiond_")} - shown == set()


def test_the_unit_is_what_systemd_understands(tmp_path, destination, installed):
    unit = (installed / "lib/systemd/system/attentiond.service").read_text()
    assert f"ExecStart={PREFIX}/bin/attentiond --config /etc/attentiond/attentiond.json\n" in unit
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    # the program is not under PREFIX here, nor its manual page known to man
    unit = unit.replace(PREFIX, str(installed)).replace("Documentation=man:attentiond(8)\n", "")
    path = tmp_path / "attentiond.service"
    path.write_text(unit)
    assert run("systemd-analyze", "verify", path) == ""


def test_uninstall_leaves_nothing(tmp_path):
    make("install", tmp_path)
    make("uninstall", tmp_path)
    assert files_under(tmp_path) == set()
