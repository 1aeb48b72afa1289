"""How a check answers: passed, fix, warn or unchecked."""

from __future__ import annotations

from collections.abc import Callable

from ftlab.exercises.handed_in import HandedIn
from ftlab.exercises.outcomes import Answer, Status

Check = Callable[[HandedIn], Answer]


class CannotCheck(Exception):
    """A rule cannot be checked; the message says why. A checker reports it as NOT CHECKED."""


def passed(found: str, where: str = "") -> Answer:
    """Return the answer that a rule holds: what was `found`, in the file `where`."""
    return Answer(Status.PASS, "", found, where)


def fix(expected: str, found: str, where: str = "", *, advice: str = "") -> Answer:
    """Return the answer that something is to be corrected: what was `expected` and `found`, in the file `where`.

    `advice` is what to do about this finding; the rule's own advice follows it.
    """
    return Answer(Status.FIX, expected, found, where, advice)


def warn(expected: str, found: str, where: str = "") -> Answer:
    """Return the answer that a rule holds with a doubt: what was `expected` and `found`, in the file `where`."""
    return Answer(Status.WARN, expected, found, where)


def unchecked(why: str, *, advice: str = "") -> Answer:
    """Return the answer that a rule could not be checked: `why`, and `advice` on what to do about that."""
    return Answer(Status.NOT_CHECKED, "", why, "", advice)
