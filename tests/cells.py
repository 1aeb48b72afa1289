"""The cells of a lesson, run in this process: no kernel to start, and its libraries are imported once for many runs."""

import ast
import contextlib
import io
import json
import linecache
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat

from ftlab.course import execution, notebooks, runner
from ftlab.course import lesson as lesson_module
from ftlab.progress import HEADLESS
from tests import warnings_of_ours

NOTEBOOKS = notebooks.lessons()[0].path.parent


def source_of(path: Path, parameters: Mapping[str, Any]) -> list[str]:
    """The code cells of a notebook, with the values of `parameters` in the cell that is tagged so."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    given = "".join(f"{name} = {value!r}\n" for name, value in parameters.items())
    return [cell.source + ("\n" + given if "parameters" in cell.metadata.get("tags", []) else "") for cell in cells]


def run(lesson: str, out: Path, parameters: Mapping[str, Any], *, profile: str = "smoke") -> dict[str, Any]:
    """Run every cell of a lesson into `out/<its name>`; its metrics, and under "said" what it printed.

    The parameters are checked as `ftlab run` checks them. An error of a cell carries the cell. A call of a cell or
    of the package is an error, too, where a library says that it is deprecated.
    """
    (chosen,) = notebooks.lessons([lesson])
    (budget,) = runner.plan([chosen], profile, parameters)
    folder = out / chosen.name
    out.mkdir(parents=True, exist_ok=True)
    given = {**parameters, "profile": profile, "seed": budget.seed}
    space: dict[str, Any] = {"__name__": "__main__", "display": _display}
    said = io.StringIO()
    settings = {runner.RUN_FOLDER: str(folder), HEADLESS: "1"}
    with (
        _as_it_was(), execution.environment(settings), contextlib.chdir(NOTEBOOKS), contextlib.redirect_stdout(said),
        warnings_of_ours.recorded() as deprecated,
    ):  # fmt: skip
        for number, source in enumerate(source_of(chosen.path, given)):
            try:
                _execute(source, f"<{chosen.name}, cell {number}>", space)
            except Exception as problem:
                problem.add_note(f"{chosen.name} with {given}, in the cell:\n{source}")
                raise
    lesson_module._give_back()
    assert not deprecated, f"{chosen.name} calls what a library is about to remove: {deprecated}"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {**metrics, "said": said.getvalue(), "folder": folder}


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """The environment of this process stays: a lesson goes offline for good, and a kernel ends with it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _execute(source: str, name: str, space: dict[str, Any]) -> None:
    """As a notebook does: the value of a last expression is shown."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)  # for tracebacks and warnings
    body = ast.parse(source, name).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), name, "exec"), space)
    if isinstance(last, ast.Expr):
        _display(eval(compile(ast.Expression(last.value), name, "eval"), space))


def _display(*values: Any) -> None:
    """Make what a notebook would show, in each of its forms."""
    for value in values:
        if value is None:
            continue
        for form in ("_repr_html_", "_repr_markdown_"):
            if hasattr(value, form):
                getattr(value, form)()
        print(value)


if __name__ == "__main__":
    # A list of runs as JSON: [lesson, profile, parameters, folder] each, folders in the one that is named first.
    for lesson, profile, parameters, folder in json.loads(sys.argv[2]):
        found = run(lesson, Path(sys.argv[1]) / folder, parameters, profile=profile)
        print(json.dumps({"lesson": lesson, "headline": found["headline"], "said": found["said"]}))
