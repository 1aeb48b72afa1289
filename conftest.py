"""Settings for every test run of this repository, notebooks included."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

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
        if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))) > 1:  # each takes its share of the cores
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
        os.environ |= {
            "FTLAB_RUN_FOLDER": str(_RUNS / item.path.stem),
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(_TEMPORARY)),
        }


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Give all cells of a notebook to one worker, which has its kernel; 06 merges what 05 has saved."""
    return Notebooks(config, log) if config.getoption("nbval", False) else None


class Notebooks(LoadScopeScheduling):
    """Whole notebooks, so that two cores verify two of them at once."""

    def _split_scope(self, nodeid: str) -> str:
        notebook = nodeid.split("::")[0]
        return notebook.replace("06_merge_and_inference", "05_lora_phi2")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    shutil.rmtree(_RUNS, ignore_errors=True)
