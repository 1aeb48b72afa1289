"""Run benchmarks (modules in benchmarks/ with a function `measure() -> dict`) and read their stored results."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.course import records
from ftlab.course.notebooks import notebooks_folder
from ftlab.errors import BadInput


def run(name: str, *, save: bool = False) -> dict[str, Any]:
    """Run the benchmark `name` and return its result with machine, date, versions and command.

    Args:
        name: the module's name in benchmarks/.
        save: whether to store the result, too.

    Raises:
        BadInput: there is no such benchmark.
    """
    folder = notebooks_folder().parent / "benchmarks"
    there = sorted(path.stem for path in folder.glob("*.py"))
    if name not in there:
        raise BadInput(f"there is no benchmark {name!r}; there are {', '.join(there)}")
    began = time.monotonic()
    measured = runpy.run_path(str(folder / f"{name}.py"))["measure"]()
    result = {
        "benchmark": name,
        "command": f"ftlab bench {name} --json",
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - began, 1),
        "hardware": records.hardware(),
        "versions": records.versions(),
        "result": measured,
    }
    if save:
        files.write_json(results_folder() / f"{name}.json", result)
    return result


def alone(script: str, *arguments: Any) -> dict[str, Any]:
    """Run `script` with `arguments` in a fresh process, and return the JSON object of its last line.

    So nothing that an earlier measurement left in memory, or warmed up, influences a later one.
    """
    print(f"ftlab: measuring {' '.join(map(str, arguments))} ...", file=sys.stderr, flush=True)
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def steps(trainer: Any) -> dict[str, Any]:
    """Train with `trainer`, a Trainer that logs every step, and time its steps.

    The clock starts at the second step: the first one is the warm-up.

    Returns:
        seconds_a_step, steps (how many were timed), peak_mb (resident memory of the process) and losses (one a step).
    """
    times: list[float] = []
    step = trainer.training_step

    def timed(*given: Any, **named: Any) -> Any:
        times.append(time.perf_counter())
        return step(*given, **named)

    trainer.training_step = timed
    trainer.train()
    times.append(time.perf_counter())
    return {
        "seconds_a_step": round((times[-1] - times[1]) / (len(times) - 2), 4),
        "steps": len(times) - 2,
        "peak_mb": records.peak_memory_mb(),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }


def stored(name: str) -> dict[str, Any]:
    """Return the stored result of the benchmark `name`: benchmark, command, date, hardware, versions and result.

    Raises:
        BadInput: nothing is stored.
    """
    path = results_folder() / f"{name}.json"
    if not path.is_file():
        raise BadInput(f"there is no stored result of {name!r}; `ftlab bench {name} --save` makes one")
    return json.loads(path.read_text(encoding="utf-8"))


def results_folder() -> Path:
    """Return the folder of the stored results."""
    return notebooks_folder().parent / "benchmarks" / "results"
