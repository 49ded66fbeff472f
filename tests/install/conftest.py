"""What the tests of the installation share with those of tests/http."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "http"))


from folders import make_folder, pytest_runtest_makereport, pytest_runtest_protocol, tmp_path  # noqa: E402,F401
