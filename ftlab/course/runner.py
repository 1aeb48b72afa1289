"""Run lessons headless by papermill: parameters in, executed notebooks, metrics and records out."""

from __future__ import annotations

import copy
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat

from ftlab import files
from ftlab.course import profiles
from ftlab.course.lesson import RUN_FOLDER
from ftlab.data import assets
from ftlab.errors import BadInput, ClaimFailed, CourseError, LessonFailed
from ftlab.progress import HEADLESS

LIVE = "progress.json"  # what a lesson writes while it trains, and the display reads


@dataclass(frozen=True)
class LessonFile:
    """A numbered notebook."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the notebook, "02_text_classification"."""
        return self.path.stem

    @property
    def number(self) -> str:
        """Its number, "02"."""
        return self.name.partition("_")[0]

    @property
    def slug(self) -> str:
        """Its name without the number, which is its name in profiles.toml."""
        return self.name.partition("_")[2]

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called on the command line."""
        return (self.number, self.number.lstrip("0"), self.name, self.slug)

    @property
    def title(self) -> str:
        """Its first heading."""
        for cell in nbformat.read(self.path, as_version=4).cells:
            if cell.cell_type == "markdown" and (heading := re.match(r"#\s+(.+)", cell.source)):
                return heading[1].strip()
        return self.slug.replace("_", " ")

    def parameters(self) -> list[str]:
        """The names in its parameters cell, in order."""
        from papermill.inspection import inspect_notebook

        return list(inspect_notebook(self.path))


@dataclass(frozen=True)
class Result:
    """What running one lesson gave."""

    lesson: str
    seconds: float
    peak_memory_mb: int
    headline: str
    metrics: dict[str, Any]
    notebook: Path


def notebooks_folder() -> Path:
    """The folder of the lessons: that of the repository that ftlab is installed from, else the one here."""
    for base in (Path(__file__).resolve().parents[2], Path.cwd(), Path.cwd().parent):
        if any((base / "notebooks").glob("[0-9][0-9]_*.ipynb")):
            return base / "notebooks"
    raise BadInput("there is no notebooks folder here; run ftlab in the folder of the course")


def lessons(wanted: Sequence[str] = ()) -> list[LessonFile]:
    """The lessons named (by number, name or path), all of them when none is; in the order of the course.

    Raises BadInput for a name that fits none.
    """
    there = [LessonFile(path) for path in sorted(notebooks_folder().glob("[0-9][0-9]_*.ipynb"))]
    if not wanted:
        return there
    chosen = set()
    for name in wanted:
        stem = Path(name).stem
        fits = [
            lesson for lesson in there if stem in (lesson.number, lesson.number.lstrip("0"), lesson.name, lesson.slug)
        ]
        if not fits:
            raise BadInput(f"there is no lesson {name!r}; there are {', '.join(lesson.name for lesson in there)}")
        chosen.add(fits[0])
    return [lesson for lesson in there if lesson in chosen]


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
    with _display(len(chosen), watch) as display:
        for lesson, budget in zip(chosen, budgets, strict=True):
            given_here = {name: budget.overrides.get(name, value) for name, value in given.items()}
            given_here |= {"profile": profile, "seed": budget.seed}
            display.begin(lesson, folder / lesson.name / LIVE)
            try:
                results.append(_execute(lesson, given_here, folder, display))
            except BadInput:
                if not any(folder.iterdir()):
                    folder.rmdir()
                raise
            display.end(results[-1])
    return folder, results


def _execute(lesson: LessonFile, parameters: dict[str, Any], folder: Path, display: _Display) -> Result:
    import papermill

    own = folder / lesson.name
    own.mkdir(parents=True, exist_ok=True)
    notebook = folder / f"{lesson.name}.ipynb"
    _register_engine(display)
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


class _Display:
    """The live line of a run: lesson, section, cells done, step of training, time. Silent where nobody watches."""

    def __init__(self, total: int, progress: Any) -> None:
        self.total = total
        self.progress = progress
        self.task: Any = None
        self.lesson = ""

    def begin(self, lesson: LessonFile, live: Path) -> None:
        self.lesson = lesson.name
        if self.progress is None:
            print(f"ftlab: running {lesson.name}", file=sys.stderr, flush=True)
        else:
            self.task = self.progress.add_task(lesson.name, total=None, section="starting the kernel", live=live)

    def cell(self, index: int, cells: Sequence[Any]) -> None:
        if self.progress is None:
            return
        section = ""
        for cell in cells[: index + 1]:
            if cell.cell_type == "markdown" and (heading := re.search(r"^#+\s+(.+)$", cell.source, re.MULTILINE)):
                section = heading[1].strip()
        self.progress.update(self.task, completed=index, total=len(cells), section=section[:48])

    def end(self, result: Result) -> None:
        if self.progress is not None:
            total = self.progress.tasks[-1].total
            self.progress.update(self.task, completed=total, section=f"done: {result.headline}"[:80])


@contextmanager
def _display(total: int, watch: bool) -> Iterator[_Display]:
    from rich.console import Console

    console = Console(stderr=True)
    if not (watch and console.is_terminal):
        yield _Display(total, None)
        return
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Steps(ProgressColumn):
        """Step of training, as the lesson writes it."""

        def render(self, task: Task) -> Text:
            try:
                live = json.loads(Path(task.fields["live"]).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return Text("")
            return Text(f"{live['what']}: step {live['step']} of {live['of']}", style="cyan")

    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[section]}"),
        Steps(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        yield _Display(total, progress)


def _register_engine(display: _Display) -> None:
    """papermill's own engine, with a word to the display before each cell."""
    from papermill.engines import NBClientEngine, papermill_engines

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
            start = nb_man.cell_start

            def cell_start(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                display.cell(cell_index or 0, nb_man.nb.cells)
                start(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("ftlab", Engine)


def refresh(wanted: Sequence[str] = ()) -> list[Result]:
    """Run lessons with the default profile and put their outputs into the notebooks of the course, without noise."""
    _, results = run(wanted)
    for result in results:
        target = notebooks_folder() / f"{result.lesson}.ipynb"
        executed = nbformat.read(result.notebook, as_version=4)
        with files.whole(target) as temporary:
            nbformat.write(strip_noise(executed), temporary)
    return results


def strip_noise(notebook: Any) -> Any:
    """A copy of an executed notebook without what another run would write differently.

    Timings, papermill's notes and the injected parameters go; sources, outputs and execution counts stay.
    """
    clean = copy.deepcopy(notebook)
    clean.cells = [cell for cell in clean.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    clean.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    count = 0
    for cell in clean.cells:
        for noise in ("papermill", "execution", "collapsed", "scrolled", "ExecuteTime"):
            cell.metadata.pop(noise, None)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return clean
