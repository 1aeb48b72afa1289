"""What a longer prompt costs in use, beside what a training costs once.

A few-shot prompt needs no training, but the model reads its examples again with each question. So a training pays from
some number of questions on. Not counted: the hours of a person, and a server that keeps the examples in memory between
questions (prefix caching), for which the longer prompt costs less than here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlab.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

DAYS = 30  # a model that is trained anew each month


@dataclass(frozen=True)
class BreakEven:
    """After how many `questions` a longer prompt has cost more than a training; infinite if it never does.

    `days` is how long a training lasts: until the model is trained again.
    """

    questions: float
    days: float = DAYS

    @property
    def a_day(self) -> float:
        """The questions a day from which on the training costs less."""
        return self.questions / self.days

    def __str__(self) -> str:
        if math.isinf(self.questions):
            return "the longer prompt takes no more time than the short one, so it never costs more than the training"
        return (
            f"after {math.ceil(self.questions):,} questions the longer prompt has cost more time than the training; "
            f"that is {math.ceil(self.a_day):,} a day, if the model is trained anew every {self.days:g} days"
        )


def break_even(training: float, *, longer: float, shorter: float) -> float:
    """Return after how many questions a `longer` prompt has cost more than the training that it replaces.

    >>> break_even(training=60, longer=0.5, shorter=0.2)
    200.0

    Args:
        training: its cost in any unit: seconds, FLOPs, money.
        longer: the cost of a question with the longer prompt, in the same unit.
        shorter: the cost of a question to the trained model, whose prompt is shorter.

    Returns:
        The number of questions; infinite if the longer prompt costs no more.
    """
    return training / (longer - shorter) if longer > shorter else math.inf


def measured(
    training_seconds: float, *, longer_seconds: float, shorter_seconds: float, days: float = DAYS
) -> BreakEven:
    """Return the break-even in seconds that were measured on one machine.

    Args:
        training_seconds: of the training.
        longer_seconds: of a question to the base model, with examples.
        shorter_seconds: of a question to the tuned model, without.
        days: how long a training lasts, until the next one.

    Raises:
        BadInput: a number is below 0 or not finite, or `days` is not above 0.

    One minute of training, and 0.3 seconds less for each question:

    >>> print(measured(60, longer_seconds=0.5, shorter_seconds=0.2).questions)
    200.0
    """
    given = {
        "training_seconds": training_seconds, "longer_seconds": longer_seconds, "shorter_seconds": shorter_seconds,
    }  # fmt: skip
    for name, value in given.items():
        if not 0 <= value < math.inf:
            raise BadInput(f"{name} is {value}; expected a number of seconds, 0 or more")
    if not 0 < days < math.inf:
        raise BadInput(f"days is {days}; expected a number of days above 0")
    return BreakEven(break_even(training_seconds, longer=longer_seconds, shorter=shorter_seconds), days)


def per_question(tables: Mapping[str, pd.DataFrame], seconds: Mapping[str, float]) -> pd.DataFrame:
    """Return what a question costs each model: a line for each, with means over its rows.

    Args:
        tables: of answers (`answers.answer`), by the name of the model.
        seconds: that all answers of each table took together, by the same names.

    Returns:
        Columns "tokens of the prompt", "tokens of the answer" and "seconds".
    """
    import pandas as pd

    lines = {
        name: {
            "tokens of the prompt": table["prompt_tokens"].mean(),
            "tokens of the answer": table["tokens"].mean(),
            "seconds": seconds[name] / len(table),
        }
        for name, table in tables.items()
    }
    return pd.DataFrame(lines).T.rename_axis("model")
