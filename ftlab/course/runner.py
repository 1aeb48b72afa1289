"""Run lessons headless with papermill: parameters in; executed notebooks, metrics and records out."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.course import auto_budget, ledger, profiles
from ftlab.course.execution import execute
from ftlab.course.lesson import RUN_FOLDER, checkpoints_folder, lock_of
from ftlab.course.live_status import Display, display
from ftlab.course.notebooks import LessonFile, lessons
from ftlab.data import assets, sources, tasks
from ftlab.errors import BadInput, ClaimFailed, CourseError, LessonFailed
from ftlab.models import loading
from ftlab.progress import CLAIMS, LIVE
from ftlab.training import checkpoints

LOCK = ".lock"  # in a run's folder, while it runs

# Parameters that may be the path of a file or folder, and the names that are none.
MAY_BE_PATHS: dict[str, Collection[str]] = {
    "dataset": sources.SOURCES, "test_dataset": sources.SOURCES, "task": tasks.TASKS, "model": loading.MODELS,
    "replay_text": ("",), "ratings": ("",), "adapter": ("",), "classifier": ("",),
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """The result of running one lesson."""

    lesson: str
    seconds: float
    peak_memory_mb: int
    headline: str
    metrics: dict[str, Any]
    notebook: Path


def plan(chosen: Sequence[LessonFile], profile: str, parameters: Mapping[str, Any]) -> list[profiles.Budget]:
    """Return the budget of each lesson in `chosen`, checked; fetch the assets that they need.

    papermill only warns of an unknown parameter, and a bad value would end as a traceback in the middle of a lesson.

    Args:
        chosen: the lessons to run.
        profile: smoke, cpu or gpu.
        parameters: values set by hand, by name.

    Raises:
        BadInput: a lesson does not take a parameter, or cannot use its value.
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
        auto_budget.fitted(
            budget, rows=auto_budget.may_change(budget)
        )  # the lesson does it again, and shows what has changed
    return budgets


def run(
    wanted: Sequence[str] = (),
    *,
    profile: str = "cpu",
    parameters: Mapping[str, Any] | None = None,
    out: Path | None = None,
    watch: bool = True,
) -> tuple[Path, list[Result]]:
    """Run lessons one after the other, each into a folder with its notebook, metrics.json, record.json and files.

    Beside them claims.csv has the claims of all lessons in the run's folder (see `ledger`).

    Args:
        wanted: lessons by number, name or path; all by default.
        profile: smoke, cpu or gpu.
        parameters: values set by hand, by name.
        out: the run's folder; runs/<time>-<profile> by default.
        watch: whether to show sections and results on stderr as they come, with a status line in a terminal.

    Returns:
        The run's folder, and a result for each lesson.

    Raises:
        BadInput: a parameter cannot be used; nothing is left behind.
        ClaimFailed, LessonFailed: a lesson stopped; its notebook is kept up to there as <lesson>.failed.ipynb, and if a
            claim stopped it, its claims as <lesson>.failed.json.
    """
    chosen = lessons(wanted)
    given = dict(parameters or {})
    budgets = plan(chosen, profile, given)
    if out is None and any(budget.settings.get("resume") for budget in budgets):
        raise BadInput("resume goes on in the folder of a run that was cut off; name that folder with --out")
    # A lesson runs in another folder, so a path from here has to be made whole. Known names are no paths.
    for name, known in MAY_BE_PATHS.items():
        value = given.get(name)
        if isinstance(value, str) and value not in known:
            path, exists = files.named_path(value, f"another {name}")
            given[name] = str(path.absolute()) if exists else value
    results: list[Result] = []
    with folder_of_its_own(out, profile) as folder, display(watch) as live:
        ledger.require_place(folder)
        for lesson, budget in zip(chosen, budgets, strict=True):
            parsed = {name: value for name, value in budget.overrides.items() if name not in MAY_BE_PATHS}
            given_here = {**given, **parsed, "profile": profile, "seed": budget.seed}
            try:
                results.append(_execute(lesson, given_here, folder, live))
            except ClaimFailed:
                with suppress(CourseError):  # the claim is what matters
                    ledger.write(folder)
                raise
            live.end(results[-1].headline)
            with suppress(CourseError):  # Windows: someone has opened it in a spreadsheet; the lessons go on
                ledger.write(folder)
        ledger.write(folder)
    return folder, results


@contextmanager
def folder_of_its_own(out: Path | None, profile: str) -> Iterator[Path]:
    """Yield the folder of a run, locked until the block ends; delete it if it stays empty."""
    wanted = files.named_path(str(out or "runs"), "another folder")[0].absolute()  # some shells leave a ~ after --out=
    with files.explained(wanted, BadInput):
        folder = wanted if out else _fresh_folder(wanted, profile)
        folder.mkdir(parents=True, exist_ok=True)
        lock = files.acquire_lock(folder / LOCK)
    if lock is None:
        raise BadInput(
            f"a run is going on in {folder} ({files.holder(folder / LOCK)}); wait until it has ended, or choose "
            "another folder with --out"
        )
    try:
        files.sweep(folder)
        yield folder
    finally:
        for left in folder.glob(lock_of(folder, "*").name):  # by a kernel that was killed
            if taken := files.acquire_lock(left):
                files.release_lock(taken)
        files.release_lock(lock)
        with suppress(OSError):  # it holds something
            folder.rmdir()
            if not out:
                wanted.rmdir()


def _fresh_folder(runs: Path, profile: str) -> Path:
    """Create runs/<time>-<profile>, numbered if another run began in the same second."""
    stamp = f"{datetime.now():%Y%m%d-%H%M%S}-{profile}"
    runs.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = runs / (stamp if number == 1 else f"{stamp}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


def _execute(lesson: LessonFile, parameters: dict[str, Any], folder: Path, live: Display) -> Result:
    """Run one lesson into `folder/<lesson>`, which appears only when the lesson is done."""
    began = time.monotonic()
    with files.atomic(folder / lesson.name, folder=True, error=BadInput) as partial:
        live.begin(lesson.name, partial)
        notebook = partial / f"{lesson.name}.ipynb"
        try:
            execute(
                lesson.path,
                notebook,
                parameters,
                settings={RUN_FOLDER: str(partial)},
                results=folder,
                failed=f"the notebook up to there is {lesson.name}.failed.ipynb",
                less="-p rows, -p batch_size, -p max_length",
                before_cell=live.cell,
                after_cell=live.cell_done,
            )
        except LessonFailed:
            _keep(notebook, folder / f"{lesson.name}.failed.ipynb")
            _keep(partial / ledger.STOPPED, folder / f"{lesson.name}.failed.json")
            raise
        for shown in (LIVE, CLAIMS):
            (partial / shown).unlink(missing_ok=True)
        seconds = time.monotonic() - began
        if not (partial / "record.json").is_file():
            _keep(notebook, folder / f"{lesson.name}.failed.ipynb")
            raise LessonFailed(
                f"{lesson.name} came to its end without `lesson.finish(...)`, so there is no metrics.json; call it in "
                f"the last cell; the notebook is {lesson.name}.failed.ipynb"
            )
        metrics = json.loads((partial / "metrics.json").read_text(encoding="utf-8"))
        record = json.loads((partial / "record.json").read_text(encoding="utf-8"))
        record["wall_seconds"] = round(seconds, 1)  # with the start of the kernel, as a person waits for it
        files.write_json(partial / "record.json", record)
    with suppress(OSError):  # Windows: someone has opened it; `ledger.read` takes the later run
        files.remove(folder / f"{lesson.name}.failed.json")
    checkpoints.remove(checkpoints_folder(folder, lesson.name))  # and not earlier: a run killed before would start anew
    done = folder / lesson.name / notebook.name
    return Result(lesson.name, seconds, record["peak_memory_mb"], metrics["headline"], metrics, done)


def _keep(written: Path, target: Path) -> None:
    """Keep what a failed lesson has written so far; an earlier run's result is never overwritten."""
    if written.is_file():
        written.replace(target)
