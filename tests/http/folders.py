"""Folders of tests, which are gone when their test has passed.

Pytest keeps those of its last three runs, whole: with stores and backups of hundreds
of megabytes in them that is gigabytes in /tmp. (What it has to say about that itself,
tmp_path_retention_policy, came with 7.3; Debian 12 has 7.2.) Those of a test that
failed, in a fixture's end too, stay for whoever looks into it.

A conftest.py imports all that has no underscore in front.
"""

import shutil

import pytest

_FAILED = pytest.StashKey()
_FOLDERS = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    yield
    folders = item.stash.get(_FOLDERS, [])
    while folders and not item.stash.get(_FAILED, False):
        shutil.rmtree(folders.pop(), ignore_errors=True)


def remember(request, folder):
    """The folder goes with the test that `request` is of."""
    request.node.stash.setdefault(_FOLDERS, []).append(folder)
    return folder


@pytest.fixture
def make_folder(request, tmp_path_factory):
    """A factory: make_folder("daemon") -> a new folder of this test's."""
    return lambda name: remember(request, tmp_path_factory.mktemp(name))


@pytest.fixture
def tmp_path(request, tmp_path):
    return remember(request, tmp_path)
