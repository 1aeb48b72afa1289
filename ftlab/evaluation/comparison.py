"""How sure is it? Intervals on a score, and on the difference of two models that answered the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A measured value with its confidence interval."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows: the difference in accuracy with its interval, and McNemar's exact p.

    `only_first` and `only_second` count the rows that one model got right and the other wrong; the rows that both got
    right, or both wrong, say nothing about which is better.
    """

    difference: Interval
    only_first: int
    only_second: int
    p_value: float

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero and the exact test agrees: on few rows a bootstrap is too sure."""
        excludes_zero = self.difference.low > 0 or self.difference.high < 0
        return excludes_zero and self.p_value < 1 - self.difference.level

    def __str__(self) -> str:
        verdict = "a clear difference" if self.clear else "no clear difference"
        return f"{verdict}: {self.difference} (exact McNemar p = {self.p_value:.2g})"


def correct(predictions: pd.DataFrame) -> np.ndarray:
    """For each row of a prediction table, 1.0 where the prediction is the label and 0.0 where it is not."""
    return (predictions["label"] == predictions["prediction"]).to_numpy(dtype=float)


def mean_interval(values: np.ndarray, *, seed: int = 0, level: float = 0.95) -> Interval:
    """The mean of per-row values with a bootstrap interval: BCa, or percentile where BCa is not defined.

    BCa (Efron 1987) corrects for skew. On constant values (two models that are always right or wrong together) it has
    no answer, and the interval is a point.
    """
    value = float(np.mean(values))
    if np.ptp(values) == 0:
        return Interval(value, value, value, level)
    result = stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=2000, batch=500, rng=seed, method="BCa"
    ).confidence_interval
    low, high = float(result.low), float(result.high)
    if np.isnan(low) or np.isnan(high):
        result = stats.bootstrap(
            (values,), np.mean, confidence_level=level, n_resamples=2000, batch=500, rng=seed, method="percentile"
        ).confidence_interval
        low, high = float(result.low), float(result.high)
    return Interval(value, low, high, level)


def accuracy(predictions: pd.DataFrame, *, level: float = 0.95) -> Interval:
    """The accuracy of a prediction table with its interval: Wilson's, which is sound near 0 and 1 too (Wilson 1927)."""
    right = correct(predictions)
    interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(level, method="wilson")
    return Interval(float(right.mean()), float(interval.low), float(interval.high), level)


def compare(first: pd.DataFrame, second: pd.DataFrame, *, seed: int = 0) -> Comparison:
    """The accuracy of `first` less that of `second`, paired by row.

    The interval is a bootstrap over rows of the per-row difference; the test is McNemar's, exact (binomial), on the
    rows where the two disagree in being right. Sources: Efron and Tibshirani 1993; McNemar 1947. Both tables must
    hold the same row ids, in any order.
    """
    second = second.set_index("id").loc[first["id"]].reset_index()
    one, two = correct(first), correct(second)
    only_first, only_second = int(((one == 1) & (two == 0)).sum()), int(((one == 0) & (two == 1)).sum())
    disagree = only_first + only_second
    p_value = float(stats.binomtest(min(only_first, only_second), disagree).pvalue) if disagree else 1.0
    return Comparison(mean_interval(one - two, seed=seed), only_first, only_second, p_value)


def report(predictions: pd.DataFrame) -> pd.DataFrame:
    """Precision, recall, F1 and support for each class, and their macro and weighted means."""
    from sklearn.metrics import classification_report

    result = classification_report(predictions["label"], predictions["prediction"], output_dict=True, zero_division=0.0)
    result.pop("accuracy", None)
    table = pd.DataFrame(result).T.rename(columns={"f1-score": "f1"})
    return table.astype({"support": int})
