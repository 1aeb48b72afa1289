"""The exceptions of ftlab: each message is one sentence for the user, shown without a traceback."""

from __future__ import annotations

from types import TracebackType

from ftlab.wording import printable


class CourseError(Exception):
    """An error whose message is written for the user.

    The message says what was wrong (the value, the file, the row), what was expected, and what to do next. The
    command line prints it on one line of stderr and exits with `exit_code`. Jupyter shows it without a traceback,
    because the mistake is not in the line of ftlab that found it.
    """

    exit_code = 2

    def __str__(self) -> str:
        """Return the message, of which a terminal obeys nothing: it may hold names from a file of somebody else."""
        return printable(super().__str__())

    def _render_traceback_(
        self, etype: type | None = None, value: object = None, tb: TracebackType | None = None, tb_offset: int = 0
    ) -> list[str]:
        """Return the message alone: IPython calls this instead of printing a traceback."""
        return [f"{type(self).__name__}: {self}"]


class BadInput(CourseError):
    """The user gave a value, a name or a file that cannot be used."""


class AssetError(CourseError):
    """Weights or data could not be fetched, or are not the pinned ones."""


class CheckFailed(CourseError):
    """A check did not pass."""

    exit_code = 1


class LessonFailed(CourseError):
    """A lesson stopped with an error of its own."""

    exit_code = 1


class TrainingFailed(LessonFailed):
    """A training cannot continue: its loss is NaN or infinite."""


class ClaimFailed(LessonFailed):
    """A measurement of this run contradicts a claim of the lesson."""
