"""Settings for every test run of this repository, notebooks included."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Notebooks under test run with nobody before them, and leave their files in a folder that nobody keeps: each notebook
# in one of its own, beside the others' as in `ftlab run`, so that a lesson finds what an earlier one has left.
_RUNS = Path(tempfile.mkdtemp(prefix="ftlab-tests-"))
_TEMPORARY = _RUNS / "tmp"  # of kernels and what they start; some are killed before they can tidy up
os.environ["FTLAB_HEADLESS"] = "1"
os.environ["FTLAB_RUN_FOLDER"] = str(_RUNS / "tests")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Name a notebook's folder before nbval starts its kernel, which it does with the first cell."""
    if item.path.suffix == ".ipynb":
        _TEMPORARY.mkdir(exist_ok=True)
        os.environ |= {
            "FTLAB_RUN_FOLDER": str(_RUNS / item.path.stem),
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(_TEMPORARY)),
        }


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    shutil.rmtree(_RUNS, ignore_errors=True)
