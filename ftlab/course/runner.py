"""Run lessons headless by papermill: parameters in, executed notebooks, metrics and records out."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.course import profiles
from ftlab.course.display import Display, display
from ftlab.course.lesson import RUN_FOLDER
from ftlab.course.lessons import LessonFile, lessons
from ftlab.data import assets
from ftlab.errors import BadInput, ClaimFailed, CourseError, LessonFailed
from ftlab.progress import HEADLESS

LIVE = "progress.json"  # what a lesson writes while it trains, and the display reads


@dataclass(frozen=True)
class Result:
    """What running one lesson gave."""

    lesson: str
    seconds: float
    peak_memory_mb: int
    headline: str
    metrics: dict[str, Any]
    notebook: Path


def plan(chosen: Sequence[LessonFile], profile: str, parameters: Mapping[str, Any]) -> list[profiles.Budget]:
    """The budget of each chosen lesson with these parameters; checked, with what it needs fetched.

    Raises BadInput for a parameter that a chosen lesson does not take, or a value that it cannot use: papermill would
    only warn of the first, and the second would end as a traceback in the middle of a lesson.
    """
    budgets = []
    for lesson in chosen:
        takes = lesson.parameters()
        for name in parameters:
            if name not in takes:
                raise BadInput(f"lesson {lesson.name} has no parameter {name!r}; it has {', '.join(takes)}")
        budgets.append(profiles.resolve(lesson.slug, profile, parameters))
    needed = dict.fromkeys(name for budget in budgets for name in budget.assets)
    assets.fetch(needed)
    for budget in budgets:
        profiles.require_fitting(budget)
    return budgets


def run(
    wanted: Sequence[str] = (),
    *,
    profile: str = "cpu",
    parameters: Mapping[str, Any] | None = None,
    out: Path | None = None,
    watch: bool = True,
) -> tuple[Path, list[Result]]:
    """Run the wanted lessons (all by default), one after the other, and return the run's folder and the results.

    In `out` (runs/<time>-<profile> by default) each lesson leaves its executed notebook and, in a folder of its name,
    metrics.json, record.json and what it saved. Raises BadInput before anything is written when a parameter cannot be
    used, ClaimFailed or LessonFailed when a lesson stops; its notebook is kept, up to the cell that failed.
    """
    chosen = lessons(wanted)
    given = dict(parameters or {})
    if isinstance(given.get("dataset"), str) and Path(given["dataset"]).expanduser().is_file():
        given["dataset"] = str(Path(given["dataset"]).expanduser().absolute())  # a lesson runs in another folder
    if isinstance(given.get("model"), str) and Path(given["model"]).expanduser().is_dir():
        given["model"] = str(Path(given["model"]).expanduser().absolute())
    budgets = plan(chosen, profile, given)
    folder = (out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{profile}").absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(files.explain(problem, folder)) from problem
    results: list[Result] = []
    with display(watch) as live:
        for lesson, budget in zip(chosen, budgets, strict=True):
            given_here = {name: budget.overrides.get(name, value) for name, value in given.items()}
            given_here |= {"profile": profile, "seed": budget.seed}
            live.begin(lesson.name, folder / lesson.name / LIVE)
            try:
                results.append(_execute(lesson, given_here, folder, live))
            except BadInput:
                if not any(folder.iterdir()):
                    folder.rmdir()
                raise
            live.end(results[-1].headline)
    return folder, results


def _execute(lesson: LessonFile, parameters: dict[str, Any], folder: Path, live: Display) -> Result:
    import papermill

    own = folder / lesson.name
    own.mkdir(parents=True, exist_ok=True)
    notebook = folder / f"{lesson.name}.ipynb"
    _register_engine(live)
    began = time.monotonic()
    os.environ.update({RUN_FOLDER: str(own), HEADLESS: "1"})
    try:
        # papermill formats paths with the parameters, so a brace in one would be read as a field.
        papermill.execute_notebook(
            str(lesson.path).replace("{", "{{").replace("}", "}}"),
            str(notebook).replace("{", "{{").replace("}", "}}"),
            parameters=parameters,
            engine_name="ftlab",
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--log-level=ERROR"],  # else each kernel warns that it talks over the loopback unencrypted
            cwd=str(lesson.path.parent),
        )
    except papermill.PapermillExecutionError as problem:
        said = _ANSI.sub("", f"{problem.evalue}").strip().splitlines() or [problem.ename]
        where = f"the notebook up to there is {notebook}"
        if problem.ename == ClaimFailed.__name__:
            raise ClaimFailed(f"{lesson.name}: {said[0]}; {where}") from problem
        if problem.ename in {kind.__name__ for kind in CourseError.__subclasses__()}:
            files.remove(own)  # a wrong question leaves nothing behind
            files.remove(notebook)
            raise BadInput(f"{lesson.name}: {said[0]}") from problem
        raise LessonFailed(f"{lesson.name} stopped with {problem.ename}: {said[0][:300]}; {where}") from problem
    finally:
        del os.environ[RUN_FOLDER], os.environ[HEADLESS]
        (own / LIVE).unlink(missing_ok=True)
    seconds = time.monotonic() - began
    metrics = json.loads((own / "metrics.json").read_text(encoding="utf-8"))
    record = json.loads((own / "record.json").read_text(encoding="utf-8"))
    record["wall_seconds"] = round(seconds, 1)  # with the start of the kernel, as a person waits for it
    files.write_json(own / "record.json", record)
    return Result(lesson.name, seconds, record["peak_memory_mb"], metrics["headline"], metrics, notebook)


_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def _register_engine(live: Display) -> None:
    """papermill's own engine, with a word to the display before each cell."""
    from papermill.engines import NBClientEngine, papermill_engines

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
            start = nb_man.cell_start

            def cell_start(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                live.cell(cell_index or 0, nb_man.nb.cells)
                start(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("ftlab", Engine)
