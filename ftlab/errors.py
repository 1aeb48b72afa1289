"""What a person is told when something cannot be done: one sentence, and no traceback."""

from __future__ import annotations

from types import TracebackType


class CourseError(Exception):
    """An error whose message is written for the learner.

    The message says what was wrong (the value, the file, the row), what was expected and what to do next. The
    command line prints it on one line of stderr and leaves with `exit_code`; Jupyter shows it without a traceback,
    because the line in ftlab that noticed a mistake is not where the mistake is.
    """

    exit_code = 2

    def _render_traceback_(
        self, etype: type | None = None, value: object = None, tb: TracebackType | None = None, tb_offset: int = 0
    ) -> list[str]:
        """IPython's hook for an exception that renders itself."""
        return [f"{type(self).__name__}: {self}"]


class BadInput(CourseError):
    """The question was wrong: a value, a name or a file that cannot be used."""


class AssetError(CourseError):
    """Weights or data that could not be fetched, or that are not what was pinned."""


class CheckFailed(CourseError):
    """A check whose answer is no."""

    exit_code = 1


class LessonFailed(CourseError):
    """A lesson ran and stopped with an error of its own."""

    exit_code = 1


class TrainingFailed(LessonFailed):
    """A training that cannot go on: its loss is no number any more."""


class ClaimFailed(LessonFailed):
    """A statement of the course that this run's measurement contradicts."""
