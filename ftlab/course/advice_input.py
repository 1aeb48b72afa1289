"""What `advise` accepts: each impossible value is refused in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from ftlab.errors import BadInput
from ftlab.wording import quoted

MOST_GB = 2000  # above it somebody gave MB
MOST = 10**12  # of everything that is counted
LEAST_PARAMETERS, MOST_PARAMETERS = 1e4, 1e14  # below it somebody gave billions or millions


def check_task(name: str, value: Any, tasks: Sequence[str]) -> None:
    """Raise BadInput unless `value` is one of `tasks`."""
    if not isinstance(value, str) or value not in tasks:
        raise BadInput(
            f"{name} is {quoted(value)}; expected one of {', '.join(tasks)} (questions that your documents answer): "
            "give the nearest"
        )


def check_flag(name: str, value: Any) -> None:
    """Raise BadInput unless `value` is True or False."""
    if type(value).__name__ not in ("bool", "bool_"):  # NumPy's own is no subclass of Python's
        raise BadInput(f"{name} is {quoted(value)}; expected True or False: give one of the two")


def _is_number(value: Any) -> bool:
    """Whether `value` is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return isinstance(value, Integral) or math.isfinite(value)


def check_count(name: str, value: Any, *, least: int = 0) -> None:
    """Raise BadInput unless `value` is a whole number from `least` to a trillion."""
    if not _is_number(value) or not isinstance(value, Integral) or not least <= int(value) <= MOST:
        raise BadInput(
            f"{name} is {quoted(value)}; expected a whole number, {least} or more (at most a trillion): count, or "
            "estimate"
        )


def check_gb(name: str, value: Any, otherwise: str) -> None:
    """Raise BadInput unless `value` is a number of GB; `otherwise` says what to give instead."""
    if not _is_number(value) or not 0 <= value <= MOST_GB:
        too_many = _is_number(value) and value > MOST_GB
        hint = "write 8 for 8192 MB" if too_many else f"give {otherwise}"
        raise BadInput(f"{name} is {quoted(value)}; expected a number of GB from 0 to {MOST_GB}: {hint}")


def check_share(name: str, value: Any) -> None:
    """Raise BadInput unless `value` is a number from 0 to 1."""
    if not _is_number(value) or not 0 <= value <= 1:
        in_percent = _is_number(value) and 1 < value <= 100
        hint = f"write {value / 100:g} for {value:g} %" if in_percent else "give None if you do not know it"
        raise BadInput(f"{name} is {quoted(value)}; expected a share from 0 to 1: {hint}")


def check_parameters(name: str, value: Any) -> None:
    """Raise BadInput unless `value` is a number of parameters that a language model can have."""
    if _is_number(value) and 0 < value < LEAST_PARAMETERS:
        raise BadInput(
            f"{name} is {value:g}, too few for a language model; expected the whole number, such as 7e9: write "
            f"{value:g}e9 if you meant {value:g} billion, {value:g}e6 if you meant {value:g} million"
        )
    if not _is_number(value) or not 0 < value <= MOST_PARAMETERS:
        raise BadInput(
            f"{name} is {quoted(value)}; expected a number of parameters from {LEAST_PARAMETERS:g} to "
            f"{MOST_PARAMETERS:g}: write 2.7e9 for 2.7 billion"
        )


def check_classes(name: str, value: Any, task: str) -> None:
    """Raise BadInput unless `value` is a number of classes, 2 or more; without labels, 2 (the default)."""
    check_count(name, value, least=2)
    if task != "classification" and value != 2:
        raise BadInput(
            f"{name} is {value}, and the task is {quoted(task)}; only a classification has classes: leave {name} out, "
            'or give task="classification"'
        )
