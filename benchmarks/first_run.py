"""A newcomer's first run: `make run` in a fresh copy of the repository, with no .venv and an empty cache.

It measures how long a person waits: for the set-up, the download, the first lesson's result ("first success") and each
lesson, and for the first lesson of a second `make run`. Of this machine's caches only pip's is used. What the lessons
measured is stored too, so that a learner can compare, and this machine's matmul rate, so that minutes can be scaled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(
    ".venv", "runs", "work", "build", "site", ".git", ".cache", "*.egg-info", "__pycache__", ".*_cache",
    ".ipynb_checkpoints",
)  # fmt: skip
OURS = (  # settings that a newcomer has not
    "FTLAB_HOME", "FTLAB_HEADLESS", "FTLAB_RUN_FOLDER", "FTLAB_TORCH_INDEX", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL",
    "PYTHON", "TORCH",
)  # fmt: skip
STAMP = ".venv/ready"  # make writes it last, when the set-up is done
LESSON_BEGINS = re.compile(r"ftlab: (running\b|\d\d_)")
TO_DOWNLOAD = re.compile(r"packages: (?:at least |about )?(\d[\d,]*(?:\.\d+)?) (MB|GB)")


def measure() -> dict[str, Any]:
    """Return the seconds of each phase, and of each lesson seconds, peak memory (MB), headline, metrics and claims."""
    with tempfile.TemporaryDirectory(prefix="ftlab-first-run-") as base:
        clone, cache = Path(base) / "ftlab", Path(base) / "cache"
        shutil.copytree(REPOSITORY, clone, ignore=LEFT_OUT)
        environment = {name: value for name, value in os.environ.items() if name not in OURS}
        environment["FTLAB_HOME"] = str(cache)  # empty
        began = time.time()
        said, total = make_run(clone, environment)
        found = {
            **phases(clone, began, said),
            "set_up_mb": announced_mb(said),
            "fetch_mb": fetched_mb(cache),
            "lessons": lessons(clone),
            "make_run_seconds": round(total, 1),
        }
        again, _ = make_run(clone, environment, until=LESSON_BEGINS)
        found["second_run_reaches_its_first_lesson_seconds"] = round(again[-1][0], 1)
        found["import_ftlab_seconds"] = _import_seconds(clone)
    from ftlab.memory.footprint import matmul_rate

    return {**found, "matmul_flops_per_second": round(matmul_rate())}


def make_run(
    clone: Path, environment: dict[str, str], until: re.Pattern[str] | None = None
) -> tuple[list[tuple[float, str]], float]:
    """Run `make run` in `clone`, to its end or to the first of ftlab's lines that matches `until`.

    Returns:
        ftlab's lines, each with the second of its arrival, and the seconds in total.
    """
    began = time.monotonic()
    said: list[tuple[float, str]] = []
    last = "without output"
    with subprocess.Popen(
        ["make", "run"], cwd=clone, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr)
            if line.startswith("ftlab: "):
                said.append((time.monotonic() - began, line))
                last = line.strip()
                if until and until.match(line):
                    os.killpg(process.pid, signal.SIGKILL)
                    return said, time.monotonic() - began
    if process.returncode != 0:
        raise RuntimeError(f"make run exited with {process.returncode}: {last}")
    if until:
        raise RuntimeError(f"make run ended without a line like {until.pattern!r}; its last line was {last!r}")
    return said, time.monotonic() - began


def phases(clone: Path, began: float, said: list[tuple[float, str]]) -> dict[str, float]:
    """Return the seconds of the set-up and of the fetch, and from `make run` to the end of the first lesson.

    They are read from the times of files, because what a run prints changes more often than what it writes: a lesson
    writes its record last, with the seconds that it took.

    Args:
        clone: the folder in which `make run` ran.
        began: when it began, as `time.time()` says it.
        said: ftlab's lines with their seconds, in case the set-up leaves no stamp.
    """
    spans = []
    for path in _records(clone):
        ended = path.stat().st_mtime - began
        spans.append((ended - json.loads(path.read_text(encoding="utf-8"))["wall_seconds"], ended))
    if not spans:
        raise RuntimeError("make run left no lesson in runs/")
    first_begins, first_ends = min(spans)
    stamp = clone / STAMP
    downloads = [at for at, line in said if line.startswith("ftlab: downloading")]
    ready = stamp.stat().st_mtime - began if stamp.exists() else min([*downloads, first_begins])
    return {
        "set_up_seconds": round(ready, 1),
        "fetch_seconds": round(first_begins - ready, 1),
        "first_success_seconds": round(first_ends, 1),
    }


def lessons(clone: Path) -> dict[str, dict[str, Any]]:
    """Return what each lesson of the run in `clone` took, and what it measured."""
    found = {}
    for path in _records(clone):
        record = json.loads(path.read_text(encoding="utf-8"))
        metrics = json.loads(path.with_name("metrics.json").read_text(encoding="utf-8"))
        found[record["lesson"]] = {
            "seconds": record["wall_seconds"],
            "peak_memory_mb": record["peak_memory_mb"],
            **{name: metrics[name] for name in ("headline", "metrics", "claims")},
        }
    return found


def announced_mb(said: list[tuple[float, str]]) -> float | None:
    """Return the MB that the set-up says it will download, before the first lesson begins; None if it names none.

    pip's own cache may spare them here; a newcomer downloads them.
    """
    for _, line in said:
        if line.startswith("ftlab: downloading") or LESSON_BEGINS.match(line):
            break
        if size := TO_DOWNLOAD.search(line):
            return float(size[1].replace(",", "")) * (1000 if size[2] == "GB" else 1)
    return None


def fetched_mb(cache: Path) -> int:
    """Return the MB of the pinned packages that were fetched into `cache`."""
    from ftlab.data.assets import ASSETS

    return sum(asset.download_mb for asset in ASSETS.values() if (cache / "assets" / asset.folder.name).is_dir())


def _records(clone: Path) -> list[Path]:
    return sorted(clone.glob("runs/*/[0-9][0-9]_*/record.json"))


def _import_seconds(clone: Path) -> float:
    """Seconds of a Python process that imports ftlab and ends: the fastest of five."""
    times = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([clone / ".venv" / "bin" / "python", "-c", "import ftlab"], check=True)
        times.append(time.monotonic() - began)
    return round(min(times), 3)
