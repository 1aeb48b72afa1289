"""How many cases a test tries: few where a person waits for it, many in the nightly run (FTLAB_NIGHTLY=1)."""

import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

NIGHTLY = os.environ.get("FTLAB_NIGHTLY") == "1"


def cases(*, few: int, nightly: int) -> int:
    """The number of cases for this run; `make test-nightly` asks for the larger one."""
    return nightly if NIGHTLY else few


def few_by_day(values: Iterable[Any], *by_day: Any) -> list[Any]:
    """All values as parameters of a test; `make test` leaves out those that are not in `by_day`."""
    values = list(values)
    if unknown := [one for one in by_day if one not in values]:
        raise ValueError(f"{unknown} are not among the values")
    rows = [(value if isinstance(value, tuple) else (value,), value in by_day) for value in values]
    return [pytest.param(*row, marks=() if chosen else pytest.mark.night) for row, chosen in rows]


def combinations(*lists: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Rows with a value of each list: few, in which each two values of two lists meet, or at night all."""
    rows = list(itertools.product(*map(enumerate, lists)))  # values by their places: not all of them can be hashed
    return [tuple(value for _, value in row) for row in (rows if NIGHTLY else _in_pairs(rows))]


def _in_pairs(rows: list[Any]) -> list[Any]:
    """Of all rows the one that brings most pairs together, again and again, until all have met."""
    pairs = [{*itertools.combinations(((column, place) for column, (place, _) in enumerate(row)), 2)} for row in rows]
    apart, chosen = set().union(*pairs), []
    while apart:
        best = max(range(len(rows)), key=lambda number: len(pairs[number] & apart))
        apart -= pairs[best]
        chosen.append(rows[best])
    return chosen
