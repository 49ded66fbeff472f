"""`make run` on a machine that lacks a library: it says so, has it installed, builds
what is not built, and serves.

The machine is this one behind stubs that come first in PATH: a pkg-config that knows
libjansson only after an apt-get that installs nothing but a note of what it was asked
for (and a sudo, where the tests run as somebody else than root)."""

import json
import os
import shutil
import signal
import subprocess
import urllib.request

import pytest

import harness

BUILD = os.path.relpath(os.path.dirname(harness.binary()), harness.REPOSITORY)

STUBS = {
    "pkg-config": """
for word; do
  [ "$word" = jansson ] && [ ! -e "$STUBS/installed" ] && exit 1
done
exec "$PKG_CONFIG_HERE" "$@"
""",
    "apt-get": """
echo "$*" >>"$STUBS/apt.log"
case " $* " in
*" --simulate "*) ;;
*" install "*) touch "$STUBS/installed" ;;
esac
""",
    "sudo": 'exec "$@"\n',
}


@pytest.fixture
def bare(tmp_path):
    """The environment, and the folder of the stubs."""
    for name, text in STUBS.items():
        path = tmp_path / name
        path.write_text("#!/bin/sh" + "\n" + text)
        path.chmod(0o755)
    # not the flags of a make that runs this test: its job server is not ours
    environment = {name: value for name, value in harness.clean_environment().items()
                   if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    environment.update(
        PATH=f"{tmp_path}:{environment['PATH']}", STUBS=str(tmp_path),
        PKG_CONFIG_HERE=shutil.which("pkg-config"), ATTENTIOND_LISTEN_PORT="0",
        ATTENTIOND_PORT_FILE=str(tmp_path / "port"))
    return environment, tmp_path


def make(environment, *words, **how):
    return subprocess.Popen(["make", f"BUILD={BUILD}", *words], cwd=harness.REPOSITORY,
                            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, **how)


def test_make_run(bare):
    environment, folder = bare
    process = make(environment, "run", start_new_session=True)
    port = folder / "port"
    try:
        harness.wait_until(lambda: port.exists() and port.read_text().strip() or
                           process.poll() is not None, 60, "the daemon or the end of make")
        assert process.poll() is None, process.stdout.read()
        address = f"http://127.0.0.1:{port.read_text().strip()}/v1/memories/digits"
        harness.wait_until(lambda: serves(address), 30, "the digits")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=30 * harness.SLOW)
    assert "attentiond: missing on this machine: libjansson-dev\n" in said
    asked = (folder / "apt.log").read_text().splitlines()
    assert asked and all(line.endswith(" libjansson-dev") for line in asked)
    assert not harness.REPORTS.search(said), said


def serves(address):
    try:
        with urllib.request.urlopen(address) as reply:
            return json.load(reply)["rows"] == 1297
    except OSError:
        return False


def test_with_nothing_missing_nothing_is_said(bare):
    environment, folder = bare
    (folder / "installed").touch()
    process = make(environment, "-n", "run")
    said, _ = process.communicate(timeout=60 * harness.SLOW)
    assert process.returncode == 0, said
    assert "config/setup.sh build" in said
    assert f"-j{len(os.sched_getaffinity(0))} {BUILD}/attentiond" in said
    result = subprocess.run(["config/setup.sh", "build"], cwd=harness.REPOSITORY, env=environment,
                            capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert not (folder / "apt.log").exists()


def test_without_apt_the_packages_are_named(bare):
    environment, folder = bare
    tools = folder / "tools"
    tools.mkdir()
    for name in ("sh", "gcc", "cc", "make"):
        (tools / name).symlink_to(shutil.which(name))
    environment["PATH"] = str(tools)
    environment["PKG_CONFIG"] = str(folder / "pkg-config")
    result = subprocess.run(["config/setup.sh", "build"], cwd=harness.REPOSITORY, env=environment,
                            capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "attentiond: there is no apt here; please install: libjansson-dev\n"
