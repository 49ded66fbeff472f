"""Fixtures of the black-box suite: daemons to talk to, names to use.

ATTENTIOND           the program under test (default: build/attentiond)
ATTENTIOND_SLOW      multiplies every time limit, for sanitizers
ATTENTIOND_SANITIZER which one it was built with (address,undefined or thread)
ATTN_TEST_KERNELS    what the daemons compute with, where a test does not say (avx2, ...)
ATTENTIOND_WRAP      a command to run it under, such as valgrind
ATTENTIOND_VALGRIND  1 also runs test_leaks.py
"""

import itertools
import os
import re

import pytest

import harness
from folders import make_folder, pytest_runtest_makereport, pytest_runtest_protocol, tmp_path  # noqa: F401


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes; asked for through the environment")


@pytest.fixture
def start_daemon(make_folder):
    """A factory: start_daemon(*flags, env=None, config=None) -> Daemon. Each is
    stopped at the test's end and held to have ended well."""
    started = []

    def start(*flags, env=None, config=None, wait_ready=True, preexec=None):
        daemon = harness.Daemon(make_folder("daemon"), flags, env, config, wait_ready, preexec)
        started.append(daemon)
        return daemon

    yield start
    failures = []
    for daemon in reversed(started):
        try:
            daemon.assert_healthy_end()
        except AssertionError as failure:
            failures.append(str(failure))
    assert not failures, "\n".join(failures)


@pytest.fixture(scope="session")
def daemon(tmp_path_factory):
    """One daemon for all tests that only need a daemon."""
    shared = harness.Daemon(tmp_path_factory.mktemp("shared"))
    yield shared
    shared.assert_healthy_end()


_numbers = itertools.count(1)


@pytest.fixture
def memory_names(request, daemon):
    """A factory of names of the shared daemon that no other test uses; what
    stands under them is deleted afterwards."""
    made = []

    def make():
        stem = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:60].strip("-")
        made.append(f"{stem}-{os.getpid()}-{next(_numbers)}")
        return made[-1]

    yield make
    for name in made:
        daemon.delete(f"/v1/memories/{name}")


@pytest.fixture
def memory_name(memory_names):
    return memory_names()
