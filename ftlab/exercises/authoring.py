"""`python -m ftlab.exercises.authoring [--profile PROFILE] [LEVEL ...]`: check the exercises as their author.

It writes the starters, runs each solution headless, checks what it handed in, and stores its outputs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from ftlab import files
from ftlab.course.execution import execute
from ftlab.course.refresh import strip_noise
from ftlab.course.runner import LOCK
from ftlab.data import tables
from ftlab.errors import BadInput, CourseError
from ftlab.exercises import checker, manifest, starters
from ftlab.exercises.exercise import WORK, WORK_FOLDER
from ftlab.exercises.outcomes import Result, Status
from ftlab.progress import quiet
from ftlab.wording import some

REFERENCE = "cpu"  # the profile whose outputs are stored
RATINGS, KEPT_RATINGS = "ratings.csv", "level3_ratings.csv"  # in the work folder; among the solutions


@dataclass(frozen=True)
class Attempt:
    """A solution that was run: the seconds of its run, and the result of its check."""

    level: manifest.Level
    seconds: float
    result: Result

    @property
    def holds(self) -> bool:
        """Whether the level is done, or rehearsed: every rule holds, and no level is done in the smoke profile."""
        return self.result.passed and self.result.done == (self.result.profile != "smoke")

    def __str__(self) -> str:
        took = f"run {self.seconds:.0f} s, check {self.result.seconds:.0f} s"
        return f"{self.level.notebook}: {took}; {self.result.state}"


def work_folder(profile: str) -> Path:
    """Return the folder in which the solutions work: one for `profile`, so that a rehearsal replaces no result."""
    folder = starters.exercises_folder().parent / WORK / starters.SOLUTIONS
    return folder if profile == REFERENCE else folder / profile


def attempt(level: manifest.Level, work: Path, *, profile: str = REFERENCE, notebook: Path | None = None) -> Attempt:
    """Run a notebook of `level` headless, from nothing, and check what it handed in.

    Args:
        level: of the manifest.
        work: the folder that gets the level's work folder, and the executed notebook beside it.
        profile: smoke, cpu or gpu.
        notebook: what to run; the solution of the level by default.

    Raises:
        BadInput, LessonFailed: the notebook stopped, or what it handed in cannot be read.
    """
    source = notebook or starters.solution_file(level)
    executed = work / f"{level.notebook}.ipynb"
    files.remove(work / level.name)  # the notebook would keep it as an earlier try
    work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    execute(
        source, executed, {"profile": profile}, settings={WORK_FOLDER: str(work)}, results=work,
        failed=f"the notebook up to there is {executed}",
    )  # fmt: skip
    seconds = time.monotonic() - began
    return Attempt(level, seconds, checker.check(level, work / level.name))


def author(levels: Sequence[manifest.Level], *, profile: str = REFERENCE, work: Path | None = None) -> bool:
    """Write the starters, run the solutions and check them; print a line for each, and store the outputs.

    Outputs are stored for the profile cpu, unless a rule asks for a correction.

    Args:
        levels: those to run.
        profile: smoke, cpu or gpu.
        work: the folder of the work folders; by default that of `work_folder`.

    Returns:
        Whether every solution did what it should: it is done, or in the smoke profile rehearsed.

    Raises:
        BadInput: a solution is missing or cannot become a starter, or another process runs them.
    """
    work = (work or work_folder(profile)).absolute()
    with files.explained(work, BadInput):
        work.mkdir(parents=True, exist_ok=True)
        lock = files.acquire_lock(work / LOCK)
    if lock is None:
        raise BadInput(
            f"the solutions are being run in {work} ({files.holder(work / LOCK)}); wait until that has ended"
        )
    try:
        for path in starters.write_starters(levels):
            print(f"written: {path}")
        held = [_authored(level, work, profile) for level in levels]  # each of them, whatever the others do
        return all(held)
    finally:
        files.release_lock(lock)


def _authored(level: manifest.Level, work: Path, profile: str) -> bool:
    try:
        if profile == REFERENCE:
            keep_ratings(work / level.name / RATINGS)
        done = attempt(level, work, profile=profile)
    except CourseError as problem:
        print(f"{level.notebook}: STOPPED: {problem}", flush=True)
        return False
    print(done, flush=True)
    if done.result.of(Status.FIX, Status.NOT_CHECKED):
        print(f"\n{done.result}\n", flush=True)
    elif profile == REFERENCE:
        store(work / f"{level.notebook}.ipynb", starters.solution_file(level))
    if waiting := missing_ratings(work / level.name / RATINGS):
        print(
            f"{level.notebook}: {len(waiting)} answers have no rating yet (answers {some(waiting)}); open "
            f"{starters.solution_file(level)} in JupyterLab, run its cells, rate each answer in the form, run the cell "
            "that records the ratings, and then run this again",
            flush=True,
        )
    return done.holds


def store(executed: Path, target: Path) -> None:
    """Store the notebook `executed` as `target`, without what another run would write differently.

    Raises:
        BadInput: `target` cannot be written.
    """
    clean = strip_noise(nbformat.read(executed, as_version=4))
    with files.atomic(target, error=BadInput) as temporary:
        nbformat.write(clean, temporary)


def missing_ratings(form: Path) -> list[str]:
    """Return the numbers of the answers in the rating form at `form` that have no rating; none if there is no form."""
    if not form.is_file():
        return []
    frame = tables.read_table(form, []).fillna("")
    tables.require_columns(form, frame, ["rating"], "record the ratings again")
    return [str(number) for number, value in enumerate(frame["rating"], start=1) if not value]


def keep_ratings(form: Path) -> None:
    """Keep the ratings that a person gave in JupyterLab, beside the solutions, where the next run reads them.

    `form` is the form in the work folder, which the run begins anew. Raises BadInput if only some answers are rated.
    """
    if not form.is_file() or len(missing := missing_ratings(form)) == len(tables.read_table(form, [])):
        return
    if missing:
        raise BadInput(
            f"{form} has no rating of the answers {some(missing)}, and this run would lose the others; rate these too, "
            "and run the cell that records them, or delete the file"
        )
    with files.atomic(starters.exercises_folder() / starters.SOLUTIONS / KEPT_RATINGS, error=BadInput) as temporary:
        temporary.write_bytes(form.read_bytes())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (by default those of the process), and return the exit code."""
    parser = argparse.ArgumentParser(prog="ftlab.exercises.authoring", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("level", nargs="*", metavar="LEVEL", help="level1, level2, level3; all by default")
    parser.add_argument("--profile", default=REFERENCE, help="smoke, cpu or gpu; outputs are stored for cpu")
    options = parser.parse_args(arguments)
    quiet()
    try:
        wanted = [manifest.level(name) for name in options.level or manifest.levels()]
        if odd := [level.name for level in wanted if options.profile not in level.profiles]:
            raise BadInput(f"{odd[0]} has no profile {options.profile!r}; it has {', '.join(wanted[0].profiles)}")
        return 0 if author(wanted, profile=options.profile) else 1
    except CourseError as problem:
        print(f"ftlab: {problem}", file=sys.stderr)
        return problem.exit_code


if __name__ == "__main__":
    sys.exit(main())
