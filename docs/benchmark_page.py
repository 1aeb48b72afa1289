"""The page of all stored benchmarks: what each measures, its main figures, and each bar, met or not.

docs/benchmarks.toml chooses the main figures; values and bars come from benchmarks/results. A bar that no figure names
has a line of its own, so none can be lost. A benchmark that docs/benchmarks.toml lacks is shown with its top numbers.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import jmespath
from lesson_tables import machine

from ftlab.course import bench

WANTED = Path(__file__).resolve().with_name("benchmarks.toml")
MET = {True: "met", False: "**not met**"}


def names() -> list[str]:
    """Return the names of all stored benchmarks."""
    return sorted(path.stem for path in bench.results_folder().glob("*.json"))


def bars(result: dict[str, Any]) -> dict[str, bool]:
    """Return each bar of `result`, and whether it is met. A bar of one of several cases has the case before its name.

    >>> bars({"bars": {"fp32": {"twice as fast": True}}})
    {'fp32: twice as fast': True}
    """
    found: dict[str, bool] = {}
    for name, met in result.get("bars", {}).items():
        found |= {f"{name}: {bar}": value for bar, value in met.items()} if isinstance(met, dict) else {name: met}
    return found


def summary() -> str:
    """Return the table of all benchmarks: what each asks, how many of its bars are met, and when it was measured."""
    lines = ["| benchmark | measures | bars met | date |", "|---|---|---|---|"]
    for name in names():
        stored = bench.stored(name)
        met = list(bars(stored["result"]).values())
        count = f"{sum(met)} of {len(met)}" if met else "no bar"
        lines.append(f"| [{name}](#{name}) | {_docstring(name).splitlines()[0]} | {count} | {stored['date']} |")
    return "\n".join(lines)


def sections() -> str:
    """Return a section for each benchmark: what it measures, how it was run, its figures and its bars."""
    return "\n\n".join(section(name) for name in names())


def section(name: str) -> str:
    """Return the section of the benchmark `name`.

    Raises:
        ValueError: docs/benchmarks.toml names a figure or a bar that is not stored.
    """
    stored = bench.stored(name)
    took = f"{stored['seconds'] / 60:.0f} minutes" if stored["seconds"] >= 90 else f"{stored['seconds']:.0f} seconds"
    versions = ", ".join(f"{package} {stored['versions'][package]}" for package in ("python", "torch", "transformers"))
    how = (
        f"Measured on {stored['date']} in {took} (`{stored['command']}`), on {machine(stored['hardware'])}; {versions}."
        f" The whole result: [{name}.json](../benchmarks/results/{name}.json). The code: "
        f"[{name}.py](../benchmarks/{name}.py)."
    )
    how = textwrap.fill(how, 120, break_long_words=False, break_on_hyphens=False)
    note = _wanted().get("notes", {}).get(name, {})
    notes = [note["text"].strip()] if note.get("measured") == stored["date"] else []
    return "\n\n".join([f"### {name}", _docstring(name), *notes, how, table(name, stored["result"])])


def table(name: str, result: dict[str, Any]) -> str:
    """Return the table of the figures of benchmark `name` and of all its bars."""
    wanted = _wanted().get(name)
    figures = _top_numbers(result) if wanted is None else wanted
    left = bars(result)
    lines = ["| measured | value | bar | |", "|---|---|---|---|"]
    for figure in figures:
        bar = figure.get("bar")
        if bar is not None and bar not in left:
            raise ValueError(f"benchmarks.toml names the bar {bar!r} of {name}, which is not stored or named twice")
        verdict = f"{bar} | {MET[left.pop(bar)]}" if bar else "no bar |"
        lines.append(f"| {figure['what']} | {_value(name, result, figure)} | {verdict} |")
    lines += [f"| | | {bar} | {MET[met]} |" for bar, met in left.items()]
    return "\n".join(lines)


def _wanted() -> dict[str, Any]:
    return tomllib.loads(WANTED.read_text(encoding="utf-8"))


def _value(name: str, result: dict[str, Any], figure: dict[str, Any]) -> str:
    ends = []
    for expression in filter(None, (figure["value"], figure.get("to"))):
        value = jmespath.search(expression, result)
        if value is None and figure.get("may_be_unknown"):
            return "unknown"
        kind, kinds = ("text", str) if figure["form"] == "s" else ("number", (int, float))
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError(f"{name} has no {kind} at {expression}; measure it again, or mend docs/benchmarks.toml")
        ends.append(f"{value:{figure['form']}}")
    return " to ".join(dict.fromkeys(ends)) + (f" {figure['unit']}" if "unit" in figure else "")


def _top_numbers(result: dict[str, Any]) -> list[dict[str, str]]:
    """The numbers that stand directly in `result`, as figures."""
    numbers = [key for key, value in result.items() if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return [{"what": key.replace("_", " "), "value": f'"{key}"', "form": ",.4g"} for key in numbers]


def _docstring(name: str) -> str:
    """What the benchmark's module says that it measures."""
    code = (bench.results_folder().parent / f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(code)) or ""
