"""Durability from outside: a real daemon that is killed, whose disk fails, fills up
or rots, and a model of what it has to know afterwards.

ATTENTIOND_LONG  1 runs each of it in the long form of `make test-all`
ATTENTIOND_SEED  another sequence of random choices
The rest is as in tests/http.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "http"))


import harness  # noqa: E402
from folders import (  # noqa: E402,F401
    make_folder, pytest_runtest_makereport, pytest_runtest_protocol, tmp_path)


@pytest.fixture
def start_daemon(make_folder):
    """A factory of daemons that are held to end well."""
    started = []

    def start(*flags):
        started.append(harness.Daemon(make_folder("daemon"), flags))
        return started[-1]

    yield start
    for daemon in started:
        try:
            daemon.assert_healthy_end()
        finally:
            daemon.kill()


@pytest.fixture
def seed():
    return int(os.environ.get("ATTENTIOND_SEED", "1"))
