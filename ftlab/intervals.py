"""How sure is it? Intervals on a score, and on the difference of two models that answered the same rows.

Which one to take: `mean_interval` and `proportion` over rows, `over_seeds` for a mean over seeds and `another_run` for
a single further run, `bounded_mean` for a handful of ratings. `holm` takes the tests of comparisons that stand side by
side together.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

MANY = 5000  # rows
RATING_DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """A measured value with its confidence interval (or prediction interval, see `another_run`)."""

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
    right, or both wrong, say nothing about which is better. `p_holm` is the p-value among several comparisons (see
    `side_by_side`), and None for one that stands alone.
    """

    difference: Interval
    only_first: int
    only_second: int
    p_value: float
    p_holm: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero and the exact test agrees: on few rows a bootstrap is too sure."""
        excludes_zero = self.difference.low > 0 or self.difference.high < 0
        p_value = self.p_value if self.p_holm is None else self.p_holm
        return excludes_zero and p_value < 1 - self.difference.level

    def __str__(self) -> str:
        verdict = "a clear difference" if self.clear else "no clear difference"
        among = "" if self.p_holm is None else f", with Holm's correction {self.p_holm:.2g}"
        return f"{verdict}: {self.difference} (exact McNemar p = {self.p_value:.2g}{among})"


def mean_interval(
    values: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of per-row values with a bootstrap interval: BCa, or percentile where BCa is not defined or not needed.

    BCa (Efron 1987) corrects for skew; over several thousand rows the mean has none to speak of, and BCa's time grows
    with the square of the rows. Few rows get a higher level (see `expanded`), and below ten it is still too sure. With
    `groups`, a number for each row, whole groups are drawn (cluster bootstrap: Davison and Hinkley 1997, section 3.8),
    since a copy of a row says nothing that the row has not said; a single group has no interval: NaN. On constant
    values (two models that are always right or wrong together) a bootstrap has no answer: the interval is that of
    `bounded_mean` where `bounds` say what values may be, and else a point.
    """
    from scipy import stats

    value = float(np.mean(values))
    member = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    totals, sizes = np.bincount(member, weights=values), np.bincount(member)
    if np.ptp(values) == 0 and bounds:
        return bounded_mean(np.full(len(sizes), value), *bounds, level=level)
    if np.ptp(values) == 0:
        return Interval(value, value, value, level)
    if len(sizes) < 2:
        return Interval(value, float("nan"), float("nan"), level)

    def mean(totals: np.ndarray, sizes: np.ndarray, axis: int = -1) -> np.ndarray:
        return totals.sum(axis=axis) / sizes.sum(axis=axis)

    def bootstrap(method: Literal["BCa", "percentile"]) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where BCa is not defined it is NaN, which is looked for below
            result = stats.bootstrap(
                (totals, sizes), mean, confidence_level=expanded(level, len(sizes)), n_resamples=2000, batch=100,
                rng=seed, method=method, paired=True,
            ).confidence_interval  # fmt: skip
        return float(result.low), float(result.high)

    low, high = bootstrap("BCa" if len(sizes) <= MANY else "percentile")
    if np.isnan(low) or np.isnan(high):
        low, high = bootstrap("percentile")
    return Interval(value, low, high, level)


def expanded(level: float, drawn: int) -> float:
    """The level at which a bootstrap of so few draws covers as often as `level` says (Hesterberg 2015, section 3.3).

    A bootstrap takes the spread of the sample for that of its source, as a normal interval does; Student's t interval
    is wider by two factors, and these quantiles make up for both. Over some hundred rows nothing changes.

    >>> [round(expanded(0.95, drawn), 3) for drawn in (6, 12, 1000)]
    [0.995, 0.978, 0.95]
    """
    from scipy import stats

    if drawn < 2:
        return level
    reach = np.sqrt(drawn / (drawn - 1)) * stats.t.ppf((1 + level) / 2, drawn - 1)
    return float(1 - 2 * stats.norm.cdf(-reach))


def bounded_mean(values: np.ndarray, lowest: float, highest: float, *, seed: int = 0, level: float = 0.95) -> Interval:
    """The mean of a few values that lie between two bounds, such as ratings, with an interval that holds for few.

    It asks for nothing but the bounds: values may be discrete, skewed or all alike, where Student's t interval and a
    bootstrap are far too sure. For values at the two bounds it is Clopper and Pearson's. Source: Learned-Miller and
    Thomas 2019, arXiv:1905.06208: its coverage is conjectured, and no counterexample is known.

    >>> print(bounded_mean(np.array([5.0, 5.0, 5.0, 5.0]), 1, 5))
    5.000 [2.591, 5.000]
    """
    scaled = np.sort((np.asarray(values, dtype=float) - lowest) / (highest - lowest))
    if np.ptp(scaled) == 0:  # the formula below, without drawing
        beyond = 1 - ((1 - level) / 2) ** (1 / len(scaled))
        low, high = scaled[0] - scaled[0] * beyond, scaled[0] + (1 - scaled[0]) * beyond
    else:
        uniform = np.sort(np.random.default_rng(seed).random((RATING_DRAWS, len(scaled))), axis=1)
        above, below = (1 - uniform @ np.diff(np.append(one, 1)) for one in (scaled, (1 - scaled)[::-1]))
        low, high = 1 - np.quantile(below, (1 + level) / 2), np.quantile(above, (1 + level) / 2)
    low, high = (lowest + (highest - lowest) * end for end in (low, high))
    return Interval(float(np.mean(values)), float(low), float(high), level)


def over_seeds(values: np.ndarray, *, level: float = 0.95) -> Interval:
    """The mean over seeds of one value a seed, with Student's t confidence interval of that mean.

    It says where the mean over many seeds may lie, and nothing of a single run: see `another_run`. With three seeds it
    is wide (4.3 standard errors on either side), and rightly so. One seed has no interval: NaN.

    >>> print(over_seeds(np.array([0.7, 0.8, 0.9])))
    0.800 [0.552, 1.048]
    """
    return _student(values, 1 / max(1, len(values)), level)


def another_run(values: np.ndarray, *, level: float = 0.95) -> Interval:
    """The mean over seeds of one value a seed, with Student's t prediction interval for one more run.

    Another seed's run, with rows and a start of its own, comes out in it as often as `level` says, where runs are
    normally distributed: mean ± t·s·sqrt(1 + 1/n). With five seeds it is 2.4 times as wide as the interval of the mean.
    Source: Hahn and Meeker, Statistical Intervals, 1991, section 4.7.

    >>> print(another_run(np.array([0.7, 0.8, 0.9])))
    0.800 [0.303, 1.297]
    """
    return _student(values, 1 + 1 / max(1, len(values)), level)


def _student(values: np.ndarray, variances: float, level: float) -> Interval:
    """The mean of the values and Student's interval around it; its variance is so many times that of one value."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"), level)
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) * np.sqrt(variances))
    return Interval(mean, mean - reach, mean + reach, level)


def t_test(values: np.ndarray) -> float:
    """The p-value of Student's test that the mean is 0; NaN for fewer than two values."""
    from scipy import stats

    if len(values) < 2:
        return float("nan")
    if np.std(values) == 0:
        return float(np.mean(values) == 0)
    return float(stats.ttest_1samp(values, 0).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """The p-values of several tests, so adjusted that the chance of any false alarm among them stays what it was.

    The smallest is multiplied by the number of tests, the next by one less, and so on; none falls below one before it.
    A NaN is no test. Source: Holm, A simple sequentially rejective multiple test procedure, 1979.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(given), np.nan)
    order = np.argsort(given)[: int(np.isfinite(given).sum())]  # NaN comes last
    times = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(given[order] * times))
    return adjusted


def side_by_side(comparisons: Mapping[str, Comparison | Interval]) -> dict[str, Comparison | Interval]:
    """The same comparisons, each called clear only where it is so among all of them (see `holm`).

    An interval alone comes back as it is: it has no test, and gives no verdict.
    """
    tested = {name: one for name, one in comparisons.items() if isinstance(one, Comparison)}
    adjusted = dict(zip(tested, holm([one.p_value for one in tested.values()]), strict=True))
    return {
        name: replace(one, p_holm=float(adjusted[name])) if isinstance(one, Comparison) else one
        for name, one in comparisons.items()
    }


def proportion(right: np.ndarray, *, level: float = 0.95) -> Interval:
    """The share of ones with its interval: Wilson's, which is sound near 0 and 1 too (Wilson 1927)."""
    from scipy import stats

    interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(level, method="wilson")
    return Interval(float(right.mean()), float(interval.low), float(interval.high), level)


def paired(first: np.ndarray, second: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0) -> Comparison:
    """The accuracy of `first` less that of `second`, from 1.0 (right) or 0.0 (wrong) for the same rows in one order.

    The interval is a bootstrap over rows of the per-row difference; the test is McNemar's, exact (binomial), on the
    rows where the two disagree in being right. With `groups`, a number for each row that is equal for copies, the
    bootstrap draws groups and each group has one vote in the test: it goes to the model that is right on more of it.
    Sources: Efron and Tibshirani 1993; McNemar 1947.
    """
    from scipy import stats

    only_first, only_second = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    gaps = np.asarray(first - second, dtype=float)
    votes = gaps if groups is None else np.bincount(np.unique(groups, return_inverse=True)[1], weights=gaps)
    won, lost = int((votes > 0).sum()), int((votes < 0).sum())
    p_value = float(stats.binomtest(min(won, lost), won + lost).pvalue) if won + lost else 1.0
    difference = mean_interval(gaps, groups=groups, bounds=(-1, 1), seed=seed)
    return Comparison(difference, only_first, only_second, p_value)
