"""A newcomer's first run: `make run` in a fresh copy of the repository, with no .venv and an empty cache.

It measures how long a person waits: for the set-up, the download, each lesson, and for the first lesson of a second
`make run`. Of this machine's caches only pip's is used.
"""

from __future__ import annotations

import json
import os
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
    ".venv", "runs", ".git", "*.egg-info", "__pycache__", ".*_cache", ".ipynb_checkpoints"
)


def measure() -> dict[str, Any]:
    """Return seconds of each phase, and seconds and peak memory (MB) of each lesson."""
    with tempfile.TemporaryDirectory(prefix="ftlab-first-run-") as base:
        clone = Path(base) / "ftlab"
        shutil.copytree(REPOSITORY, clone, ignore=LEFT_OUT)
        # A newcomer has none of these settings, and no cache.
        ours = ("FTLAB_HOME", "FTLAB_HEADLESS", "FTLAB_RUN_FOLDER", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        environment["FTLAB_HOME"] = str(Path(base) / "cache")
        said, total = _make_run(clone, environment)
        marks = {line.split()[1]: at for at, line in reversed(said)}  # the first line of each kind
        records = [json.loads(path.read_text()) for path in sorted(clone.glob("runs/*/*/record.json"))]
        again, _ = _make_run(clone, environment, until="running")
        return {
            "set_up_seconds": round(marks["downloading"], 1),
            "fetch_seconds": round(marks["running"] - marks["downloading"], 1),
            "lessons": {
                record["lesson"]: {"seconds": record["wall_seconds"], "peak_memory_mb": record["peak_memory_mb"]}
                for record in records
            },
            "make_run_seconds": round(total, 1),
            "second_run_reaches_its_first_lesson_seconds": round(again[-1][0], 1),
            "import_ftlab_seconds": _import_seconds(clone),
        }


def _make_run(
    clone: Path, environment: dict[str, str], until: str | None = None
) -> tuple[list[tuple[float, str]], float]:
    """Run `make run` and return ftlab's lines, each with the second of its arrival, and the seconds in total."""
    began = time.monotonic()
    said: list[tuple[float, str]] = []
    with subprocess.Popen(
        ["make", "run"], cwd=clone, env=environment, text=True, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr)
            if line.startswith("ftlab: "):
                said.append((time.monotonic() - began, line))
                if until and line.split()[1] == until:
                    os.killpg(process.pid, signal.SIGKILL)
                    return said, time.monotonic() - began
    if process.returncode != 0:
        raise RuntimeError(f"make run exited with {process.returncode}: {said[-1][1] if said else 'without output'}")
    return said, time.monotonic() - began


def _import_seconds(clone: Path) -> float:
    """Seconds of a Python process that imports ftlab and ends: the fastest of five."""
    times = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([clone / ".venv" / "bin" / "python", "-c", "import ftlab"], check=True)
        times.append(time.monotonic() - began)
    return round(min(times), 3)


def write_readme() -> None:
    """Write the table of lessons, with minutes and memory of the stored result, into the README."""
    stored = json.loads((REPOSITORY / "benchmarks" / "results" / "first_run.json").read_text(encoding="utf-8"))
    readme = REPOSITORY / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split("|---|---|---|\n", 1)
    after = rest[rest.index("<!-- end -->") :]
    lines = []
    for name, lesson in stored["result"]["lessons"].items():
        minutes, memory = f"{lesson['seconds'] / 60:.1f}", f"{lesson['peak_memory_mb'] / 1000:.1f} GB"
        lines.append(f"| [{_title(name)}](notebooks/{name}.ipynb) | {minutes} | {memory} |\n")
    readme.write_text(before + "|---|---|---|\n" + "".join(lines) + after, encoding="utf-8")


def _title(lesson: str) -> str:
    """The heading of a lesson's notebook, without its hash."""
    cells = json.loads((REPOSITORY / "notebooks" / f"{lesson}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"]).splitlines()[0].lstrip("# ")


if __name__ == "__main__":
    write_readme()
