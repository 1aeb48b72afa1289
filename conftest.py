"""Settings for every test run of this repository, notebooks included."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Notebooks under test run with nobody before them, and leave their files in a folder that nobody keeps.
_RUN_FOLDER = tempfile.mkdtemp(prefix="ftlab-tests-")
os.environ["FTLAB_HEADLESS"] = "1"
os.environ["FTLAB_RUN_FOLDER"] = _RUN_FOLDER


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    shutil.rmtree(Path(_RUN_FOLDER), ignore_errors=True)
