"""How long lessons take on this machine: seconds of the stored first run, scaled by the speed of matrix products."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftlab.course import bench
from ftlab.course.notebooks import LessonFile
from ftlab.errors import BadInput
from ftlab.wording import some

RATE = "matmul_flops_per_second"  # in the stored result: the speed of the machine that it was measured on
CLOSE = 1.25  # two machines whose speeds differ by less are called equal
QUICK_START = "00"  # the number of the lesson to begin with


@dataclass(frozen=True)
class Expected:
    """How long lessons take with profile cpu.

    Attributes:
        seconds: on the machine of the stored run, of those lessons that were timed.
        there: that machine, in words.
        speed: of this machine as a multiple of that one's; None where it is not known.
        untimed: the lessons that were not timed.
    """

    seconds: float
    there: str
    speed: float | None
    untimed: tuple[str, ...]

    def __str__(self) -> str:
        """The minutes in words: a range where this machine is faster or slower, for not all work scales alike."""
        if not self.seconds:
            return "not timed yet"
        alike = _minutes(self.seconds)
        if self.speed is None:
            said = f"about {alike} on {self.there}"
        elif 1 / CLOSE < self.speed < CLOSE:
            said = f"about {alike} here"
        else:
            scaled = self.seconds / self.speed
            low, high = _minutes(min(self.seconds, scaled)), _minutes(max(self.seconds, scaled))
            said = f"between {low.split()[0]} and {high} here" if low != high else f"about {high} here"
            said += f" ({alike} on {self.there})"
        if self.untimed:
            verbs = ("comes", "was") if len(self.untimed) == 1 else ("come", "were")
            said += f"; {some(self.untimed)} {verbs[0]} on top, and {verbs[1]} not timed yet"
        return said


def expected(lessons: Sequence[LessonFile]) -> Expected | None:
    """Return how long `lessons` take with profile cpu, or None if no run is stored.

    Where the stored run has its machine's speed, a large matrix product is timed here, for a third of a second. A GPU
    has another relation of the two, so there the speed is not known.
    """
    try:
        stored = bench.stored("first_run")
    except BadInput:
        return None
    timed, machine = stored["result"]["lessons"], stored["hardware"]
    there = f"{machine['cores']} cores {'with' if machine['gpu'] else 'without'} a GPU"
    rate = stored["result"].get(RATE)
    return Expected(
        sum(timed[lesson.name]["seconds"] for lesson in lessons if lesson.name in timed),
        there,
        _rate_here() / rate if rate and not _has_gpu() else None,
        tuple(lesson.name for lesson in lessons if lesson.name not in timed),
    )


def before_the_course(lessons: Sequence[LessonFile], profile: str) -> list[str]:
    """Return what `ftlab run` says before it runs all `lessons`: what, how long, and the ways to read and to start."""
    python = Path(sys.executable).parent
    jupyter = f"{_typed(python / 'jupyter')} lab {_typed(Path('notebooks', '00_start_here.ipynb'))}"
    lines = [
        f"ftlab: this runs the whole course, lesson after lesson: {', '.join(lesson.name for lesson in lessons)}",
        f"       {_how_long(lessons, profile)}; the results go into the folder runs",
        f"       to read the lessons and run them cell by cell: {'make lab' if _has_make() else jupyter}",
    ]
    if quick := [lesson for lesson in lessons if lesson.number == QUICK_START]:
        time = expected_words(quick) if profile == "cpu" else ""
        command = "ftlab" if shutil.which("ftlab") else _typed(python / "ftlab")
        lines.append(f"       for a quick start: {command} run {QUICK_START}" + (f" ({time})" if time else ""))
    return lines


def before_lessons(lessons: Sequence[LessonFile], profile: str) -> list[str]:
    """Return what `ftlab run` says before chosen `lessons`: a line with the expected minutes, where they are known."""
    if profile != "cpu" or not (time := expected_words(lessons)):
        return []
    numbers = some(lesson.number for lesson in lessons)
    return [f"ftlab: {f'lesson {numbers} takes' if len(lessons) == 1 else f'lessons {numbers} take'} {time}"]


def expected_words(lessons: Sequence[LessonFile]) -> str:
    """Return the expected time of `lessons` in words, or "" if none of them was timed."""
    found = expected(lessons)
    return str(found) if found and found.seconds else ""


def _how_long(lessons: Sequence[LessonFile], profile: str) -> str:
    if profile == "smoke":
        return "profile smoke: tiny models and few rows, to see that every cell runs; its scores mean nothing"
    if profile == "gpu":
        return "profile gpu: how long it takes depends on the GPU, and was not measured"
    time = expected_words(lessons)
    return f"it takes {time}" if time else "how long it takes was not measured"


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'s' if minutes > 1 else ''}"


def _typed(path: Path) -> str:
    """A path as a person types it: from the current folder, if it is below it."""
    return str(path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path)


def _has_make() -> bool:
    """Whether `make lab` starts JupyterLab with this Python: elsewhere it would first set up a second environment."""
    ours = Path("Makefile").is_file() and Path(sys.prefix).resolve() == Path(".venv").resolve()
    return os.name != "nt" and ours


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _rate_here() -> float:
    from ftlab.memory.footprint import matmul_rate

    return matmul_rate()
