"""Choose a learning rate: several rates on the same training rows, compared on the same validation rows, pair by pair.

The loss chooses, because every row counts in it with how wrong it is: it tells rates apart on fewer rows than a count
of right answers does. The score stands beside it; the two can disagree.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ftlab.data import group_columns
from ftlab.errors import TrainingFailed
from ftlab.evaluation import calibration, comparison
from ftlab.intervals import Interval, mean_interval

DIVERGED = Interval(np.nan, np.nan, np.nan)


def compare(tried: Mapping[float, pd.DataFrame | None], *, seed: int = 0) -> pd.DataFrame:
    """Compare learning rates by the loss on validation rows, and by how much it is above that of the best rate.

    Args:
        tried: for each rate the `prediction_table` of the validation rows, or None if the training diverged. If the
            rows have groups, these are drawn.
        seed: of the bootstrap.

    Returns:
        A line for each rate, in order, indexed by it: loss in nats, macro F1, and gap (the loss minus that of the best
        rate, paired by row), each with low and high, the ends of its 95 % interval. All are NaN where training
        diverged or the loss is infinite. The gap of the best rate is 0.

    Raises:
        TrainingFailed: no rate is left.
    """
    answers = {rate: rows for rate, rows in sorted(tried.items()) if rows is not None}
    losses = {rate: calibration.log_losses(rows) for rate, rows in answers.items()}
    losses = {rate: each for rate, each in losses.items() if np.isfinite(each).all()}
    if not losses:
        rates = ", ".join(f"{rate:g}" for rate in sorted(tried))
        raise TrainingFailed(f"training diverged at each learning rate that was tried ({rates}); try much lower ones")
    best = min(losses, key=lambda rate: losses[rate].mean())
    groups = group_columns.of(answers[best])
    lines = {}
    for rate in sorted(tried):
        if rate not in losses:
            scores = {"loss": DIVERGED, "macro F1": DIVERGED, "gap": DIVERGED}
        else:
            scores = {
                "loss": mean_interval(losses[rate], groups=groups, seed=seed),
                "macro F1": comparison.scores(answers[rate], seed=seed)["f1_macro"],
                "gap": mean_interval(losses[rate] - losses[best], groups=groups, seed=seed),
            }
        lines[rate] = {
            column: end
            for name, score in scores.items()
            for column, end in ((name, score.value), (f"{name} low", score.low), (f"{name} high", score.high))
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("learning rate")


def choice(table: pd.DataFrame) -> float:
    """Return the rate with the lowest loss in a table of `compare`; of equal ones, the lowest rate."""
    return float(table.index[int(np.nanargmin(table["loss"]))])


def verdict(table: pd.DataFrame, planned: float, guess: float) -> str:
    """Say in words what a table of `compare` means for the `planned` rate: keep it, or take another.

    Another rate replaces the planned one only if its loss is clearly lower: the interval of the gap lies above zero.

    >>> tried = {"loss": [0.7, 0.5, 0.6], "loss high": [0.8, 0.6, 0.7], "gap low": [0.1, 0, -0.1]}
    >>> print(verdict(pd.DataFrame(tried, index=[1e-5, 1e-4, 1e-3]), planned=1e-4, guess=0.69))
    The planned rate, 0.0001, has the lowest loss, clearly lower than 1e-05, not clearly lower than 0.001: keep it.

    Args:
        table: with the planned rate among its lines.
        planned: the rate of the budget.
        guess: the loss of a model that gives each label the same probability. If no rate is clearly below it, none is
            preferred.
    """
    best = choice(table)
    if not table["loss high"].min() < guess:
        return (
            f"At none of these rates is the loss clearly lower than that of guessing, {guess:.3f}, so it "
            "cannot choose between them: try them on more rows (rate_rows), or other rates."
        )
    others = table.drop(best)
    if best == planned:
        return f"The planned rate, {planned:g}, has the lowest loss, {_against(others)}: keep it."
    again = f"run the lesson again with learning_rate {best:g}"
    plan = table.loc[[planned]].iloc[0]
    if np.isnan(plan["loss"]):
        return f"Training diverged at the planned rate, {planned:g}, and {best:g} has the lowest loss: {again}."
    if not plan["gap low"] > 0:
        return (
            f"{best:g} has the lowest loss, but not clearly lower than the planned rate, {planned:g}: keep the planned "
            "rate, or compare them on more rows."
        )
    edge = best in (table.index.min(), table.index.max())
    beyond = f"; it is the {'lowest' if best < planned else 'highest'} that was tried, and that run tries one beyond it"
    return f"{best:g} has a clearly lower loss than the planned rate, {planned:g}: {again}{beyond if edge else ''}."


def _against(others: pd.DataFrame) -> str:
    rates = {f"{rate:g}": line for rate, line in others.iterrows()}
    clearly = [name for name, line in rates.items() if line["gap low"] > 0]
    barely = [name for name, line in rates.items() if line["gap low"] <= 0]
    diverged = [name for name, line in rates.items() if np.isnan(line["loss"])]
    parts = {"clearly lower than": clearly, "not clearly lower than": barely, "and training diverged at": diverged}
    return ", ".join(f"{words} {' and '.join(names)}" for words, names in parts.items() if names)
