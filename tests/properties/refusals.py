"""What each refusal is: one sentence on one line, for a reason that is promised, and not the end of most examples."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ftlab.errors import BadInput

Test = TypeVar("Test", bound=Callable[..., None])
HALF = 0.5
# Of the property that runs: "examples", "refused" examples, and the refusals in the example at hand ("now").
_counted: Counter[str] = Counter()


def one_sentence(problem: BadInput, *reasons: str, begins: str | tuple[str, ...] = "") -> None:
    """Fail unless the message of `problem` is one line that `begins` so and names one of the `reasons`, if any."""
    said = str(problem)
    assert said
    assert len(said.splitlines()) == 1, said
    assert said.startswith(begins), said
    assert not reasons or any(reason in said for reason in reasons), said


def require(problem: BadInput, *reasons: str, begins: str | tuple[str, ...] = "") -> None:
    """Require one sentence, and count the example as refused: the property says nothing more of it."""
    one_sentence(problem, *reasons, begins=begins)
    count()


def count() -> None:
    """Count the example at hand as refused."""
    _counted["now"] += 1


def gets_through(share: float) -> Callable[[Test], Test]:
    """State, right above the function of a property, what `share` of its examples is not refused; else it is half."""

    def stated(test: Test) -> Test:
        test.__dict__["gets_through"] = share
        return test

    return stated


def excuse() -> None:
    """Require nothing of the property that runs: it has failed, and said why."""
    _counted["excused"] += 1


@contextmanager
def counted(test: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """Yield `test`, which counts its examples, and fail at the end unless there were some, and enough not refused."""

    @functools.wraps(test)
    def counting(*args: object, **named: object) -> None:
        _counted["now"] = 0
        test(*args, **named)
        _counted["examples"] += 1
        _counted["refused"] += _counted["now"] > 0

    _counted.clear()
    yield counting
    if _counted["excused"]:
        return
    assert _counted["examples"], "no example was counted: Hypothesis has not called the property through this counter"
    through, share = _counted["examples"] - _counted["refused"], getattr(test, "gets_through", HALF)
    assert through >= share * _counted["examples"], (
        f"{through} of {_counted['examples']} examples got through, fewer than {share:.0%}: the property is vacuous"
    )
