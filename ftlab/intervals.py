"""How sure is it? Intervals on a score, and on the difference of two models that answered the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MANY = 5000  # rows


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


def mean_interval(values: np.ndarray, *, seed: int = 0, level: float = 0.95) -> Interval:
    """The mean of per-row values with a bootstrap interval: BCa, or percentile where BCa is not defined or not needed.

    BCa (Efron 1987) corrects for skew; over several thousand rows the mean has none to speak of, and BCa's time grows
    with the square of the rows. On constant values (two models that are always right or wrong together) it has no
    answer, and the interval is a point.
    """
    from scipy import stats

    value = float(np.mean(values))
    if np.ptp(values) == 0:
        return Interval(value, value, value, level)

    def bootstrap(method: str) -> tuple[float, float]:
        result = stats.bootstrap(
            (values,), np.mean, confidence_level=level, n_resamples=2000, batch=100, rng=seed, method=method
        ).confidence_interval
        return float(result.low), float(result.high)

    low, high = bootstrap("BCa" if len(values) <= MANY else "percentile")
    if np.isnan(low) or np.isnan(high):
        low, high = bootstrap("percentile")
    return Interval(value, low, high, level)


def over_seeds(values: np.ndarray, *, level: float = 0.95) -> Interval:
    """The mean of one value a seed with Student's t interval: what another seed's run may differ by, rows and all.

    With three seeds it is wide (4.3 standard errors on either side), and rightly so. One seed has no interval: NaN.
    """
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"), level)
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - reach, mean + reach, level)


def proportion(right: np.ndarray, *, level: float = 0.95) -> Interval:
    """The share of ones with its interval: Wilson's, which is sound near 0 and 1 too (Wilson 1927)."""
    from scipy import stats

    interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(level, method="wilson")
    return Interval(float(right.mean()), float(interval.low), float(interval.high), level)


def paired(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> Comparison:
    """The accuracy of `first` less that of `second`, from 1.0 (right) or 0.0 (wrong) for the same rows in one order.

    The interval is a bootstrap over rows of the per-row difference; the test is McNemar's, exact (binomial), on the
    rows where the two disagree in being right. Sources: Efron and Tibshirani 1993; McNemar 1947.
    """
    from scipy import stats

    only_first, only_second = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    disagree = only_first + only_second
    p_value = float(stats.binomtest(min(only_first, only_second), disagree).pvalue) if disagree else 1.0
    return Comparison(mean_interval(first - second, seed=seed), only_first, only_second, p_value)
