"""The tables of lessons: minutes and memory for README.md, and what each lesson shows for expected_results.md.

All values come from benchmarks/results; docs/expected_results.toml says which, and what others published.
"""

from __future__ import annotations

import json
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import jmespath
import numpy as np

from ftlab.course import bench
from ftlab.course.notebooks import notebooks_folder
from ftlab.intervals import over_seeds

WANTED = Path(__file__).resolve().with_name("expected_results.toml")


def minutes_and_memory() -> str:
    """Return README's table: each lesson with its minutes and its peak memory in the stored first run."""
    lines = ["| lesson | minutes | memory |", "|---|---|---|"]
    for name, lesson in _first_run()["lessons"].items():
        minutes, memory = f"{lesson['seconds'] / 60:.1f}", f"{lesson['peak_memory_mb'] / 1000:.1f} GB"
        lines.append(f"| [{_title(name)}](notebooks/{name}.ipynb) | {minutes} | {memory} |")
    return "\n".join(lines)


def expected_results() -> str:
    """Return the table of expected results, and the machine and versions that they were measured with.

    Raises:
        ValueError: a lesson or a value of expected_results.toml is not in the stored first run.
    """
    wanted = tomllib.loads(WANTED.read_text(encoding="utf-8"))
    others_took = wanted.pop("took")
    measured = _first_run()["lessons"]
    if unknown := wanted.keys() - measured.keys():
        raise ValueError(
            f"expected_results.toml has {sorted(unknown)}, which the stored first run has not; `make bench`"
        )
    lines = ["| what | measured here | elsewhere |", "|---|---|---|"]
    for name, lesson in measured.items():
        took = f"{lesson['seconds'] / 60:.1f} minutes, {lesson['peak_memory_mb'] / 1000:.1f} GB"
        lines.append(f"| **[{_title(name)}](../notebooks/{name}.ipynb)** | **{took}** | {others_took.get(name, '')} |")
        for figure in wanted.get(name, []):
            lines.append(f"| {figure['what']} | {_value(name, lesson, figure)} | {figure.get('elsewhere', '')} |")
    return "\n".join(lines) + "\n\n" + measured_with()


def measured_with() -> str:
    """Return a sentence: the machine, the date and the versions of the stored first run."""
    stored = bench.stored("first_run")
    result, versions = stored["result"], stored["versions"]
    names = ("python", "torch", "transformers", "trl", "peft", "datasets")
    rate = _of(result, "matmul_flops_per_second") / 1e9
    text = (
        f"Measured on {stored['date']}, on {machine(stored['hardware'])}, whose matrix products run at {rate:,.0f} "
        f"GFLOP/s in fp32 (`ftlab.memory.footprint.matmul_rate()`). Versions: "
        + ", ".join(f"{name} {versions[name]}" for name in names)
        + f". All lessons together, with the set-up and the downloads, took {result['make_run_seconds'] / 60:.0f} "
        f"minutes; the first lesson was done after {_of(result, 'first_success_seconds') / 60:.1f}."
    )
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def machine(hardware: dict[str, Any]) -> str:
    """Return `hardware`, as `records.hardware` has it, in a few words."""
    gpu = hardware["gpu"] or "no GPU"
    return f"{hardware['cores']} cores of {hardware['processor']}, {hardware['memory_gb']:.0f} GB of memory, {gpu}"


def _value(name: str, lesson: dict[str, Any], figure: dict[str, str]) -> str:
    """One figure as text, with its interval if it has one."""
    form = figure["form"]
    if "benchmark" in figure:
        value = jmespath.search(figure["expression"], bench.stored(figure["benchmark"])["result"])
        where = f"{figure['benchmark']} at {figure['expression']}"
        interval: list[float] = []
        if isinstance(value, list):  # one for each seed
            mean = over_seeds(np.array(value))
            value, interval = mean.value, [mean.low, mean.high]
    elif "claim" in figure:
        found = [claim["value"] for claim in _of(lesson, "claims") if claim["claim"].startswith(figure["claim"] + ":")]
        value, where, interval = (found[0] if found else None), f"the claims of {name}: {figure['claim']}", []
    else:
        metrics, metric = _of(lesson, "metrics"), figure["metric"]
        value, where = metrics.get(metric, metrics.get(f"{metric}_value")), f"the metrics of {name}: {metric}"
        interval = [metrics[end] for end in (f"{metric}_low", f"{metric}_high") if metrics.get(end) is not None]
    if not isinstance(value, (int, float)):
        raise ValueError(f"no number is stored for {where}; expected one in benchmarks/results")
    between = f" [{', '.join(f'{end:{form}}' for end in interval)}]" if len(interval) == 2 else ""
    return f"{value:{form}}{between}".replace("%", " %") + (f" {figure['unit']}" if "unit" in figure else "")


def _first_run() -> Any:
    return bench.stored("first_run")["result"]


def _of(stored: dict[str, Any], key: str) -> Any:
    if key not in stored:
        raise ValueError(
            f"the stored first run has no {key!r}: it is older than this page; measure it with `make bench`"
        )
    return stored[key]


def _title(lesson: str) -> str:
    """The heading of a lesson's notebook, without its hash."""
    path = notebooks_folder() / f"{lesson}.ipynb"
    if not path.is_file():
        raise ValueError(f"the stored first run has {lesson}, and there is no such notebook; run `make bench`")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"]).splitlines()[0].lstrip("# ")
